"""Flags of `run.py report --before` and `--forgetting`; light, for `run.py --help` imports it."""

import argparse

from instruct.errors import UserError

# Flag -> the flag that it needs.
_NEEDS = {
    "before": "after", "after": "before", "start": "forgetting", "run": "forgetting",
    "target": "forgetting", "ner": "before", "rank_by": "before", "examples": "before",
}  # fmt: skip


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of both reports."""
    add = parser.add_argument
    add(
        "--before",
        metavar="RUN",
        help="what --after is compared with: MODEL_DIR or a step's folder",
    )
    add(
        "--after", metavar="RUN", help="the finetuned run: scores, inventions, outputs side by side"
    )
    add(
        "--suite",
        action="append",
        default=[],
        metavar="NAME",
        help="suite for --before, such as dialogsum (default: the only one), or suites for "
        "--forgetting, repeatable (default: all)",
    )
    add("--ner", metavar="NAME", help="what finds names: rules (default), or spacy:MODEL")
    add("--rank_by", metavar="METRIC", help="metric that ranks outputs (default rougeL)")
    add("--examples", type=int, metavar="N", help="outputs side by side, at most (default 100)")
    add("--forgetting", action="store_true", help="compare runs with the --start of finetuning")
    add("--start", metavar="RUN", help="the evaluated model that finetuning started from")
    add("--run", action="append", default=[], metavar="RUN", help="a finetuned run; repeatable")
    add(
        "--target",
        action="append",
        default=[],
        metavar="TASK",
        help="task that finetuning was for; `*` stands for anything (default: all runs' own tasks)",
    )


def wanted(flags: argparse.Namespace) -> bool:
    """Whether one of these reports is asked for; UserError for flags that do not go together."""
    for flag, needed in _NEEDS.items():
        if getattr(flags, flag) and not getattr(flags, needed):
            raise UserError(f"--{flag} goes with --{needed}, which is missing.")
    asked = bool(flags.before or flags.forgetting)
    if flags.suite and not asked:
        raise UserError("--suite goes with --before or --forgetting.")
    if asked and flags.model_dir:
        raise UserError(
            "--model_dir does not go with --before or --forgetting; they name the runs."
        )
    return asked
