"""What a run's folder says, and what is said where it does not."""

import json

import pytest

from instruct.checkpoints.model_fields import record_of
from instruct.checkpoints.trained_run import TrainedRun
from instruct.errors import UserError
from tests.models.test_decoder_config import GEMMA2_2B


def test_a_run_has_the_model_of_its_class(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"model": record_of(GEMMA2_2B)}))
    assert TrainedRun.read(tmp_path).model() == GEMMA2_2B


def test_both_places_of_a_setting(tmp_path):
    info = {"vocabulary": "gym", "config": {"data.feature_lengths.inputs": 8}}
    (tmp_path / "run.json").write_text(json.dumps(info))
    run = TrainedRun.read(tmp_path)
    assert run.setting("vocabulary") == "gym" and run.tasks() is None
    with pytest.raises(UserError, match=r"runner\.evaluate\.feature_lengths"):
        run.feature_lengths()
    info["config"] |= {"data.feature_lengths.targets": 4, "data.vocabulary": "bytes"}
    (tmp_path / "run.json").write_text(json.dumps({"config": info["config"]}))
    run = TrainedRun.read(tmp_path)
    assert run.feature_lengths() == {"inputs": 8, "targets": 4}
    assert run.setting("vocabulary") == "bytes"


def test_tasks_of_the_run_that_it_started_from_count(tmp_path):
    for name, initial in (("first", None), ("second", str(tmp_path / "first"))):
        (tmp_path / name).mkdir()
        info = {"config": {"initial_checkpoint_path": initial}}
        (tmp_path / name / "run.json").write_text(json.dumps(info))
        mixture = {"leaves": [{"task": f"toy.{name}"}]}
        (tmp_path / name / "mixture.json").write_text(json.dumps(mixture))
    assert TrainedRun.read(tmp_path / "second").tasks() == {"toy.first", "toy.second"}


def test_damaged_files_count_as_missing(tmp_path):
    (tmp_path / "run.json").write_text("[1]")
    (tmp_path / "mixture.json").write_text("{")
    run = TrainedRun.read(tmp_path)
    assert run.tasks() is None
    with pytest.raises(UserError, match="what its model looks like"):
        run.model()
    for content in (b"{", b"\xff", b"[" * 100_000, b"1" * 5000):
        (tmp_path / "run.json").write_bytes(content)
        with pytest.raises(UserError, match="run.json is damaged"):
            TrainedRun.read(tmp_path).setting("vocabulary")
