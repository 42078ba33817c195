"""JSON lines in and out: contents, resuming, independence of the batch size, and bad input."""

import dataclasses
import io
import json
import shutil
import sys
import types
from typing import Any

import numpy as np
import pytest

from instruct import gin_config
from instruct.data.vocab import ByteVocabulary, load_vocabulary
from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.generation_settings import decode_config
from instruct.eval.infer import Answerer, infer
from instruct.eval.loaded_model import sequence_notes
from instruct.files import locked
from instruct.mesh import MeshConfig
from instruct.prompts.chat_template import ChatTemplate
from tests.eval.letters_run import MODEL, write_run
from tests.float32 import assert_same_float32

pytestmark = pytest.mark.slow

LINES = [{"inputs": f"question {i} " + chr(97 + i) * (14 + i * 5 % 7), "id": i} for i in range(11)]
GREEDY = DecodeConfig(max_decode_steps=5)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(model_dir, source, target, batch_size=4, lines_per_range=4, decode=GREEDY, **more):
    infer(
        model_dir,
        input_path=str(source),
        output_path=str(target),
        decode=decode,
        batching=BatchConfig(batch_size, 1),
        lines_per_range=lines_per_range,
        **more,
    )
    return rows_of(target.parent)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(model_dir, tmp_path_factory):
    """Folder of an undisturbed run: in.jsonl, out.jsonl and what made it."""
    folder = tmp_path_factory.mktemp("finished")
    answer(model_dir, write(folder / "in.jsonl", LINES), folder / "out.jsonl")
    return folder


@pytest.fixture
def killed(finished, tmp_path):
    """Function: the folder as a run that was killed leaves it, so much of its output written."""

    def copy(output: str):
        shutil.copytree(finished, tmp_path / "run")
        (tmp_path / "run" / "out.jsonl").write_text(output)
        return tmp_path / "run"

    return copy


def test_every_line_is_answered_in_order(finished):
    rows = rows_of(finished)
    assert [{name: row[name] for name in ("inputs", "id")} for row in rows] == LINES
    assert all(isinstance(row["prediction"], str) and row["score"] < 0 for row in rows)
    assert len({row["prediction"] for row in rows}) > 1
    truncated = [row["id"] for row in rows if row.get("truncated")]
    vocabulary = load_vocabulary("bytes")
    assert truncated == [i for i, q in enumerate(LINES) if len(vocabulary.encode(q["inputs"])) > 27]
    assert 0 < len(truncated) < len(rows)


def test_batch_size_and_devices_change_no_prediction(model_dir, finished, tmp_path):
    rows = answer(
        model_dir,
        finished / "in.jsonl",
        tmp_path / "out.jsonl",
        batch_size=16,
        lines_per_range=1000,
        mesh=MeshConfig(data=2, tensor=4),
    )
    expected = rows_of(finished)
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in expected]
    assert_same_float32(*(np.array([row["score"] for row in found]) for found in (rows, expected)))


@pytest.mark.parametrize("lines,characters,kept", [(0, 0, 0), (4, 17, 4), (6, 0, 4), (10, -1, 8)])
def test_a_killed_run_is_continued_to_the_same_bytes(
    model_dir, finished, killed, monkeypatch, lines, characters, kept
):
    whole = (finished / "out.jsonl").read_text()
    every = whole.splitlines(keepends=True)
    folder = killed("".join(every[:lines]) + every[lines][:characters])
    answered = []
    real = Answerer.answer

    def counted(self, prompts, first_index, *rest):
        answered.extend(range(first_index, first_index + len(prompts)))
        return real(self, prompts, first_index, *rest)

    monkeypatch.setattr(Answerer, "answer", counted)
    answer(model_dir, folder / "in.jsonl", folder / "out.jsonl")
    assert answered == list(range(kept, len(LINES)))
    assert (folder / "out.jsonl").read_text() == whole


