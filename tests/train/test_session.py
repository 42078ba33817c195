"""run.json over several sessions, the comparison of configurations, files replaced whole."""

import dataclasses
import json
import subprocess

import pytest

from instruct.errors import UserError
from instruct.files import path_of
from instruct.mesh import MeshConfig, make_mesh
from instruct.train import session
from instruct.train.loss import LossConfig
from tests.train.batches import tiny_config, tiny_decoder
from tests.train.stand_in import DATA


def config(**changes):
    parts = {"model": tiny_config(), "data": DATA, "loss": LossConfig(), "seed": 0}
    return session.results_config(**(parts | changes))


def info():
    return session.run_info(tiny_config(), make_mesh(MeshConfig()), 2e11)


def test_results_config_is_flat_json_without_what_only_changes_speed():
    flat = config()
    assert flat["data.feature_lengths.inputs"] == 12 and flat["seed"] == 0
    assert "model.remat" not in flat and "data.workers" not in flat
    assert json.loads(json.dumps(flat)) == flat
    assert flat == config(
        model=tiny_config(remat="full", scan_layers=True),
        data=dataclasses.replace(DATA, workers=2),
        loss=LossConfig(chunk_logits=5),
    )


def test_changes_are_named(tmp_path):
    session.check_same_run(tmp_path, config())  # nothing known: nothing to compare
    session.start_run(tmp_path, info() | {"config": config()}, 0)
    session.check_same_run(tmp_path, config())
    with pytest.raises(UserError, match=r"loss.z_loss: 0.0001 there, 0.0 now; seed: 0 there, 1"):
        session.check_same_run(tmp_path, config(loss=LossConfig(z_loss=0.0), seed=1))
    missing = {k: v for k, v in config().items() if k != "seed"}
    with pytest.raises(UserError, match=r"seed: 0 there, '\(not set\)' now"):
        session.check_same_run(tmp_path, missing)


def test_a_run_of_an_earlier_version_goes_on_with_what_it_computed(tmp_path):
    then = ("relpos_per_layer", "lanes", "layout", "loss_on", "separator", "chat_template")
    earlier = {k: v for k, v in config().items() if k.rpartition(".")[2] not in then}
    assert len(earlier) == len(config()) - len(then)
    session.start_run(tmp_path, info() | {"config": earlier}, 0)
    session.check_same_run(tmp_path, config())
    with pytest.raises(UserError, match=r"model.relpos_per_layer: False there, True now"):
        session.check_same_run(tmp_path, config(model=tiny_config(relpos_per_layer=True)))


def test_a_decoder_has_fields_of_its_own(tmp_path):
    decoder = config(model=tiny_decoder())
    session.start_run(tmp_path, info() | {"config": decoder}, 0)
    session.check_same_run(tmp_path, decoder)


def test_sessions_add_up(tmp_path):
    session.start_run(tmp_path, info() | {"start": "monday"}, 0)
    session.end_run(tmp_path, 5, "stopped by SIGTERM")
    session.start_run(tmp_path, info() | {"start": "tuesday"}, 5)
    session.end_run(tmp_path, 9, "finished")
    found = session.read_run_info(tmp_path)
    assert found["start"] == "monday" and found["outcome"] == "finished" and found["step"] == 9
    assert [(s["start"], s["from_step"], s["outcome"]) for s in found["sessions"]] == [
        ("monday", 0, "stopped by SIGTERM"),
        ("tuesday", 5, "finished"),
    ]
    assert found["num_params"] == tiny_config().num_params()
    assert found["matmul_peak_gflops"] == 200.0 and found["device"].endswith("cpu")


def test_damaged_run_file_counts_as_none(tmp_path):
    (tmp_path / "run.json").write_text("{")
    assert session.read_run_info(tmp_path) == {}


def test_a_changed_configuration_is_restored_and_other_fields_stay(tmp_path):
    recorded, said = {"config": {"seed": 0}, "start": "then"}, []
    session.write_json(tmp_path / "run.json", {"config": {"seed": 0}, "outcome": "failed"})
    session.restore_run_file(tmp_path, recorded, said.append)
    assert session.read_run_info(tmp_path)["outcome"] == "failed" and not said
    session.write_json(tmp_path / "run.json", {"config": {"seed": 4}})
    session.restore_run_file(tmp_path, recorded, said.append)
    assert session.read_run_info(tmp_path) == recorded
    assert "run.json was changed after training; it is restored" in said[0]


def test_a_run_killed_after_its_last_checkpoint_has_finished(tmp_path):
    session.write_json(tmp_path / "run.json", {"sessions": [{"from_step": 0}]})
    session.end_killed_run(tmp_path, 8)
    session.end_killed_run(tmp_path, 9)  # it has ended already
    info = session.read_run_info(tmp_path)
    assert (info["outcome"], info["step"], info["sessions"][0]["step"]) == ("finished", 8, 8)


def test_leftovers_of_killed_writers_go(tmp_path):
    left = tmp_path / ".run.json.0123456789ab.tmp"
    # A report may be written while training starts.
    others = (tmp_path / ".report.html.0123456789ab.tmp", tmp_path / "run.json")
    for path in (left, *others):
        path.touch()
    with session.open_model_dir(str(tmp_path)):
        assert sorted(tmp_path.iterdir()) == sorted(others)


def test_without_git_the_commit_is_unknown(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert info()["commit"] is None and info()["commit_dirty"] is None


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    session.write_json(path, {"a": [1]})
    session.write_json(path, {"a": [2]})
    assert json.loads(path.read_text()) == {"a": [2]}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_file_in_a_bucket_is_replaced_now_and_then_and_at_the_end(gcs):
    mixture = session.JsonFile(path_of("gs://bucket/runs/a/mixture.json"))
    for number in range(3):
        mixture.write({"a": number})
    assert json.loads(gcs.content("runs/a/mixture.json")) == {"a": 0}
    mixture.close()
    assert json.loads(gcs.content("runs/a/mixture.json")) == {"a": 2} and gcs.requests["POST"] == 2


def test_model_dir_is_made(tmp_path):
    with session.open_model_dir(str(tmp_path / "a" / "b")) as folder:
        assert folder.is_dir() and not list(folder.iterdir())


def test_two_trainings_in_one_folder(tmp_path):
    with session.open_model_dir(str(tmp_path / "run")) as folder:
        again = pytest.raises(UserError, match=r"MODEL_DIR .*run' is being written by another")
        with again, session.open_model_dir(str(folder)):
            raise AssertionError("two have it")
    with session.open_model_dir(str(folder)):
        assert not list(folder.iterdir())


@pytest.mark.parametrize("path", ["gs://", "s3://bucket/a", "hdfs://host/a", "", "file/below"])
def test_places_that_are_no_model_dir(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="MODEL_DIR"), session.open_model_dir(path):
        raise AssertionError("opened")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
