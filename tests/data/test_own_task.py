"""Tasks of users' files: the TOML and its fields, held-out rows, metrics, versions, wordings."""

import json

import pytest

from instruct.data import registry
from instruct.data.own_task import LEAST_HELD_OUT, MOST_HELD_OUT, OwnTask, make_task
from instruct.data.task_file import TaskFile, read_task_file
from instruct.errors import UserError
from instruct.eval.named_metrics import find_metrics


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbered(path, count, target="a talk of rather many words, number {}"):
    return write(path, [{"a": f"text {n}", "b": target.format(n)} for n in range(count)])


def make(path, **fields) -> OwnTask:
    fields = {"inputs": ("a",), "targets": "b"} | fields
    return make_task(TaskFile(str(path), **fields), find_metrics)


def test_the_toml_is_the_same_task(tmp_path):
    data = numbered(tmp_path / "talks.jsonl", 30)
    task = make(data, templates=('Sum "up":\n{a}', "{a}"), license="CC0")
    toml = tmp_path / "my_talks.toml"
    toml.write_text(task.to_toml(tmp_path))
    assert f"# task own.talks, version {task.spec.version}\n" in toml.read_text()
    assert "# splits: train 27, validation 3 (" in toml.read_text()
    assert 'data = "talks.jsonl"' in toml.read_text()
    again = read_task_file(toml)
    assert again == task.task_file
    assert make_task(again, find_metrics).spec.version == task.spec.version
    # Elsewhere the path is absolute.
    assert f'data = "{data}"' in task.task_file.to_toml(tmp_path / "below")


def test_a_task_is_called_like_its_file(tmp_path):
    folder = tmp_path / "Dialog Sum"
    folder.mkdir()
    assert make(numbered(folder / "train.jsonl", 9)).spec.name == "own.Dialog_Sum"
    assert make(numbered(folder / "my-talks.v2.jsonl", 9)).spec.name == "own.my_talks"
    toml = folder / "weather.toml"
    toml.write_text("[task]\ndata = 'train.jsonl'\ninputs = 'a'\ntargets = 'b'\n")
    assert read_task_file(toml).name == "own.weather"


def test_files_of_a_folder_that_are_not_read_are_said(tmp_path):
    for name in ("train.jsonl", "extra.jsonl"):
        numbered(tmp_path / name, 9)
    (tmp_path / "train.csv").write_text("a,b\n")
    assert "another format: extra.jsonl, train.csv" in " ".join(make(tmp_path).notes)
    assert "not read" not in " ".join(make(tmp_path / "train.jsonl").notes)


def test_registering_twice_and_a_taken_name(tmp_path):
    path = numbered(tmp_path / "registered_twice.jsonl", 9)
    make(path).register()
    make(path).register()
    assert registry.is_task("own.registered_twice")
    numbered(path, 10)
    with pytest.raises(UserError, match=r"registered already.*--task_name=NAME"):
        make(path).register()


@pytest.mark.parametrize(
    ("rows", "share", "held_out"),
    [
        (4000, None, 200),
        (21_000, None, MOST_HELD_OUT),
        (600, None, LEAST_HELD_OUT),
        (100, None, 10),
        (5, None, 1),
        (1, None, 0),
        (1000, 0.3, 300),
        (1000, 0.0, 0),
        (3, 0.9, 2),
    ],
)
def test_how_many_rows_are_held_out(tmp_path, rows, share, held_out):
    task = make(numbered(tmp_path / "talks.jsonl", rows), held_out_share=share)
    assert task.spec.num_examples.get("validation", 0) == held_out
    assert task.spec.num_examples["train"] == rows - held_out
    assert ("validation" in task.spec.splits) == bool(held_out)


def test_files_of_the_other_splits(tmp_path):
    files = {name: str(numbered(tmp_path / f"{name}.jsonl", 5)) for name in ("validation", "test")}
    task = make(numbered(tmp_path / "train.jsonl", 20), **files)
    assert task.spec.num_examples == {"train": 20, "validation": 5, "test": 5}
    assert f'test = "{tmp_path}/test.jsonl"' in task.to_toml()
    assert any("5 of 5 test rows have inputs of a train row" in note for note in task.notes)


def test_the_version_follows_the_file_and_how_it_is_read(tmp_path):
    path = numbered(tmp_path / "talks.jsonl", 20)
    first = make(path).spec
    assert make(path).spec.version == first.version
    assert make(path, held_out_share=0.5).spec.version != first.version
    assert make(path, inputs=("b",), targets="a").spec.version != first.version
    worded = make(path, templates=("Sum up: {a}",)).spec
    assert worded.version == first.version and worded.templates.name != first.templates.name
    numbered(path, 21)
    assert make(path).spec.version != first.version