def test_a_finished_run_does_nothing(model_dir, finished, killed, monkeypatch, capsys):
    whole = (finished / "out.jsonl").read_text()
    folder = killed(whole)
    monkeypatch.delattr(Answerer, "answer")
    answer(model_dir, folder / "in.jsonl", folder / "out.jsonl")
    assert (folder / "out.jsonl").read_text() == whole
    assert "11 examples (11 of them by an earlier run)" in capsys.readouterr().err


def test_an_output_of_other_settings_or_inputs_is_not_continued(model_dir, finished, killed):
    folder = killed("".join((finished / "out.jsonl").read_text().splitlines(keepends=True)[:5]))
    beam = DecodeConfig("beam", 5, num_beams=2)
    with pytest.raises(UserError, match=r"written with decode = .*'greedy'.*choose another"):
        answer(model_dir, folder / "in.jsonl", folder / "out.jsonl", decode=beam)
    changed = [dict(row) for row in LINES]
    changed[2]["inputs"] = "another question"
    write(folder / "in.jsonl", changed)
    with pytest.raises(UserError, match="line 3: answers another input"):
        answer(model_dir, folder / "in.jsonl", folder / "out.jsonl")
    # The last field of every line is gone.
    write(folder / "in.jsonl", [{"inputs": row["inputs"]} for row in LINES])
    with pytest.raises(UserError, match="line 1: answers another input"):
        answer(model_dir, folder / "in.jsonl", folder / "out.jsonl")
    (folder / "out.jsonl.settings.json").unlink()
    with pytest.raises(UserError, match="was not written by infer"):
        answer(model_dir, folder / "in.jsonl", folder / "out.jsonl")


@pytest.mark.parametrize("count", [6, 8])  # within a range, and at the end of one
def test_answers_to_a_shortened_input_are_kept_and_said(model_dir, finished, killed, count):
    whole = (finished / "out.jsonl").read_text()
    folder = killed(whole)
    write(folder / "in.jsonl", LINES[:count])
    with pytest.raises(UserError, match=f"11 answers, and the input has {count} prompts now"):
        answer(model_dir, folder / "in.jsonl", folder / "out.jsonl")
    assert (folder / "out.jsonl").read_text() == whole


def test_another_chat_template_is_not_continued(model_dir, tmp_path, monkeypatch):
    write(tmp_path / "in.jsonl", [{"inputs": "a"}])
    for source in ("{{ messages[0].content }}", "<{{ messages[0].content }}>"):
        monkeypatch.setattr(ByteVocabulary, "chat_template", ChatTemplate(source))
        if source[0] == "{":
            run(model_dir, tmp_path, chat_template=True)
    with pytest.raises(UserError, match="was written with chat_template = "):
        run(model_dir, tmp_path, chat_template=True)


def test_a_changed_answer_is_not_continued(model_dir, finished, killed):
    whole = (finished / "out.jsonl").read_text()
    folder = killed(whole.replace('"score": -', '"score": ', 1))
    with pytest.raises(UserError, match=r"lines 1 to \d+: not what was written; remove the file"):
        answer(model_dir, folder / "in.jsonl", folder / "out.jsonl")


def test_one_prompt_with_several_samples(model_dir, capsys):
    decode = DecodeConfig("sample", 4, num_samples=3, seed=1)
    infer(f"{model_dir}/checkpoints/7", prompt="question 1", decode=decode)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_samples_are_all_written(model_dir, tmp_path):
    decode = DecodeConfig("sample", 4, num_samples=2)
    source = write(tmp_path / "in.jsonl", [{"prompt": "hello", "note": "é"}])
    (row,) = answer(model_dir, source, tmp_path / "out.jsonl", decode=decode)
    assert (row["prompt"], row["note"]) == ("hello", "é")
    assert row["predictions"][0] == row["prediction"] and row["scores"][0] == row["score"]
    assert len(row["predictions"]) == len(row["scores"]) == 2


