"""Reading what a run left, whole, partial or damaged."""

import math
import pathlib

import pytest

from instruct import results
from instruct.report import run_files
from tests.report.made_up_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> run_files.Run:
    folder = write_run(tmp_path_factory.mktemp("a") / "run", steps=100, num_tasks=7)
    return run_files.read_run(folder, "run")


def test_a_whole_run(run):
    assert run.suites() == ["gym.demo_eval"]
    assert [e.step for e in run.evaluations] == [1000, 2000]
    latest = run.latest("gym.demo_eval")
    assert latest.step == 2000 and run.latest("other") is None
    assert len(latest.metrics) == 7 and len(latest.others) == 7
    assert {row["metric"] for row in latest.metrics} == {"exact_match"}
    assert run.curve("loss")[0][0] == 1
    assert run.warnings == tuple(w for w in run.warnings if "gym.broken" in w)


def test_samples_are_few_a_task_and_only_of_the_latest_step(run):
    first, latest = run.evaluations
    assert first.samples == ()
    for row in latest.metrics:
        mine = [s for s in latest.samples if s["task"] == row["task"]]
        for correct in (True, False):
            assert sum(s["correct"] is correct for s in mine) <= run_files.SAMPLES_PER_TASK


def test_long_texts_are_cut(monkeypatch, tmp_path):
    monkeypatch.setattr(run_files, "SAMPLE_TEXT_LIMIT", 10)
    write_run(tmp_path, steps=1, num_tasks=2, eval_steps=(1,))
    (evaluation,) = run_files.read_run(tmp_path, "r").evaluations
    prompts = {sample["prompt"] for sample in evaluation.samples}
    assert any(prompt.endswith("more characters)") for prompt in prompts)
    assert max(map(len, prompts)) < 50


def test_damaged_files_are_warnings(tmp_path):
    write_run(tmp_path, steps=20, eval_steps=(1,), num_tasks=2)
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "mixture.json").write_text("[]")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "loss": NaN}\n{"loss": 1}\n{"step": 40, "lo')
    path = tmp_path / "eval" / "gym.demo_eval" / "step_1" / results.FILE_NAME
    path.write_text("nonsense\n")
    read = run_files.read_run(tmp_path, "r")
    text = "\n".join(read.warnings)
    assert "run.json is damaged" in text
    assert "2 damaged line(s)" in text
    assert "loss is not a finite number at step 30." in text
    assert "line 1: not a result" in text
    assert math.isnan(read.curve("loss")[-1][1])
    assert read.evaluations == ()


def test_labels_tell_runs_apart(tmp_path):
    for name in ("x/run", "y/run"):
        (tmp_path / name).mkdir(parents=True)
    paths = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    assert [r.label for r in run_files.read_runs(paths)] == ["x/run", "y/run"]
    assert [r.label for r in run_files.read_runs(paths[:1])] == ["run"]
    twice = run_files.read_runs([paths[0], pathlib.Path(paths[0])])
    assert [r.label for r in twice] == ["run (1)", "run (2)"]
