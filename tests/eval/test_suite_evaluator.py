"""Suites while training: the numbers of `run.py eval` on that checkpoint with the same examples."""

import dataclasses
import functools
import json
import pathlib

import jax
import pytest

from instruct import results
from instruct.checkpoints.checkpoint import CheckpointConfig
from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.eval_config import SuitesConfig
from instruct.eval.runner import evaluate
from instruct.eval.suite_evaluator import SuiteEvaluator, chosen_samples, scalars_of
from instruct.mesh import MeshConfig
from instruct.train import inputs, loop
from instruct.train.early_stopping import EarlyStopping
from instruct.train.lora import LoraConfig
from instruct.train.optimizer import OptimizerConfig
from instruct.train.trackers import Tracker
from tests.data.toy import toy_config
from tests.eval import toy_tasks
from tests.train.batches import tiny_config
from tests.train.stand_in import ONE_LAYER, arguments
from tests.workspaces import workspace

MESH = MeshConfig(data=4, tensor=2)
MODEL = tiny_config(vocab_size=384, **ONE_LAYER)
DATA = toy_config("evalsuite.trained")
DECODE, BATCHING = DecodeConfig(max_decode_steps=4), BatchConfig(8, 1)
SUITES = ["evalsuite.trained.zs_noopt", "evalsuite.new"]
CONFIG = SuitesConfig(
    3, SUITES, ("test",), num_examples=4, bootstrap_samples=20, decode=DECODE, batching=BATCHING
)
METRIC = "eval/evalsuite.new.zs_noopt/f1"


class Recorder(Tracker):
    """Keeps what it is given, and the number of an evaluator's programs at each table."""

    def __init__(self, evaluator):
        self.calls, self.programs, self._evaluator = [], [], evaluator

    def scalars(self, step, values):
        self.calls.append((step, dict(values)))

    def table(self, name, rows):
        self.calls.append((name, list(rows)))
        run = self._evaluator._models.decoder._programs.run.__wrapped__
        self.programs.append(run._cache_size())


def suites(config=CONFIG):
    return SuiteEvaluator(config, MODEL, DATA, MESH, workspace())


def train(folder, steps, config=CONFIG, **changes):
    settings = {
        "model": MODEL,
        "data": DATA,
        "mesh": MESH,
        "lora": LoraConfig(rank=2),
        "checkpoint": CheckpointConfig(save_every_steps=3, best_metric=METRIC),
        "evaluators": [suites(config)],
        "optimizer": OptimizerConfig(name="adamw", learning_rate=0.05),
        "log_every_steps": 2,
        "open_inputs": functools.partial(inputs.open_inputs, workspace=workspace()),
    }
    loop.train(**arguments(folder, steps, **settings | changes))


