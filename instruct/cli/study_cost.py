"""`run.py study --dry_run`: what the runs of a study compute, and what that takes and costs."""

import argparse
from collections.abc import Sequence

from rich.console import Console

from instruct.capacity.chips import Topology, parse_topology
from instruct.cli import topology
from instruct.cli.show_tables import number_table
from instruct.cli.study_runs import LoadedRun
from instruct.errors import UserError

_HOUR_SECS = 3600
_NEEDS = {"topology": "dry_run", "mfu": "topology", "price": "topology"}


def checked_flags(flags: argparse.Namespace) -> Topology | None:
    """The chips of --topology; refuses flags that need others, and bad numbers."""
    for name, needed in _NEEDS.items():
        if name in flags.given and needed not in flags.given:
            raise UserError(f"--{name} needs --{needed}.")
    topology.positive_number("price", flags.price)
    if topology.positive_number("mfu", flags.mfu) > 1:
        raise UserError(f"--mfu={flags.mfu}: give a share of the chips' peak, such as 0.4.")
    if not flags.topology:
        return None
    machine = parse_topology(flags.topology)
    if not flags.mfu:  # each step is compiled
        topology.check_compilable(machine)
    return machine


def print_costs(
    console: Console,
    flags: argparse.Namespace,
    machine: Topology | None,
    runs: Sequence[LoadedRun],
) -> None:
    """Prints a table of runs: parameters, steps, tokens, FLOPs; with chips also their hours."""
    numbers = ["parameters", "steps", "tokens", "FLOPs"]
    numbers += ["chip-hours", "hours"] if machine else []
    table = number_table(None, ("run", "stages"), numbers)
    seconds: dict[str, float] = {}  # of a step, by program
    total_tokens = total_flops = total_hours = 0.0
    for loaded in runs:
        run, steps = loaded.planned.run, loaded.planned.steps
        row = [run.name, " ".join(run.stages), f"{loaded.model.num_params():,}"]
        if not steps:
            table.add_row(*row)
            continue
        tokens = steps * loaded.train["data"].batch_size * sum(loaded.train["data"].lengths)
        row += [f"{steps:,}", f"{tokens:.3g}", f"{loaded.planned.flops:.3g}"]
        total_tokens, total_flops = total_tokens + tokens, total_flops + loaded.planned.flops
        if machine:
            hours = _step_seconds(flags, machine, loaded, seconds) * steps / _HOUR_SECS
            total_hours += hours
            row += [f"{hours * machine.num_chips:,.1f}", f"{hours:,.1f}"]
        table.add_row(*row)
    console.print(table)
    trained = sum(loaded.planned.steps > 0 for loaded in runs)
    console.print(
        f"{len(runs)} runs, {trained} of them trained: {total_tokens:.3g} tokens with padding, "
        f"{total_flops:.3g} FLOPs (matrix products, forward and backward, no remat; as `check`)"
    )
    if made_up := sorted({name for loaded in runs for name in loaded.made_up}):
        gin_flags = " ".join(f"--gin.{name}=..." for name in made_up)
        console.print(f"not set, and needed to run it: {gin_flags}")
    if machine is None:
        console.print("add --topology=CHIPS and --mfu=SHARE for chip-hours, such as v5p-64 and 0.4")
        return
    chip_hours = total_hours * machine.num_chips
    line = f"{chip_hours:,.1f} chip-hours, {total_hours:,.1f} hours one after another"
    if flags.price:
        price = topology.positive_number("price", flags.price)
        line += f"; {chip_hours * price:,.2f} at {price:g} a chip-hour"
    how = "each step compiled, as `check --topology` does"
    if flags.mfu:
        peak = machine.chip.matmul_flops / 1e12
        how = f"FLOPs / ({machine.num_chips} x {peak:,.0f} TFLOP/s x MFU {flags.mfu}), assumed"
    console.print(f"on {machine.text}: {line}")
    console.print(f"{how}; without start-up, checkpoints and evaluation")


def _step_seconds(
    flags: argparse.Namespace, machine: Topology, loaded: LoadedRun, known: dict[str, float]
) -> float:
    """Seconds of a step on all chips: by --mfu, else by the compiled program."""
    planned, train = loaded.planned, loaded.train
    if flags.mfu:
        peak = machine.num_chips * machine.chip.matmul_flops
        return planned.flops / planned.steps / (peak * float(flags.mfu))
    parts = (train["data"].batch_size, train["data"].lengths, train.get("num_microbatches"))
    parts += (train.get("mesh"), train.get("loss"), train.get("optimizer"))
    key = repr((loaded.model, *parts))
    if key not in known:
        child = argparse.Namespace(gin_file=[], gin_bindings=[planned.gin], gin_flags=[])
        vars(child).update(topology=flags.topology, mesh=None, eval=False, quick=False, hlo=None)
        program = topology.compile_in_child(child)["programs"]["train"]
        if not program["fits"]:
            raise UserError(
                f"{planned.name} does not fit on {flags.topology}; `run.py check --topology` with "
                "its settings says what is missing. Or give --mfu=SHARE."
            )
        known[key] = program["estimate"]["seconds"]
    return known[key]
