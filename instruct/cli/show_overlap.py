"""`run.py show --overlap`: what prepared tasks share with test tasks, or with each other."""

import argparse
import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from instruct.cli.show_filters import TaskFilter
from instruct.cli.show_tables import wide_console
from instruct.data import registry
from instruct.data.overlap.duplicates import SAMPLE, SKETCH, DuplicateReport, Duplicates, duplicates
from instruct.data.overlap.overlap import Contamination, Total, contamination
from instruct.data.overlap.scan import COVERED, StoredTask
from instruct.data.spec import Leaf, TaskSpec
from instruct.data.stores.store import read_manifest, spec_key, store_path
from instruct.errors import UserError
from instruct.workspace import Workspace

_TABLE_COLUMNS = 240
_MOST_ROWS = 40  # of a table; --leaves prints all, --json always does
_TEST_SPLITS = ("test", "validation")
_NOTHING = "nothing is prepared that could be compared."


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison: what is prepared of it, and why the rest is left out."""

    tasks: list[StoredTask]
    splits: dict[str, str]
    missing: dict[str, str]


def run(workspace: Workspace, flags: argparse.Namespace) -> int:
    """Prints the overlap. Tasks without a store are named and left out; the status is 0."""
    task_filter = TaskFilter.from_flags(flags)
    leaves = registry.resolve(workspace, flags.mixture, flags.split).leaves
    side = stored_tasks(workspace, task_filter.leaves(leaves), (flags.split,))
    if flags.against:
        return _against(workspace, flags, side)
    report = duplicates(side.tasks, flags.n, flags.workers, flags.pairs)
    if flags.json:
        return _print_json(_head(flags, side) | _duplicates_json(report))
    console = wide_console(_TABLE_COLUMNS)
    _print_side(console, flags.mixture, flags.split, side)
    if side.tasks:
        _print_duplicates(console, report, flags.leaves)
    else:
        console.print(_NOTHING)
    return 0


def stored_tasks(workspace: Workspace, leaves: Iterable[Leaf], splits: Sequence[str]) -> Side:
    """The stores of the leaves' tasks, each once, in the first of the splits that a task has."""
    side = Side([], {}, {})
    specs: dict[str, TaskSpec | None] = {leaf.task: leaf.spec for leaf in leaves}
    for name, spec in specs.items():
        if spec is None:
            side.missing[name] = "a plain SeqIO task: its store holds tokens, not text"
            continue
        split = next((split for split in splits if split in spec.splits), "")
        if not split:
            side.missing[name] = f"has no split {' or '.join(splits)}"
            continue
        path = store_path(workspace, spec_key(spec), split)
        try:
            manifest = read_manifest(path)
        except UserError as error:
            side.missing[name] = str(error)
            continue
        if manifest is None:
            side.missing[name] = f"split {split} is not prepared"
            continue
        side.tasks.append(StoredTask(name, path, manifest.num_records, spec.group))
        side.splits[name] = split
    return side


def _against(workspace: Workspace, flags: argparse.Namespace, train: Side) -> int:
    splits = (flags.against_split,) if flags.against_split else _TEST_SPLITS
    leaves = registry.resolve(workspace, flags.against, splits[0]).leaves
    test = stored_tasks(workspace, leaves, splits)
    pairs, totals = contamination(train.tasks, test.tasks, flags.n, flags.workers, flags.pairs)
    if flags.json:
        found = _head(flags, train) | {
            "against": flags.against,
            "against_splits": test.splits,
            "against_missing": test.missing,
            "totals": [dataclasses.asdict(total) for total in totals],
            "pairs": [_with_shares(pair) for pair in pairs],
        }
        return _print_json(found)
    console = wide_console(_TABLE_COLUMNS)
    _print_side(console, flags.mixture, flags.split, train)
    _print_side(console, flags.against, " or ".join(splits), test)
    if train.tasks and test.tasks:
        _print_contamination(console, pairs, totals, flags)
    else:
        console.print(_NOTHING)
    return 0


def _print_json(value: Any) -> int:
    print(json.dumps(value, indent=1, ensure_ascii=False))
    return 0


