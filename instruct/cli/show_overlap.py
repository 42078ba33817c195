"""`run.py show --overlap`: text that prepared tasks share with test tasks or each other."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from instruct.cli.show_tables import filter_of, number_table, print_json, wide_console
from instruct.data import registry
from instruct.data.overlap.contamination import Contamination, Total, contamination
from instruct.data.overlap.duplicates import SAMPLE, SKETCH, DuplicateReport, Duplicates, duplicates
from instruct.data.overlap.scan import COVERED, Side, share_of, stored_tasks
from instruct.workspace import Workspace

_TABLE_COLUMNS = 240
_MOST_ROWS = 40  # of a table; --leaves and --json print all
_TEST_SPLITS = ("test", "validation")
_NOTHING = "nothing is prepared, so there is nothing to compare."


def run(workspace: Workspace, flags: argparse.Namespace) -> int:
    """Prints the overlap. Tasks without a store are named and left out. Returns 0."""
    leaves = registry.resolve(workspace, flags.mixture, flags.split).leaves
    side = stored_tasks(workspace, filter_of(flags)(leaves), (flags.split,))
    if flags.against:
        return _against(workspace, flags, side)
    report = duplicates(side.tasks, flags.n, flags.workers, flags.pairs)
    if flags.json:
        return print_json(_head(flags, side) | report.to_json())
    console = wide_console(_TABLE_COLUMNS)
    _print_side(console, flags.mixture, flags.split, side)
    if side.tasks:
        _print_duplicates(console, report, flags.leaves)
    else:
        console.print(_NOTHING)
    return 0


def _against(workspace: Workspace, flags: argparse.Namespace, train: Side) -> int:
    splits = (flags.against_split,) if flags.against_split else _TEST_SPLITS
    leaves = registry.resolve(workspace, flags.against, splits[0]).leaves
    test = stored_tasks(workspace, leaves, splits)
    pairs, totals = contamination(train.tasks, test.tasks, flags.n, flags.workers, flags.pairs)
    if flags.json:
        document = _head(flags, train) | {
            "against": flags.against,
            "against_splits": test.splits,
            "against_missing": test.missing,
            "totals": [dataclasses.asdict(total) for total in totals],
            "pairs": [pair.to_json() for pair in pairs],
        }
        return print_json(document)
    console = wide_console(_TABLE_COLUMNS)
    _print_side(console, flags.mixture, flags.split, train)
    _print_side(console, flags.against, " or ".join(splits), test)
    if train.tasks and test.tasks:
        _print_contamination(console, pairs, totals, flags)
    else:
        console.print(_NOTHING)
    return 0


def _head(flags: argparse.Namespace, side: Side) -> dict[str, Any]:
    return {
        "mixture": flags.mixture,
        "split": flags.split,
        "n": flags.n,
        "tasks": [task.name for task in side.tasks],
        "missing": side.missing,
    }


def _print_side(console: Console, mixture: str, split: str, side: Side) -> None:
    records = sum(task.size for task in side.tasks)
    console.print(
        f"{escape(mixture)} ({split}): {len(side.tasks):,} prepared tasks, {records:,} records; "
        f"{len(side.missing):,} left out"
    )
    for name, reason in list(side.missing.items())[:5]:
        console.print(f"  {name}: {reason}", markup=False)
    if len(side.missing) > 5:
        console.print(f"  and {len(side.missing) - 5:,} more (--json lists them)")
    if any("not prepared" in reason for reason in side.missing.values()):
        console.print(f"  `python run.py prepare --mixture={mixture}` prepares them", markup=False)


def _counted(part: int, whole: int) -> str:
    return f"{part:,} ({share_of(part, whole):.1%})"


def _print_contamination(
    console: Console,
    pairs: Sequence[Contamination],
    totals: Sequence[Total],
    flags: argparse.Namespace,
) -> None:
    title = f"test examples that share {flags.n} words in a row with {flags.mixture}"
    numbers = ("examples", "touched", f"covered {COVERED:.0%}")
    table = number_table(title, ("test task",), numbers)
    for total in sorted(totals, key=lambda t: -share_of(t.touched, t.test_examples)):
        touched, covered = (
            _counted(part, total.test_examples) for part in (total.touched, total.covered)
        )
        table.add_row(total.test_task, f"{total.test_examples:,}", touched, covered)
    console.print(table)
    if not pairs:
        console.print("no two tasks share any.")
        return

    def cells(pair: Contamination) -> tuple[str, ...]:
        return (
            pair.train_task,
            pair.test_task,
            _counted(pair.train_touched, pair.train_examples),
            _counted(pair.test_touched, pair.test_examples),
            _counted(pair.test_covered, pair.test_examples),
        )

    order = sorted(pairs, key=lambda p: (p.same_group, -share_of(p.test_touched, p.test_examples)))
    title = f"{len(pairs):,} pairs of tasks, those of one contamination group last"
    numbers = ("training examples touched", "test examples touched", f"covered {COVERED:.0%}")
    rows = [(pair, cells(pair)) for pair in order]
    _print_pairs(console, title, ("training task", "test task"), numbers, rows, flags.leaves)


def _print_duplicates(console: Console, report: DuplicateReport, every: bool) -> None:
    if report.within:
        repeated = sorted(report.within.items(), key=lambda item: -item[1])[:5]
        names = ", ".join(f"{name} {count:,}" for name, count in repeated)
        console.print(
            f"{len(report.within):,} tasks repeat records of their own, most of them: {names}",
            markup=False,
        )
    if report.crowded:
        console.print(f"{report.crowded:,} texts are in so many tasks that no pair counts them")
    if not report.pairs:
        console.print("no two tasks share records.")
        return

    def cells(pair: Duplicates) -> tuple[str, ...]:
        exact_a = _counted(pair.exact_a, pair.records_a)
        exact_b = _counted(pair.exact_b, pair.records_b)
        near = (f"{share:.1%}" for share in pair.near_shares)
        return pair.task_a, pair.task_b, exact_a, exact_b, *near

    order = sorted(report.pairs, key=lambda pair: (pair.same_group, -max(pair.near_shares)))
    title = (
        f"{len(order):,} pairs of tasks that share records, those of one group last; near: in a "
        f"sample of {SAMPLE}, by {SKETCH} n-grams of each record"
    )
    numbers = ("exact of a", "exact of b", "near of a", "near of b")
    rows = [(pair, cells(pair)) for pair in order]
    _print_pairs(console, title, ("task a", "task b"), numbers, rows, every)


def _print_pairs(
    console: Console,
    title: str,
    texts: Sequence[str],
    numbers: Sequence[str],
    rows: Sequence[tuple[Contamination | Duplicates, Sequence[str]]],
    every: bool,
) -> None:
    """Prints pairs of tasks with their cells, the group, and an example."""
    table = number_table(title, (*texts, "group"), numbers)
    table.add_column("for example")
    shown = rows if every else rows[:_MOST_ROWS]
    for pair, cells in shown:
        group = "same" if pair.same_group else ""
        example = ""
        if pair.examples:
            first = pair.examples[0]
            example = escape(f"{first.first_id} ~ {first.second_id} ({first.share:.0%})")
        table.add_row(*cells[:2], group, *cells[2:], example)
    console.print(table)
    if more := len(rows) - len(shown):
        console.print(f"and {more:,} more pairs; --leaves prints them, --json with all examples")
