"""Formats, columns, lines and splits of data files; odd ones are in tests/data/odd_files.py."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instruct.data.sources.data_file import find_files, open_data
from instruct.errors import UserError
from instruct.prompts.render import Dropped

ROWS = [{"a": "x", "b": 1}, {"a": "y", "b": 2, "c": None}]


def write(path, text):
    path.write_text(text)
    return path


def test_rows_of_all_formats_are_equal_and_have_their_place(tmp_path):
    lines = "".join(json.dumps(row) + "\n\n" for row in ROWS)
    files = {
        "line 1, line 3": write(tmp_path / "a.jsonl", lines),
        "row 1, row 2": write(tmp_path / "a.json", json.dumps(ROWS, indent=1)),
    }
    pq.write_table(pa.Table.from_pylist([ROWS[0] | {"c": None}, ROWS[1]]), tmp_path / "a.parquet")
    for places, path in files.items():
        data = open_data([path])
        assert data.columns() == ("a", "b", "c")
        assert [row.values for row in data.rows()] == ROWS
        assert ", ".join(row.place for row in data.rows()) == places
    table = open_data([tmp_path / "a.parquet"])
    assert [row.values for row in table.rows(["a"])] == [{"a": "x"}, {"a": "y"}]


def test_a_row_of_csv_has_the_line_where_it_begins(tmp_path):
    path = write(tmp_path / "a.csv", 'a;b\n"1\n2";x\none\ny;z\n')
    data = open_data([path], ["a"])
    assert data.delimiter == ";"
    rows = list(data.rows())
    assert [row.place for row in rows] == ["line 2", "line 4", "line 5"]
    assert rows[0].values == {"a": "1\n2", "b": "x"}
    assert rows[1].values == Dropped("line does not have 2 columns")


def test_columns_by_number_mean_no_header(tmp_path):
    path = write(tmp_path / "a.tsv", "x\ty\nz\tw\n")
    assert [row.values for row in open_data([path], ["2"]).rows()][1] == {"1": "z", "2": "w"}
    named = write(tmp_path / "b.csv", "1,2\nx,y\n")
    assert open_data([named], ["2"]).header


def test_the_list_of_one_object_is_its_rows(tmp_path):
    path = write(tmp_path / "a.json", json.dumps({"info": [1], "rows": ROWS}))
    assert [row.values for row in open_data([path], ["a"]).rows()] == ROWS
    row = write(tmp_path / "b.json", json.dumps({"a": "x", "parts": ROWS}))
    assert len(list(open_data([row], ["a"]).rows())) == 1  # it has the column itself


def test_splits_of_folders(tmp_path):
    for name in ("data/train-00000-of-00001.jsonl", "data/dev.jsonl", "data/test.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, "{}\n")
    splits = find_files("--data", tmp_path)
    assert [(split, path.name) for split, (path,) in splits.items()] == [
        ("train", "train-00000-of-00001.jsonl"),
        ("validation", "dev.jsonl"),
        ("test", "test.jsonl"),
    ]
    with pytest.raises(UserError, match=r"(?s)no such file.*data.*hf download"):
        find_files("--data", tmp_path / "dat")


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("training", "testing"), {"train": "training", "test": "testing"}),
        (("rows", "eval"), {"train": "rows", "test": "eval"}),
        (("Train", "Evaluation", "Dev"), {"train": "Train", "test": "Evaluation"}),
    ],
)
def test_a_file_for_evaluation_is_not_trained_on(tmp_path, names, splits):
    for name in names:
        write(tmp_path / f"{name}.csv", f"q,a\nx,{name}\n")
    found = find_files("data", tmp_path)
    assert {name: [path.stem for path in found[name]] for name in splits} == {
        name: [stem] for name, stem in splits.items()
    }


def test_tables_are_known_by_their_content_and_by_endings_in_capitals(tmp_path):
    table = pa.Table.from_pylist([{"a": "x"}, {"a": "y"}])
    for name in ("T.PARQUET", "parquet", "parquet.jsonl"):
        pq.write_table(table, tmp_path / name)
    for name in ("T.ARROW", "arrow", "arrow.csv"):
        with pa.ipc.new_file(str(tmp_path / name), table.schema) as stream:
            stream.write_table(table)
    for path in tmp_path.iterdir():
        assert [row.values for row in open_data([path], ["a"]).rows()] == table.to_pylist()
    packed = tmp_path / "t.parquet.gz"
    packed.write_bytes(gzip.compress((tmp_path / "parquet").read_bytes()))
    with pytest.raises(UserError, match="compressed twice.*unpack it"):
        open_data([packed])


@pytest.mark.parametrize("bad", ['"z,w\n', 'z,"w\n', '"z"",w\n', '"'])
def test_a_quote_that_is_not_closed_takes_one_line(tmp_path, bad):
    many = "".join(f"q{n},a{n}\n" for n in range(50))
    path = write(tmp_path / "a.csv", f'q,a\n"x, 1",y\n{bad}\n{many}ragged\n')
    rows = list(open_data([path], ["q", "a"]).rows())
    assert [row.place for row in rows if isinstance(row.values, Dropped)][:2] == [
        "line 3",
        f"line {54 + bad.count(chr(10))}",
    ]
    assert [row.values for row in rows[-2:-1]] == [{"q": "q49", "a": "a49"}]
    assert len(rows) == 53 and rows[0].values == {"q": "x, 1", "a": "y"}


@pytest.mark.parametrize(
    "text", ['"open,y\n', 'x,"open\n', '"open,y\n"open too,y\n', '"a ""b"", c\n']
)
def test_an_open_quote_before_much_text_takes_one_line(tmp_path, text):
    """More than 128 KiB follow, the most that a cell may hold, before the next quote or none."""
    good = [{"q": f"q{n}", "a": "long " * 10} for n in range(9000)]
    lines = "".join(f"{row['q']},{row['a']}\n" for row in good)
    for end in ("", '"last, one",y\n'):
        path = write(tmp_path / "a.csv", f'q,a\n"first, one",y\n{text}{lines}{end}')
        rows = list(open_data([path], ["q", "a"]).rows())
        lost = [row.place for row in rows if isinstance(row.values, Dropped)]
        assert lost == [f"line {3 + n}" for n in range(text.count("\n"))]
        kept = [row.values for row in rows[1 + len(lost) :]]
        assert kept == good + ([{"q": "last, one", "a": "y"}] if end else [])


def test_rows_between_an_open_quote_and_the_next_are_kept(tmp_path):
    path = write(tmp_path / "a.csv", 'q,a\n"open,x\none,y\n\n"two, 3",z\n"4,\n5",v\n')
    rows = list(open_data([path], ["q", "a"]).rows())
    assert [row.place for row in rows] == ["line 2", "line 3", "line 5", "line 6"]
    assert [row.values["a"] for row in rows[1:]] == ["y", "z", "v"]


def test_rejected_lines_are_all_named(tmp_path):
    text = 'q,a\n"one, two",y\n"1, 2",y\nx,"lost\nz,"w",v\n"3, 4",y\n"5, 6\n7, 8, 9\n10",z\n'
    rows = list(open_data([write(tmp_path / "a.csv", text)], ["q", "a"]).rows())
    lost = [row.place for row in rows if isinstance(row.values, Dropped)]
    assert lost == ["line 4", "line 5"]
