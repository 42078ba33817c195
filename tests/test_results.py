"""The second waist: rows are checked, interrupted files heal, aggregates are macro means."""

import json

import pytest

from instruct import results
from instruct.errors import UserError
from instruct.json_text import unsealed_line

HEADER = {
    "suite": "s",
    "description": "",
    "step": 5,
    "checkpoint": "c",
    "settings": {"num_examples": 2},
}
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
    row |= {"exemplars": 4, "exemplars_asked": 5, "truncated": False}
    return row | {"scores": {"exact_match": 100.0}} | changes


def metric(**changes):
    row = {"kind": "metric", **TASK, "metric": "exact_match", "value": 50.0, "stderr": 5.0, "n": 2}
    row |= {"baseline": 10.0, "checkpoint": "c", "template_set": "t", "decode": "greedy"}
    row |= {"metric_fns": "exact_match", "records": "ab12"}
    row |= {"random_baseline": None, "truncated": 0, "left_out": 0}
    row |= dict.fromkeys(("exemplars_mean", "exemplars_min", "exemplars_asked"))
    return row | changes


def shown(mean=4.5, fewest=4, asked=5.0, **changes):
    counts = {"exemplars_mean": mean, "exemplars_min": fewest, "exemplars_asked": asked}
    return metric(**counts, **changes)


def test_a_row_survives_the_file(tmp_path):
    path = tmp_path / "a" / results.FILE_NAME
    rows = [example(prompt="zwei\nLines \u2028 <b>"), shown(value=float("nan"))]
    with results.ResultsWriter(path, HEADER) as writer:
        writer.write(rows)
    read = list(results.read_rows(path))
    assert read[0] == {"kind": "header", "version": results.VERSION, **HEADER}
    assert read[1] == rows[0]
    assert read[2] == rows[1] | {"value": None}
    assert list(results.read_rows(path, ("metric",))) == read[2:]


def test_a_changed_bit_is_noticed(tmp_path):
    path = tmp_path / results.FILE_NAME
    with results.ResultsWriter(path, HEADER) as writer:
        writer.write([example(), metric()])
    whole = path.read_bytes()
    for position in range(len(whole) - 1):  # without the last line end the line is unfinished
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(UserError, match=r"line \d: not a result .* Delete the file"):
            list(results.read_rows(path))


def test_lines_of_earlier_files_are_read(tmp_path):
    path = tmp_path / results.FILE_NAME
    unknown = {"source": "", "references": []}
    unknown |= {"exemplars": None, "exemplars_asked": None, "truncated": None}
    row = {name: value for name, value in example().items() if name not in unknown}
    header = {"kind": "header", "version": results.VERSION, **HEADER}
    # The fields of metric lines before exemplars were counted.
    names = {*TASK, "kind", "metric", "value", "stderr", "n", "baseline"}
    names |= {"checkpoint", "template_set", "decode"}
    line = {name: value for name, value in metric().items() if name in names}
    path.write_text("".join(f"{json.dumps(one)}\n" for one in (header, row, line)))
    assert list(results.read_rows(path, ("example",))) == [row | unknown]
    assert json.loads(unsealed_line(results.to_line(row).encode())) == row | unknown
    (read,) = results.read_rows(path, ("metric",))
    lacking = {name: None for name in metric() if name not in line}
    lacking |= {"metric_fns": "", "records": ""}
    assert read == metric() | lacking
    assert results.exemplars_of([read]) is None and results.chance_level(read) == 10.0
    with results.ResultsWriter(path, HEADER) as writer:
        assert list(writer.finished) == [(TASK["task"], TASK["mode"])]
    assert list(results.read_rows(path, ("example", "metric"))) == [row | unknown, read]


def test_exemplars_in_words():
    full = shown(5.0, 5)
    assert str(results.exemplars_of([full])) == "5"
    assert str(results.exemplars_of([full, shown()])) == "4.75 of 5 (at least 4)"
    assert str(results.exemplars_of([shown(4.9999)])) == "4.99 of 5 (at least 4)"
    assert str(results.exemplars_of([shown(0.0, 0, 0.0)])) == "0"
    assert results.exemplars_of([full, metric()]) is None
    assert results.aggregate([full, shown()]).exemplars == results.Exemplars(4.75, 4, 5.0)


