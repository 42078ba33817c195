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
import re
import statistics
import sys
import tempfile
from typing import NamedTuple

import jax
from train_step import SHAPES, compile_step, first_state, make_batch

from instruct import peak
from instruct.allocator import keep_freed_memory
from instruct.models.config import ModelConfig
from instruct.train.loss import LossConfig

_DEFINITION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (\([^)]*\)|\S+) ((\S+?)\(.*)")
_NOT_SHOWN = {"parameter", "bitcast", "constant", "broadcast", "get-tuple-element", "tuple"}


class Operation(NamedTuple):
    """One instruction of a compiled program: its result's type, its text and what it computes."""

    result: str
    text: str
    opcode: str


def read_program(text: str) -> dict[str, dict[str, Operation]]:
    """Computation -> name -> operation, of a compiled program's text."""
    computations: dict[str, dict[str, Operation]] = {}
    name = ""
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            name = line.removeprefix("ENTRY ").split()[0].lstrip("%")
            computations[name] = {}
        elif found := _DEFINITION.match(line):
            computations[name][found[1]] = Operation(found[2], found[3], found[4])
    return computations


def sizes(result: str) -> list[int]:
    """Lengths of the axes of a type such as f32[16,256]{1,0}."""
    found = re.match(r"\w+\[([\d,]+)\]", result)
    return [int(size) for size in found[1].split(",")] if found else []


def product_flops(operation: Operation, others: dict[str, Operation]) -> float:
    """Twice the multiplications of a `dot`; 0 of anything else."""
    if operation.opcode != "dot":
        return 0.0
    factor = re.findall(r"%([\w.\-]+)", operation.text)[0]
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", operation.text)
    total = 2.0
    for size in sizes(operation.result):
        total *= size
    for axis in contracted[1].split(",") if contracted else ():
        total *= sizes(others[factor].result)[int(axis)]
    return total


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
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--vocab", type=int, help="default: the shape's")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--rows", type=int, default=40, help="of the table")
    flags = parser.parse_args()
    if len(os.sched_getaffinity(0)) > 1:
        sys.exit("error: operations overlap on several cores; start with `taskset -c 0`")
    keep_freed_memory()
    model, depth, vocab, shape = SHAPES[flags.shape]
    config = ModelConfig(
        vocab_size=flags.vocab or vocab,
        **model,
        num_encoder_layers=depth,
        num_decoder_layers=depth,
        dropout_rate=flags.dropout,
    )
    batch = jax.device_put(make_batch(config.vocab_size, flags.packed, *shape))
    compiled, _ = compile_step(config, first_state(config), batch, LossConfig(), 1)
    times = operation_times(compiled, first_state(config), batch, flags.repeats)
    peak_flops = peak.matmul_peak("float32")

    computations = read_program(compiled.as_text())
    rows = collections.defaultdict(lambda: [0.0, 0.0, 0.0])  # ms, runs, FLOP of a step
    for operations in computations.values():
        for name, operation in operations.items():
            # A loop's time is that of its body's operations.
            if name not in times or operation.opcode == "while":
                continue
            called = re.search(r"calls=%?([\w.\-]+)", operation.text)
            inner = computations[called[1]] if called else {name: operation}
            computed = {one.opcode for one in inner.values()} - _NOT_SHOWN
            flops = sum(
                product_flops(one, inner if called else operations) for one in inner.values()
            )
            runs = len(times[name]) / flags.repeats
            row = rows[re.sub(r"\{.*", "", operation.result), " ".join(sorted(computed))]
            row[0] += statistics.median(times[name]) * runs
            row[1] += runs
            row[2] += flops * runs
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
