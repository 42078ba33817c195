"""Runs in child processes: resumed, failing, killed, stopped, side by side, in two studies at once.

The program of these tests is a script that does what a run's "gin" says, in JSON.
"""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from instruct.errors import UserError
from instruct.files import locked
from instruct.study import plan, runner
from tests.waiting import LIMIT_SECS, wait_until

pytestmark = pytest.mark.slow(secs=0.2)  # seconds together

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Notes that it was called, waits for a file if told so or for SIGTERM, and fails if told so.
PROGRAM = """
import json, os, pathlib, signal, sys, time
stage, gin = sys.argv[1], pathlib.Path(sys.argv[2].partition("=")[2])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
order = json.loads(gin.read_text())
with (gin.parent / "calls").open("a") as calls:
    calls.write(stage + "\\n")
print("a line of", stage, flush=True)
(gin.parent / "cores").write_text(json.dumps(sorted(os.sched_getaffinity(0))))
waits = order.get("waits", {}).get(stage)
deadline = time.monotonic() + 600
while waits and not stopped and not pathlib.Path(waits).exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
if stage in order.get("fails", ()):
    print("error: 3 is too many", file=sys.stderr)
    print("a later line")
    sys.exit(2)
if stage == "train":
    outcome = "stopped by SIGTERM" if stopped else "finished"
    (gin.parent / "run.json").write_text(json.dumps({"outcome": outcome}))
    (gin.parent / "metrics.jsonl").write_text('{"step": 3, "loss": 1.25}\\n')
"""
# The study as a process of its own, over the runs of a JSON file.
STUDY = """
import json, pathlib, sys
from tests.study.test_runner import made
from instruct.study import runner
folder = pathlib.Path(sys.argv[1])
runs = [made(**run) for run in json.loads((folder / "runs.json").read_text())]
runner.prepare(folder, runs, "code", False, print)
command = [sys.executable, str(folder / "program.py")]
runner.StudyRunner(folder, runs, command, "code", int(sys.argv[2]), print).run()
"""


def made(name, needs=(), stages=("train", "eval"), **order):
    run = plan.StudyRun(name, {"a": name}, "", tuple(stages), tuple(needs))
    settings = {"SEED": "0", "MODEL_DIR": f"'/s/{name}'"}
    return runner.PlannedRun(run, json.dumps(order), settings, steps=3, flops=1.0)


@pytest.fixture
def study(tmp_path):
    made = Study(tmp_path)
    yield made
    (tmp_path / "go").touch()  # what a test that failed started ends as well
    for process in made.processes:
        process.terminate()


