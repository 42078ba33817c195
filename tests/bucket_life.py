"""A run's whole life in an emulated bucket with injected errors, against the same life on a disk.

    python -m tests.bucket_life --errors=100

prepare, train, kill -9 after a checkpoint, the same command again, eval, report: as processes of
the command line. Then parameters, optimiser state, losses and results must be equal to the bit.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from tests.gcs_emulator import Faults, GcsEmulator

ROOT = pathlib.Path(__file__).resolve().parents[1]
TASK = "gym.chain_sum"
# Of metrics.jsonl, what depends on the clock.
_TIMES = ("secs", "per_sec", "peak_share", "share", "wait", "goodput")


def commands(model_dir: str, steps: int = 12, *more: str) -> dict[str, list[str]]:
    """Mode -> arguments of a tiny run of bytes, with `more` ones of training."""
    gin = [
        "--gin_file=gin/runs/train.gin",
        "--gin_file=gin/models/tiny_test.gin",
        f"--gin.MIXTURE_OR_TASK_NAME={TASK}",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 16}",
        "--gin.BATCH_SIZE=8",
        "--gin.VOCABULARY=bytes",
        f"--gin.TRAIN_STEPS={steps}",
        f"--gin.MODEL_DIR={model_dir}",
        "--gin.DataConfig.window_examples=64",
        "--gin.checkpoint.CheckpointConfig.save_every_steps=2",
        "--gin.ModelConfig.num_encoder_layers=1",
        "--gin.ModelConfig.num_decoder_layers=1",
        "--gin.loop.train.log_every_steps=1",
        "--gin.loop.train.eval_every_steps=2",
        "--gin.loop.train.num_eval_examples=8",
        *more,
    ]
    evaluation = [
        "--gin_file=gin/runs/eval.gin",
        f"--gin.MODEL_DIR={model_dir}",
        f"--gin.EVAL_MIXTURES={TASK}",
        "--gin.NUM_EVAL_EXAMPLES=8",
        "--gin.EVAL_BATCH_SIZE=8",
    ]
    return {
        "prepare": ["prepare", *gin],
        "train": ["train", *gin],
        "eval": ["eval", *evaluation],
        "report": ["report", f"--model_dir={model_dir}"],
    }


def lines_of(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def without_place(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results without the checkpoint's address and what depends on it."""
    return [{k: v for k, v in row.items() if k not in ("checkpoint", "crc32")} for row in rows]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without what depends on the clock."""
    return [{k: v for k, v in row.items() if not any(time in k for time in _TIMES)} for row in rows]


def check_equal(disk: pathlib.Path, bucket: pathlib.Path, step: int) -> list[str]:
    """Raises AssertionError unless two runs are equal to the bit; returns what was compared."""
    from instruct.checkpoints import native
    from instruct.metrics_file import read_metrics

    opened = [native.open_checkpoint(f / "checkpoints" / str(step), True) for f in (disk, bucket)]
    for one, two in zip(*({**c.arrays, **c.slots}.items() for c in opened), strict=True):
        assert one[0] == two[0]
        np.testing.assert_array_equal(one[1].read(), two[1].read(), one[0])
    metrics = [without_times(read_metrics(f / "metrics.jsonl").rows) for f in (disk, bucket)]
    assert metrics[0] == metrics[1]
    name = f"eval/{TASK}/step_{step}/results.jsonl"
    results = [without_place(lines_of((f / name).read_bytes())) for f in (disk, bucket)]
    assert results[0] == results[1]
    return [
        f"{len(opened[0].arrays)} parameters and {len(opened[0].slots)} slots",
        f"{len(metrics[0])} rows of metrics.jsonl",
        f"{len(results[0])} lines of results.jsonl",
    ]


def _run(arguments: list[str], env: dict[str, str], log: pathlib.Path) -> None:
    begin = time.perf_counter()
    with log.open("ab") as stream:
        command = [sys.executable, "run.py", *arguments]
        code = subprocess.run(command, env=env, cwd=ROOT, stdout=stream, stderr=stream).returncode
    print(f"{arguments[0]}: exit status {code}, {time.perf_counter() - begin:.0f} s", flush=True)
    if code:
        sys.exit(log.read_text()[-3000:])


def _run_and_kill(arguments: list[str], env: dict[str, str], log: pathlib.Path, gcs: Any) -> None:
    """Kills a training as soon as the emulator holds a second committed checkpoint."""
    with log.open("ab") as stream:
        command = [sys.executable, "run.py", *arguments]
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=stream, stderr=stream)
        while process.poll() is None:
            if ("bucket", "runs/a/checkpoints/4/commit_success.txt") in gcs.objects:
                process.kill()
                process.wait()
            time.sleep(0.005)
    if process.returncode != -9:
        sys.exit(f"the training ended before it was killed: {log.read_text()[-3000:]}")
    steps = sorted({name.split("/")[3] for name in gcs.names("runs/a/checkpoints/")})
    print(f"train: killed; folders below checkpoints: {', '.join(steps)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--errors", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.15, help="of the requests, at most")
    flags = parser.parse_args()
    faults = Faults(flags.seed, flags.errors, flags.share)
    with tempfile.TemporaryDirectory() as name, GcsEmulator(faults) as gcs:
        folder = pathlib.Path(name)
        env = {**os.environ, **gcs.environment(), "JAX_PLATFORMS": "cpu"}
        env |= {"INSTRUCT_STAGE_DIR": str(folder / "staged"), "TF_CPP_MIN_LOG_LEVEL": "3"}
        print("in the bucket:")
        place, log = "gs://bucket/runs/a", folder / "bucket.log"
        env["INSTRUCT_STORE_DIR"] = "gs://bucket/stores"
        modes = commands(place)
        _run(modes["prepare"], env, log)
        _run_and_kill(modes["train"], env, log, gcs)
        # Another machine: it has no copies of the stores.
        env["INSTRUCT_STAGE_DIR"] = str(folder / "staged elsewhere")
        for mode in ("train", "eval", "report"):
            _run(modes[mode], env, log)
        injected, requests = dict(faults.injected), sum(gcs.requests.values())
        faults.count = 0
        print("on the disk:")
        env["INSTRUCT_STORE_DIR"] = str(folder / "stores")
        for arguments in commands(str(folder / "run")).values():
            _run(arguments, env, folder / "disk.log")
        os.environ.update(env)
        from instruct.files import path_of

        compared = check_equal(folder / "run", path_of(place), 12)
        print(f"{sum(injected.values())} errors in {requests} requests: {injected}")
        print(f"equal to the bit: {'; '.join(compared)}")
        print("log of the life in the bucket:")
        print(log.read_text())


if __name__ == "__main__":
    main()
