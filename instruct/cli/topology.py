"""`run.py check --topology`: compiles for chips that are not here, prints memory, time and cost.

The compiler runs in a child process (`compiled_step.py`): libtpu's for TPUs, where the wheel is
installed; XLA's for CPUs, with as many fake devices as there are chips, otherwise.
"""

import argparse
import importlib.util
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from instruct.capacity.chips import Topology, parse_topology
from instruct.cli.show_tables import number_table
from instruct.errors import RunFailed, UserError
from instruct.files import local_path

_GIB = 1 << 30
_MOST_FAKE_DEVICES = 2048  # of XLA for CPUs in one process
_DAY_SECS, _HOUR_SECS = 86_400, 3_600
_NEEDS_TOPOLOGY = ("eval", "quick", "price", "examples_per_row", "json", "hlo")
# Lines of TensorFlow and absl that report no failure.
_CHATTER = re.compile(r"[IW]\d{4} |WARNING: All log messages")
# What the child needs of the flags.
_PASSED = ("gin_file", "gin_bindings", "gin_flags", "mesh", "topology", "eval", "quick", "hlo")


def checked_flags(flags: argparse.Namespace) -> Topology | None:
    """The topology, or None without the flag; refuses flags that need it and bad numbers."""
    if not flags.topology:
        needing = [f"--{name}" for name in _NEEDS_TOPOLOGY if name in flags.given]
        if needing:
            raise UserError(f"{', '.join(needing)} needs --topology=NAME, such as v5p-128.")
        return None
    for name in ("price", "examples_per_row"):
        positive_number(name, getattr(flags, name))
    for name in ("json", "hlo"):  # before minutes of compiling
        if text := getattr(flags, name):
            setattr(flags, name, str(_new_file(name, text)))
    machine = parse_topology(flags.topology)
    check_compilable(machine)
    return machine


def check_compilable(topology: Topology) -> None:
    """Raises UserError if there is no compiler for so many chips."""
    if topology.num_chips <= _MOST_FAKE_DEVICES or (topology.is_tpu and libtpu_path()):
        return
    compiler = "no libtpu is installed" if topology.is_tpu else "GPUs have no compiler without one"
    fix = "install the extra tpu, or give fewer" if topology.is_tpu else "give fewer"
    raise UserError(
        f"--topology of {topology.num_chips:,} chips: {compiler}, and XLA for CPUs, which stands "
        f"in, takes at most {_MOST_FAKE_DEVICES:,}; {fix}."
    )


def _new_file(name: str, text: str) -> pathlib.Path:
    """The path of a flag for a file to write; raises UserError unless its folder is there."""
    path = local_path(f"--{name}", text, "report").absolute()
    if path.is_dir():
        raise UserError(f"--{name}={text}: {path} is a folder; give a file in it.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        problem = "may not be written" if path.parent.is_dir() else "does not exist"
        raise UserError(f"--{name}={text}: the folder {path.parent} {problem}; choose another.")
    return path


def positive_number(name: str, text: str | None) -> float:
    """The number of a flag, 1 without it. Raises UserError unless it is above 0."""
    try:
        number = float(text or 1)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"--{name}={text}: give a number above 0, such as 4.2.")
    return number


