"""What a model was trained on, through the runs that its checkpoints came from."""

import json

import pytest

from instruct.json_text import sealed
from instruct.lineage import initial_path, read_lineage, run_folder, unrecorded


def write_run(folder, tasks, initial=None):
    folder.mkdir(parents=True)
    config = {"data.mixture": "m", "initial_checkpoint_path": None if initial is None else initial}
    (folder / "run.json").write_text(json.dumps({"config": config}))
    if tasks is not None:
        (folder / "mixture.json").write_text(json.dumps({"leaves": [{"task": t} for t in tasks]}))
    return folder


def test_a_changed_name_of_a_task_is_damage(tmp_path, caplog):
    folder = write_run(tmp_path / "run", ["a", "b"])
    path = folder / "mixture.json"
    path.write_text(json.dumps(sealed(json.loads(path.read_text()))))
    assert read_lineage(folder).tasks == {"a", "b"}
    path.write_text(path.read_text().replace('"b"', '"c"'))
    assert read_lineage(folder).tasks is None and "mixture.json is damaged" in caplog.text


def test_every_run_of_the_chain_counts(tmp_path):
    first = write_run(tmp_path / "first", ["a", "b"])
    step = first / "checkpoints" / "40"
    step.mkdir(parents=True)
    second = write_run(tmp_path / "second", ["c"], str(step))
    third = write_run(tmp_path / "third", ["d"], str(second))
    assert read_lineage(first).tasks == {"a", "b"} and read_lineage(first).unknown == ""
    for place in (third, third / "checkpoints", third / "checkpoints" / "5"):
        assert read_lineage(place).tasks == {"a", "b", "c", "d"}
    assert read_lineage(third).unknown == ""


def test_relative_paths_are_found_from_another_folder(tmp_path, monkeypatch):
    write_run(tmp_path / "runs" / "first", ["a"])
    second = write_run(tmp_path / "runs" / "second", ["b"], "runs/first")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_lineage(second).tasks == {"a", "b"}
    assert initial_path("runs/first", second) == str(tmp_path / "runs" / "first")
    assert initial_path("runs/none", second) == "runs/none"


@pytest.mark.parametrize("initial", ["gs://bucket/checkpoint_5", "/nowhere/t5", "{tmp}/no_mixture"])
def test_where_the_records_end_is_said(tmp_path, initial):
    write_run(tmp_path / "no_mixture", None)
    initial = initial.format(tmp=tmp_path)
    lineage = read_lineage(write_run(tmp_path / "run", ["a"], initial))
    assert lineage.tasks == {"a"} and lineage.unknown == initial
    assert f"initial checkpoint {initial} was trained on is not recorded" in unrecorded(lineage)


def test_a_model_without_records(tmp_path):
    lineage = read_lineage(tmp_path)
    assert lineage.tasks is None and "tasks have no group" in unrecorded(lineage)
    # A folder inside a run is no checkpoint of it.
    inside = write_run(tmp_path / "run", ["a"]) / "other"
    inside.mkdir()
    assert run_folder(inside) is None


def test_a_circle_ends(tmp_path):
    first = write_run(tmp_path / "first", ["a"], str(tmp_path / "second"))
    write_run(tmp_path / "second", ["b"], str(first))
    assert read_lineage(first).tasks == {"a", "b"}
