"""What one pass over a file counts, and the threshold of held-out rows."""

import json

import pytest

from instruct.data.sources.column_scan import is_ascii, num_words, scan_split
from instruct.data.sources.column_source import ColumnMap, ColumnSource
from instruct.data.sources.data_file import open_data
from instruct.errors import UserError


def scan(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return scan_split(
        ColumnSource("own.a", {"train": open_data([path])}, ColumnMap({"a": "a"}, "b")), "train"
    )


def test_counts(tmp_path):
    rows = [{"a": "x", "b": 1}, {"a": "X ", "b": 1}, {"a": "y", "b": ["1", "2"]}, {"a": "z"}]
    counts = scan(tmp_path / "a.jsonl", rows * 2)
    assert (counts.rows, counts.records, counts.repeated) == (8, 6, 4)
    assert (counts.numbers, counts.lists, counts.sizes["a"]) == (4, 2, 6)
    assert counts.describe_rejected() == "no value for 'b' (2: line 4, line 8)"
    assert counts.labels() == ()  # lists


def test_labels(tmp_path):
    rows = [{"a": f"{n}", "b": "wet" if n % 2 else "dry"} for n in range(10)]
    assert scan(tmp_path / "a.jsonl", rows).labels() == ("dry", "wet")
    assert scan(tmp_path / "b.jsonl", rows[:9]).labels() == ()  # too few of each


def test_the_threshold_keeps_equal_inputs_together(tmp_path):
    counts = scan(tmp_path / "a.jsonl", [{"a": f"{n}", "b": "x"} for n in range(100)])
    threshold, below = counts.threshold(7)
    assert below == 7 == sum(value < threshold for value in counts.hashes)
    assert counts.threshold(1000)[1] == 99
    same = scan(tmp_path / "b.jsonl", [{"a": "x", "b": "y"}] * 9)
    assert same.threshold(3) == (0.0, 0)
    assert scan(tmp_path / "c.jsonl", [{"a": "x", "b": "y"}]).threshold(1) == (0.0, 0)


def test_words_and_letters():
    assert num_words("three words here") == 3 and num_words("今天天气") == 4
    assert is_ascii("plain 1") and is_ascii("12") and not is_ascii("разговор a")


def test_unusable_files(tmp_path):
    with pytest.raises(UserError, match=r"none of its 1 rows .*'b' is empty \(1: line 1\)"):
        scan(tmp_path / "a.jsonl", [{"a": "x", "b": ""}])
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'{"a": "x", "b": "y"}\n{"a": "caf\xe9", "b": "y"}\n')
    source = ColumnSource("own.b", {"train": open_data([path])}, ColumnMap({"a": "a"}, "b"))
    with pytest.raises(UserError, match=r"1 of 2 rows are not UTF-8 text, the first at line 2"):
        scan_split(source, "train")
