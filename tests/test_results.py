"""The second waist: rows are checked, interrupted files heal, aggregates are macro means."""

import json

import pytest

from instruct import results
from instruct.errors import UserError

HEADER = {"suite": "s", "step": 5, "checkpoint": "c", "settings": {"num_examples": 2}}
TASK = {
    "suite": "s",
    "task": "toy.sum",
    "task_version": "1",
    "family": "toy",
    "category": "arithmetic",
    "mode": "zs_noopt",
    "split": "test",
    "group": "held_in",
    "step": 5,
}


def example(index=0, **changes):
    row = {"kind": "example", **TASK, "template": "t", "index": index, "id": str(index)}
    row |= {"prompt": "1+1", "target": "2", "prediction": "2", "correct": True}
    row |= {"source": "1+1", "references": ["2", "two"]}
    return row | {"scores": {"exact_match": 100.0}} | changes


def metric(**changes):
    row = {"kind": "metric", **TASK, "metric": "exact_match", "value": 50.0, "stderr": 5.0, "n": 2}
    row |= {"baseline": 10.0, "checkpoint": "c", "template_set": "t", "decode": "greedy"}
    return row | changes


def test_a_row_survives_the_file(tmp_path):
    path = tmp_path / "a" / results.FILE_NAME
    rows = [example(prompt="zwei\nLines \u2028 <b>"), metric(value=float("nan"))]
    with results.ResultsWriter(path, HEADER) as writer:
        writer.write(rows)
    read = list(results.read_rows(path))
    assert read[0] == {"kind": "header", "version": results.VERSION, **HEADER}
    assert read[1] == rows[0]
    assert read[2] == rows[1] | {"value": None}
    assert list(results.read_rows(path, ("metric",))) == read[2:]


def test_lines_of_earlier_files_are_read(tmp_path):
    path = tmp_path / results.FILE_NAME
    row = {name: value for name, value in example().items() if name not in ("source", "references")}
    header = {"kind": "header", "version": results.VERSION, **HEADER}
    path.write_text(f"{json.dumps(header)}\n{json.dumps(row)}\n")
    assert list(results.read_rows(path, ("example",))) == [row | {"source": "", "references": []}]
    assert json.loads(results.to_line(row)) == row | {"source": "", "references": []}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"kind": "other"}, "kind is 'other'"),
        (metric(value="50"), "value is '50'"),
        (metric(n=True), "n is True"),
        (metric(group="seen"), "group is 'seen'"),
        ({k: v for k, v in metric().items() if k != "n"}, r"missing \['n'\]"),
        (metric(extra=1), r"unexpected \['extra'\]"),
        (example(correct=1), "correct is 1"),
        (example(references=[2]), "expected texts"),
    ],
)
def test_bad_rows_are_named(row, says):
    with pytest.raises(ValueError, match=says):
        results.check_row(row)


def test_an_interrupted_file_heals(tmp_path):
    path = tmp_path / results.FILE_NAME
    failure = {"kind": "failure", **TASK, "task": "toy.bad", "error": "boom", "checkpoint": "c"}
    with results.ResultsWriter(path, HEADER) as writer:
        assert writer.finished == set()
        writer.write([example(0), example(1), metric()])
        writer.write([failure, example(0, task="toy.half")])
    with path.open("a") as file:
        file.write('{"kind": "example", "cut')
    with results.ResultsWriter(path, HEADER) as writer:
        assert writer.finished == {("toy.sum", "zs_noopt")}
    kept = [(row["kind"], row.get("task")) for row in results.read_rows(path)]
    assert kept == [("header", None)] + [("example", "toy.sum")] * 2 + [("metric", "toy.sum")]


def test_a_file_killed_inside_its_first_line_starts_again(tmp_path):
    path = tmp_path / results.FILE_NAME
    path.write_text('{"kind": "hea')
    with results.ResultsWriter(path, HEADER) as writer:
        assert writer.finished == set()
    assert [row["kind"] for row in results.read_rows(path)] == ["header"]


def test_other_settings_are_refused_and_overwritten_on_demand(tmp_path):
    path = tmp_path / results.FILE_NAME
    with results.ResultsWriter(path, HEADER) as writer:
        writer.write([example(), metric()])
    other = HEADER | {"settings": {"num_examples": 3}}
    with pytest.raises(UserError, match=r"num_examples: 2 -> 3.*overwrite"):
        results.ResultsWriter(path, other)
    with results.ResultsWriter(path, other, overwrite=True) as writer:
        assert writer.finished == set()
    assert next(results.read_rows(path))["settings"] == {"num_examples": 3}


def test_failures_of_other_settings_block_nothing(tmp_path):
    path = tmp_path / results.FILE_NAME
    failure = {"kind": "failure", **TASK, "task": "toy.bad", "error": "boom", "checkpoint": "c"}
    with results.ResultsWriter(path, HEADER) as writer:
        writer.write([failure, example()])  # and a task that was interrupted
    other = HEADER | {"settings": {"num_examples": 3}}
    with results.ResultsWriter(path, other) as writer:
        assert writer.finished == set()
    assert list(results.read_rows(path)) == [{"kind": "header", "version": 1, **other}]


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_an_optional_field_is_a_known_value_or_absent(value):
    results.check_row(example())
    results.check_row(example(truncated=True))
    with pytest.raises(ValueError, match="truncated is"):
        results.check_row(example(truncated=value))


def test_a_damaged_line_is_a_user_error(tmp_path):
    path = tmp_path / results.FILE_NAME
    path.write_text("\n".join([json.dumps({"kind": "metric"}), "x", ""]))
    with pytest.raises(UserError, match="line 1"):
        list(results.read_rows(path))


def test_bytes_that_are_no_text_are_a_user_error(tmp_path):
    path = tmp_path / results.FILE_NAME
    path.write_bytes(b'{"kind": "header\xff"}\n')
    with pytest.raises(UserError, match="line 1: not a result"):
        list(results.read_rows(path))


def test_the_first_metric_of_a_task_is_primary():
    rows = [example(), metric(), metric(metric="f1", value=1.0), metric(mode="fs_opt", value=7.0)]
    assert [row["value"] for row in results.primary_metrics(rows)] == [50.0, 7.0]


def test_aggregates_are_macro_means():
    rows = [metric(), metric(value=100.0, stderr=12.0, baseline=30.0, n=4)]
    assert results.aggregate(rows) == results.Aggregate(75.0, 6.5, 20.0, 2, 6)
    rows.append(metric(value=None, stderr=None, baseline=None))
    assert results.aggregate(rows) == results.Aggregate(75.0, 6.5, 20.0, 3, 8)
    rows.append(metric(value=0.0, stderr=None, baseline=None))
    assert results.aggregate(rows) == results.Aggregate(50.0, None, None, 4, 10)
    assert results.aggregate([]) == results.Aggregate(None, None, None, 0, 0)