def test_the_chance_level_is_the_better_baseline():
    assert results.chance_level(metric()) == 10.0
    assert results.chance_level(metric(random_baseline=5.0)) == 10.0
    assert results.chance_level(metric(random_baseline=25.0)) == 25.0
    assert results.chance_level(metric(baseline=None, random_baseline=None)) is None
    assert results.aggregate([metric(random_baseline=30.0), metric()]).baseline == 20.0


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
        assert not writer.finished
        writer.write([example(0), example(1), metric()])
        writer.write([failure, example(0, task="toy.half")])
    with path.open("a") as file:
        file.write('{"kind": "example", "cut')
    with results.ResultsWriter(path, HEADER) as writer:
        assert list(writer.finished) == [("toy.sum", "zs_noopt")]
    kept = [(row["kind"], row.get("task")) for row in results.read_rows(path)]
    assert kept == [("header", None)] + [("example", "toy.sum")] * 2 + [("metric", "toy.sum")]


def test_a_file_killed_inside_its_first_line_starts_again(tmp_path):
    path = tmp_path / results.FILE_NAME
    path.write_text('{"kind": "hea')
    with results.ResultsWriter(path, HEADER) as writer:
        assert not writer.finished
    assert [row["kind"] for row in results.read_rows(path)] == ["header"]


def test_other_settings_are_refused_and_overwritten_on_demand(tmp_path):
    path = tmp_path / results.FILE_NAME
    with results.ResultsWriter(path, HEADER) as writer:
        writer.write([example(), metric()])
    other = HEADER | {"settings": {"num_examples": 3}}
    with pytest.raises(UserError, match=r"num_examples: 2 -> 3.*overwrite"):
        results.ResultsWriter(path, other)
    with results.ResultsWriter(path, other, overwrite=True) as writer:
        assert not writer.finished
    assert next(results.read_rows(path))["settings"] == {"num_examples": 3}


def test_results_of_another_version_or_wording_are_refused(tmp_path):
    with results.ResultsWriter(tmp_path / results.FILE_NAME, HEADER) as writer:
        writer.write([example(), metric()])
    writer = results.ResultsWriter(tmp_path / results.FILE_NAME, HEADER)
    ((key, known),) = writer.finished.items()
    assert writer.is_finished(*key, *known) and not writer.is_finished("toy.new", "", *known)
    with pytest.raises(UserError, match=r"wordings of toy.sum: .* -> 'other'.*overwrite"):
        writer.is_finished(*key, known[0], "other")
    with pytest.raises(UserError, match=r"metrics of toy.sum: 'exact_match' -> 'rouge'"):
        writer.is_finished(*key, *known[:2], "rouge")
    with pytest.raises(UserError, match=r"records of toy.sum: 'ab12' -> 'cd34'"):
        writer.is_finished(*key, *known[:3], "cd34")
    assert writer.is_finished(*key, *known[:2], "")  # of a plain SeqIO task, not prepared


def test_lines_begin_with_their_kind_whatever_else_they_lack():
    lacking = {k: v for k, v in example().items() if k not in results.DEFAULTS["example"]}
    line = results.to_line(lacking)
    assert line.startswith('{"kind": "example"') and json.loads(line)["truncated"] is None


def test_failures_of_other_settings_block_nothing(tmp_path):
    path = tmp_path / results.FILE_NAME
    failure = {"kind": "failure", **TASK, "task": "toy.bad", "error": "boom", "checkpoint": "c"}
    with results.ResultsWriter(path, HEADER) as writer:
        writer.write([failure, example()])  # and a task that was interrupted
    other = HEADER | {"settings": {"num_examples": 3}}
    with results.ResultsWriter(path, other) as writer:
        assert not writer.finished
    assert list(results.read_rows(path)) == [{"kind": "header", "version": 1, **other}]


@pytest.mark.parametrize("value", [1, "yes"])
def test_an_optional_field_is_a_known_value_or_none(value):
    for known in (True, None):
        results.check_row(example(truncated=known))
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
    assert results.aggregate(rows) == results.Aggregate(75.0, 6.5, 20.0, 3, 8, without_value=1)
    rows.append(metric(value=0.0, stderr=None, baseline=None))
    assert results.aggregate(rows) == results.Aggregate(50.0, None, None, 4, 10, without_value=1)
    assert results.aggregate([]) == results.Aggregate(None, None, None, 0, 0)
