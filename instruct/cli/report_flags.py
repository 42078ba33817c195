"""Flags of `run.py report` and which go together; light, for `run.py --help` imports it."""

import argparse

from instruct.errors import UserError

# Each is a report of its own; without them, a page of the runs.
_REPORTS = ("before", "forgetting", "scores", "table")
# Flag -> the flag that it needs.
_NEEDS = {
    "before": "after", "after": "before", "start": "forgetting", "run": "forgetting",
    "target": "forgetting", "ner": "before", "rank_by": "before", "examples": "before",
}  # fmt: skip
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
    """Every flag of the mode."""
    add = parser.add_argument
    for name, (metavar, text) in _REPEATABLE.items():
        add(f"--{name}", action="append", default=[], metavar=metavar, help=text)
    for name, (metavar, text) in _FLAGS.items():
        add(f"--{name}", metavar=metavar, help=text)
    add("--examples", type=int, metavar="N", help="outputs side by side, at most (default 100)")
    add("--forgetting", action="store_true", help="compare runs with the --start of finetuning")
    add("--json", action="store_true", help="print the numbers of --table, --scores, ... as JSON")


def asked_report(flags: argparse.Namespace) -> str:
    """The report asked for, "runs" by default; UserError for flags that do not go together."""
    asked = [name for name in _REPORTS if getattr(flags, name)]
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} are two reports; ask for one.")
    report = asked[0] if asked else "runs"
    for flag, needed in _NEEDS.items():
        if getattr(flags, flag) and not getattr(flags, needed):
            raise UserError(f"--{flag} goes with --{needed}, which is missing.")
    compares = report in ("before", "forgetting")
    if flags.suite and not compares:
        raise UserError("--suite goes with --before or --forgetting.")
    if compares and flags.model_dir:
        raise UserError(
            "--model_dir does not go with --before or --forgetting; they name the runs."
        )
    if flags.out and report in ("scores", "table"):
        raise UserError(f"--{report} prints and writes no file; leave --out away.")
    if report == "scores" and flags.model_dir:
        raise UserError("--scores reads a file of scores, not runs; leave --model_dir away.")
    if report == "before" and len(flags.suite) > 1:
        raise UserError("--before compares one suite at a time; give --suite once.")
    if flags.examples is not None and flags.examples < 1:
        raise UserError(f"--examples={flags.examples}: must be at least 1.")
    if report == "forgetting" and not (flags.start and flags.run):
        raise UserError("--forgetting needs --start=RUN and at least one --run=RUN.")
    if report == "runs" and flags.json:
        raise UserError("--json goes with --table, --scores, --before or --forgetting.")
    if report == "runs" and not flags.model_dir:
        raise UserError("report needs at least one --model_dir=DIR; repeat it to compare runs.")
    return report
