"""How much memory importing and converting a checkpoint takes, as a multiple of its size.

    PYTHONPATH=. python benchmarks/import_memory.py [--size xl] [--folder /tmp/import_memory]

Generates a Hugging Face checkpoint of random bfloat16 weights with the shapes of a size of T5 1.1
(xl: 2.85 billion parameters, 5.7 GB), then measures, each in a process of its own:

    load bfloat16    parameters onto the device in the checkpoint's type, layers stacked
    load float32     the same as training does, in float32: twice the checkpoint's size by itself
    to instruct      converted on disk into this program's format (float32)
    to t5x           converted on disk into T5X's format (bfloat16)

Reported is the peak resident memory above that of a process which has imported and started all
libraries but read nothing, over the size of the checkpoint's file.
"""

import argparse
import dataclasses
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import time

import jax
import numpy as np

from instruct.checkpoints.arrays import BFLOAT16, LazyArray
from instruct.checkpoints.convert import convert
from instruct.checkpoints.huggingface import write_checkpoint
from instruct.checkpoints.loading import load_params
from instruct.checkpoints.weights import model_shapes
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder

# d_model, heads, d_ff, layers of each stack.
SIZES = {
    "small": (512, 6, 1024, 8),
    "base": (768, 12, 2048, 12),
    "large": (1024, 16, 2816, 24),
    "xl": (2048, 32, 5120, 24),
}
JOBS = ("load bfloat16", "load float32", "to instruct", "to t5x")


def model_config(size: str) -> ModelConfig:
    """T5 1.1 of that size."""
    d_model, heads, d_ff, layers = SIZES[size]
    return ModelConfig(
        vocab_size=32128,
        d_model=d_model,
        num_heads=heads,
        head_dim=64,
        d_ff=d_ff,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        scan_layers=True,
    )


def generate(folder: pathlib.Path, model: ModelConfig) -> None:
    """Random weights, drawn one array at a time."""

    def drawn(number: int, path: str, shape: tuple[int, ...]) -> LazyArray:
        def read(index):
            draw = np.random.default_rng(number)
            # Random bits are as hard to compress as weights; the exponent is kept in bounds.
            bits = draw.integers(0, 1 << 16, shape, np.uint16)
            return ((bits & 0x80FF) | 0x3C00).view(BFLOAT16)[index]

        return LazyArray(shape, BFLOAT16, read, path)

    arrays = {
        path: drawn(number, path, shape)
        for number, (path, shape) in enumerate(model_shapes(model).items())
    }
    write_checkpoint(folder, arrays, model, BFLOAT16)


def do(job: str, source: pathlib.Path, target: pathlib.Path, model: ModelConfig) -> None:
    """One job; keeps what it loads until the peak has been read."""
    if job.startswith("to "):
        kind = job.removeprefix("to ")
        dtype = "float32" if kind == "instruct" else "bfloat16"
        convert(source, target, kind, dtype=dtype)
    elif job.startswith("load "):
        dtype = np.dtype(np.float32) if job.endswith("float32") else BFLOAT16
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype),
            EncoderDecoder(model).abstract_params(),
        )
        params = load_params(source, abstract)
        jax.block_until_ready(params)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(peak))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="xl")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/tmp/import_memory"))
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    model, source = model_config(options.size), options.folder / options.size
    target = options.folder / "converted"
    if options.job:
        jax.block_until_ready(jax.numpy.zeros(1) + 1)
        do(options.job, source, target, model)
        return
    if not source.exists():
        generate(source, model)
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    print(f"{dataclasses.asdict(model)['d_model']} wide, {model.num_params():,} parameters, "
          f"{size / 1e9:.2f} GB on disk")  # fmt: skip
    command = [sys.executable, __file__, "--size", options.size, "--folder", str(options.folder)]
    idle = 0
    for job in ("nothing", *options.jobs):
        shutil.rmtree(target, ignore_errors=True)
        started = time.perf_counter()
        done = subprocess.run([*command, "--job", job], check=True, capture_output=True, text=True)
        secs, peak = time.perf_counter() - started, json.loads(done.stdout.splitlines()[-1])
        if job == "nothing":
            idle = peak
            print(f"{'libraries alone':16} {idle / 1e9:6.2f} GB")
            continue
        share = (peak - idle) / size
        print(f"{job:16} {(peak - idle) / 1e9:6.2f} GB above, {share:.2f} x size, {secs:.0f} s")
    shutil.rmtree(target, ignore_errors=True)


if __name__ == "__main__":
    main()
