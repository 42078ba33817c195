"""Records from columns: values, references, held-out rows, fingerprints."""

import json
from decimal import Decimal

import pytest

from instruct.data.sources.column_source import ColumnMap, ColumnSource, text_of, value_of
from instruct.data.sources.data_file import open_data
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tests.workspaces import workspace

TALKS = ColumnMap({"talk": "talk"}, "label")


def test_values_of_columns_and_nested_ones():
    row = {"a": {"b": [{"c": 3}]}, "a.d": 4}
    assert value_of(row, "a.b.0.c") == 3 and value_of(row, "a.d") == 4
    for missing in ("b", "a.c", "a.b.1", "a.b.c"):
        with pytest.raises(KeyError):
            value_of(row, missing)


def test_values_as_text():
    assert [text_of(v) for v in (" a ", 3, 0.5, True, None, float("nan"))] == [
        *("a", "3", "0.5", "true", "", "")
    ]
    # A table's exact numbers, without an exponent.
    assert [text_of(Decimal(text)) for text in ("1.50", "1E+2")] == ["1.50", "100"]
    with pytest.raises(TypeError, match="an object"):
        text_of({})


def test_records():
    record = TALKS.record({"talk": ["Hi", "Yes?"], "label": ["", "one", "two"]}, "n")
    assert record == Record("n", {"talk": "Hi\nYes?"}, "one", references=("one", "two"))
    assert TALKS.record({"talk": "x", "label": 3}, "n") == Record("n", {"talk": "x"}, "3")
    for row, reason in (
        ({"talk": "x"}, "no value for 'label'"),
        ({"talk": "x", "label": []}, "'label' is empty"),
        ({"talk": " ", "label": "y"}, "'talk' empty"),
        ({"talk": {"a": 1}, "label": "y"}, "'talk' is an object, not text"),
        ({"talk": "x", "label": [["y"]]}, "'label' is a list or of another type, not text"),
    ):
        assert TALKS.record(row, "n") == Dropped(reason)


def test_held_out_rows_are_a_fixed_part(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"talk": f"talk {n % 90}", "label": str(n)} for n in range(100)] + [{"talk": "x"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = ColumnSource("own.a", {"train": open_data([path])}, TALKS, held_out=0.3)
    assert source.splits == ("train", "validation")
    parts = {s: list(source.records(workspace(), s)) for s in source.splits}
    records = {s: [r for r in items if isinstance(r, Record)] for s, items in parts.items()}
    assert sum(map(len, records.values())) == 100 and len(records["validation"]) > 10
    texts = [{record.fields["talk"] for record in part} for part in records.values()]
    assert not texts[0] & texts[1]  # equal inputs are on one side
    assert [len(parts[s]) - len(records[s]) for s in parts] == [1, 0]  # a rejected row is train's
    assert records["train"][0].id.startswith("own.a-train-line-")


def test_the_fingerprint_is_of_bytes_and_reading(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"talk": "x", "label": "y"}\n')
    source = ColumnSource("own.a", {"train": open_data([path])}, TALKS)
    first = source.fingerprint(workspace())
    other = ColumnSource("own.a", {"train": open_data([path])}, ColumnMap({"t": "talk"}, "label"))
    assert other.fingerprint(workspace()) != first
    path.write_text('{"talk": "x", "label": "z"}\n\n')
    assert source.fingerprint(workspace()) != first
    assert source.available(workspace()) is None
    path.unlink()
    assert source.fingerprint(workspace()) == "absent"
    assert "a.jsonl cannot be read" in str(source.available(workspace()))
