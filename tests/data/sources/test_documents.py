import dataclasses
import gzip
import json
import logging

import pytest
import seqio

from instruct.data.feed.leaves import make_builder
from instruct.data.registry import add_task, resolve
from instruct.data.seqio import bridge
from instruct.data.sources.documents import DocumentSource, cut_text, document_task
from instruct.data.sources.files import Part, hashed_parts
from instruct.data.stores.prepare import prepare
from instruct.errors import UserError
from instruct.prompts.modes import OBJECTIVES
from instruct.prompts.render import Dropped
from tests.data.toy import fresh_name, toy_config
from tests.workspaces import workspace

BOOK = "".join(f"Sentence {n} of the book.\n" + "\n" * (n % 7 == 0) for n in range(300))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "book.txt").write_text(BOOK)
    lines = [{"text": "A page."}, {"text": " "}, {"title": "x"}, {"text": "Another page."}]
    lines = [*(json.dumps(line) for line in lines), "[1]"]
    with gzip.open(tmp_path / "mine" / "deep" / "web.jsonl.gz", "wt") as stream:
        stream.write("\n".join(lines))
    (tmp_path / "mine" / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "mine" / "notes.md").write_text("not read")
    (tmp_path / "mine" / "folder.txt").mkdir()
    for copy in (".ipynb_checkpoints/book-checkpoint.txt", "deep/._book.txt"):
        (tmp_path / "mine" / copy).parent.mkdir(exist_ok=True)
        (tmp_path / "mine" / copy).write_text(BOOK)
    return tmp_path


def test_documents_of_a_folder_become_segments(folder, caplog):
    source = DocumentSource("mine", {"train": Part("mine")}, segment_characters=500)
    with caplog.at_level(logging.WARNING):
        items = list(source.records(workspace(), "train"))
    texts = [item.answer for item in items if not isinstance(item, Dropped)]
    segments = [text for text in texts if "book" in text]
    assert "".join(segments) == BOOK and max(map(len, segments)) <= 500
    assert all(text.endswith("\n") for text in segments)
    assert texts[-2:] == ["A page.", "Another page."] or texts[:2] == ["A page.", "Another page."]
    reasons = sorted(item.reason for item in items if isinstance(item, Dropped))
    rejected = ["line has no text 'text'", "line is not a JSON object", "text is not UTF-8"]
    assert reasons == ["empty text", *rejected]
    assert "1 of 3 documents are longer than 500 characters (segment_characters)" in caplog.text
    assert f"{len(texts)} segments" in caplog.text


def test_a_text_is_cut_after_a_paragraph_a_line_or_a_word():
    assert list(cut_text("aaaa\n\nbb\ncc dd", 9)) == ["aaaa\n\n", "bb\ncc dd"]
    assert list(cut_text("aaaaa bb\ncccc", 10)) == ["aaaaa bb\n", "cccc"]
    assert list(cut_text("abcdefgh", 3)) == ["abc", "def", "gh"]


def test_a_folder_without_documents_is_named(folder):
    source = DocumentSource("none", hashed_parts("elsewhere"))
    assert source.fingerprint(workspace()) == "absent"
    assert "elsewhere/*.txt or *.jsonl cannot be read" in source.available(workspace())
    with pytest.raises(UserError, match="segment_characters"):
        DocumentSource("none", hashed_parts("elsewhere"), segment_characters=10)


def test_every_objective_gives_packed_rows_of_one_store(folder):
    spec = add_task(
        document_task(
            f"text.{fresh_name('mine')}",
            DocumentSource("mine", hashed_parts("mine"), segment_characters=300),
        )
    )
    here = workspace()
    for objective in OBJECTIVES:
        config = toy_config(
            spec.leaf_name(objective),
            feature_lengths={"inputs": 1024, "targets": 1024},
            vocabulary="bytes#extra_ids=100",
        )
        resolved = resolve(here, config.mixture)
        if objective == OBJECTIVES[0]:
            with pytest.raises(UserError, match="no store"):
                make_builder(here, config, resolved)
            prepare(here, resolved, config).check()
            resolved = resolve(here, config.mixture)
        builder, _ = make_builder(here, config, resolved)
        window, again = builder.build(3), builder.build(3)
        assert (window.rows["decoder_target_tokens"] == again.rows["decoder_target_tokens"]).all()
        assert window.counts[:4, 0].tolist() == [64, 64, 0, 0] and window.num_rows < 32
        lengths = {"inputs": 48, "targets": 48}
        short = dataclasses.replace(config, feature_lengths=lengths)
        window = make_builder(here, short, resolved)[0].build(0)
        assert window.counts[3, 0] > 32, "longer segments are cut, and that is counted"
    with pytest.raises(UserError, match="no sentinels"):
        config = toy_config(spec.leaf_name("ul2"))
        make_builder(here, config, resolve(here, config.mixture))


def test_an_objective_is_a_seqio_task(folder, monkeypatch):
    spec = add_task(
        document_task(
            f"text.{fresh_name('seqio')}",
            DocumentSource("mine", {"train": Part("mine")}, segment_characters=300),
        )
    )
    monkeypatch.setattr(bridge.RecordTask, "vocabulary", "bytes#extra_ids=100")
    monkeypatch.setattr(bridge.RecordTask, "workspace", workspace())
    lengths = {"inputs": 96, "targets": 32}
    task = seqio.get_mixture_or_task(spec.leaf_name("span_corruption"))
    example = next(task.get_dataset(lengths, "train", shuffle=False).as_numpy_iterator())
    sides = [example[side].tolist() for side in lengths]
    assert [len(side) <= length for side, length in zip(sides, lengths.values())] == [True, True]
    assert sides[1][0] == 358 and 358 in sides[0] and sides[0][-1] == sides[1][-1] == 1
    assert example["template"] == b"r_3_15"
