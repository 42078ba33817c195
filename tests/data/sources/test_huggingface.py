import dataclasses
import functools
import json
import pickle
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instruct.data.sources.files import FieldMap
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.stores.jobs import Job, build_store, find_store
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tests.workspaces import workspace

ROWS = [{"q": f"question {n}?", "a": f"{n}", "kind": "odd" if n % 2 else "even"} for n in range(40)]
MAP = FieldMap({"question": "q"}, "a")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in ("INSTRUCT_DOWNLOAD", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "data"


def write(path, rows=ROWS):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def to_record(row, default_id, *, wanted="even"):
    if row["kind"] != wanted:
        return None
    return Record(default_id, {"question": row["q"]}, row["a"])


def test_local_files(folder):
    write(folder / "owner/set/data/train-00000-of-00001.parquet", ROWS[:3])
    write(folder / "owner/set/test.parquet", ROWS[3:4])
    parts = {"train": "train", "validation": "test"}
    source = HuggingFaceSource("owner/set", parts=parts, to_record=MAP)
    assert source.splits == ("train", "validation")
    with_both = source.available(workspace())
    assert with_both is None
    assert list(source.records(workspace(), "train")) == [
        Record(f"owner/set-train-{n}", {"question": f"question {n}?"}, str(n)) for n in range(3)
    ]
    assert [record.answer for record in source.records(workspace(), "validation")] == ["3"]
    assert list(source.rows(workspace(), "validation")) == [{"q": "question 3?", "a": "3"}]
    assert pickle.loads(pickle.dumps(source)) == source


def test_last_part_of_the_name_and_configurations(folder):
    write(folder / "P3/one/train.parquet", ROWS[:1])
    write(folder / "P3/two/train/0000.parquet", ROWS[1:2])
    for config, answer in (("one", "0"), ("two", "1")):
        source = HuggingFaceSource("bigscience/P3", config, to_record=MAP)
        assert source.available(workspace()) is None
        assert [record.answer for record in source.records(workspace(), "train")] == [answer]
    assert "bigscience/P3/three (train)" in (
        HuggingFaceSource("bigscience/P3", "three", to_record=MAP).available(workspace()) or ""
    )


def test_hashed_parts_share_no_row_and_lose_none(folder):
    write(folder / "s/train.parquet")
    parts = {"train": ("train", (0.2, 1.0)), "validation": ("train", (0.0, 0.2))}
    source = HuggingFaceSource("s", parts=parts, to_record=MAP)
    train = {record.answer for record in source.records(workspace(), "train")}
    validation = {record.answer for record in source.records(workspace(), "validation")}
    assert validation and not train & validation and len(train | validation) == 40
    raw = [len(list(source.rows(workspace(), split))) for split in parts]
    assert sum(raw) == 40 and raw[1]


def test_one_file_holds_many_tasks(folder):
    write(folder / "s/train.parquet")
    odd = HuggingFaceSource("s", to_record=MAP, where=("kind", "odd"))
    assert [record.answer for record in odd.records(workspace(), "train")] == [
        str(n) for n in range(1, 40, 2)
    ]
    fn = functools.partial(to_record, wanted="odd")
    also = HuggingFaceSource("s", to_record=fn)
    assert [record.answer for record in also.records(workspace(), "train")] == [
        str(n) for n in range(1, 40, 2)
    ]
    assert len({odd.fingerprint(workspace()), also.fingerprint(workspace())}) == 2
    other = HuggingFaceSource("s", to_record=functools.partial(to_record, wanted="even"))
    assert other.fingerprint(workspace()) != also.fingerprint(workspace())
    assert also.fingerprint(workspace()) == HuggingFaceSource(
        "s", to_record=functools.partial(to_record, wanted="odd")
    ).fingerprint(workspace())


def test_bad_rows_are_counted(folder):
    path = folder / "s/train.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"q": "x", "a": "1"}\n[]\n{"q": "y", "a": " "}\n{"q": "z"}\n')
    source = HuggingFaceSource("s", to_record=MAP)
    assert list(source.records(workspace(), "train"))[1:] == [
        Dropped("line is not a JSON object"),
        Dropped("empty answer"),
        Dropped("no value for 'a'"),
    ]


def test_fingerprint_follows_the_files(folder):
    source = HuggingFaceSource("s", to_record=MAP)
    assert source.fingerprint(workspace()) == "absent"
    write(folder / "s/train.parquet", ROWS[:3])
    first = source.fingerprint(workspace())
    assert first == HuggingFaceSource("s", to_record=MAP).fingerprint(workspace()) != "absent"
    write(folder / "s/train.parquet", ROWS[:4])
    assert source.fingerprint(workspace()) not in (first, "absent")


def test_missing_shards_and_missing_data_are_told_apart(folder):
    source = HuggingFaceSource("s", parts={"train": "train", "test": "test"}, to_record=MAP)
    why = source.available(workspace()) or ""
    assert "s (train, test)" in why and str(folder) in why and "INSTRUCT_DOWNLOAD=1" in why
    with pytest.raises(UserError, match="neither in"):
        list(source.records(workspace(), "train"))
    write(folder / "s/train-00001-of-00002.parquet")
    assert "lacks train-00000-of-00002.parquet" in (source.available(workspace()) or "")
    assert source.fingerprint(workspace()) == "absent"
    with pytest.raises(UserError, match="lacks train-00000-of-00002.parquet"):
        list(source.records(workspace(), "train"))
    write(folder / "s/data/train-00000-of-00001.parquet", ROWS[:1])
    assert (
        len(list(source.records(workspace(), "train"))) == 1
    )  # a whole set further down is better than half


def test_without_to_record_there_are_only_rows(folder):
    write(folder / "s/train.parquet", ROWS[:1])
    source = HuggingFaceSource("s")
    assert list(source.rows(workspace(), "train")) == ROWS[:1]
    with pytest.raises(UserError, match="set its to_record"):
        list(source.records(workspace(), "train"))


def test_caches_of_the_hub(folder, tmp_path):
    prepared = tmp_path / "hub/datasets/owner___my_set/default/0.0.0"
    for commit, answer in (("aaa", "1"), ("bbb", "2")):
        table = pa.table({"q": ["x"], "a": [answer]})
        path = prepared / commit / "my_set-train.arrow"
        path.parent.mkdir(parents=True)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    source = HuggingFaceSource("owner/MySet", to_record=MAP, revision="aaa")
    assert source.available(workspace()) is None
    assert [record.answer for record in source.records(workspace(), "train")] == ["1"]
    repository = tmp_path / "hub/hub/datasets--owner--MySet"
    write(repository / "snapshots/ccc/data/train.parquet", [{"q": "x", "a": "3"}])
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("ccc")
    source = HuggingFaceSource("owner/MySet", to_record=MAP)
    assert [record.answer for record in source.records(workspace(), "train")] == ["3"]
    write(folder / "MySet/train.parquet", [{"q": "x", "a": "4"}])
    assert [record.answer for record in source.records(workspace(), "train")] == ["4"]


def fake_libraries(monkeypatch, load=None, snapshot=None, version="4.1.0"):
    datasets = types.ModuleType("datasets")
    datasets.__version__ = version
    datasets.load_dataset = load
    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setenv("INSTRUCT_DOWNLOAD", "1")


def test_downloads_only_if_allowed(monkeypatch, tmp_path):
    calls = []

    def load(path, config, revision, cache_dir):
        calls.append((path, config, revision))
        assert cache_dir == str(tmp_path / "hub/datasets")
        folder = tmp_path / "hub/datasets/owner___set/default/0.0.0/abc"
        folder.mkdir(parents=True)
        table = pa.table({"q": ["x"], "a": ["1"]})
        with (
            pa.OSFile(str(folder / "set-train.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)

    source = HuggingFaceSource("owner/set", to_record=MAP, revision="abc")
    fake_libraries(monkeypatch, load)
    monkeypatch.delenv("INSTRUCT_DOWNLOAD")
    assert (
        source.available(workspace()) and source.fingerprint(workspace()) == "absent" and not calls
    )
    monkeypatch.setenv("INSTRUCT_DOWNLOAD", "1")
    assert source.available(workspace()) is None and not calls
    assert source.fingerprint(workspace()) == "absent" and not calls
    records = source.records(workspace(), "train")
    assert calls == [("owner/set", None, "abc")] and source.fingerprint(workspace()) != "absent"
    assert len(list(records)) == 1 and len(calls) == 1


def test_a_store_whose_files_are_gone_is_kept_without_a_download(monkeypatch, tmp_path):
    def load(path, config, revision, cache_dir):
        raise OSError("no network")

    write(tmp_path / "data/set/train.parquet", ROWS)
    source = HuggingFaceSource("set", to_record=MAP)
    job = Job(workspace(), "t", "f", "train", tmp_path / "t/train", "1", source, "train")
    built = build_store(job, lambda rows: None)
    (tmp_path / "data/set/train.parquet").unlink()
    fake_libraries(monkeypatch, load)
    job = dataclasses.replace(job, workspace=workspace())
    manifest = find_store(job)
    assert manifest is not None and manifest.sha256 == built.sha256
    assert "no network" in build_store(job, lambda rows: None).message


def test_what_is_downloaded_is_built_and_known_again(monkeypatch, tmp_path):
    def load(path, config, revision, cache_dir):
        write(tmp_path / "data/set/train.parquet", ROWS)

    fake_libraries(monkeypatch, load)
    source = HuggingFaceSource("set", to_record=MAP)
    job = Job(workspace(), "t", "f", "train", tmp_path / "t/train", "1", source, "train")
    built = build_store(job, lambda rows: None)
    manifest = find_store(job)
    assert manifest is not None and manifest.sha256 == built.sha256
    assert manifest.source_fingerprint == source.fingerprint(workspace())


def test_repository_files_are_fetched_as_they_are(monkeypatch, tmp_path):
    def snapshot(path, *, repo_type, revision, cache_dir, allow_patterns):
        assert cache_dir == tmp_path / "hub/hub"
        assert (path, repo_type, allow_patterns) == ("o/s", "dataset", ["data/one/*"])
        write(tmp_path / "data/o/s/data/one/train.parquet", ROWS[:1])

    fake_libraries(monkeypatch, snapshot=snapshot)
    source = HuggingFaceSource("o/s", "one", to_record=MAP, repository_files="data/{config}/*")
    assert [record.answer for record in source.records(workspace(), "train")] == ["0"]


def test_scripts_and_old_libraries_are_refused(monkeypatch):
    def load(path, config, revision, cache_dir):
        raise RuntimeError("Dataset scripts are no longer supported, but found set.py")

    source = HuggingFaceSource("owner/set", to_record=MAP)
    fake_libraries(monkeypatch, load)
    with pytest.raises(UserError, match="published as a script, and scripts are never run"):
        list(source.records(workspace(), "train"))
    fake_libraries(monkeypatch, load, version="3.6.0")
    assert "datasets>=4" in (source.available(workspace()) or "")
    with pytest.raises(UserError, match="datasets>=4"):
        list(source.records(workspace(), "train"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install" in (source.available(workspace()) or "")


def test_a_download_without_that_split(monkeypatch):
    fake_libraries(monkeypatch, lambda path, config, revision, cache_dir: None)
    with pytest.raises(UserError, match="it has no split 'train'"):
        list(HuggingFaceSource("owner/set", to_record=MAP).records(workspace(), "train"))


def test_a_json_value_decides_the_part_of_a_raw_row(folder):
    path = folder / "s/train.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({"b": n, "a": [n]}) + "\n" for n in range(20)))
    source = HuggingFaceSource("s", parts={"train": ("train", (0.0, 0.5))})
    kept = list(source.rows(workspace(), "train"))
    assert 0 < len(kept) < 20 and kept == list(source.rows(workspace(), "train"))
