"""Every reader names a file that is only Git LFS's pointer, instead of calling it damaged."""

import pytest

from instruct.checkpoints import safetensors_files
from instruct.checkpoints.folders import read_json
from instruct.data.huggingface_tokenizer import FAST, folder_vocabulary
from instruct.data.sources.files import CsvSource, FieldMap, JsonLinesSource, Part, TsvSource
from instruct.data.sources.table_files import read_rows
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from tasks.suites.files import SplitFiles, SuiteSource
from tasks.suites.mmlu import read_csv
from tests.test_packed_files import POINTER
from tests.workspaces import workspace

FIELDS = FieldMap({"question": 0}, 1)
SOURCES = {"lines": JsonLinesSource, "tabs": TsvSource, "commas": CsvSource}
READERS = {
    "model.safetensors": safetensors_files.read_file,
    "config.json": read_json,
    "spiece.model": lambda path: load_vocabulary(str(path)),
    FAST: lambda path: folder_vocabulary(path.parent),
    **{
        f"train{suffix}": lambda path: list(read_rows([path]))
        for suffix in (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tfrecord")
    },
}


@pytest.mark.parametrize("name", READERS)
def test_files_of_checkpoints_and_tables(name, tmp_path):
    path = tmp_path / name
    path.write_text(POINTER)
    with pytest.raises(UserError, match=f"{name} is a pointer of Git LFS"):
        READERS[name](path)


@pytest.mark.parametrize("kind", SOURCES)
def test_files_of_sources(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    (tmp_path / "data").write_text(POINTER)
    source = SOURCES[kind]("mine", {"train": Part("data")}, FIELDS)
    with pytest.raises(UserError, match="data is a pointer of Git LFS"):
        list(source.records(workspace(), "train"))


def test_files_of_suites(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    (tmp_path / "a.csv").write_text(POINTER)
    source = SuiteSource("mmlu", {"test": SplitFiles(read_csv, (("a.csv",),))}, "the hub")
    with pytest.raises(UserError, match="a.csv is a pointer of Git LFS"):
        source.records(workspace(), "test")