def test_scores_of_a_model_that_has_diverged_are_null():
    generated = types.SimpleNamespace(tokens=[np.array([[5, 1], [6, 1]])], scores=[[np.nan, -2.0]])
    decoder = types.SimpleNamespace(
        config=dataclasses.replace(GREEDY, strategy="sample", num_samples=2),
        generate=lambda *unused: generated,
    )
    tokenizer = types.SimpleNamespace(decode=str)
    encoder = types.SimpleNamespace(
        encode=lambda prompt: ([3], 1),
        inputs_length=4,
        frame=types.SimpleNamespace(tokenizer=tokenizer),
    )
    (answer,) = Answerer(decoder, None, encoder).answer(["Why?"], 0)
    assert answer["score"] is None and answer["scores"] == [None, -2.0]
    json.dumps(answer, allow_nan=False)


def test_beams_without_a_hypothesis_are_left_out():
    tokens = [np.array([[5, 1], [1, 0], [1, 0]])]
    generated = types.SimpleNamespace(tokens=tokens, scores=[np.array([-2.0, -1e7, -1e7])])
    decoder: Any = types.SimpleNamespace(
        config=DecodeConfig("beam", 2, num_beams=3), generate=lambda *unused: generated
    )
    encoder: Any = types.SimpleNamespace(
        encode=lambda prompt: ([3], 1),
        inputs_length=4,
        frame=types.SimpleNamespace(tokenizer=types.SimpleNamespace(decode=str)),
    )
    (answer,) = Answerer(decoder, None, encoder).answer(["Why?"], 0)
    assert answer["predictions"] == ["[5]"] and answer["scores"] == [-2.0]