class Study:
    """A STUDY_DIR with the stand-in program."""

    def __init__(self, folder):
        self.folder, self.said = folder, []
        self.processes: list[subprocess.Popen] = []
        (folder / "program.py").write_text(PROGRAM)

    def run(self, *runs, workers=1, **options):
        runner.prepare(self.folder, runs, "code", options.get("force", False), self.said.append)
        command = [sys.executable, str(self.folder / "program.py")]
        study = runner.StudyRunner(self.folder, runs, command, "code", workers, self.said.append)
        return study.run()

    def start(self, *runs, workers=1):
        """The study as a process of its own."""
        (self.folder / "runs.json").write_text(json.dumps(runs))
        process = subprocess.Popen(
            [sys.executable, "-c", STUDY, str(self.folder), str(workers)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def calls(self, name):
        path = self.folder / name / "calls"
        return path.read_text().split() if path.exists() else []

    def state(self, name):
        return runner.read_state(self.folder / name)

    def until(self, happened):
        wait_until(happened)


def test_runs_are_trained_and_evaluated_once(study):
    runs = made("a"), made("b", stages=("eval",))
    states = study.run(*runs)
    assert [state.state for state in states.values()] == ["done", "done"]
    assert study.calls("a") == ["train", "eval"] and study.calls("b") == ["eval"]
    state = json.loads((study.folder / "a" / "study_run.json").read_text())
    assert state["labels"] == {"a": "a"} and state["stage"] == state["error"] == ""
    assert state["seconds"] > 0 and state["finished"] == ["train", "eval"]
    log = (study.folder / "a" / "output.log").read_text()
    assert "a line of train" in log and "a line of eval" in log
    study.run(*runs)
    assert study.calls("a") == ["train", "eval"], "a finished run does not run again"


def test_a_failing_run_is_recorded_the_rest_go_on_and_the_same_command_tries_it_again(study):
    others = made("b"), made("c", needs=["a"]), made("d", needs=["b"])
    states = study.run(made("a", fails=["train"]), *others)
    assert [state.state for state in states.values()] == ["failed", "done", "failed", "done"]
    assert states["a"].stage == "train" and states["a"].error == "3 is too many"
    assert states["c"].error == "a, which it starts from, is not done"
    assert any("a failed in train: 3 is too many" in line for line in study.said)
    states = study.run(made("a"), *others)
    assert [state.state for state in states.values()] == ["done"] * 4
    assert study.calls("a") == ["train", "train", "eval"]


def test_a_failed_evaluation_does_not_train_again(study):
    assert study.run(made("a", fails=["eval"]))["a"].stage == "eval"
    assert study.run(made("a"))["a"].state == "done"
    assert study.calls("a") == ["train", "eval", "eval"]


def test_two_workers_run_side_by_side(study, monkeypatch):
    """Each run waits until the other has started."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    runs = [
        made(name, waits={"train": str(study.folder / other / "calls")})
        for name, other in (("a", "b"), ("b", "a"))
    ]
    states = study.run(*runs, workers=2)
    assert [state.state for state in states.values()] == ["done", "done"]
    a, b = (json.loads((study.folder / name / "cores").read_text()) for name in "ab")
    cores = sorted(os.sched_getaffinity(0))
    assert (sorted(a + b) if len(cores) > 1 else a) == cores  # a share each, if there are two


def test_a_run_that_no_other_can_run_beside_gets_all_cores(study, monkeypatch):
    """The first run, which all others need, and the last, which needs all others. See `_alone`."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    all_cores = sorted(os.sched_getaffinity(0))

    def cores(name):
        return json.loads((study.folder / name / "cores").read_text())

    before = made("before", stages=("train",))
    runs = [made(name, needs=["before"]) for name in "abc"]
    states = study.run(before, *runs, made("after", needs=["a", "b", "c"]), workers=2)
    assert {state.state for state in states.values()} == {"done"}
    assert cores("before") == cores("after") == all_cores
    if len(all_cores) > 1:
        assert all(len(cores(name)) < len(all_cores) for name in "abc")
    study.run(made("one"), workers=2)
    assert cores("one") == all_cores


def test_more_workers_than_runs_leave_no_core_unused(study, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    runs = [
        made(name, waits={"train": str(study.folder / other / "calls")})
        for name, other in (("a", "b"), ("b", "a"))
    ]
    study.run(*runs, workers=1000)
    a, b = (json.loads((study.folder / name / "cores").read_text()) for name in "ab")
    all_cores = sorted(os.sched_getaffinity(0))
    assert (sorted(a + b) if len(all_cores) > 1 else a) == all_cores


def test_a_signal_lets_the_runs_save_and_the_same_command_resumes(study):
    go = study.folder / "go"
    runs = [{"name": "a", "waits": {"train": str(go)}}, {"name": "b"}]
    process = study.start(*runs)
    study.until(lambda: study.calls("a"))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=LIMIT_SECS)
    assert process.returncode == 0 and "a: stopped; the same command resumes it" in output
    assert study.state("a").state == study.state("b").state == "waiting"
    assert study.state("a").stage == "train" and study.calls("b") == []
    go.touch()
    states = study.run(*(made(**run) for run in runs))
    assert [state.state for state in states.values()] == ["done", "done"]
    assert study.calls("a") == ["train", "train", "eval"]


def test_a_killed_study_s_child_keeps_its_run_until_it_has_ended(study):
    go = study.folder / "go"
    runs = [{"name": "a", "waits": {"train": str(go)}}, {"name": "b"}]
    killed = study.start(*runs)
    study.until(lambda: study.calls("a"))
    killed.kill()
    killed.communicate()
    assert study.state("a").state == "running"
    again = study.start(*runs)
    study.until(lambda: study.state("b").state == "done")
    assert study.calls("a") == ["train"], "the first child still holds the run"
    go.touch()
    output, _ = again.communicate(timeout=LIMIT_SECS)
    assert again.returncode == 0 and "a is run by another process; it is waited for" in output
    assert study.state("a").state == "done" and study.calls("a") == ["train", "train", "eval"]


def test_two_studies_in_one_folder_share_the_runs(study):
    runs = [{"name": name} for name in "abcd"]
    both = [study.start(*runs) for _ in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=LIMIT_SECS)
        assert process.returncode == 0, output
    assert [study.calls(name) for name in "abcd"] == [["train", "eval"]] * 4


def test_a_run_that_another_study_finished_meanwhile_stays_done(study, monkeypatch):
    """Another study begins and ends between this one's look at the run and its start."""
    read = runner.read_state

    def read_before_the_other(folder):
        state = read(folder)
        monkeypatch.setattr(runner, "read_state", read)
        study.run(made("a"))
        return state

    monkeypatch.setattr(runner, "read_state", read_before_the_other)
    assert study.run(made("a"))["a"].state == "done"
    assert study.calls("a") == ["train", "eval"]


def test_a_training_that_others_stopped_is_not_evaluated(study):
    """`train` ends with status 0 after a SIGTERM; run.json says that it is not finished."""
    (study.folder / "program.py").write_text(PROGRAM.replace('else "finished"', 'else "stopped"'))
    state = study.run(made("a"))["a"]
    assert state.state == "failed" and state.error == "it was stopped before its last step"


def test_a_killed_child_says_the_signal_and_its_last_line(study):
    text = PROGRAM + "import os; os.kill(os.getpid(), signal.SIGKILL)\n"
    (study.folder / "program.py").write_text(text)
    error = study.run(made("a"))["a"].error
    assert error == "killed by SIGKILL; its last line: a line of train"


def with_settings(planned, **settings):
    return dataclasses.replace(planned, settings={**planned.settings, **settings})


def test_changed_settings_of_finished_runs_are_refused_with_both_values(study):
    study.run(made("a"))
    changed = with_settings(made("a"), SEED="1", STORE_DIR="'/other'")
    with pytest.raises(UserError) as error:
        study.run(changed)
    assert "a: SEED was 0, is 1" in str(error.value) and "STORE_DIR" not in str(error.value)
    faster = {"STORE_DIR": "'/other'", "config.ModelConfig.remat": "'full'"}
    faster |= {"mesh.MeshConfig.fsdp": "8", "EVAL_BATCH_SIZE": "8"}
    assert study.run(with_settings(made("a"), **faster))["a"].state == "done"


def test_forced_runs_are_moved_aside_with_those_that_start_from_them(study):
    study.run(made("a"), made("b", needs=["a"]), made("c"))
    runs = with_settings(made("a"), SEED="1"), made("b", needs=["a"]), made("c")
    study.run(*runs, force=True)
    assert study.calls("a") == study.calls("b") == study.calls("c") == ["train", "eval"]
    replaced = sorted(path.name for path in (study.folder / "replaced").iterdir())
    assert replaced == ["a.1", "b.1"]
    assert study.state("a").settings["SEED"] == "1"


def test_a_forced_run_takes_runs_that_start_from_it_along_though_they_are_not_asked_for(study):
    other = made("b", needs=["a"])
    study.run(made("a"), other, made("c"))
    changed = with_settings(made("a"), SEED="1")
    others = [other.run, made("c").run, made("new", needs=["a"]).run]
    runner.prepare(study.folder, [changed], "code", True, study.said.append, others)
    assert sorted(path.name for path in (study.folder / "replaced").iterdir()) == ["a.1", "b.1"]
    assert "b: a is trained again; moved to replaced/, to be run again" in study.said
    assert study.state("c").state == "done"


def test_an_unfinished_run_resumes_with_changed_settings_from_its_first_stage(study):
    study.run(made("a", fails=["eval"]))
    study.run(with_settings(made("a"), SEED="1"))
    assert study.calls("a") == ["train", "eval", "train", "eval"]
    assert "a resumes with new settings: SEED was 0, is 1" in study.said


def test_a_study_that_was_moved_has_the_same_settings(study):
    inside = with_settings(made("a"), INITIAL_CHECKPOINT_PATH=f"'{study.folder}/b'")
    study.run(inside)
    assert study.state("a").settings["INITIAL_CHECKPOINT_PATH"] == "'STUDY_DIR/b'"


def test_a_folder_beside_the_study_is_not_the_study_s():
    """It does not move with the study, though its path begins, or ends, with that of the study."""
    before, moved = pathlib.Path("/x/study"), pathlib.Path("/y/study")
    paths = {"A": "'/x/study_2/m'", "B": "'/data/x/study/m'", "C": "('/x/study/m', '/x/study')"}
    recorded = runner._portable(paths, before)
    assert recorded == paths | {"C": "('STUDY_DIR/m', 'STUDY_DIR')"}

    def changed(recorded, **settings):
        return runner.changed_settings(recorded, with_settings(made("a"), **settings), moved)

    own = {"SEED": "0", "MODEL_DIR": "'STUDY_DIR/a'"}
    assert changed(own | {"A": recorded["A"]}, A="'/x/study_2/m'") == []
    other = "A was '/x/study_2/m', is '/y/study_2/m'"
    assert changed(own | {"A": recorded["A"]}, A="'/y/study_2/m'") == [other]
    # An earlier version's record.
    assert changed(own | {"A": "'STUDY_DIR_2/m'"}, A="'/y/study_2/m'") == []


def test_runs_by_other_code_are_told(study):
    study.run(made("a"))
    runner.prepare(study.folder, [made("a")], "other", False, study.said.append)
    assert any("other code than this made 1 of the finished runs" in line for line in study.said)


def test_stages_that_jobs_finished_are_recorded(study):
    runs = [made("a"), made("b"), made("c")]
    runner.prepare(study.folder, runs, "code", False, study.said.append)
    for name, finished in (("a", ("train", "eval")), ("b", ("train",)), ("c", ())):
        runner.record_left(study.folder / name, ("train", "eval"), finished)
    assert [study.state(name).state for name in "abc"] == ["done", "waiting", "waiting"]
    assert study.state("b").stage == "eval"
    study.run(*runs)
    assert [study.calls(name) for name in "abc"] == [[], ["eval"], ["train", "eval"]]


def test_a_job_whose_training_failed_is_a_failed_run_until_it_runs_again(study):
    runs = [made("a")]
    runner.prepare(study.folder, runs, "code", False, study.said.append)
    record = study.folder / "a" / "run.json"

    def left(outcome):
        record.write_text(json.dumps({"outcome": outcome}))
        runner.record_left(study.folder / "a", ("train", "eval"), ())
        return study.state("a").state

    assert [left(outcome) for outcome in (None, "failed", None)] == ["waiting", "failed", "waiting"]
    left("failed")
    assert "output of its job" in study.state("a").error and study.state("a").stage == "train"
    runner.record_left(study.folder / "a", ("train", "eval"), ("train", "eval"))
    assert (study.state("a").state, study.state("a").error) == ("done", "")


def test_progress_says_step_loss_and_what_is_left(study, monkeypatch):
    monkeypatch.setattr(runner, "_PROGRESS_SECS", 0.0)

    class Said(list):
        """Lets the first run go on once its start is said, however late that is."""

        def append(self, line):
            super().append(line)
            if "a: train, starting" in line:
                (study.folder / "go").touch()

    study.said = Said()
    waits = {"train": str(study.folder / "go")}
    study.run(made("a", waits=waits), made("b", stages=("train",)))
    assert any("a: train, starting" in line for line in study.said)
    left = re.compile(
        r"1 of 2 runs done; \d:\d\d:\d\d left, if the others need as long for each FLOP"
    )
    assert any(left.fullmatch(line) for line in study.said)
    assert runner.duration(3723.4) == "1:02:03"


def test_a_missing_or_damaged_state_is_a_waiting_run(tmp_path):
    assert runner.read_state(tmp_path) == runner.RunState()
    (tmp_path / "study_run.json").write_text("{")
    assert runner.read_state(tmp_path).state == "waiting"


@pytest.mark.parametrize(
    "fields",
    [{"finished": None}, {"finished": 5}, {"labels": None}, {"seconds": "1"}, {"state": "odd"}],
)
def test_a_state_of_other_types_is_a_waiting_run(fields, tmp_path):
    (tmp_path / "study_run.json").write_text(json.dumps({"stage": "eval"} | fields))
    assert runner.read_state(tmp_path) == runner.RunState()


def test_a_run_whose_processes_were_killed_is_not_collected_as_running(study):
    runner.prepare(study.folder, [made("a")], "code", False, study.said.append)
    folder = study.folder / "a"
    state = dataclasses.replace(runner.read_state(folder), state="running", stage="train")
    runner.write_state(folder, state)
    (folder / "output.log").touch()
    with locked(folder / "output.log", "a"):  # a process has the run
        runner.record_left(folder, ("train", "eval"), ())
        assert study.state("a").state == "running"
    runner.record_left(folder, ("train", "eval"), ())
    assert study.state("a").state == "waiting"
