"""`run.py report`: one or several runs as one HTML page and the same as Markdown.

`--scores` and `--table` print the papers' numbers instead (`report_tables`); `--before` and
`--forgetting` compare models (`report_compare`).
"""

import argparse
import pathlib

from instruct.cli import compare_flags, report_compare, report_tables
from instruct.errors import UserError
from instruct.files import local_path, make_writable
from instruct.report.run_page import write_report

# What a run leaves; one of them makes a report.
_RUN_FILES = ("run.json", "metrics.jsonl", "eval/*/step_*/results.jsonl")

# Each is a report of its own; without them, a page of the runs.
_REPORTS = ("before", "forgetting", "scores", "table")


def run(flags: argparse.Namespace) -> int:
    """Writes report.html and report.md; prints where they are."""
    if flags.gin_file or flags.gin_flags or flags.gin_bindings:
        raise UserError("report reads finished runs and takes no gin flags; give --model_dir=DIR.")
    _check_paths(flags)
    asked = [name for name in _REPORTS if getattr(flags, name)]
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} are two reports; ask for one.")
    if compare_flags.wanted(flags):
        return report_compare.run(flags)
    if flags.out and asked:
        raise UserError(f"--{asked[0]} prints and writes no file; leave --out away.")
    if flags.scores and flags.model_dir:
        raise UserError("--scores reads a file of scores, not runs; leave --model_dir away.")
    if flags.scores:
        report_tables.print_scores(flags)
        return 0
    if flags.table:
        check_runs(flags.model_dir)
        report_tables.print_table(flags)
        return 0
    if flags.json:
        raise UserError("--json goes with --table, --scores, --before or --forgetting.")
    if not flags.model_dir:
        raise UserError("report needs at least one --model_dir=DIR; repeat it to compare runs.")
    check_runs(flags.model_dir)
    path = write_report(flags.model_dir, flags.out or flags.model_dir[0])
    print(f"report: {path}")
    return 0


def _check_paths(flags: argparse.Namespace) -> None:
    """Expands `~` in every path given, and makes --out before any work."""
    for name in ("model_dir", "run"):
        paths = [str(local_path(f"--{name}", path)) for path in getattr(flags, name)]
        setattr(flags, name, paths)
    for name in ("scores", "before", "after", "start"):
        if getattr(flags, name) is not None:
            setattr(flags, name, str(local_path(f"--{name}", getattr(flags, name))))
    if flags.out is not None:
        out = local_path("--out", flags.out).absolute()
        make_writable("--out", out)
        flags.out = str(out)


def check_runs(model_dirs: list[str]) -> None:
    """Raises UserError for a folder that is none or holds nothing of a run."""
    for folder in model_dirs:
        if not pathlib.Path(folder).is_dir():
            raise UserError(f"--model_dir={folder}: no such folder.")
        if not any(any(pathlib.Path(folder).glob(pattern)) for pattern in _RUN_FILES):
            raise UserError(
                f"--model_dir={folder} holds no run ({', '.join(_RUN_FILES)}). Give the MODEL_DIR "
                "of a run that was trained or evaluated."
            )