def test_bad_lines_are_named_and_the_others_answered(model_dir, tmp_path, capsys):
    lines = ['{"inputs": "fine"}', "{", '{"inputs": 3}', "", '{"inputs": "good"}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    status, rows = run(model_dir, tmp_path)
    assert status == 1 and [row["inputs"] for row in rows] == ["fine", "good"]
    said = capsys.readouterr().err
    assert "in.jsonl, line 2: not JSON" in said and "line 3: `inputs` is 3" in said
    assert "2 lines were no prompt" in said
    with pytest.raises(UserError, match=r"line 2: not JSON(.|\n)*line 3: .*\nWithout --strict"):
        # Before anything is loaded: there is no model here.
        run(tmp_path / "none", tmp_path, strict=True)


PICKY = ChatTemplate(
    "{% for m in messages %}"
    "{% if 'tool' in m.content %}{{ raise_exception('no tools') }}{% endif %}"
    "{% if ':' in m.content %}{{ m.content.split(':')[7] + 'x' }}{% endif %}"
    "<{{ m.content }}>{% endfor %}"
)


def test_prompts_that_a_chat_template_refuses_are_named_and_the_others_answered(
    model_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(ByteVocabulary, "chat_template", PICKY)
    texts = ["fine", "a tool", 3, "good", "a:b", "last"]
    write(tmp_path / "in.jsonl", [{"inputs": text} for text in texts])
    status, rows = run(model_dir, tmp_path, chat_template=True, lines_per_range=2)
    assert status == 1 and [row["inputs"] for row in rows] == ["fine", "good", "last"]
    said = capsys.readouterr().err
    assert "in.jsonl, line 2: chat template refuses messages (no tools)" in said
    assert "line 3: `inputs` is 3" in said and "line 5: the chat template of this run " in said
    assert "3 lines were no prompt that can be answered" in said and "3 examples ->" in said
    # An interrupted run resumes.
    output = tmp_path / "out.jsonl"
    whole = output.read_text()
    output.write_text("".join(whole.splitlines(keepends=True)[:2]))
    assert run(model_dir, tmp_path, chat_template=True, lines_per_range=2)[0] == 1
    assert output.read_text() == whole and "(2 of them by" in capsys.readouterr().err
    write(tmp_path / "in.jsonl", [{"inputs": text} for text in ("tool", "fine")])
    with pytest.raises(UserError, match=r"line 1: chat template refuses(.|\n)*Without --strict"):
        run(model_dir, tmp_path, chat_template=True, strict=True)
    write(tmp_path / "in.jsonl", [{"inputs": "tool"}])
    with pytest.raises(UserError, match="no prompt that can be answered: in.jsonl, line 1: chat"):
        run(model_dir, tmp_path, chat_template=True)


def test_a_prompt_is_tokenized_once(model_dir, tmp_path, monkeypatch, capsys):
    """Looking for prompts that the chat template refuses tokenizes none."""
    monkeypatch.setattr(ByteVocabulary, "chat_template", PICKY)
    encode, texts = ByteVocabulary.encode, []
    monkeypatch.setattr(
        ByteVocabulary, "encode", lambda self, text: texts.append(text) or encode(self, text)
    )
    write(tmp_path / "in.jsonl", [{"inputs": text} for text in ("one", "a tool", "two")])
    assert run(model_dir, tmp_path, chat_template=True)[0] == 1
    asked = [text for text in texts if text in ("<one>", "<two>", "<a tool>")]
    assert (
        asked == ["<one>", "<two>"] and "line 2: chat template refuses" in capsys.readouterr().err
    )


def test_a_long_prompt_whose_beginning_the_chat_template_refuses_is_cut(
    model_dir, tmp_path, monkeypatch, capsys
):
    source = (
        "{% for m in messages %}{% if '!' not in m.content %}{{ raise_exception('no !') }}"
        "{% endif %}<{{ m.content }}>{% endfor %}"
    )
    monkeypatch.setattr(ByteVocabulary, "chat_template", ChatTemplate(source))
    write(tmp_path / "in.jsonl", [{"inputs": text} for text in ("x" * 40 + "!", "x", "x!")])
    status, rows = run(model_dir, tmp_path, chat_template=True)
    assert status == 1 and [row.get("truncated", False) for row in rows] == [True, False]
    said = capsys.readouterr().err
    assert "line 2: chat template refuses" in said and "line 1: the prompt has 43 tokens" in said


def run(model_dir, folder, source="in.jsonl", **more):
    """Status of `infer`, and the rows of out.jsonl."""
    status = infer(
        str(model_dir),
        input_path=str(folder / source),
        output_path=str(folder / "out.jsonl"),
        decode=GREEDY,
        batching=BatchConfig(4, 1),
        **{"lines_per_range": 4} | more,
    )
    return status, rows_of(folder)


def test_an_interrupted_run_with_bad_lines_is_continued(model_dir, tmp_path, monkeypatch, capsys):
    bad = ["", "{", '{"inputs": 3}', '{"inputs": "a", "x": ' + "[" * 9999]
    lines = [json.dumps(row | {"x": float("nan")}) for row in LINES]
    text = "\n".join(line for pair in zip(lines, bad * 3) for line in pair)
    (tmp_path / "in.jsonl").write_text(text)
    assert run(model_dir, tmp_path)[0] == 1
    whole = (tmp_path / "out.jsonl").read_text()
    every = whole.splitlines(keepends=True)
    assert len(every) == len(LINES)
    capsys.readouterr()
    (tmp_path / "out.jsonl").write_text("".join(every[:6]) + every[6][:9])
    assert run(model_dir, tmp_path)[0] == 1
    assert (tmp_path / "out.jsonl").read_text() == whole
    assert "11 examples (4 of them by an earlier run)" in capsys.readouterr().err
    monkeypatch.delattr(Answerer, "answer")
    assert run(model_dir, tmp_path)[0] == 1  # nothing is left to do, and the bad lines are there


def test_cut_prompts_are_counted_by_a_continued_run_too(model_dir, finished, killed, capsys):
    folder = killed("".join((finished / "out.jsonl").read_text().splitlines(keepends=True)[:6]))
    infer(
        model_dir,
        input_path=str(folder / "in.jsonl"),
        output_path=str(folder / "out.jsonl"),
        decode=GREEDY,
        batching=BatchConfig(4, 1),
        lines_per_range=4,
    )
    cut = [f"line {n}" for n, row in enumerate(rows_of(folder), start=1) if "truncated" in row]
    said = capsys.readouterr().err
    assert f"{len(cut)} prompts have up to 32 tokens with EOS, the model reads 28" in said
    assert f"{', '.join(cut)}: " in said and f"{len(cut)} prompts cut to 28 tokens" in said


def test_answers_without_an_end_are_marked_and_counted(model_dir, finished, killed, capsys):
    vocabulary = load_vocabulary("bytes")
    rows = rows_of(finished)
    open_end = [
        len(vocabulary.encode(row["prediction"])) == GREEDY.max_decode_steps for row in rows
    ]
    assert [row.get("unfinished", False) for row in rows] == open_end and any(open_end)
    capsys.readouterr()
    folder = killed("".join((finished / "out.jsonl").read_text().splitlines(keepends=True)[:6]))
    infer(
        model_dir,
        input_path=str(folder / "in.jsonl"),
        output_path=str(folder / "out.jsonl"),
        decode=GREEDY,
        batching=BatchConfig(4, 1),
        lines_per_range=4,
    )
    assert rows_of(folder) == rows
    cut = f"each of {sum(open_end)} answers was cut off after 5 tokens"
    said = capsys.readouterr().err
    assert cut in said and "--gin.MAX_DECODE_STEPS=10 allows more" in said
    row = open_end.index(True)
    infer(model_dir, prompt=LINES[row]["inputs"], decode=GREEDY)
    assert "warning: the answer was cut off after 5 tokens" in capsys.readouterr().err


def test_a_long_prompt_is_told_and_refused_when_strict(model_dir, finished, tmp_path, capsys):
    infer(model_dir, prompt="x" * 28, decode=GREEDY)
    shown = capsys.readouterr()
    assert "29 tokens with EOS, the model reads 28" in shown.err and "--strict" in shown.err
    assert "29" not in shown.out
    infer(model_dir, prompt="x" * 27, decode=GREEDY, strict=True)
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"--prompt: the prompt has 29 tokens.*INPUTS_LENGTH=29"):
        infer(model_dir, prompt="x" * 28, decode=GREEDY, strict=True)
    cut = [n for n, row in enumerate(rows_of(finished), start=1) if "truncated" in row]
    with pytest.raises(UserError, match=f"in.jsonl, line {cut[0]}, .*: {len(cut)} prompts have"):
        shutil.copy(finished / "in.jsonl", tmp_path)
        run(model_dir, tmp_path, strict=True)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("stream", "name"), [("stdin", "input"), ("stdout", "output")])