def _head(flags: argparse.Namespace, side: Side) -> dict[str, Any]:
    return {
        "mixture": flags.mixture,
        "split": flags.split,
        "n": flags.n,
        "tasks": [task.name for task in side.tasks],
        "missing": side.missing,
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _with_shares(pair: Contamination) -> dict[str, Any]:
    return dataclasses.asdict(pair) | {
        "train_touched_share": _share(pair.train_touched, pair.train_examples),
        "test_touched_share": _share(pair.test_touched, pair.test_examples),
        "test_covered_share": _share(pair.test_covered, pair.test_examples),
    }


def _duplicates_json(report: DuplicateReport) -> dict[str, Any]:
    return {
        "sampled_records": SAMPLE,
        "sketch": SKETCH,
        "near_from": COVERED,
        "within": report.within,
        "crowded": report.crowded,
        "pairs": [
            dataclasses.asdict(pair)
            | {
                "near_share_a": _share(pair.near_a, pair.sampled_a),
                "near_share_b": _share(pair.near_b, pair.sampled_b),
            }
            for pair in report.pairs
        ],
    }


def _print_side(console: Console, mixture: str, split: str, side: Side) -> None:
    records = sum(task.size for task in side.tasks)
    console.print(
        f"{escape(mixture)} ({split}): {len(side.tasks):,} prepared tasks, {records:,} records; "
        f"{len(side.missing):,} left out"
    )
    for name, why in list(side.missing.items())[:5]:
        console.print(f"  {name}: {why}", markup=False)
    if len(side.missing) > 5:
        console.print(f"  and {len(side.missing) - 5:,} more (--json lists them)")
    if any("not prepared" in why for why in side.missing.values()):
        console.print(f"  `python run.py prepare --mixture={mixture}` prepares them", markup=False)


def _counted(part: int, whole: int) -> str:
    return f"{part:,} ({_share(part, whole):.1%})"


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(*texts, box=None, title=title)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _print_contamination(
    console: Console,
    pairs: Sequence[Contamination],
    totals: Sequence[Total],
    flags: argparse.Namespace,
) -> None:
    title = f"test examples that share {flags.n} words in a row with {flags.mixture}"
    table = _table(title, ("test task",), ("examples", "touched", f"covered {COVERED:.0%}"))
    for total in sorted(totals, key=lambda t: -_share(t.touched, t.test_examples)):
        touched, covered = (
            _counted(part, total.test_examples) for part in (total.touched, total.covered)
        )
        table.add_row(total.test_task, f"{total.test_examples:,}", touched, covered)
    console.print(table)
    if not pairs:
        console.print("no two tasks share any.")
        return
    order = sorted(pairs, key=lambda p: (p.same_group, -_share(p.test_touched, p.test_examples)))
    shown = order if flags.leaves else order[:_MOST_ROWS]
    table = _table(
        f"{len(pairs):,} pairs of tasks, those of one contamination group last",
        ("training task", "test task", "group"),
        ("training examples touched", "test examples touched", f"covered {COVERED:.0%}"),
    )
    table.add_column("for example")
    for pair in shown:
        table.add_row(
            pair.train_task,
            pair.test_task,
            "same" if pair.same_group else "",
            _counted(pair.train_touched, pair.train_examples),
            _counted(pair.test_touched, pair.test_examples),
            _counted(pair.test_covered, pair.test_examples),
            _first_example(pair),
        )
    console.print(table)
    _print_rest(console, len(order) - len(shown))


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

    def weight(pair: Duplicates) -> tuple[bool, float]:
        near = max(_share(pair.near_a, pair.sampled_a), _share(pair.near_b, pair.sampled_b))
        return pair.same_group, -near

    order = sorted(report.pairs, key=weight)
    shown = order if every else order[:_MOST_ROWS]
    table = _table(
        f"{len(order):,} pairs of tasks that share records, those of one group last; near: in a "
        f"sample of {SAMPLE}, by {SKETCH} n-grams of each record",
        ("task a", "task b", "group"),
        ("exact of a", "exact of b", "near of a", "near of b"),
    )
    table.add_column("for example")
    for pair in shown:
        table.add_row(
            pair.task_a,
            pair.task_b,
            "same" if pair.same_group else "",
            _counted(pair.exact_a, pair.records_a),
            _counted(pair.exact_b, pair.records_b),
            f"{_share(pair.near_a, pair.sampled_a):.1%}",
            f"{_share(pair.near_b, pair.sampled_b):.1%}",
            _first_example(pair),
        )
    console.print(table)
    _print_rest(console, len(order) - len(shown))


def _first_example(pair: Contamination | Duplicates) -> str:
    if not pair.examples:
        return ""
    first = pair.examples[0]
    return escape(f"{first.first_id} ~ {first.second_id} ({first.share:.0%})")


def _print_rest(console: Console, number: int) -> None:
    if number > 0:
        console.print(f"and {number:,} more pairs; --leaves prints them, --json with all examples")
