import json

import pytest

from instruct.data.sources.renderings import rendering_record, rendering_source
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tests.workspaces import workspace


def row(number, kind="zs_opt", task="rte"):
    return {
        "inputs": f"\n question {number}\n\nOPTIONS:\n- a \n",
        "targets": f" {number}\n",
        "task_source": "Flan2021",
        "task_name": task,
        "template_type": kind,
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("INSTRUCT_DOWNLOAD", raising=False)
    rows = [row(0), row(1, "fs_noopt"), row(2, task="cb"), row(3, "zs_noopt", "cb")]
    path = tmp_path / "flan2021_submix_original/train.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def numbers(*args):
    source = rendering_source("conceptofmind/flan2021_submix_original", *args)
    parts = [list(source.records(workspace(), split)) for split in source.splits]
    return sorted(record.answer for records in parts for record in records)


def test_a_row_becomes_a_record_with_its_origin():
    assert rendering_record(row(7), "id") == Record(
        "id",
        {"prompt": " question 7\n\nOPTIONS:\n- a"},
        "7",
        metadata={"task_name": "rte", "template_type": "zs_opt", "task_source": "Flan2021"},
    )
    assert rendering_record({"inputs": "a"}, "id") == Dropped("inputs or targets are missing")
    assert rendering_record(row(1) | {"targets": "\n"}, "id") == Dropped("empty inputs or targets")


def test_filters(folder):
    assert numbers() == ["0", "1", "2", "3"]
    assert numbers(["zs_opt", "zs_noopt"]) == ["0", "2", "3"]
    assert numbers([], ["cb"]) == ["2", "3"]
    assert numbers(["zs_noopt"], ["cb", "rte"]) == ["3"]
    with pytest.raises(UserError, match="template type"):
        rendering_source("x", ["zs"])


def test_filtered_sources_are_told_apart(folder):
    path = "conceptofmind/flan2021_submix_original"
    sources = [rendering_source(path), rendering_source(path, ["zs_opt"])]
    sources += [rendering_source(path, ["zs_opt"], ["cb"]), rendering_source(path, [], ["cb"])]
    assert len({source.fingerprint(workspace()) for source in sources} - {"absent"}) == 4