def test_a_conversation_needs_standard_streams(model_dir, monkeypatch, stream, name):
    monkeypatch.setattr(sys, stream, None)
    with pytest.raises(UserError, match=f"--interactive: standard {name} is closed"):
        infer(model_dir, interactive=True)


def test_standard_input_and_output(model_dir, finished, monkeypatch, capsysbinary):
    given = io.BytesIO(b"\n" + (finished / "in.jsonl").read_bytes() + b"{\n")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=given))
    status = infer(
        model_dir,
        input_path="-",
        output_path="-",
        decode=GREEDY,
        batching=BatchConfig(4, 1),
        lines_per_range=4,
    )
    shown = capsysbinary.readouterr()
    assert status == 1 and shown.out == (finished / "out.jsonl").read_bytes()
    assert b"standard input, line 13: not JSON" in shown.err


def test_outputs_that_cannot_be_written(model_dir, finished, tmp_path):
    shutil.copy(finished / "in.jsonl", tmp_path)
    source = str(tmp_path / "in.jsonl")
    (tmp_path / "folder").mkdir()
    (tmp_path / "mine.jsonl").write_text("{}\n")
    for name, message in {
        "folder": "is a folder",
        "mine.jsonl": "was not written by infer",
        "in.jsonl/out.jsonl": "cannot write",
        "out.jsonl.gz": "plain JSON lines",
    }.items():
        with pytest.raises(UserError, match=message):
            infer(model_dir, input_path=source, output_path=f"{tmp_path}/{name}")
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "in.jsonl", "mine.jsonl"}


