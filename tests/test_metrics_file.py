"""Reading metrics.jsonl whatever became of it."""

import json

import pytest

from instruct.metrics_file import read_metrics

ROWS = [{"step": step, "loss": step / 2} for step in (10, 20, 30)]
LINES = [json.dumps(row) + "\n" for row in ROWS]


def read(path, content: bytes):
    path.write_bytes(content)
    return read_metrics(path)


@pytest.mark.parametrize(
    ("content", "damaged", "repeated", "torn"),
    [
        ("".join(LINES).encode(), 0, 0, False),
        (b"\xef\xbb\xbf" + "".join(LINES).encode(), 0, 0, False),
        ("".join(LINES).replace("\n", "\r\n").encode(), 0, 0, False),
        ("".join(reversed(LINES)).encode(), 0, 0, False),
        ("".join([LINES[0], '{"step": 20, "loss": 9}\n', *LINES[1:]]).encode(), 0, 1, False),
        ("\n\n".join(LINES).encode(), 0, 0, False),
        ("".join(LINES).encode()[:-1], 0, 0, False),
        ("".join([*LINES, '{"step": 40, "lo']).encode(), 1, 0, True),
        ("".join([*LINES, '{"step": 40, "lo\n']).encode(), 1, 0, False),
        ("".join(LINES).encode() + b"\x00\xff\xfe\n", 1, 0, False),
    ],
)
def test_all_rows_are_found(content, damaged, repeated, torn, tmp_path):
    assert read(tmp_path / "m", content) == (ROWS, damaged, repeated, torn)


@pytest.mark.parametrize(
    "line",
    ["5", "[]", "null", '{"loss": 1}', '{"step": "3"}', '{"step": true}', '{"step": -1}']
    + ['{"step": 1.5}', '{"step": Infinity}', "[" * 100_000, '{"step": ' + "9" * 5000 + "}"],
    ids=lambda line: line[:20],
)
def test_what_is_no_row_is_counted(line, tmp_path):
    assert read(tmp_path / "m", f"{LINES[0]}{line}\n".encode()) == (ROWS[:1], 1, 0, False)


def test_no_file_and_an_empty_one(tmp_path):
    assert read_metrics(tmp_path / "none") == ([], 0, 0, False) == read(tmp_path / "m", b"")