def libtpu_path() -> pathlib.Path | None:
    """The TPU's compiler: $TPU_LIBRARY_PATH, else the installed wheel's; None without."""
    if given := os.environ.get("TPU_LIBRARY_PATH"):
        return pathlib.Path(given)
    spec = importlib.util.find_spec("libtpu")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    paths = [pathlib.Path(folder) / "libtpu.so" for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def compiler_environment(topology: Topology) -> dict[str, str]:
    """Variables of JAX, XLA and libtpu for a process that compiles for a topology."""
    variables = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    library = libtpu_path()
    if topology.is_tpu and library is not None:
        # No chip is touched: ask no metadata server, and let processes share the library.
        variables |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        return variables | {"TPU_LIBRARY_PATH": str(library)}
    fake = f"--xla_force_host_platform_device_count={topology.num_chips}"
    return variables | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {fake}".strip()}


def compile_in_child(flags: argparse.Namespace) -> dict[str, Any]:
    """The report of `compiled_step`, which a child process makes; see `check_compilable`."""
    passed = {name: getattr(flags, name) for name in _PASSED}
    environment = os.environ | compiler_environment(parse_topology(flags.topology))
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "report.json"
        command = [sys.executable, "-m", "instruct.cli.compiled_step", str(target)]
        done = subprocess.run(
            command, input=json.dumps(passed), text=True, env=environment, capture_output=True
        )
        if not target.is_file():
            lines = [line for line in done.stderr.splitlines() if not _CHATTER.match(line)]
            raise RunFailed(
                f"the compiler for {flags.topology} ended with status {done.returncode}:\n"
                + "\n".join(lines[-15:])
            )
        report = json.loads(target.read_text())
    if "error" in report:
        raise UserError(report["error"])
    return report


def print_compiled(console: Console, flags: argparse.Namespace) -> bool:
    """Compiles, prints the report; whether all programs fit."""
    report = compile_in_child(flags)
    console.rule(f"compiled for {report['topology']}")
    mesh = " x ".join(f"{name} {size}" for name, size in report["mesh"].items())
    console.print(f"by {report['compiler']}{', --quick' if report['quick'] else ''}; mesh: {mesh}")
    for name, program in report["programs"].items():
        _print_program(console, name, report, program)
        if name == "train" and program["fits"]:
            _print_recipe(console, flags, report, program)
    if flags.json:
        pathlib.Path(flags.json).write_text(json.dumps(report, indent=1))
        console.print(f"written to {flags.json}")
    return all(program["fits"] for program in report["programs"].values())


def _print_program(
    console: Console, name: str, report: Mapping[str, Any], program: Mapping[str, Any]
) -> None:
    console.print(
        f"[bold]{name}[/]: {program['rows']} rows of {program['lengths'][0]} + "
        f"{program['lengths'][1]} tokens; lowered in {program['lower_secs']:.1f} s, compiled in "
        f"{program['compile_secs']:.1f} s"
    )
    there = report["hbm_bytes"] / _GIB
    if "memory" not in program:
        needed = program["needed_bytes"] / _GIB
        console.print(
            f"[red]does not fit[/]: the compiler needs {needed:.2f} GiB a device of {there:.2f}. "
            "More devices in fsdp, the model's remat = 'full', or more num_microbatches help."
        )
        return
    memory, state = program["memory"], program.get("state_bytes", {})
    listed = ", ".join(f"{part} {size / _GIB:.3f}" for part, size in memory.items())
    fits = "[green]fits[/]" if program["fits"] else "[red]does not fit[/]"
    console.print(f"GiB a device, as the compiler counts: {listed} of {there:.2f}: {fits}")
    if state:
        rest = (memory["temporaries"] - state["gradients"]) / _GIB
        console.print(
            f"  arguments are parameters {state['parameters'] / _GIB:.3f}, optimiser "
            f"{state['optimiser'] / _GIB:.3f} and the batch; temporaries are gradients, at most "
            f"{state['gradients'] / _GIB:.3f} at once, and {max(rest, 0):.3f} or more of gathered "
            "weights and activations"
        )
        exact = state["parameters"] + state["optimiser"]
        padded = memory["arguments"] - exact
        console.print(
            f"  the batch and the padding of layouts take {padded / _GIB:.4f} of the arguments "
            f"({padded / exact:.1%} more than parameters and optimiser); what is copied instead of "
            "split is in the table of shardings above"
        )
    console.print(
        f"  largest microbatch: {program['largest_rows']} rows a device (now "
        f"{program['microbatch_rows']:g}); estimated as if all temporaries grew with the rows, so "
        "more may fit"
    )
    _print_estimate(console, report, program)


def _print_estimate(
    console: Console, report: Mapping[str, Any], program: Mapping[str, Any]
) -> None:
    estimate, model_flops = program["estimate"], program.get("model_flops")
    if program["unknown_loops"]:
        console.print(
            f"  {len(program['unknown_loops'])} loops run an unknown number of times, such as "
            "decoding; FLOPs, traffic and time are of one turn, so no time is estimated"
        )
        return
    flops = program["flops"]
    line = f"  FLOPs a device: {flops:.4g} in the program, loops counted"
    if model_flops:
        share = model_flops / report["chips"]
        line += f"; {share:.4g} by the model's formula ({flops / share:.3f} times: recomputation)"
    console.print(line)
    if program["compiler_flops"]:
        own = f"{program['compiler_flops']:.4g}"
        console.print(f"  the compiler's own count has a loop's body once: {own} FLOPs")
    if program["unknown_kernels"]:
        console.print(f"  kernels that declare no FLOPs: {', '.join(program['unknown_kernels'])}")
    numbers = ("times a step", "MiB a step", "overlapped", "ms on the links")
    table = number_table(None, ("collective", "mesh axis"), numbers)
    table.add_column("largest")
    for traffic in estimate["traffic"]:
        hidden = traffic["overlapped_bytes"] / max(traffic["num_bytes"], 1)
        table.add_row(
            traffic["kind"],
            traffic["axes"],
            f"{traffic['times']:,}",
            f"{traffic['num_bytes'] / (1 << 20):,.1f}",
            f"{hidden:.0%}",
            f"{traffic['seconds'] * 1e3:,.2f}",
            traffic["largest"],
        )
    console.print(table)
    bounds = ", ".join(f"{name} {secs:.4f}" for name, secs in estimate["bounds"].items())
    mfu = f", MFU {program['mfu']:.1%}" if program["mfu"] else ""
    console.print(
        f"  estimated step: {estimate['seconds']:.4f} s{mfu}. Seconds by what bounds them: "
        f"{bounds}, communication {estimate['exposed_seconds']:.4f} "
        f"({estimate['hidden_seconds']:.4f} more beside computation). Limited by: "
        f"{program['limit']}"
    )
    if estimate["compiler_seconds"] and not report["quick"]:
        secs = estimate["compiler_seconds"]
        share = f", MFU {program['mfu'] * estimate['seconds'] / secs:.1%}" if program["mfu"] else ""
        console.print(f"  by the compiler's estimated cycles: {secs:.4f} s{share}")
    if program["mfu"] and program["overlapped_mfu"] > 1.01 * program["mfu"]:
        console.print(
            f"  MFU would be {program['overlapped_mfu']:.1%} if every collective ran beside "
            "computation"
        )
    if not report["compiler"].startswith("libtpu"):
        console.print(
            "  the CPU's program has other fusions than an accelerator's, and all collectives are "
            "taken as overlapped: memory and time are rough"
        )


def _print_recipe(
    console: Console,
    flags: argparse.Namespace,
    report: Mapping[str, Any],
    program: Mapping[str, Any],
) -> None:
    """Tokens and examples a day, chip-hours and cost."""
    if program["unknown_loops"]:
        return
    seconds, steps = program["estimate"]["seconds"], program["steps"]
    rows = program["rows"] / seconds * _DAY_SECS
    per_row = positive_number("examples_per_row", flags.examples_per_row)
    console.print(
        f"  a day: {rows * sum(program['lengths']):.4g} tokens, padding included, {rows:.4g} rows, "
        f"{rows * per_row:.4g} examples at {per_row:g} a row"
    )
    if not steps:
        return
    hours = seconds * steps / _HOUR_SECS
    chip_hours = hours * report["chips"]
    line = f"  {steps:,} steps: {hours:,.1f} hours, {chip_hours:,.0f} chip-hours"
    if flags.price:
        price = positive_number("price", flags.price)
        line += f", {chip_hours * price:,.0f} at {price:g} a chip-hour"
    console.print(line + "; without start-up, checkpoints and evaluation")
