"""Job scripts of a study, run here with stand-ins for SLURM, XPK and SkyPilot."""

import json
import re
import signal
import subprocess

import pytest
import yaml

from instruct.study import jobs, plan, runner
from tests.test_launch import FAKE_COMMAND, FAKE_PYTHON, LAUNCH, ROOT, SKYPILOT_FIELDS, Machine
from tests.waiting import LIMIT_SECS, wait_until


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    made.add("sky", FAKE_COMMAND)
    made.add("sbatch", FAKE_COMMAND + 'print("77;cluster")\n')
    yield made
    made.end_programs()


def planned(name, needs=(), stages=("train", "eval")):
    return runner.PlannedRun(plan.StudyRun(name, {}, "", tuple(stages), tuple(needs)), "", {})


RUNS = [
    planned("words", stages=("train",)),
    planned("pretrain", ["words"], ("train",)),
    planned("tasks=0,SEED=0", ["pretrain"], ("eval",)),
    planned("tasks=8,SEED=0", ["pretrain"]),
    planned("alone"),
]


def test_waves_are_runs_that_do_not_wait_for_each_other():
    names = [[run.name for run in wave] for wave in jobs.waves_of(RUNS)]
    assert names == [["words", "alone"], ["pretrain"], ["tasks=0,SEED=0", "tasks=8,SEED=0"]]
    names = [[run.name for run in wave] for wave in jobs.waves_of(RUNS[2:])]
    assert names == [["tasks=0,SEED=0", "tasks=8,SEED=0", "alone"]], "what they need is done"


@pytest.fixture(params=["study", "my study"])
def study_dir(tmp_path, request):
    folder = tmp_path / request.param
    folder.mkdir()
    return folder


