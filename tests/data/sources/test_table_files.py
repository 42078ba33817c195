import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instruct.data.sources.table_files import (
    SPLIT_NAMES,
    find_split,
    missing_shards,
    read_rows,
    unread_files,
)
from instruct.errors import UserError
from instruct.prompts.render import Dropped
from tests.data.sources.test_tfrecord import example, frame

ROWS = [{"task": name, "n": number} for number, name in enumerate("aabab")]


def names(folder, split):
    return [path.name for path in find_split(folder, split)]


def touch(folder, *files):
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_shards_of_a_split_and_no_other_files(tmp_path):
    touch(
        tmp_path,
        "train-00001-of-00002.parquet",
        "train-00000-of-00002-1a2b.parquet",
        "train_r1-00000-of-00001.parquet",
        "test.parquet",
        "train.jsonl",
        "README.md",
    )
    shards = ["train-00000-of-00002-1a2b.parquet", "train-00001-of-00002.parquet"]
    assert names(tmp_path, "train") == shards
    assert names(tmp_path / "absent", "train") == []
    assert names(tmp_path, "train_r1") == ["train_r1-00000-of-00001.parquet"]
    assert names(tmp_path, "test") == ["test.parquet"]
    assert names(tmp_path, "validation") == []


def test_other_layouts(tmp_path):
    touch(tmp_path, "a/train/0000.parquet", "a/train/0001.parquet", "a/train/state.json")
    assert names(tmp_path / "a", "train") == ["0000.parquet", "0001.parquet"]
    touch(tmp_path, "b/p3-train.arrow", "b/dataset_info.json")
    assert names(tmp_path / "b", "train") == ["p3-train.arrow"]
    touch(tmp_path, "c/train.tfrecord-00000-of-00001", "c/info.train.json", "c/stats.train.json")
    assert names(tmp_path / "c", "train") == ["train.tfrecord-00000-of-00001"]
    touch(tmp_path, "d/part1.jsonl", "d/part2.jsonl", "d/test.jsonl")
    assert names(tmp_path / "d", "train") == ["part1.jsonl", "part2.jsonl"]


def test_names_in_capitals(tmp_path):
    """Test.csv would be trained on as a file without a split in its name."""
    touch(tmp_path, "a/Train.csv", "a/Test.csv", "a/TRAIN-00001.CSV")
    assert names(tmp_path / "a", "train") == ["TRAIN-00001.CSV", "Train.csv"]
    assert names(tmp_path / "a", "test") == ["Test.csv"]
    touch(tmp_path, "b/Train.csv", "b/train.csv", "b/notes_Test.csv")
    assert names(tmp_path / "b", "train") == ["train.csv"]
    touch(tmp_path, "c/Reviews.JSONL.GZ", "c/reviews_DEV.jsonl")
    assert names(tmp_path / "c", "train") == ["Reviews.JSONL.GZ"]
    (tmp_path / "a" / "Test.csv").write_text("q,a\nx,y\n")
    assert list(read_rows(find_split(tmp_path / "a", "test"))) == [{"q": "x", "a": "y"}]


@pytest.mark.parametrize("name", sorted({n for names in SPLIT_NAMES.values() for n in names}))
def test_files_that_name_another_split_are_no_training_data(tmp_path, name):
    """But "training": find_split is asked for "train" before it is asked for that name."""
    touch(tmp_path, f"{name}.jsonl", f"notes-{name}.jsonl", f"{name}_1.jsonl", f"{name}ful.jsonl")
    mine = [f"{name}.jsonl", f"{name}_1.jsonl"]
    expected = {
        "train": mine,
        "training": sorted([*mine, f"notes-{name}.jsonl", f"{name}ful.jsonl"]),
    }
    assert names(tmp_path, "train") == expected.get(name, [f"{name}ful.jsonl"])


def test_some_files_of_a_split_may_be_compressed(tmp_path):
    touch(tmp_path, "part1.jsonl", "part2.jsonl.gz", "part2.jsonl", "part3.jsonl.zst", "part4.csv")
    files = find_split(tmp_path, "train")
    assert [path.name for path in files] == ["part1.jsonl", "part2.jsonl", "part3.jsonl.zst"]
    assert unread_files(files) == ["part2.jsonl.gz", "part4.csv"]
    touch(tmp_path, "dataset_5.jsonl", "dataset_info.json")
    assert names(tmp_path, "train")[0] == "dataset_5.jsonl"


def test_missing_shards(tmp_path):
    touch(tmp_path, "train-00001-of-00003.parquet", "x.tfrecord-00000-of-00002")
    assert missing_shards(find_split(tmp_path, "train")) == [
        "train-00000-of-00003.parquet",
        "train-00002-of-00003.parquet",
    ]
    assert missing_shards([tmp_path / "x.tfrecord-00000-of-00002"]) == ["x.tfrecord-00001-of-00002"]
    assert missing_shards([tmp_path / "train.parquet"]) == []


def write(folder, kind):
    table = pa.Table.from_pylist(ROWS)
    path = folder / f"train.{kind}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=2)
    elif kind == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    elif kind == "stream.arrow":
        path = folder / "name-train.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    elif kind == "json":
        path.write_text(json.dumps(ROWS))
    else:
        opened = gzip.open if kind.endswith("gz") else open
        with opened(path, "wb") as stream:
            stream.write("\n".join(json.dumps(row) for row in ROWS).encode())
    return path


