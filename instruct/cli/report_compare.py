"""`run.py report --before A --after B`, and `--forgetting --start A --run B`: what a model gained.

Both write a page (`before_after.html`, `forgetting.html`) and the same as Markdown.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

from instruct.errors import UserError
from instruct.report.before_after import CompareConfig, write_comparison
from instruct.report.forgetting import write_forgetting


def run(flags: argparse.Namespace) -> int:
    """Writes the page that is asked for, prints where it is, with --json its numbers as well."""
    if flags.before:
        path, numbers = _before_after(flags)
    else:
        path, numbers = _forgetting(flags)
    for text in numbers.get("warnings", numbers.get("left_out", ())):
        print(f"note: {text}", file=sys.stderr)
    if flags.json:
        print(json.dumps(numbers, indent=1, allow_nan=False))
    print(f"report: {path}", file=sys.stderr if flags.json else sys.stdout)
    return 0


def _before_after(flags: argparse.Namespace) -> tuple[pathlib.Path, dict[str, Any]]:
    if len(flags.suite) > 1:
        raise UserError("--before compares one suite at a time; give --suite once.")
    if flags.examples is not None and flags.examples < 1:
        raise UserError(f"--examples={flags.examples}: must be at least 1.")
    config = CompareConfig(
        suite=flags.suite[0] if flags.suite else "",
        detector=flags.ner or "rules",
        rank_by=flags.rank_by or "",
        **({} if flags.examples is None else {"examples": flags.examples}),
    )
    return write_comparison(flags.before, flags.after, _out(flags, flags.after), config)


def _forgetting(flags: argparse.Namespace) -> tuple[pathlib.Path, dict[str, Any]]:
    if not flags.start or not flags.run:
        raise UserError("--forgetting needs --start=RUN and at least one --run=RUN.")
    out = _out(flags, flags.run[0])
    return write_forgetting(flags.start, flags.run, out, flags.suite, flags.target)


def _out(flags: argparse.Namespace, run: str) -> str:
    path = pathlib.Path(run)
    return flags.out or str(path.parent if path.is_file() else path)