def submit(machine, study_dir, system, *arguments, **variables):
    said = jobs.write_jobs(study_dir, RUNS, system)
    script = study_dir / "jobs" / "submit.sh"
    assert str(script) in said and "--collect" in said
    done = machine.run("bash", str(script), *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return machine.lines("calls")


def test_slurm_submits_an_array_a_wave_each_after_the_one_before(machine, study_dir):
    calls = submit(machine, study_dir, "slurm", "--partition=gpu")
    assert [call[0] for call in calls] == ["sbatch"] * 3
    assert [call[2] for call in calls] == ["--array=0-1", "--array=0-0", "--array=0-1"]
    assert "--dependency=afterok:77" not in calls[0] and "--dependency=afterok:77" in calls[1]
    assert all("--partition=gpu" in call for call in calls)
    assert calls[2][-2:] == ["launch/study.sbatch", str(list_of_wave(study_dir, 2))]


def list_of_wave(study_dir, wave):
    (path,) = (study_dir / "jobs").glob(f"wave_{wave}-*.txt")
    return path


def array_job(machine, study_dir, index):
    """The array job of a run, as SLURM starts it."""
    machine.environment |= {
        "SLURM_JOB_ID": "4242",
        "SLURM_ARRAY_TASK_ID": str(index),
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_CPUS_ON_NODE": "16",
    }
    return ["bash", str(LAUNCH / "study.sbatch"), str(list_of_wave(study_dir, 2))]


def test_a_job_of_the_array_starts_the_stages_of_its_run(machine, study_dir):
    jobs.write_jobs(study_dir, RUNS, "slurm")
    done = machine.run(*array_job(machine, study_dir, 1))
    assert done.returncode == 0, done.stderr
    gin = f"--gin_file={study_dir}/tasks=8,SEED=0/run.gin"
    started = [line["argv"] for line in machine.lines("record")]
    assert started == [["run.py", "train", gin], ["run.py", "eval", gin]]


def test_queued_jobs_keep_their_runs_when_jobs_are_written_again(machine, study_dir):
    """A job of an array reads its line when it starts, perhaps after runs of its wave are done."""
    jobs.write_jobs(study_dir, RUNS, "slurm")
    command = array_job(machine, study_dir, 1)
    jobs.write_jobs(study_dir, [RUNS[3]], "slurm")
    assert machine.run(*command).returncode == 0
    gin = f"--gin_file={study_dir}/tasks=8,SEED=0/run.gin"
    assert [line["argv"][2] for line in machine.lines("record")] == [gin, gin]


def test_a_stage_that_fails_is_the_last(machine, study_dir):
    jobs.write_jobs(study_dir, RUNS, "slurm")
    assert machine.run(*array_job(machine, study_dir, 1), STATUS="3").returncode == 3
    assert len(machine.lines("record")) == 1 and not machine.lines("calls")


def test_slurm_s_signal_saves_the_stage_queues_the_job_again_and_starts_no_other(machine, tmp_path):
    waiting = FAKE_PYTHON.replace('"hang" in sys.argv', "True")
    machine.add("fake_python", waiting)
    jobs.write_jobs(tmp_path, RUNS, "slurm")
    command = array_job(machine, tmp_path, 1)
    job = subprocess.Popen(command, cwd=ROOT, env=machine.environment, stdout=subprocess.PIPE)
    wait_until(lambda: machine.lines("record"), job)
    job.send_signal(signal.SIGTERM)
    assert job.wait(LIMIT_SECS) == 0
    assert len(machine.lines("record")) == 1, "no evaluation of a training that was stopped"
    assert machine.lines("calls") == [["scontrol", "requeue", "4242"]]


def test_xpk_creates_a_workload_a_run_of_a_wave(machine, study_dir):
    variables = {"IMAGE": "i:1", "CLUSTER": "tpus", "TYPE": "v5p-64", "STUDY": "tasks"}
    calls = submit(machine, study_dir, "xpk", "2", **variables)
    flags = [dict(flag.removeprefix("--").split("=", 1) for flag in call[3:]) for call in calls]
    names = [call["workload"] for call in flags]
    assert len(set(names)) == 2
    # What XPK takes, see `name_type` in its src/xpk/parser/validators.py.
    assert all(re.fullmatch(r"[a-z][-a-z0-9]{,38}[a-z0-9]", name) for name in names)
    assert {(call["tpu-type"], call["num-slices"]) for call in flags} == {("v5p-64", "1")}
    # As a pod runs it: bash, in the image's folder.
    machine.add("python", FAKE_PYTHON)
    assert machine.run("bash", "-c", flags[1]["command"]).returncode == 0
    gin = f"--gin_file={study_dir}/tasks=8,SEED=0/run.gin"
    started = [line["argv"] for line in machine.lines("record")]
    assert started == [["run.py", "train", gin], ["run.py", "eval", gin]]


# As XPK does: a name of a workload that it knows is refused.
FAKE_XPK = FAKE_COMMAND.replace(
    "with open",
    """
known = open(os.environ["CALLS"]).read() if os.path.exists(os.environ["CALLS"]) else ""
if next(flag for flag in sys.argv if flag.startswith("--workload=")) in known:
    sys.exit("xpk: the workload is not unique")
with open""",
    1,
)


def test_xpk_s_second_submission_has_the_runs_that_were_not_submitted(machine, study_dir):
    machine.add("xpk", FAKE_XPK)
    variables = {"IMAGE": "i:1", "CLUSTER": "tpus", "TYPE": "v5p-64"}
    script = ["bash", str(study_dir / "jobs" / "submit.sh"), "0"]
    three = [planned(name) for name in "abc"]
    jobs.write_jobs(study_dir, three[:2], "xpk")
    assert machine.run(*script, **variables).returncode == 0
    jobs.write_jobs(study_dir, three[1:], "xpk")  # `a` is done, `b` still runs
    done = machine.run(*script, **variables)
    assert done.returncode == 1
    assert f"error: not submitted: {study_dir}/b/run.gin" in done.stderr
    commands = [call[-1] for call in machine.lines("calls")]
    assert len(commands) == 3 and "/c/run.gin" in commands[2]


def test_skypilot_launches_a_job_a_run_whose_machines_join_by_flags(machine, study_dir):
    calls = submit(machine, study_dir, "skypilot", "0", STUDY="tasks")
    assert [call[:3] for call in calls] == [["sky", "jobs", "launch"]] * 2
    variables = dict(flag[6:].split("=", 1) for flag in calls[1] if flag.startswith("--env="))
    assert variables == {"RUN_GIN": f"{study_dir}/alone/run.gin", "STAGES": "train,eval"}
    task = yaml.safe_load((ROOT / calls[1][-1]).read_text())
    assert task.keys() <= SKYPILOT_FIELDS and task["envs"].keys() == variables.keys()
    variables |= {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8"}
    variables |= {"SKYPILOT_NUM_NODES": "2"}
    done = machine.run("bash", "-c", task["run"], **variables)
    assert done.returncode == 0, done.stderr
    started = [line["argv"] for line in machine.lines("record")]
    assert [argv[1] for argv in started] == ["train", "eval"]
    assert all("--coordinator=10.0.0.7:8476" in argv for argv in started)


@pytest.mark.parametrize("system", ["slurm", "xpk", "skypilot"])
def test_bash_before_4_4_submits(tmp_path, system):
    """There, an empty array without + is an unbound variable. (No such bash is at hand.)"""
    jobs.write_jobs(tmp_path, RUNS, system)
    for script in [tmp_path / "jobs" / "submit.sh", LAUNCH / "gke_xpk.sh", LAUNCH / "tpu_vm.sh"]:
        text = re.sub(r"\$\{(\w+)\[@\]\+\"\$\{\1\[@\]\}\"\}", "", script.read_text())
        assert "[@]" not in text


@pytest.mark.parametrize("system", ["xpk", "skypilot"])
def test_waves_are_asked_for(machine, tmp_path, system):
    jobs.write_jobs(tmp_path, RUNS, system)
    done = machine.run("bash", str(tmp_path / "jobs" / "submit.sh"), TYPE="t")
    assert done.returncode == 1 and "give a wave, 0 to 2" in done.stderr
    done = machine.run("bash", str(tmp_path / "jobs" / "submit.sh"), "3", TYPE="t")
    assert done.returncode == 2 and "there is no wave 3; give 0 to 2" in done.stderr


def test_a_study_in_a_bucket_has_its_scripts_here(gcs, tmp_path, monkeypatch):
    from instruct.files import path_of

    monkeypatch.chdir(tmp_path)
    folder = path_of("gs://bucket/studies/tasks")
    runner.prepare(folder, RUNS, "code", False, print)
    assert json.loads(gcs.content("studies/tasks/alone/study_run.json"))["state"] == "waiting"
    jobs.write_jobs(folder, RUNS, "xpk")
    text = (tmp_path / "jobs" / "tasks" / "submit.sh").read_text()
    assert re.search(r"gs://bucket/studies/tasks/alone/run.gin train,eval", text)
