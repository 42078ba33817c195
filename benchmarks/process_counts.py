"""Whether the number of processes changes results: train, evaluate and infer, compared to the bit.

    python benchmarks/process_counts.py [--work FOLDER] [--cases 2x2:data=2,fsdp=2 4x2:slice=2,...]

A case is PROCESSES x DEVICES OF EACH : MESH. Its reference is one process with as many devices and
the same collectives (gloo, fake CPU devices). Prints, for each case, how many logged numbers,
parameters, result lines and answers differ from the reference's. Exit status 1 if any does.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import jax
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from instruct.checkpoints.loading import load_params  # noqa: E402
from instruct.checkpoints.model_fields import recorded_model  # noqa: E402
from instruct.models.model import make_model  # noqa: E402
from tests.ports import free_port  # noqa: E402

CASES = (
    *("2x2:data=2,fsdp=2", "2x2:data=2,tensor=2", "2x2:fsdp=2,sequence=2"),
    *("2x2:slice=2,data=2", "4x2:slice=2,fsdp=2,tensor=2"),
)
RECIPE = ["--gin_file=gin/recipes/gym_demo.gin", "--gin_file=gin/models/tiny_test.gin"]
RECIPE += ["--gin.ModelConfig.vocab_size=6144", "--gin.LANES=8"]
TRAIN = ["--gin.TRAIN_STEPS=4", "--gin.loop.train.log_every_steps=1"]
TRAIN += ["--gin.loop.train.eval_every_steps=4", "--gin.loop.train.num_eval_examples=16"]
EVAL = ["--gin.EVAL_MIXTURES=('gym.demo_held_out',)", "--limit=2"]
EVAL += ["--gin.EvalConfig.rank_options=True"]
PROMPTS = ("How many legs do 3 cats have?", "2 + 2 = ?", "Say a.")
# Of metrics.jsonl: times, not results.
TIMES = re.compile("secs|per_sec|peak_share|goodput")


def run(num_processes: int, num_devices: int, mode: str, *flags: str) -> str:
    """Runs one mode in several processes; returns what process 0 printed."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices // num_processes}",
        # The order of additions in a product depends on the number of threads, which otherwise
        # follows the number of a process's devices.
        "NPROC": str(num_devices),
    }
    command = [sys.executable, "run.py", mode, *flags, f"--num_processes={num_processes}"]
    command += [f"--coordinator=127.0.0.1:{free_port()}"]
    processes = [
        subprocess.Popen(
            [*command, f"--process_id={number}"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(num_processes)
    ]
    outputs = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, outputs):
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{errors}")
    return outputs[0][0]


def life(folder: pathlib.Path, num_processes: int, num_devices: int, mesh: str) -> None:
    """Trains, evaluates and infers in `folder`."""
    sizes = dict(part.split("=") for part in mesh.split(","))
    axes = [f"--gin.MeshConfig.{name}={size}" for name, size in ({"data": 1} | sizes).items()]
    at = (num_processes, num_devices)
    model_dir = f"--gin.MODEL_DIR={folder}"
    run(*at, "train", *RECIPE, *TRAIN, *axes, model_dir)
    run(*at, "eval", *RECIPE, *EVAL, *axes, model_dir)
    prompts = folder.parent / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"inputs": text}) + "\n" for text in PROMPTS))
    flags = ["--gin_file=gin/runs/infer.gin", "--gin.MAX_DECODE_STEPS=6", f"--input={prompts}"]
    run(*at, "infer", *flags, *axes, model_dir, f"--output={folder / 'answers.jsonl'}")


def results(folder: pathlib.Path) -> dict[str, list]:
    """What a life computed, by kind."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    numbers = [{k: v for k, v in row.items() if not TIMES.search(k)} for row in rows]
    (lines,) = folder.glob("eval/*/*/results.jsonl")
    # A line's checksum covers the checkpoint's address.
    text = re.sub(r', "crc32": "\w+"', "", lines.read_text().replace(str(folder), "MODEL_DIR"))
    record = folder / "run.json"
    model = recorded_model(json.loads(record.read_text())["model"], record)
    params = load_params(folder, make_model(model).abstract_params())
    return {
        "logged numbers": [pair for row in numbers for pair in sorted(row.items())],
        "parameters": [np.asarray(leaf) for leaf in jax.tree.leaves(params)],
        "result lines": text.splitlines(),
        "answers": (folder / "answers.jsonl").read_text().splitlines(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="PROCESSESxDEVICES:MESH")
    flags = parser.parse_args()
    work = flags.work or pathlib.Path(tempfile.mkdtemp())
    failed = False
    for case in flags.cases:
        shape, _, mesh = case.partition(":")
        num_processes, per_process = map(int, shape.split("x"))
        num_devices = num_processes * per_process
        found = []
        for count in (1, num_processes):
            folder = work / f"{mesh}-{count}"
            if not (folder / "answers.jsonl").exists():
                life(folder, count, num_devices, mesh)
            found.append(results(folder))
        parts = []
        for kind, expected in found[0].items():
            pairs = list(zip(expected, found[1][kind], strict=True))
            different = [pair for pair in pairs if not np.array_equal(*pair)]
            failed |= bool(different)
            parts.append(f"{kind} {len(different)} of {len(pairs)} differ")
            if kind == "parameters" and different:
                parts[-1] += f" by up to {max(np.abs(a - b).max() for a, b in different):.1e}"
        print(f"{num_processes} x {per_process} devices, {mesh}: {'; '.join(parts)}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
