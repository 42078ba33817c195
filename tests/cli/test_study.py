"""`run.py study` as a user runs it: killed, resumed, with a failing run, collected, reported."""

import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from instruct.cli import study as study_mode
from instruct.cli.arguments import main
from tests.cli.studies import write_study
from tests.report.made_up_run import write_run
from tests.waiting import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
EVALUATED = "tasks=0,vocabulary=bytes,TRAIN_STEPS=3"
TRAINED = "tasks=1,vocabulary=bytes,TRAIN_STEPS=3"
FAILING = "tasks=1,vocabulary=gym,TRAIN_STEPS=3"


def flags(folder, *more):
    file, study_dir = write_study(folder), folder / "study"
    return ["study", f"--gin_file={file}", f"--gin.STUDY_DIR={study_dir}", *more]


def grid(folder):
    """The whole study: each of its runs needs weights that the run before the grid trains."""
    return flags(folder, "--gin.ONE_TASK=gym.scale_1")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--dry_run", "--collect"), "--dry_run and --collect exclude each other"),
        (("--gin.STUDY_DIR=gs://bucket/a",), "are started by jobs, see --write_jobs"),
        (("--gin.ONE_TASK=gym.scale_1", "--gin.STUDY_DIR=None"), "STUDY_DIR is not set"),
        (("--workers=0",), "the smallest number allowed is 1"),
        (("--collect",), "study.json is missing"),
        (("--gin.plan.Study.papers=flan_palm.33",), "table of Study.papers 'flan_palm.33'"),
        (("--gin.TRAIN_STEPS=4",), "--only=TRAIN_STEPS=3"),
        (("--gin.VOCABULARY=bytes",), "vocabulary=gym,TRAIN_STEPS=3 have the same settings"),
        (("--gin.STUDY_DIR=run.py",), "is a file; give a folder"),
        (("--gin.PROFILE_STEPS=(20,)",), "TRAIN_STEPS=3: train.profile_steps is (20,)"),
    ],
)
def test_what_cannot_run_is_refused(tmp_path, capsys, more, said):
    given = flags(tmp_path, "--gin.ONE_TASK=gym.scale_1", *more)
    assert main(given) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("system", ["slurm", "xpk", "skypilot"])
def test_jobs_are_written_and_not_started(tmp_path, capsys, system):
    assert main([*grid(tmp_path), f"--write_jobs={system}"]) == 0
    study = tmp_path / "study"
    assert f"{study}/jobs/submit.sh submits them" in capsys.readouterr().out
    lists = [path.read_text() for path in sorted((study / "jobs").glob("wave_*.txt"))]
    assert lists[0] == f"{study}/pretrain/run.gin\ttrain\n"
    assert lists[1].splitlines()[0] == f"{study}/{EVALUATED}/run.gin\teval"
    assert (study / TRAINED / "run.gin").is_file()
    document = json.loads((study / "study.json").read_text())
    assert [run["name"] for run in document["runs"]] == [EVALUATED, TRAINED, FAILING]
    assert document["before"] == ["pretrain"] and len(document["code_sha256"]) == 64
    assert json.loads((study / TRAINED / "study_run.json").read_text())["state"] == "waiting"


def test_a_run_that_stopped_early_is_evaluated_at_its_last_step(tmp_path, monkeypatch):
    none = SimpleNamespace(straight=lambda: SimpleNamespace(leaves=()))
    monkeypatch.setattr(study_mode.registry, "resolve", lambda *_: none)
    write_run(tmp_path, num_tasks=1, eval_steps=(9,))
    planned = SimpleNamespace(steps=30)
    one = SimpleNamespace(planned=planned, workspace=None, suites={"gym.demo_eval": "gym.demo"})
    ended = {"outcome": "stopped early: 2 evaluations did not improve it", "step": 9}
    for info, evaluated in ((ended, True), (ended | {"step": 12}, False), ({}, False)):
        (tmp_path / "run.json").write_text(json.dumps(info))
        assert study_mode._is_evaluated(tmp_path, one) is evaluated


def states(study):
    documents = {p.parent.name: json.loads(p.read_text()) for p in study.glob("*/study_run.json")}
    return {name: document["state"] for name, document in documents.items()}


@pytest.mark.slow(secs=30)
def test_a_killed_study_resumes_reports_a_failing_run_and_is_collected(
    tmp_path, capsys, monkeypatch, forked_python
):
    study = tmp_path / "study"
    monkeypatch.setattr(sys, "executable", str(forked_python))  # of what a study starts
    command = [sys.executable, str(ROOT / "run.py"), *grid(tmp_path), "--workers=2"]
    killed = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        wait_until((study / "pretrain" / "metrics.jsonl").exists, killed)
    finally:
        killed.kill()
        killed.wait()
    # The killed study's child trains on, and holds its run until it has ended.
    assert main([*grid(tmp_path), "--workers=2"]) == 1
    out = capsys.readouterr().out
    assert states(study) == {
        "pretrain": "done",
        EVALUATED: "done",
        TRAINED: "done",
        FAILING: "failed",
    }
    assert f"{FAILING} failed in train: vocabulary 'gym' has" in out
    assert "4 runs: 3 done, 1 failed" in out and f"report: {study}/study.html" in out
    rows = [json.loads(line) for line in (study / "study_results.jsonl").read_text().splitlines()]
    values = {row["run"]: row["value"] for row in rows if row.get("metric") == "accuracy"}
    assert set(values) == {EVALUATED, TRAINED}
    assert {row["group"] for row in rows if row["run"] == EVALUATED} == {"held_in"}
    page = (study / "study.md").read_text()
    assert "vocabulary 'gym' has" in page

    # As if jobs elsewhere had run them: the states come from what lies there.
    for name in (EVALUATED, TRAINED, "pretrain"):
        path = study / name / "study_run.json"
        state = json.loads(path.read_text()) | {"state": "waiting", "finished": []}
        path.write_text(json.dumps(state))
    results = next((study / EVALUATED).glob("eval/*/*/results.jsonl"))
    whole = results.read_text()
    results.write_text("".join(whole.splitlines(keepends=True)[:3]))
    assert main([*grid(tmp_path), "--collect"]) == 1
    assert states(study)[EVALUATED] == "waiting" and states(study)[TRAINED] == "done"
    results.write_text(whole)
    assert main([*grid(tmp_path), "--collect"]) == 1
    assert "4 runs: 3 done, 1 failed" in capsys.readouterr().out

    assert main([*grid(tmp_path), "--write_jobs=slurm"]) == 0
    assert capsys.readouterr().out.startswith("1 runs: ")
    (wave,) = (study / "jobs").glob("wave_*.txt")
    assert wave.read_text() == f"{study / FAILING}/run.gin\ttrain,eval\n"

    # Other settings than those of finished runs.
    assert main([*grid(tmp_path), "--gin.BATCH_SIZE=16", "--only=vocabulary=bytes"]) == 2
    assert f"{TRAINED}: BATCH_SIZE was 8, is 16" in capsys.readouterr().err
