"""Shared parts of `show`: filter flags, tables of mixtures and licences, JSON."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from instruct.data.mixture_shares import FEW, Group, MixtureView
from instruct.data.task_lists import KINDS, TaskFilter

_FEW_LEAVES = 40  # above this many, leaves are grouped by sub-mixture


def wide_console(columns: int = 140) -> Console:
    """A console that never truncates names in tables; a narrow terminal wraps the lines."""
    width = max(Console().width, columns)
    return Console(width=width, highlight=False, soft_wrap=True, emoji=False)


def print_json(value: Any) -> int:
    """Prints a value as indented JSON; returns the exit status 0."""
    print(json.dumps(value, indent=1, ensure_ascii=False))
    return 0


def number_table(title: str | None, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """An empty table with columns of text and right-aligned columns of numbers."""
    table = Table(*texts, box=None, title=title)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def filter_of(flags: argparse.Namespace) -> TaskFilter:
    """The filter of `--family`, `--category`, `--dataset` and `--license`."""
    return TaskFilter(**{kind: tuple(getattr(flags, kind)) for kind in KINDS})


def mixture_table(view: MixtureView, every_leaf: bool = False) -> Table:
    """Lists a mixture's leaves if there are few, or with `every_leaf`; else its sub-mixtures."""
    groups = [] if every_leaf or len(view.rows) <= _FEW_LEAVES else view.groups()
    return _group_table(view, groups) if groups else _leaf_table(view)


def _leaf_table(view: MixtureView) -> Table:
    numbers = ("records", "cap", "capped", "asked", "planned", "realised", "epochs")
    table = number_table(view.counts_line(), ("leaf", "category"), numbers)
    table.add_column("group")
    table.add_column("licence")
    for row in view.rows:
        leaf = row.leaf
        table.add_row(
            leaf.name,
            leaf.category,
            _size(leaf.records),
            "" if row.cap is None else f"{row.cap:,}",
            _size(row.capped),
            *(f"{share:.4%}" for share in (row.asked, row.planned, row.realised_share)),
            _epochs(row.epochs),
            leaf.group,
            leaf.license.partition(" (")[0],
        )
    return table


def _group_table(view: MixtureView, groups: Sequence[Group]) -> Table:
    numbers = ("tasks", "data sets", "leaves", "records", "capped")
    numbers = (*numbers, "asked", "planned", "realised", "epochs")
    table = number_table(view.counts_line(), ("sub-mixture",), numbers)
    inner = 0  # number of subgroups of the current group so far
    for index, group in enumerate(groups):
        inner = inner + 1 if group.depth else 0
        if inner > FEW:
            last = index + 1 == len(groups) or not groups[index + 1].depth
            if last:
                table.add_row(f"    and {inner - FEW} smaller ones", style="dim")
            continue
        table.add_row(
            "    " * group.depth + group.name,
            *(f"{n:,}" for n in (group.num_tasks, group.num_datasets, group.num_leaves)),
            _size(group.records),
            _size(group.capped),
            *(f"{share:.3%}" for share in (group.asked, group.planned, group.realised)),
            _epochs(group.epochs),
            style="" if group.depth else "bold",
        )
    return table


def _size(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _epochs(number: float | None) -> str:
    return "" if number is None else f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def license_table(entries: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Lists licences, with their share if the entries have one."""
    with_share = "share" in entries[0]
    numbers = ("tasks", "data sets", *(("share",) if with_share else ()))
    table = number_table(title, ("licence",), numbers)
    for entry in entries:
        share = [f"{entry['share']:.2%}"] if with_share else []
        numbers = [f"{entry['num_tasks']:,}", f"{entry['num_datasets']:,}", *share]
        table.add_row(entry["license"] or "(not stated)", *numbers)
    return table


def family_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lists families with their numbers of tasks, data sets and categories."""
    table = number_table(None, ("family",), ("tasks", "data sets", "categories"))
    for row in rows:
        numbers = (row["num_tasks"], row["num_datasets"], row["num_categories"])
        table.add_row(row["family"], *(f"{number:,}" for number in numbers))
    return table
