"""Where a training step's time goes: its operations on one core, and how near products are to peak.

    PYTHONPATH=. taskset -c 0 python benchmarks/step_parts.py --vocab=32128 [--shape=demo --packed]

JAX's profiler times every operation of the compiled step of `train_step.py` (medians of `--repeats`
steps). On one core nothing runs beside it, so the times add up to the step's. Operations of one
shape and kind are one row; `of peak` is the share of the matrix-multiply peak that a row's products
reach. Fused operations are named by what they compute.
"""

import argparse
import collections
import glob
import os
import statistics
import sys
import tempfile

import jax
from train_step import add_shape_flags, compile_step, first_state, make_batch, shaped_model

from instruct import peak
from instruct.allocator import keep_freed_memory
from instruct.capacity.hlo import read_program
from instruct.capacity.hlo_text import parse_hlo
from instruct.train.loss import LossConfig

_NOT_SHOWN = {"parameter", "bitcast", "constant", "broadcast", "get-tuple-element", "tuple"}


def operation_times(compiled: jax.stages.Compiled, state, batch, repeats: int):
    """Name -> milliseconds of each of its runs in `repeats` steps."""
    times = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(repeats):
                state, _ = compiled(state, batch)
                jax.block_until_ready(state.params)
        (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        for plane in jax.profiler.ProfileData.from_file(file).planes:
            for line in plane.lines:
                for event in line.events:
                    times[event.name].append(event.duration_ns / 1e6)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_shape_flags(parser)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--rows", type=int, default=40, help="of the table")
    flags = parser.parse_args()
    if len(os.sched_getaffinity(0)) > 1:
        sys.exit("error: operations overlap on several cores; start with `taskset -c 0`")
    keep_freed_memory()
    config, shape = shaped_model(flags)
    batch = jax.device_put(make_batch(config.vocab_size, flags.packed, *shape))
    compiled, _ = compile_step(config, first_state(config), batch, LossConfig(), 1)
    times = operation_times(compiled, first_state(config), batch, flags.repeats)
    peak_flops = peak.matmul_peak("float32")

    text = compiled.as_text()
    flops_of = {
        operation.name: sum(product.flops for product in operation.products)
        for region in read_program(text).regions
        for operation in region.operations
    }
    computations, _ = parse_hlo(text)
    rows = collections.defaultdict(lambda: [0.0, 0.0, 0.0])  # ms, runs, FLOP of a step
    for instructions in computations.values():
        for name, instruction in instructions.items():
            # A loop's time is that of its body's operations.
            if name not in times or instruction.opcode == "while":
                continue
            computed = {instruction.opcode}
            if instruction.opcode == "fusion":
                computed = {one.opcode for one in computations[str(instruction.called)].values()}
            results = " ".join(f"{array.kind}{list(array.shape)}" for array in instruction.arrays)
            runs = len(times[name]) / flags.repeats
            row = rows[results, " ".join(sorted(computed - _NOT_SHOWN))]
            row[0] += statistics.median(times[name]) * runs
            row[1] += runs
            row[2] += flops_of.get(name, 0.0) * runs
    total = sum(ms for ms, _, _ in rows.values())
    products = sum(ms for ms, _, flops in rows.values() if flops)
    share = config.train_flops(*shape) / (total / 1e3) / peak_flops
    print(f"operations {total:.1f} ms, {share:.1%} of peak; those with products {products:.1f} ms")
    print(f"{'ms':>8} {'runs':>5} {'of peak':>7}  result, what is computed")
    for (result, computed), (ms, runs, flops) in sorted(rows.items(), key=lambda row: -row[1][0])[
        : flags.rows
    ]:
        reached = f"{flops / (ms / 1e3) / peak_flops:.2f}" if flops else ""
        print(f"{ms:8.2f} {runs:5.0f} {reached:>7}  {result} {computed}")


if __name__ == "__main__":
    main()
