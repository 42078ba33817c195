import json
import pickle
from pathlib import Path

import pytest

from instruct.data.sources.natural_instructions import (
    EXEMPLARS,
    FOLDER,
    cut_stem,
    natural_instructions_source,
    natural_instructions_task_source,
    normalized_stem,
)
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tests.workspaces import workspace

MADE_UP = Path(__file__).parents[2] / "tasks" / "public_data"
TASK = {
    "Definition": ["Name the colour."],
    "Positive Examples": [
        {"input": "sky", "output": "blue", "explanation": "By day."},
        {"input": "grass", "output": ["green"], "explanation": ""},
    ],
    "Negative Examples": [{"input": "snow", "output": "black", "explanation": "It is white."}],
    "Instances": [{"id": "t-1", "input": "coal", "output": ["black"]}],
}


@pytest.fixture
def made_up(monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(MADE_UP))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of task files."""
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    path = tmp_path / FOLDER
    path.mkdir(parents=True)
    return path


def only_records(items) -> list[Record]:
    return [item for item in items if isinstance(item, Record)]


def every(source):
    """Items of all hashed splits."""
    return [
        item
        for split in ("train", "validation", "test")
        for item in source.records(workspace(), split)
    ]


def test_old_schema(made_up):
    source = natural_instructions_source(
        "natural_instructions/tasks/task9001_made-up_word_classification.json"
    )
    items = every(source)
    records = sorted(only_records(items), key=lambda r: r.id)
    assert [r.id[-2:] for r in records] == ["-0", "-1"]
    assert records[0].fields["input"] == "Word: rasp\nUse: shaping"
    assert records[0].fields["definition"].startswith("Say whether")
    assert records[0].answer == "tool" and records[0].references == ()
    assert Dropped("empty input or output") in items
    exemplars = only_records(source.records(workspace(), EXEMPLARS))
    assert [r.answer for r in exemplars] == ["tool", "plant"]
    assert exemplars[0].rationale == "A chisel cuts wood and stone."
    assert EXEMPLARS in source.splits


def test_new_schema(made_up):
    source = natural_instructions_source(
        "natural_instructions/tasks/task9002_made_up.v2_text_generation.json"
    )
    records = {r.id: r for r in only_records(every(source))}
    assert records["task9002-aa"].references == ("late", "tardy")
    assert records["task9002-aa"].fields["definition"] == "Write the opposite of the word."
    assert records["task9002-bb"].references == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"Definition": "caf\xe9", "Instances": []}', "file is not UTF-8"),
        (b'{"Definition": ', "file is not JSON"),
        (b'{"Definition": "x"}', "file has no list of instances"),
        (b'{"Instances": [{"input": "x", "output": "y"}]}', "task has no definition"),
        (b'{"Definition": ["x"], "Instances": [3]}', "instance is not a JSON object"),
        (b'{"Definition": "x", "Instances": [{"input": "x"}]}', "input or output is missing"),
        (
            b'{"Definition": "x", "Instances": [{"input": 1, "output": "y"}]}',
            "input or output is missing",
        ),
        (
            b'{"Definition": "x", "Instances": [{"input": "x", "output": [null]}]}',
            "an output is not text",
        ),
        (
            b'{"Definition": "x", "Instances": [{"input": "x", "output": ["y", {}]}]}',
            "an output is not text",
        ),
        (b"[" * 100_000, "file is not JSON"),
    ],
)
def test_broken_task_files_are_dropped(tmp_path, monkeypatch, content, reason):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    (tmp_path / "t.json").write_bytes(content)
    source = natural_instructions_source("t.json")
    assert every(source) == [Dropped(reason)]
    exemplars = list(source.records(workspace(), EXEMPLARS))
    assert all(isinstance(item, Dropped) for item in exemplars)


def test_negative_examples_stand_beside_the_positive_ones(folder):
    (folder / "task1_colour.json").write_text(json.dumps(TASK))
    first, second = only_records(
        natural_instructions_task_source("task1_colour").records(workspace(), EXEMPLARS)
    )
    assert first.metadata == {
        "negative": {"input": "snow", "output": "black", "explanation": "It is white."}
    }
    assert (first.rationale, second.metadata, second.rationale) == ("By day.", {}, "")


@pytest.mark.parametrize("negative", ["-", None, [{"input": "snow"}], [7]])
def test_negative_examples_that_are_none_are_left_out(folder, negative):
    (folder / "task1_colour.json").write_text(json.dumps({**TASK, "Negative Examples": negative}))
    items = only_records(
        natural_instructions_task_source("task1_colour").records(workspace(), EXEMPLARS)
    )
    assert [item.metadata for item in items] == [{}, {}]


@pytest.mark.parametrize("positive", ["-", None])
def test_no_positive_examples(folder, positive):
    (folder / "task1_colour.json").write_text(json.dumps({**TASK, "Positive Examples": positive}))
    assert (
        list(natural_instructions_task_source("task1_colour").records(workspace(), EXEMPLARS)) == []
    )


@pytest.mark.parametrize(
    ("stem", "there"),
    [
        ("task5_squad1.1_question_generation", "task5_squad1.1_question_generation"),
        ("task5_squad1.1_question_generation", "task5_squad1_1_question_generation"),
        ("task5_squad1.1_question_generation", "task5_squad1"),
        ("task6_odd-man-out_classification", "task6_odd_man_out_classification"),
        ("task6_odd_man_out_classification", "task6_odd-man-out_classification"),
        ("task7_NER", "task7_ner"),
    ],
)
def test_other_spellings_of_a_file_are_found(folder, stem, there):
    source = natural_instructions_task_source(stem)
    assert source.fingerprint(workspace()) == "absent"
    reason = source.available(workspace())
    assert reason is not None and f"{stem}.json" in reason
    (folder / f"{there}.json").write_text(json.dumps(TASK))
    assert source.available(workspace()) is None
    assert source.paths(workspace()) == (folder / f"{there}.json",)
    assert [item.answer for item in only_records(every(source))] == ["black"]
    assert len(source.fingerprint(workspace())) == 64


@pytest.mark.parametrize(
    "there",
    ["task5_other", "task5_squad1.2_question_generation", "task5_squad", "task50_squad1"],
)
def test_tasks_of_the_same_number_are_not_mixed_up(folder, there):
    (folder / f"{there}.json").write_text(json.dumps(TASK))
    source = natural_instructions_task_source("task5_squad1.1_question_generation")
    assert source.available(workspace()) is not None


def test_the_exact_name_goes_before_other_spellings(folder):
    for name in ("task6_a-b.json", "task6_a_b.json"):
        (folder / name).write_text(json.dumps(TASK))
    for stem in ("task6_a-b", "task6_a_b"):
        assert natural_instructions_task_source(stem).paths(workspace()) == (
            folder / f"{stem}.json",
        )


def test_stems():
    assert normalized_stem("task1168_Brown-coarse.POS") == "task1168_brown_coarse_pos"
    assert cut_stem("task1_squad1.1_x") == cut_stem("task1_squad1") == "task1_squad1"


def test_the_splits_of_a_task_read_its_file_once(folder, monkeypatch):
    file = folder / "task1_colour.json"
    file.write_text(json.dumps(TASK))
    reads = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: reads.append(p) or read_bytes(p))
    source = natural_instructions_task_source("task1_colour")
    assert len(every(source)) == 1 and len(list(source.records(workspace(), EXEMPLARS))) == 2
    assert reads == [file]


def test_first_instances_as_test_split(folder):
    inputs = [f"thing {n}" for n in range(60)] + ["Thing  7", "thing 30"]
    instances = [{"input": text, "output": ["x"]} for text in inputs]
    (folder / "task1_colour.json").write_text(json.dumps({**TASK, "Instances": instances}))
    source = natural_instructions_task_source("task1_colour", num_test=10)
    tested = only_records(source.records(workspace(), "test"))
    assert [r.fields["input"] for r in tested] == inputs[:10]
    rest = [*source.records(workspace(), "train"), *source.records(workspace(), "validation")]
    assert {r.fields["input"] for r in only_records(rest)} == set(inputs[10:60])
    assert [item for item in rest if isinstance(item, Dropped)] == [
        Dropped("repeats a test instance")
    ]
    assert set(source.splits) == {"train", "validation", "test", EXEMPLARS}
    assert len(only_records(source.records(workspace(), EXEMPLARS))) == 2
    by_hash = natural_instructions_task_source("task1_colour")
    assert by_hash.fingerprint(workspace()) != source.fingerprint(workspace())
    assert len(every(by_hash)) == 62


@pytest.mark.slow
def test_published_files(shared_data, monkeypatch):
    """Definitions, positive and negative examples, instances; no row is lost without a reason."""
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(shared_data))
    files = sorted((shared_data / FOLDER).glob("*.json"))
    assert files
    for file in files:
        source = natural_instructions_task_source(file.stem)
        assert pickle.loads(pickle.dumps(source)) == source
        assert source.available(workspace()) is None
        items = every(source)
        records = only_records(items)
        assert len({record.id for record in records}) == len(records)
        assert len(items) - len(records) <= 0.003 * len(items)
        exemplars = only_records(source.records(workspace(), EXEMPLARS))
        assert exemplars and exemplars[0].metadata["negative"]["output"]
        assert all(record.fields["definition"] for record in records + exemplars)


def test_outputs_that_are_nan_are_no_text(folder):
    instances = [
        {"input": "coal", "output": [float("nan"), "black"]},
        {"input": "sky", "output": float("nan")},
        {"input": "two", "output": 2},
    ]
    (folder / "task1_colour.json").write_text(json.dumps(TASK | {"Instances": instances}))
    items = every(natural_instructions_task_source("task1_colour"))
    assert {item.answer for item in only_records(items)} == {"black", "2"}
    assert [item for item in items if isinstance(item, Dropped)] == [
        Dropped("empty input or output")
    ]
