"""Makes docs/pods_table.md: every Flan-T5 size on every TPU slice of gin/hardware, compiled.

    PYTHONPATH=. python benchmarks/pods_table.py --folder=pods_cells --write=docs/pods_table.md

Each cell is `run.py check --gin_file=gin/recipes/flan_t5_SIZE.gin --gin_file=gin/hardware/SLICE.gin
--topology=SLICE`, compiled by libtpu (extra `tpu`); its report is kept as JSON in --folder, so an
interrupted run continues where it was. Cells that say most come first. --quick compiles with the
least effort: memory and time are then upper bounds. Of two reports of a cell the full one counts.
"""

import argparse
import json
import pathlib

from instruct.cli import arguments, topology
from instruct.errors import RunFailed, UserError

SIZES = ("xxl", "xl", "large", "base", "small")
SLICES = ("v5p-128", "v5p-64", "v6e-64", "v5e-256", "v5e-16")
GIB = 1 << 30


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--write", type=pathlib.Path, help="the table, in Markdown")
    parser.add_argument("--sizes", nargs="*", default=SIZES, choices=SIZES)
    parser.add_argument("--slices", nargs="*", default=SLICES, choices=SLICES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--most", type=int, help="most cells to compile now")
    return parser.parse_args()


def cell_path(folder: pathlib.Path, size: str, name: str, quick: bool) -> pathlib.Path:
    return folder / f"{size}_{name}{'_quick' if quick else ''}.json"


def compile_cell(size: str, name: str, quick: bool, target: pathlib.Path) -> dict:
    """The report of one cell; {'failed': message}, which is not kept, if the child failed.

    The program's text is kept beside it, to be read again (`instruct.capacity.hlo`).
    """
    files = [f"--gin_file=gin/recipes/flan_t5_{size}.gin", f"--gin_file=gin/hardware/{name}.gin"]
    command = ["check", *files, f"--topology={name}", f"--hlo={target.with_suffix('')}"]
    flags = arguments.parse(command + ["--quick"] * quick)
    try:
        return topology.compile_in_child(flags)
    except (UserError, RunFailed) as error:
        return {"failed": str(error)}


def read_cell(folder: pathlib.Path, size: str, name: str) -> dict | None:
    """The full report, else the quick one, else None."""
    paths = [cell_path(folder, size, name, quick) for quick in (False, True)]
    return next((json.loads(path.read_text()) for path in paths if path.is_file()), None)


def row(size: str, name: str, report: dict | None) -> list[str]:
    if report is None:
        return [size, name, *["not computed"], *[""] * 9]
    program = report["programs"]["train"]
    mesh = " x ".join(f"{axis} {n}" for axis, n in report["mesh"].items() if n > 1)
    effort = "quick" if report["quick"] else "full"
    compiled = f"{program['compile_secs']:.0f} ({effort})"
    there = report["hbm_bytes"] / GIB
    if "memory" not in program:
        needed = f"{program['needed_bytes'] / GIB:.1f} of {there:.0f}"
        return [size, name, mesh, "", "", needed, "**no**", "", "", "", "memory", "", compiled]
    memory, estimate = program["memory"], program["estimate"]
    chip_hours = estimate["seconds"] * program["steps"] / 3600 * report["chips"]
    return [
        size,
        name,
        mesh,
        f"{memory['arguments'] / GIB:.2f}",
        f"{memory['temporaries'] / GIB:.2f}",
        f"{memory['total'] / GIB:.2f} of {there:.0f}",
        "yes" if program["fits"] else "**no**",
        f"{estimate['seconds']:.3f}",
        f"{program['mfu']:.1%}",
        f"{program['overlapped_mfu']:.1%}",
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
        *("fits", "step, s", "MFU", "MFU if all overlapped", "what the step's time goes into"),
        *("chip-hours of the recipe", "compiled in, s"),
    )
    reports = {(s, n): read_cell(folder, s, n) for s in reversed(SIZES) for n in SLICES}
    rows = [row(size, name, report) for (size, name), report in reports.items()]
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
            path = cell_path(flags.folder, size, name, flags.quick)
            if path.is_file() or left == 0:
                continue
            left = None if left is None else left - 1
            report = compile_cell(size, name, flags.quick, path)
            if "failed" in report:
                print(f"{size} {name}: {report['failed']}", flush=True)
                continue
            path.write_text(json.dumps(report, indent=1))
            print(" | ".join(row(size, name, report)), flush=True)
    text = table(flags.folder)
    print(text)
    if flags.write:
        flags.write.write_text(text)


if __name__ == "__main__":
    main()
