import dataclasses

import pytest

from instruct.data.registry import resolve, task_specs
from instruct.prompts.dialog import dialog_text
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered
from tasks.dialog import family as dialog
from tasks.dialog.sources import (
    MAX_PAIRS,
    MAX_TURNS,
    TaskmasterSource,
    next_turn,
    qrecc_record,
    taskmaster_record,
    wiki_dialog_record,
)
from tests.tasks.dialog.goldens import QRECC_ROWS, WIKI_ROWS, qrecc_row, records, wiki_row
from tests.tasks.public_goldens import WORKSPACE
from tests.tasks.shown_prompts import rendered
from tests.template_lint import lint
from tests.workspaces import workspace

SPECS = [dialog.dialog_task(row) for row in dialog.SETS]


def test_the_wordings_pass_the_lint():
    assert lint(dialog.templates()) == []


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_task_renders_in_every_mode(spec):
    for mode in spec.all_modes:
        for number in range(40):
            example = rendered(spec, mode, number, records()[spec.name])
            assert isinstance(example, Rendered), (mode, example)
            if not example.inverted:
                assert (
                    example.targets
                    == records()[spec.name][number % len(records()[spec.name])].answer
                )


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_perfect_and_a_wrong_prediction(spec):
    read = spec.postprocess_fn
    assert read is not None
    for record in records()[spec.name]:
        example = {"references": record.references or (record.answer,)}
        target = read(record.answer, example=example, is_target=True)
        for metric in spec.metric_fns:
            assert list(metric([target], [read(record.answer, example=example)]).values()) == [
                pytest.approx(100.0)
            ]
            assert list(metric([target], [read("zzz", example=example)]).values()) == [0.0]


def test_shares_caps_and_categories():
    assert [spec.name for spec in SPECS if spec.name in task_specs(workspace())] == [
        "dialog.wiki_dialog",
        "dialog.qrecc",
        "dialog.task_master",
    ]
    for spec in SPECS:
        shares = {leaf.mode: leaf.rate for leaf in resolve(workspace(), spec.name).leaves}
        assert shares["zs_inv"] / shares["zs_noopt"] == pytest.approx(0.3)
        assert shares["fs_inv"] / shares["fs_noopt"] == pytest.approx(0.3)
        assert spec.cap == 200_000
        assert set(spec.splits) <= set(spec.source.splits)


def test_the_turn_is_drawn_by_the_dialog_and_not_by_its_place():
    turns = [f"turn {number}" for number in range(100)]
    drawn = [next_turn(f"d{number}", turns, range(1, 9)) for number in range(400)]
    answers = [item.answer for item in drawn if isinstance(item, Record)]
    assert {answers.count(f"turn {position}") > 25 for position in range(1, 9)} == {True}
    assert next_turn("d7", turns, range(1, 9)) == drawn[7]
    first = drawn[0]
    assert isinstance(first, Record)
    position = int(first.answer.split()[1])
    assert first.fields == {"dialog": dialog_text(turns[:position])}


def test_wiki_dialog_asks_for_what_the_passage_says():
    for row in WIKI_ROWS:
        record = wiki_dialog_record(row, "")
        assert isinstance(record, Record)
        said = [" ".join(text.decode().split()) for text in row["utterances"]]
        assert said.index(record.answer) % 2 == 0 and said.index(record.answer) >= 2
        shown = record.fields["dialog"].split("\n")
        assert shown == said[1 : said.index(record.answer)]
    assert wiki_dialog_record(wiki_row("1", "Hello."), "") == Dropped("too few turns")
    assert wiki_dialog_record(wiki_row("1", "Hello.", "Who?", ""), "") == Dropped("a turn is empty")


def test_wiki_dialog_draws_one_of_the_first_replies():
    long = [f"u{number}" for number in range(200)]
    answers = {
        record.answer
        for number in range(300)
        if isinstance(record := wiki_dialog_record(wiki_row(str(number), *long), ""), Record)
    }
    assert answers == {f"u{2 * reply + 2}" for reply in range(MAX_PAIRS)}


def test_qrecc_takes_late_turns_only():
    assert qrecc_record(qrecc_row(1, 6, "Who?", "Ida."), "") == Dropped(
        "early turn of a conversation"
    )
    ids = [r.id for row in QRECC_ROWS if isinstance(r := qrecc_record(row, ""), Record)]
    assert ids == ["qrecc-3-7", "qrecc-4-8", "qrecc-4-7"]


def test_taskmaster_reads_the_files_as_published():
    source = TaskmasterSource()
    assert source.available(WORKSPACE) is None and source.fingerprint(WORKSPACE) != "absent"
    items = [item for split in source.splits for item in source.records(WORKSPACE, split)]
    kept = sorted(item.id for item in items if isinstance(item, Record))
    assert kept == [f"dlg-made-up-{number}" for number in (1, 2, 3, 6, 7)]
    reasons = sorted(item.reason for item in items if isinstance(item, Dropped))
    assert reasons == ["dialog has no utterances", "more than two speakers", "too few turns"]


def test_taskmaster_joins_what_one_speaker_says_and_starts_with_the_user():
    def said(*turns):
        utterances = [{"speaker": speaker, "text": text} for speaker, text in turns]
        return {"conversation_id": "x", "utterances": utterances}

    record = taskmaster_record(
        said(
            ("ASSISTANT", "Hello."),
            ("USER", "Hi."),
            ("user", "A taxi,\nplease."),
            ("ASSISTANT", "Ok."),
        ),
        "",
    )
    assert record == Record("x", {"dialog": "Hi. A taxi, please."}, "Ok.")
    assert taskmaster_record({"utterances": [{"speaker": "USER"}]}, "") == Dropped(
        "utterance has no speaker or text"
    )
    many = said(*[(("USER", "ASSISTANT")[n % 2], f"t{n}") for n in range(60)])
    answers = set()
    for number in range(300):
        item = taskmaster_record(many | {"conversation_id": f"c{number}"}, "")
        assert isinstance(item, Record)
        answers.add(item.answer)
    assert answers == {f"t{position}" for position in range(1, MAX_TURNS + 1)}


def test_a_missing_release_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    source = TaskmasterSource()
    assert source.fingerprint(workspace()) == "absent"
    folder = tmp_path / "taskmaster" / "TM-1-2019"
    folder.mkdir(parents=True)
    for name in ("self-dialogs.json", "woz-dialogs.json"):
        (folder / name).write_text("[", encoding="utf-8")
    assert "TM-2-2020" in (source.available(workspace()) or "")
    only_first = dataclasses.replace(source, patterns=source.patterns[:2])
    assert only_first.available(workspace()) is None
    found = {item for split in only_first.splits for item in only_first.records(workspace(), split)}
    assert found == {Dropped("file is not JSON")}


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS[:2], ids=lambda spec: spec.name)
def test_rows_of_tfds_become_records(spec):
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=30):
        rows = list(tfds.as_numpy(tfds.load(spec.source.builder, split="train")))
    made = [spec.source.to_record(row, f"row-{number}") for number, row in enumerate(rows)]
    kept = [item for item in made if isinstance(item, Record)]
    assert len(kept) > 10
    assert {item.reason for item in made if isinstance(item, Dropped)} <= {
        "too few turns",
        "early turn of a conversation",
    }