def test_one_output_has_one_writer(model_dir, finished, killed):
    folder = killed("")
    with (
        locked(folder / "out.jsonl", "it"),
        pytest.raises(UserError, match="another"),
    ):
        run(model_dir, folder)
    assert run(model_dir, folder)[1] == rows_of(finished)


def test_missing_input_and_bad_flags(model_dir, tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none.jsonl: No such file"):
        run(model_dir, tmp_path, "none.jsonl")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        run(model_dir, tmp_path, "")
    with pytest.raises(UserError, match="not both"):
        infer(model_dir, prompt="a", input_path="b")
    with pytest.raises(UserError, match="nothing to answer"):
        infer(model_dir, input_path="b")
    with pytest.raises(UserError, match="--prompt is empty"):
        infer(model_dir, prompt="")
    with pytest.raises(UserError, match="not UTF-8"):
        infer(model_dir, prompt="a\udcff")
    with pytest.raises(UserError, match="MODEL_DIR is 'hdfs://host/run'"):
        infer("hdfs://host/run", prompt="a")
    with pytest.raises(UserError, match="lines_per_range is 0"):
        infer(model_dir, prompt="a", lines_per_range=0)
    with pytest.raises(UserError, match="inputs_length is 1.5"):
        infer(model_dir, prompt="a", inputs_length=1.5)  # pyright: ignore[reportArgumentType]


def test_models_that_do_not_fit(model_dir, tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        infer(str(tmp_path), prompt="a")
    with pytest.raises(UserError, match="no checkpoint of step 3"):
        infer(model_dir, prompt="a", step=3)
    with pytest.raises(UserError, match="has 359 ids, the model's embedding"):
        infer(model_dir, prompt="a", vocabulary="bytes#extra_ids=100")
    bare = tmp_path / "bare"
    shutil.copytree(f"{model_dir}/checkpoints/7", bare)
    with pytest.raises(UserError, match=r"no run.json .* model looks like.*infer\.infer\.model"):
        infer(str(bare), prompt="a")
    with pytest.raises(UserError, match=r"which vocabulary.*infer\.infer\.vocabulary"):
        infer(str(bare), prompt="a", model=MODEL)


def test_gin_file_configures_everything(model_dir):
    gin_config.load(["gin/runs/infer.gin"], [f"MODEL_DIR = {model_dir!r}", "BATCH_SIZE = 8"])
    arguments = gin_config.entry_arguments(gin_config.ENTRIES)[gin_config.INFER]
    assert arguments["model_dir"] == model_dir
    assert arguments["batching"] == BatchConfig(8)
    assert "decode" not in arguments and arguments["max_decode_steps"] is None
    assert arguments["step"] is None and arguments["inputs_length"] is None


def test_settings_that_act_otherwise_for_decoders_are_said():
    settings = {"max_length": 4096, "repetition_penalty": 1.1, "eos_token_id": [2, 5]}
    config = decode_config(settings, total_lengths=True)
    assert config.max_decode_steps == 128 and config.end_ids == (2, 5)
    lengths, rules = sequence_notes(settings, config)
    assert "4096" in lengths and "128 tokens" in lengths and "repetition_penalty" in rules
    assert sequence_notes({"max_length": 9, "max_new_tokens": 3}, DecodeConfig()) == []