@pytest.mark.parametrize(
    ("targets", "metric"),
    [
        (["wet", "dry"] * 6, "accuracy"),
        (["wet"] * 12, "exact_match"),  # nothing to choose
        ([f"in {n}" for n in range(12)], "exact_match"),
        ([f"talk {n} of rather many words" for n in range(12)], "rouge"),
        ([f"разговор {n} из довольно многих слов" for n in range(12)], "rouge_unicode"),
        (["一二三四五六七八"] * 12, "rouge_unicode"),
        ([["wet", "damp"]] * 12, "exact_match"),
    ],
)
def test_the_metric_suits_the_targets(tmp_path, targets, metric):
    rows = [{"a": f"text {n}", "b": target} for n, target in enumerate(targets)]
    path = write(tmp_path / "talks.jsonl", rows)
    task = make(path)
    assert task.task_file.metric == metric
    assert any(note.startswith(f"metric: {metric} (") for note in task.notes)
    assert make(path, metric="squad").task_file.metric == "squad"


def test_accuracy_needs_one_label(tmp_path):
    path = write(tmp_path / "talks.jsonl", [{"a": "x", "b": ["wet", "damp"]}] * 3)
    with pytest.raises(UserError, match=r"3 targets .* are lists; use exact_match"):
        make(path, metric="accuracy")
    train = write(tmp_path / "train.jsonl", [{"a": f"{n}", "b": "wy"[n % 2]} for n in range(20)])
    assert make(train).task_file.metric == "accuracy"
    assert make(train, test=str(path)).task_file.metric == "exact_match"


def test_columns_called_inputs_and_targets_need_no_fields(tmp_path):
    rows = [{"inputs": f"text {n}", "targets": f"label {n}", "more": "x"} for n in range(9)]
    data = write(tmp_path / "talks.jsonl", rows)
    task = make(data, inputs=(), targets="")
    assert (task.task_file.inputs, task.task_file.targets) == (("inputs",), "targets")
    said = "inputs: inputs; targets: targets (by name; another one with "
    assert f"{said}--inputs=COLUMN and --targets=COLUMN)" in task.notes
    named = make(data, inputs=("inputs",), targets="targets")
    assert "inputs: inputs; targets: targets" in named.notes
    assert (task.spec.version, task.task_file) == (named.spec.version, named.task_file)
    one = make(data, inputs=("more",), targets="")
    assert (
        "inputs: more; targets: targets (by name; another one with --targets=COLUMN)" in one.notes
    )
    shown = make(data, inputs=(), targets="", templates=("{more}: {inputs}",))
    assert shown.task_file.inputs == ("more", "inputs")
    for fields in ({"inputs": (), "targets": "inputs"}, {"inputs": ("targets",), "targets": ""}):
        with pytest.raises(UserError, match="which column holds the"):
            make(data, **fields)
    commas = tmp_path / "commas.csv"
    commas.write_text("inputs;targets,b,c\nx;y,1,2\n")
    with pytest.raises(UserError, match="Its columns are inputs;targets, b, c"):
        make(commas, inputs=(), targets="")
    twice = tmp_path / "twice.csv"
    twice.write_text("inputs,targets,targets\nx,y,z\n" * 3)
    with pytest.raises(UserError, match="several columns are called 'targets'"):
        make(twice, inputs=(), targets="")


def test_wordings_show_columns(tmp_path):
    rows = [{"Full name": f"n{n}", "options": "x " * 9, "answer": "y"} for n in range(9)]
    path = write(tmp_path / "talks.jsonl", rows)
    task = make(path, inputs=(), targets="answer", templates=("{Full name}: {options}? {{}}",))
    assert task.task_file.inputs == ("Full name", "options")
    templates = task.spec.templates
    assert templates.input_fields == ("Full_name", "column_options")
    assert templates.truncate_field == "column_options"  # the longest
    assert templates.zs_noopt[0].inputs == "{Full_name}: {column_options}? {{}}"
    plain = make(path, inputs=("options", "Full name"), targets="answer").spec.templates
    assert plain.zs_noopt[0].inputs == "{column_options}\n\n{Full_name}"
    unused = make(path, inputs=("options", "Full name"), targets="answer", templates=("{options}",))
    assert "no template shows Full name" in unused.notes


def test_wrong_fields(tmp_path):
    for fields, words in (
        ({"messages": "m"}, "leave out inputs"),
        ({"inputs": ("a", "")}, "list of texts"),
        ({"inputs": 3}, "list of texts"),
        ({"held_out_share": 1.0}, r"in \[0, 1\)"),
        ({"metric": "rogue"}, "Did you mean 'rouge'"),
        ({"inputs": ("a", "c")}, "unknown column 'c'"),
        ({"validation": str(tmp_path / "none.jsonl")}, "validation is .*none.jsonl"),
    ):
        with pytest.raises(UserError, match=words):
            make(numbered(tmp_path / "talks.jsonl", 9), **fields)
