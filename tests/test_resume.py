"""A run killed by SIGKILL at any moment, also in the middle of a save, ends as if it had not been.

Real processes, real stores and feed, dropout on. Losses of every logged step and the final
parameters are compared bit by bit.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from instruct.checkpoints.loading import checkpoint_steps, load_params
from instruct.models.model import make_model
from tests.train.stand_in import MODELS
from tests.waiting import LIMIT_SECS, wait_until

pytestmark = pytest.mark.slow(secs=15)

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS, SAVE_EVERY = 14, 3
# What a run computes; times differ.
EXACT = ("loss", "z_loss", "accuracy", "gradient_norm", "learning_rate", "examples")
EXACT += ("padding_share", "loss/some", "loss/more", "eval/loss", "eval/accuracy")


class Runs:
    """Starts training processes that share a compilation cache and the stores."""

    def __init__(self, folder: pathlib.Path, python: pathlib.Path) -> None:
        self._folder, self._python = folder, python
        self.processes: list[subprocess.Popen] = []
        self._environment = os.environ | {
            "INSTRUCT_STORE_DIR": str(folder / "stores"),
            "TOY_CACHE": str(folder / "cache"),
            # The last of a flag counts.
            "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, name: str, *flags: str) -> subprocess.Popen:
        """Starts the run in folder `name`, which names the layout of its batches first."""
        layout = f"--layout={name.partition('-')[0]}"
        command = [self._python, "-m", "tests.train.stand_in", str(self._folder / name), layout]
        process = subprocess.Popen(
            [*command, str(STEPS), *flags],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def finish(self, name: str, *flags: str) -> str:
        process = self.start(name, *flags)
        output, _ = process.communicate(timeout=LIMIT_SECS)
        assert process.returncode == 0, output
        return output

    def kill_when(self, name: str, happened, *flags: str, number=signal.SIGKILL) -> str:
        """Starts a run and sends it a signal as soon as `happened(folder)`."""
        process = self.start(name, *flags)
        wait_until(lambda: happened(self._folder / name), process)
        process.send_signal(number)
        output, _ = process.communicate(timeout=LIMIT_SECS)
        assert process.returncode == (0 if number == signal.SIGTERM else -number), output
        return output


@pytest.fixture(scope="module")
def runs(tmp_path_factory, forked_python):
    started = Runs(tmp_path_factory.mktemp("resume"), forked_python)
    yield started
    for process in started.processes:  # a run that is held outlives a test that failed
        process.kill()


@pytest.fixture(scope="module")
def layout(request):
    return getattr(request, "param", "encoder_decoder")


@pytest.fixture(scope="module")
def whole(runs, layout):
    runs.finish(f"{layout}-whole")
    return runs._folder / f"{layout}-whole"


def rows(folder):
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def exact(folder):
    return [{k: row[k] for k in ("step", *EXACT) if k in row} for row in rows(folder)]


def parameters(folder, layout):
    return load_params(folder, make_model(MODELS[layout]).abstract_params())


def assert_same_run(found, expected, layout="encoder_decoder"):
    assert exact(found) == exact(expected)
    assert [row["step"] for row in rows(found)] == list(range(2, STEPS + 1, 2))
    both = (parameters(folder, layout) for folder in (found, expected))
    jax.tree.map(np.testing.assert_array_equal, *both)
    mixtures = [json.loads((f / "mixture.json").read_text()) for f in (found, expected)]
    for mixture in mixtures:
        del mixture["sha256"]  # of the names as well
        assert sum(leaf["examples"] for leaf in mixture["leaves"]) > 0
        for leaf in mixture["leaves"]:
            del leaf["name"], leaf["task"]
    assert mixtures[0] == mixtures[1]


@pytest.mark.parametrize("layout", MODELS, indirect=True)
def test_three_kills_one_of_them_in_a_save(runs, whole, layout):
    seed = random.SystemRandom().randrange(10**6)
    print("seed of the random points:", seed)
    draw = random.Random(seed)
    first, wait = draw.randrange(2, 8, 2), draw.random() * 0.3

    def some_time_after(step):
        reached = []

        def happened(folder):
            if not reached and any(row["step"] >= step for row in rows(folder)):
                reached.append(time.monotonic())
            return bool(reached) and time.monotonic() - reached[0] >= wait

        return happened

    def hung(folder):
        return (folder / "HUNG").exists()

    name = f"{layout}-killed"
    folder = runs._folder / name
    # Held, so that it does not end before it is killed, however late that is.
    runs.kill_when(name, some_time_after(first), "--hold", str(first + 3))
    saved = checkpoint_steps(folder)
    target = next(s for s in range(SAVE_EVERY, STEPS, SAVE_EVERY) if s > max(saved, default=0))
    runs.kill_when(name, hung, "--hang-in-save", str(target))
    left = list((folder / "checkpoints").glob("*tmp*"))
    assert left and target not in checkpoint_steps(folder), "the kill was to hit a save"
    last = draw.randrange(max(saved, default=0) // 2 * 2 + 2, STEPS, 2)
    runs.kill_when(name, some_time_after(last), "--hold", str(last + 1))
    output = runs.finish(name)
    assert "finished at step 14" in output
    assert not list((folder / "checkpoints").glob("*tmp*"))
    assert_same_run(folder, whole, layout)


def test_adapters_survive_a_kill(runs):
    def begun(folder):
        return any(row["step"] >= 8 for row in rows(folder))

    runs.finish("encoder_decoder-lora-whole", "--rank", "2")
    runs.kill_when("encoder_decoder-lora", begun, "--rank", "2", "--hold", "9")
    assert "finished at step 14" in runs.finish("encoder_decoder-lora", "--rank", "2")
    whole, killed = (runs._folder / f"encoder_decoder-lora{end}" for end in ("-whole", ""))
    assert_same_run(killed, whole)


def test_sigterm_saves_exits_0_and_says_how_to_go_on(runs, whole):
    def begun(folder):
        return any(row["step"] >= 4 for row in rows(folder))

    output = runs.kill_when("encoder_decoder-stopped", begun, "--hold", "5", number=signal.SIGTERM)
    assert "stopped by SIGTERM at step" in output and "same command again to resume" in output
    folder = runs._folder / "encoder_decoder-stopped"
    info = json.loads((folder / "run.json").read_text())
    assert info["outcome"] == "stopped by SIGTERM" and checkpoint_steps(folder)[-1] == info["step"]
    runs.finish("encoder_decoder-stopped")
    assert_same_run(folder, whole)
    sessions = json.loads((folder / "run.json").read_text())["sessions"]
    assert [session["from_step"] for session in sessions] == [0, info["step"]]
