"""Flags of `run.py report` and their combinations; light, because `run.py --help` imports it."""

import argparse
from typing import Any

from instruct.errors import UserError
from instruct.files import any_path

# Each report, named by its flag, and the flags that it takes.
_TAKES = {
    "model_dir": ("model_dir", "out", "track"),
    "before": ("after", "suite", "ner", "rank_by", "examples", "out", "json"),
    "forgetting": ("start", "run", "target", "suite", "out", "json"),
    "scores": ("json",),
    "table": ("model_dir", "json"),
}
# The flags that a report needs, and the message if one is missing.
_NEEDS = {
    "model_dir": (["model_dir"], "report needs --model_dir=DIR; repeat it to compare runs."),
    "before": (["after"], "--before needs --after=RUN."),
    "forgetting": (["start", "run"], "--forgetting needs --start=RUN and at least one --run=RUN."),
}
# Flag -> metavar and help. RUN, DIR and FILE are paths.
_FLAGS = {
    "out": ("DIR", "where to write (default: the first run's folder)"),
    "table": ("NAME", "print a table of the papers, such as flan_palm.5, with the runs beside it; "
              "or `list`"),
    "scores": ("FILE", "print the normalised average of the scores in a file"),
    "before": ("RUN", "what --after is compared with: MODEL_DIR or a step's folder"),
    "after": ("RUN", "the finetuned run: scores, inventions, outputs side by side"),
    "ner": ("NAME", "what finds names: rules (default), or spacy:MODEL"),
    "rank_by": ("METRIC", "metric that ranks outputs (default rougeL)"),
    "start": ("RUN", "the evaluated model that finetuning started from"),
}  # fmt: skip
_REPEATABLE = {
    "model_dir": ("DIR", "a run; repeat to compare"),
    "suite": ("NAME", "suite for --before, such as dialogsum (default: the only one), or suites "
              "for --forgetting, repeatable (default: all)"),
    "run": ("RUN", "a finetuned run; repeatable"),
    "target": ("TASK", "task that finetuning was for; `*` stands for anything (default: all runs' "
               "own tasks)"),
}  # fmt: skip


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `run.py report`."""
    add = parser.add_argument
    for name, (metavar, text) in (_REPEATABLE | _FLAGS).items():
        options: dict[str, Any] = {"metavar": metavar, "help": text}
        if name in _REPEATABLE:
            options |= {"action": "append", "default": []}
        if metavar in ("RUN", "DIR", "FILE"):
            options["type"] = lambda path, name=name: str(any_path(f"--{name}", path))
        add(f"--{name}", **options)
    add("--examples", type=int, metavar="N", help="outputs side by side, at most (default 100)")
    add("--forgetting", action="store_true", help="compare runs with the --start of finetuning")
    add("--track", action="store_true", help="attach the page to the run's W&B and MLflow runs")
    add("--json", action="store_true", help="print the numbers of --table, --scores, ... as JSON")


def asked_report(flags: argparse.Namespace) -> str:
    """The report asked for, "model_dir" by default; UserError for flags that do not go together."""
    asked = [name for name in _TAKES if name != "model_dir" and getattr(flags, name)]
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} are two reports; ask for one.")
    report = asked[0] if asked else "model_dir"
    for flag in sorted({flag for taken in _TAKES.values() for flag in taken}):
        if not getattr(flags, flag) or flag in _TAKES[report]:
            continue
        if asked:
            allowed = ", ".join(f"--{name}" for name in _TAKES[report])
            raise UserError(f"--{report} takes {allowed}, but no --{flag}; leave it out.")
        takers = " or ".join(f"--{name}" for name, taken in _TAKES.items() if flag in taken)
        raise UserError(f"--{flag} goes with {takers}; add that, or leave --{flag} out.")
    needed, message = _NEEDS.get(report, ([], ""))
    if not all(getattr(flags, flag) for flag in needed):
        raise UserError(message)
    if report == "before" and len(flags.suite) > 1:
        raise UserError("--before compares one suite at a time; give --suite once.")
    if flags.track and len(flags.model_dir) > 1:
        raise UserError("--track attaches the page of one run; give --model_dir once.")
    if flags.examples is not None and flags.examples < 1:
        raise UserError(f"--examples={flags.examples}: must be at least 1.")
    return report