KINDS = ["parquet", "arrow", "stream.arrow", "json", "jsonl", "jsonl.gz"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_columns_and_filters_of_every_format(tmp_path, kind):
    path = write(tmp_path, kind)
    assert find_split(tmp_path, "train") == [path]
    assert list(read_rows([path])) == ROWS
    assert list(read_rows([path], where=("task", "b"))) == [ROWS[2], ROWS[4]]
    assert list(read_rows([path], where=("n", (0, 4)))) == [ROWS[0], ROWS[4]]
    if "arrow" in kind or kind == "parquet":
        only = list(read_rows([path], ["n"], ("task", "b")))
        assert only == [{"n": 2}, {"n": 4}]
        with pytest.raises(UserError, match="no column 'kind' to filter by; it has task, n"):
            list(read_rows([path], where=("kind", "b")))
        with pytest.raises(UserError, match="none of x"):
            list(read_rows([path], ["x"]))
        with pytest.raises(UserError, match="holds int64"):
            list(read_rows([path], where=("n", "b")))


def test_row_groups_that_a_filter_rules_out_are_not_read(tmp_path):
    path = tmp_path / "train.parquet"
    table = pa.table({"task": sorted("ab" * 500), "text": ["x" * 50] * 1000})
    pq.write_table(table, path, row_group_size=500, compression="none", use_dictionary=False)
    # Spoil the text column of the second row group ("b"): whoever reads it would fail.
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    assert len(list(read_rows([path], where=("task", "a")))) == 500
    with pytest.raises(UserError, match="train.parquet cannot be read"):
        list(read_rows([path], where=("task", "b")))


def test_tfrecord_rows(tmp_path):
    path = tmp_path / "train.tfrecord-00000-of-00001"
    rows = [example(task=[b"a"], n=[1]), example(task=[b"b"], n=[2])]
    path.write_bytes(b"".join(frame(row) for row in rows))
    assert list(read_rows([path], ["n"], ("task", "b"))) == [{"task": ["b"], "n": [2]}]


def test_bad_rows_are_dropped_and_bad_files_named(tmp_path):
    lines = tmp_path / "train.jsonl"
    lines.write_bytes(b'\xef\xbb\xbf{"n": 1}\n\n[1]\n{"n": "caf\xe9"}\n{"n":\n')
    not_json = Dropped("line is not a JSON object")
    assert list(read_rows([lines])) == [{"n": 1}, not_json, Dropped("text is not UTF-8"), not_json]
    array = tmp_path / "test.json"
    array.write_text('[{"n": 1}, 2]')
    assert list(read_rows([array])) == [{"n": 1}, Dropped("row is not a JSON object")]
    array.write_text('[{"n": 1}')
    with pytest.raises(UserError, match="test.json is neither"):
        list(read_rows([array]))
    parquet = tmp_path / "train.parquet"
    parquet.write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="train.parquet cannot be read as a table"):
        list(read_rows([parquet]))
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"n": 1}\n' * 99)[:-12])
    with pytest.raises(UserError, match="cannot be unpacked"):
        list(read_rows([packed]))


def test_rows_that_are_nested_too_deep(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"q": "x"}\n' + '{"q":' * 100_000 + "\n")
    assert list(read_rows([path])) == [{"q": "x"}, Dropped("line is not a JSON object")]
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="neither JSON lines nor a JSON array"):
        list(read_rows([path]))


def test_text_columns_that_are_not_utf8(tmp_path):
    column = pa.array([b"good", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "train.parquet")
    rows = list(read_rows([tmp_path / "train.parquet"]))
    assert rows == [{"text": "good"}, Dropped("text is not UTF-8")]


@pytest.mark.parametrize("name", ["[x]*?", "a b#1", "%20{}", "~$X", "s3:", "back\\slash\n", "@4=,"])
def test_a_folder_may_have_any_name(tmp_path, name):
    (tmp_path / name).mkdir()
    table = pa.Table.from_pylist(ROWS)
    with (tmp_path / name / "train.parquet").open("wb") as stream:
        pq.write_table(table, stream)
    path = tmp_path / name / "test.arrow"
    with path.open("wb") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    for split in ("train", "test"):
        assert list(read_rows(find_split(tmp_path / name, split))) == ROWS
    with pytest.raises(UserError, match="the path is not UTF-8"):
        list(read_rows([tmp_path / "caf\udce9" / "train.parquet"]))


def test_the_rest_of_a_file_after_an_open_quote_is_no_cell(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('q,a\nx,"y\nz"\nx,"y\nz,w\nv,u')
    good, lost = {"q": "x", "a": "y\nz"}, Dropped("line is not CSV")
    assert list(read_rows([path])) == [good, lost, {"q": "z", "a": "w"}, {"q": "v", "a": "u"}]
    path.write_text('q,a\nx,"y"')  # a closed one at the end of a file without a line end
    assert list(read_rows([path])) == [{"q": "x", "a": "y"}]


def test_a_tab_separated_file_of_the_hub_has_quotes_as_the_datasets_library_reads_them(tmp_path):
    """That library reads .tsv by its CSV builder, with tabs for commas and quotes as in CSV.

    (`datasets/packaged_modules/__init__.py`: ".tsv": ("csv", {"sep": "\\t"}), whose config has
    quotechar='"', quoting=0, doublequote=True; pandas then joins what follows a closing quote.)
    """
    text = 'a\tb\n"one\ttwo"\t"say ""hi"""\n5" rod\t"x" y\n"two\nlines"\tz\n'
    path = tmp_path / "train.tsv"
    path.write_text(text)
    cells = [("one\ttwo", 'say "hi"'), ('5" rod', "x y"), ("two\nlines", "z")]
    assert list(read_rows([path])) == [{"a": a, "b": b} for a, b in cells]
