"""Child of `run.py check --topology`: compiles for machines that are not there, reports as JSON.

    python -m instruct.cli.compiled_step REPORT < FLAGS

A process of its own, since JAX reads its environment once, since the TPU compiler ends the process
where it fails, and to give back its memory. `topology.py` starts it.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import topologies

from instruct import gin_config
from instruct import mesh as meshes
from instruct.capacity.chips import Topology, parse_topology
from instruct.capacity.estimate import step_report
from instruct.capacity.hlo import read_program
from instruct.capacity.memory import largest_rows, memory_bytes, refused_bytes
from instruct.capacity.network import make_network
from instruct.cli import check, settings
from instruct.data.quiet_tensorflow import keep_quiet
from instruct.errors import UserError
from instruct.eval import programs
from instruct.eval.decoding.batching import BatchConfig, batch_rows, row_multiple
from instruct.eval.decoding.decode import DecodeConfig
from instruct.models.adapters import without_adapters
from instruct.models.model import make_model
from instruct.train.program import lower_train_step, training_step


def main() -> int:
    """Reads flags as JSON from standard input, writes the report to the file named."""
    keep_quiet()
    flags = argparse.Namespace(**json.load(sys.stdin))
    try:
        report = compile_report(flags)
    except UserError as error:
        report = {"error": str(error)}
    pathlib.Path(sys.argv[1]).write_text(json.dumps(report, indent=1))
    return 0


def compile_report(flags: argparse.Namespace) -> dict[str, Any]:
    """Compiles what the flags ask for; what `run.py check --topology --json` writes."""
    if flags.quick:
        jax.config.update("jax_exec_time_optimization_effort", -1.0)
    topology = parse_topology(flags.topology)
    _, entries, _ = settings.load_with_stand_ins(flags, check.STAND_INS)
    config = check.mesh_config(flags, entries[gin_config.TRAIN])
    devices, compiler = _devices(topology)
    is_tpu = compiler.startswith("libtpu")
    mesh = meshes.make_mesh(config, devices)
    report = {
        "topology": topology.text,
        "chip": topology.chip.name,
        "chips": topology.num_chips,
        "hbm_bytes": topology.chip.hbm_bytes,
        "compiler": compiler,
        "quick": flags.quick,
        "mesh": dict(mesh.shape),
    }
    programs_of = _programs(flags, entries, mesh)
    network = make_network(
        topology, list(mesh.shape.items()), list(mesh.devices.flat) if is_tpu else None
    )
    report |= {"coords": network.coords.tolist(), "slices": network.slices.tolist()}
    compiled = {}
    for name, lower in programs_of.items():
        started = time.perf_counter()
        lowered, facts = lower()
        facts["lower_secs"] = time.perf_counter() - started
        compiled[name] = facts | _compile(
            lowered, facts, network, is_tpu, flags.hlo and f"{flags.hlo}.{name}.hlo"
        )
    return report | {"programs": compiled}


def _devices(topology: Topology) -> tuple[list[Any], str]:
    """Devices to compile for, and the compiler in words."""
    library = os.environ.get("TPU_LIBRARY_PATH")
    if not (topology.is_tpu and library):
        why = "no libtpu is installed" if topology.is_tpu else "GPUs have no compiler without one"
        count = topology.num_chips
        return jax.devices()[:count], f"XLA for CPU with {count} fake devices, since {why}"
    options: dict[str, Any] = {}
    if topology.num_slices > 1:
        options["num_slices"] = topology.num_slices
    if topology.chip.name == "v4":  # otherwise a chip is two devices
        options["chip_config_name"] = "megacore"
    if topology.slice_chips == 1:
        options["chips_per_host_bounds"] = [1, 1, 1]
    name = topology.slice_name
    described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    try:
        version = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        version = library
    return list(described.devices), f"libtpu {version}"


def _programs(
    flags: argparse.Namespace, entries: Mapping[str, Any], mesh: Any
) -> dict[str, Callable[[], tuple[Any, dict[str, Any]]]]:
    """Program -> function that lowers it; the facts are model FLOPs, rows, bytes by shardings."""
    train, model = entries[gin_config.TRAIN], check.model_of(entries)
    step = training_step(model, mesh, train, check.DEFAULT_SHAPE)
    rows, lengths = step.batch_size, step.lengths
    shares = row_multiple(mesh)

    def lower_train():
        lowered = lower_train_step(step.function, step.abstract, mesh, step.batch)
        return lowered, {
            "model_flops": model.train_flops(rows, *lengths),
            "rows": rows,
            "lengths": lengths,
            "microbatch_rows": rows / shares / step.num_microbatches,
            "steps": train.get("train_steps"),
            "state_bytes": check.state_bytes(step.abstract, step.trained),
        }

    lowerings = {"train": lower_train}
    if flags.eval:
        network, evaluation = make_model(model), entries[gin_config.EVALUATE]
        params = without_adapters(step.abstract.params)
        batching = evaluation.get("batching") or BatchConfig()
        size = batch_rows(batching.batch_size, batching.batch_size, shares)
        decode = evaluation.get("decode") or DecodeConfig(max_decode_steps=lengths[1])
        facts = {"rows": size, "lengths": lengths, "microbatch_rows": size / shares}
        lowerings["decode"] = lambda: (
            programs.lower_decode(network, params, decode, mesh, size, lengths[0]),
            dict(facts),
        )
        lowerings["score"] = lambda: (
            programs.lower_scoring(network, params, mesh, size, lengths),
            facts | {"model_flops": model.forward_flops(size, *lengths)},
        )
    return lowerings


def _compile(lowered, facts: Mapping[str, Any], network, is_tpu: bool, hlo: str | None):
    """Compiles one program and reads it; `hlo` names a file for its text."""
    topology = network.topology
    started = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        refused = refused_bytes(error)
        if refused is None:
            raise
        secs = time.perf_counter() - started
        return {"fits": False, "compile_secs": secs, "needed_bytes": refused[0]}
    compile_secs = time.perf_counter() - started
    text = compiled.as_text()
    if hlo:
        pathlib.Path(hlo).write_text(text)
    memory, own = memory_bytes(compiled), compiled.cost_analysis() or {}
    # Only the TPU compiler says what overlaps with computation.
    overlap = None if is_tpu else True
    return {
        "fits": memory["total"] <= topology.chip.hbm_bytes,
        "compile_secs": compile_secs,
        "memory": memory,
        "largest_rows": largest_rows(memory, facts["microbatch_rows"], topology.chip.hbm_bytes),
        "compiler_flops": own.get("flops"),
    } | step_report(read_program(text), network, facts.get("model_flops"), overlap)


if __name__ == "__main__":
    sys.exit(main())
