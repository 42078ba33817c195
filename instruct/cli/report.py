"""`run.py report`: one or several runs as one HTML page and the same as Markdown.

`--before A --after B` and `--forgetting --start A --run B` write a page of what a model gained;
`--scores` and `--table` print the papers' numbers instead (`report_tables`).
"""

import argparse
import json
import pathlib
import sys
from typing import Any

from instruct.cli import report_flags, report_tables
from instruct.errors import UserError
from instruct.files import make_writable, path_of
from instruct.report.pages.before_after import CompareConfig, write_comparison
from instruct.report.pages.forgetting import write_forgetting
from instruct.report.pages.run_page import write_report

# Files of a run; one of them is enough for a report.
_RUN_FILES = ("run.json", "metrics.jsonl", "eval/*/step_*/results.jsonl")


def run(flags: argparse.Namespace) -> int:
    """Writes the requested page and prints its path, or prints a table."""
    if flags.gin_file or flags.gin_flags or flags.gin_bindings:
        raise UserError("report reads finished runs and takes no gin flags; give --model_dir=DIR.")
    if flags.out is not None:  # before any work, which would be lost
        flags.out = path_of(flags.out).absolute()
        make_writable("--out", flags.out)
    report = report_flags.asked_report(flags)
    for folder in flags.model_dir:
        if not any(any(path_of(folder).glob(pattern)) for pattern in _RUN_FILES):
            raise UserError(
                f"--model_dir={folder} holds no run ({', '.join(_RUN_FILES)}), or there is no such "
                "folder. Give the MODEL_DIR of a run that was trained or evaluated."
            )
    if report == "scores":
        report_tables.print_scores(flags)
    elif report == "table":
        report_tables.print_table(flags)
    elif flags.track:
        _track_page(flags)
    else:
        _write_page(report, flags)
    return 0


def _track_page(flags: argparse.Namespace) -> None:
    """Writes the page of a run and attaches it to the run's W&B and MLflow runs."""
    from instruct.train.service_trackers import MLflow, WandB, recorded_trackers  # imports JAX

    folder = path_of(flags.model_dir[0]).absolute()
    trackers = recorded_trackers(folder)
    if not trackers:
        raise UserError(
            f"--track: {folder} has neither {WandB.record_file} nor {MLflow.record_file}, so it "
            "was not trained with these trackers; leave --track out."
        )
    for tracker in trackers:
        tracker.check()
    page = _write_page("model_dir", flags)
    for tracker in trackers:
        tracker.log_page(folder, page)
        print(f"attached to the run in {tracker.service}")


def _write_page(report: str, flags: argparse.Namespace) -> pathlib.Path:
    """Writes a page; with --json, prints the numbers of a comparison as well. Returns its path."""
    numbers: dict[str, Any] = {}
    if report == "before":
        config = CompareConfig(
            suite=flags.suite[0] if flags.suite else "",
            detector=flags.ner or CompareConfig.detector,
            rank_by=flags.rank_by or "",
            examples=flags.examples or CompareConfig.examples,
        )
        out = flags.out or _folder(flags.after)
        path, numbers = write_comparison(flags.before, flags.after, out, config)
    elif report == "forgetting":
        out = flags.out or _folder(flags.run[0])
        path, numbers = write_forgetting(flags.start, flags.run, out, flags.suite, flags.target)
    else:
        path = write_report(flags.model_dir, flags.out or flags.model_dir[0])
    for text in numbers.get("warnings", numbers.get("left_out", ())):
        print(f"note: {text}", file=sys.stderr)
    if flags.json:
        print(json.dumps(numbers, indent=1, allow_nan=False))
    print(f"report: {path}", file=sys.stderr if flags.json else sys.stdout)
    return path


def _folder(run: str) -> pathlib.Path:
    path = path_of(run)
    return path.parent if path.is_file() else path
