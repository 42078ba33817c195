"""Makes docs/pods_table.md: every Flan-T5 size on every TPU slice of gin/hardware, compiled.

    PYTHONPATH=. python benchmarks/pods_table.py --folder=pods_cells --write=docs/pods_table.md

Each cell is `run.py check --gin_file=gin/recipes/flan_t5_SIZE.gin --gin_file=gin/hardware/SLICE.gin
--topology=SLICE`, compiled by libtpu (extra `tpu`); its report is kept as JSON in --folder, so an
interrupted run continues where it was. Cells that say most come first. --quick compiles with the
least effort: memory and time are then upper bounds. Of two reports of a cell the full one counts.
Settings other than the hardware file's make rows of their own:

    ... --sizes xxl --slices v5p-128 --variant einsum "config.ModelConfig.attention = 'einsum'"
"""

import argparse
import dataclasses
import json
import pathlib

import numpy as np

from instruct.capacity.chips import parse_topology
from instruct.capacity.estimate import step_report
from instruct.capacity.hlo import read_program
from instruct.capacity.network import make_network
from instruct.cli import arguments, topology
from instruct.errors import RunFailed, UserError

SIZES = ("xxl", "xl", "large", "base", "small")
SLICES = ("v5p-128", "v5p-64", "v6e-64", "v5e-256", "v5e-16")
GIB = 1 << 30
INTRODUCTION = """\
# Flan-T5 on TPU slices

Made by `benchmarks/pods_table.py` from `run.py check --topology`, with the hardware file of each
slice. "full" or "quick" beside the seconds is the compiler's effort: with quick, memory and time
are upper bounds. What the columns mean and how far to trust them:
[what `check` computes](pods_estimate.md). Cells that are not computed yet say so.

"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--write", type=pathlib.Path, help="the table, in Markdown")
    parser.add_argument("--sizes", nargs="*", default=SIZES, choices=SIZES)
    parser.add_argument("--slices", nargs="*", default=SLICES, choices=SLICES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--variant",
        nargs="+",
        metavar=("NAME", "BINDING"),
        help="other settings than gin/hardware's, as gin bindings; NAME stands in the table",
    )
    parser.add_argument("--most", type=int, help="most cells to compile now")
    return parser.parse_args()


def cell_path(folder: pathlib.Path, cell: str, quick: bool) -> pathlib.Path:
    return folder / f"{cell}{'_quick' if quick else ''}.json"


def compile_cell(flags: argparse.Namespace, size: str, name: str, target: pathlib.Path) -> dict:
    """The report of one cell; {'failed': message}, which is not kept, if the child failed.

    The program's text is kept beside it, to be read again.
    """
    files = [f"--gin_file=gin/recipes/flan_t5_{size}.gin", f"--gin_file=gin/hardware/{name}.gin"]
    command = ["check", *files, f"--topology={name}", f"--hlo={target.with_suffix('')}"]
    if flags.variant:
        command += [f"--gin_bindings={binding}" for binding in flags.variant[1:]]
    try:
        parsed = arguments.parse(command + ["--quick"] * flags.quick)
        return topology.compile_in_child(parsed)
    except (UserError, RunFailed) as error:
        return {"failed": str(error)}


def read_cell(folder: pathlib.Path, cell: str) -> dict | None:
    """The full report, else the quick one, else None; its time is estimated again."""
    paths = [cell_path(folder, cell, quick) for quick in (False, True)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    report = json.loads(path.read_text())
    program = report["programs"]["train"]
    if "memory" in program:
        machine = parse_topology(cell.split("_")[1])
        network = make_network(machine, list(report["mesh"].items()), None)
        if "coords" in report:
            places = np.array(report["coords"]), np.array(report["slices"])
            network = dataclasses.replace(network, coords=places[0], slices=places[1])
        text = path.with_suffix(".train.hlo").read_text()
        program |= step_report(read_program(text), network, program["model_flops"], None)
    return report


def row(cell: str, report: dict | None) -> list[str]:
    size, name, *variant = cell.split("_")
    size = ", ".join([size, *variant])
    if report is None:
        return [size, name, *["not computed"], *[""] * 10]
    program = report["programs"]["train"]
    mesh = " x ".join(f"{axis} {n}" for axis, n in report["mesh"].items() if n > 1)
    effort = "quick" if report["quick"] else "full"
    compiled = f"{program['compile_secs']:.0f} ({effort})"
    there = report["hbm_bytes"] / GIB
    if "memory" not in program:
        needed = f"{program['needed_bytes'] / GIB:.1f} of {there:.0f}"
        return [size, name, mesh, "", "", needed, "**no**", "", "", "", "", "memory", "", compiled]
    memory, estimate = program["memory"], program["estimate"]
    seconds = estimate["seconds"]
    chip_hours = seconds * program["steps"] / 3600 * report["chips"]
    return [
        size,
        name,
        mesh,
        f"{memory['arguments'] / GIB:.2f}",
        f"{memory['temporaries'] / GIB:.2f}",
        f"{memory['total'] / GIB:.2f} of {there:.0f}",
        "yes" if program["fits"] else "**no**",
        f"{seconds:.3f}",
        f"{program['mfu']:.1%}",
        f"{program['overlapped_mfu']:.1%}",
        "" if report["quick"] else f"{program['mfu'] * seconds / estimate['compiler_seconds']:.1%}",
        limits(estimate),
        f"{chip_hours:,.0f}",
        compiled,
    ]


def limits(estimate: dict) -> str:
    """Shares of the step of what takes 10 % or more."""
    parts = estimate["bounds"] | {"communication": estimate["exposed_seconds"]}
    shares = {name: secs / estimate["seconds"] for name, secs in parts.items()}
    large = sorted((share, name) for name, share in shares.items() if share >= 0.1)
    return ", ".join(f"{name} {share:.0%}" for share, name in reversed(large))


def table(folder: pathlib.Path) -> str:
    head = (
        *("Flan-T5", "slice", "mesh", "state, GiB", "temporaries, GiB", "in all, GiB a chip"),
        *(
            "fits",
            "step, s",
            "MFU",
            "MFU if all overlapped",
            "MFU by compiler's cycles",
            "what the step's time goes into",
        ),
        *("chip-hours of the recipe", "compiled in, s"),
    )
    cells = [f"{size}_{name}" for size in reversed(SIZES) for name in SLICES]
    others = {path.stem.removesuffix("_quick") for path in folder.glob("*_*_*.json")}
    cells += sorted(cell for cell in others if cell.count("_") == 2)
    reports = {cell: read_cell(folder, cell) for cell in cells}
    rows = [row(cell, report) for cell, report in reports.items()]
    widths = [row + [""] * (len(head) - len(row)) for row in rows]
    lines = [list(head), ["---"] * len(head), *widths]
    compilers = sorted({r["compiler"] for r in reports.values() if r and "compiler" in r})
    note = (
        f"64 rows of 2,048 + 512 tokens a step; compiled by {', '.join(compilers) or 'nothing'}. "
        "Time is estimated (instruct/capacity/estimate.py), not measured."
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}\n"


def main() -> None:
    flags = parse()
    flags.folder.mkdir(parents=True, exist_ok=True)
    left = flags.most
    for size in flags.sizes:
        for name in flags.slices:
            cell = f"{size}_{name}" + (f"_{flags.variant[0]}" if flags.variant else "")
            path = cell_path(flags.folder, cell, flags.quick)
            if path.is_file() or left == 0:
                continue
            left = None if left is None else left - 1
            report = compile_cell(flags, size, name, path)
            if "failed" in report:
                print(f"{cell}: {report['failed']}", flush=True)
                continue
            path.write_text(json.dumps(report, indent=1))
            print(" | ".join(row(cell, report)), flush=True)
    text = table(flags.folder)
    print(text)
    if flags.write:
        flags.write.write_text(INTRODUCTION + text)


if __name__ == "__main__":
    main()