@pytest.fixture(autouse=True, scope="module")
def quick(tmp_path_factory):
    """Stores and compiled programs for all tests of this module, and a given peak."""
    cache = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    earlier = [getattr(jax.config, name) for name in cache]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUCT_STORE_DIR", str(tmp_path_factory.mktemp("stores")))
        patch.setattr(loop.peak, "matmul_peak", lambda *_: 1e11)
        for name, value in zip(cache, (str(tmp_path_factory.mktemp("cache")), 0.0)):
            jax.config.update(name, value)
        toy_tasks.register()
        yield
    for name, value in zip(cache, earlier):
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, tracker) of six steps with adapters on eight fake devices."""
    folder, evaluator = tmp_path_factory.mktemp("runs") / "whole", suites()
    tracker = Recorder(evaluator)
    train(folder, 6, evaluators=[evaluator], trackers=[tracker])
    return folder, tracker


def path_of(folder: pathlib.Path, suite: str, step: int) -> pathlib.Path:
    return folder / "eval" / suite / f"step_{step}" / results.FILE_NAME


def lines(path: pathlib.Path) -> list[dict]:
    """Examples and metrics, without the name of the suite."""
    return [row | {"suite": ""} for row in results.read_rows(path, ("example", "metric"))]


def logged(folder: pathlib.Path) -> dict[int, dict[str, float]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {
        row["step"]: {n: v for n, v in row.items() if n.startswith("eval/evals")} for row in rows
    }


@pytest.mark.slow
def test_numbers_are_those_of_an_evaluation_of_the_checkpoint(trained):
    folder, _ = trained
    config = dataclasses.replace(CONFIG.evaluation(), checkpoints=(3, 6))
    settings = {"decode": DECODE, "batching": BATCHING, "mesh": MESH}
    assert evaluate(str(folder), config, **settings, workspace=workspace()) == 0
    for suite in SUITES:
        for step in (3, 6):
            mine = lines(path_of(folder, results.training_suite(suite), step))
            assert mine == lines(path_of(folder, suite, step)) and len(mine) > 4


@pytest.mark.slow
def test_scalars_and_tables_come_with_their_step(trained):
    folder, tracker = trained
    found = logged(folder)
    tasks = ("evalsuite.trained.zs_noopt", "evalsuite.new.zs_noopt")
    names = {f"eval/{task}/{metric}" for task in tasks for metric in ("exact_match", "em", "f1")}
    assert set(found[3]) == set(found[6]) == names
    assert found[2] == found[4] == {}
    at = tracker.calls.index(next(call for call in tracker.calls if call[0] == 3))
    (_, metrics), (_, samples) = tracker.calls[at + 1 : at + 3]
    assert [name for name, _ in tracker.calls[at + 1 : at + 3]] == ["eval/metrics", "eval/samples"]
    line = next(row for row in metrics if row["metric"] == "f1")
    assert line["value"] == found[3]["eval/evalsuite.trained.zs_noopt/f1"] and line["n"] == 4
    assert line["step"] == 3 and line["suite"] == "training-evalsuite.trained.zs_noopt"
    assert len(samples) == 8 and {"prompt", "target", "prediction"} < set(samples[0])


@pytest.mark.slow
def test_programs_are_compiled_once(trained):
    _, tracker = trained
    first, *later = tracker.programs[-4:]  # two tables each time
    assert first > 0 and set(later) == {first}


@pytest.mark.slow
def test_a_resumed_run_evaluates_the_same_and_stops_at_the_same_step(trained, tmp_path, capsys):
    whole, _ = trained
    train(tmp_path / "cut", 3)
    stale = path_of(tmp_path / "cut", "training-evalsuite.new", 5)
    stale.parent.mkdir()
    stale.write_text("of a step that the run is to compute again")
    capsys.readouterr()
    never_better = EarlyStopping(patience=2, min_change=1000.0)
    for _ in range(2):
        train(tmp_path / "cut", 30, early_stopping=never_better)
    assert logged(tmp_path / "cut")[6] == logged(whole)[6] and not stale.exists()
    for suite in map(results.training_suite, SUITES):
        files = (path_of(folder, suite, 6) for folder in (whole, tmp_path / "cut"))
        first, second = (
            [row | {"checkpoint": ""} for row in results.read_rows(file)] for file in files
        )
        assert first == second
    said = " ".join(capsys.readouterr().err.split())
    why = f"2 evaluations did not improve {METRIC} by more than 1000 since step 3"
    assert f"stopped early at step 9: {why}" in said
    assert f"is already at step 9; stopped early: {why}" in said and "Raise EARLY_STOP" in said
    info = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert info["outcome"].startswith("stopped early: 2 evaluations") and info["step"] == 9
    assert info["early_stopping"]["metric"] == METRIC
    assert f"best by {METRIC}" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": CheckpointConfig(best_metric=f"{METRIC}9")}, f"{METRIC}9.*{METRIC}"),
        ({"early_stopping": EarlyStopping(1, metric="eval/loss")}, "EarlyStopping.metric.*eval/"),
        ({"config": dataclasses.replace(CONFIG, mixtures="evalsuite.nw")}, r"evalsuite\.new"),
        (
            {"config": dataclasses.replace(CONFIG, mixtures="evalplain_train_only")},
            "1 tasks of EVAL_SUITES cannot be evaluated:\n  evalplain_train_only.*none of the spl",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_named_before_the_first_step(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train(tmp_path, 6, **changes)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_misspelt_suite_is_refused_before_anything_is_opened():
    with pytest.raises(UserError, match=r"evalsuite\.nw"):
        suites(dataclasses.replace(CONFIG, mixtures=["evalsuite.new", "evalsuite.nw"]))


def metric(task, name, value, mode="zs"):
    shared = {"kind": "metric", "suite": "training-s", "step": 1, "task": task, "mode": mode}
    more = {"family": "f", "category": task, "stderr": None, "n": 4, "baseline": None}
    return shared | more | {"metric": name, "value": value}


def test_a_suite_of_several_tasks_has_a_mean_of_its_primary_metrics():
    rows = [metric("a", "em", 10.0), metric("a", "f1", 90.0), metric("b", "em", 30.0, "")]
    assert scalars_of(rows, "s") == {
        "eval/a.zs/em": 10.0,
        "eval/a.zs/f1": 90.0,
        "eval/b/em": 30.0,
        "eval/s/mean": 20.0,
    }
    assert scalars_of(rows[:2], "s") == {"eval/a.zs/em": 10.0, "eval/a.zs/f1": 90.0}
    assert scalars_of([metric("a", "em", None)], "s") == {}
    assert "eval/s/mean" not in scalars_of([*rows, {"kind": "failure"}], "s")
    # A correlation of constant predictions is no number: the mean would be that of other tasks.
    assert "eval/s/mean" not in scalars_of([*rows, metric("c", "pearson", None)], "s")


def test_samples_are_of_all_tasks_in_turn():
    rows = [{"kind": "example", "task": t, "mode": "", "index": n} for t in "ab" for n in range(3)]
    picked = [(row["task"], row["index"]) for row in chosen_samples(rows, 3)]
    assert picked == [("a", 0), ("b", 0), ("a", 1)]
    assert len(chosen_samples(rows, 9)) == 6 and chosen_samples([], 3) == []


def test_settings_without_suites_are_refused():
    assert SuitesConfig().every_steps is None
    with pytest.raises(UserError, match=r"EVAL_SUITES names no mixture.*EVAL_SUITES=gym"):
        SuitesConfig(3)
    with pytest.raises(UserError, match="num_examples is 0"):
        SuitesConfig(3, "a", num_examples=0)
