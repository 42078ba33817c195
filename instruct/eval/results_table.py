"""Table of results after an evaluation: held-in and held-out tasks by category."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from instruct import results

TITLES = {"held_in": "held-in", "held_out": "held-out", "unknown": "all"}
MOST_TASKS = 60  # above this many only categories are listed; the report has all tasks


def print_table(console: Console, title: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Prints value, standard error, baseline, n and exemplars of every primary metric, and means.

    The baseline is the better one of the most frequent answer and a random choice.
    """
    rows = list(rows)
    primary = results.primary_metrics(rows)
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("", overflow="fold", no_wrap=False)
    table.add_column("metric")
    has_exemplars = any(results.exemplars_of([row]) for row in primary)
    for name in ("score", "± s.e.", "baseline", "n", *(("exemplars",) if has_exemplars else ())):
        table.add_column(name, justify="right")
    for group in results.GROUPS:
        in_group = [row for row in primary if row["group"] == group]
        if not in_group:
            continue
        if table.rows:
            table.add_section()
        _add_line(table, f"{TITLES[group]} tasks ({len(in_group)})", "mean", in_group, "bold")
        for category in dict.fromkeys(row["category"] for row in in_group):
            members = [row for row in in_group if row["category"] == category]
            _add_line(table, f"  {category} ({len(members)})", "mean", members, "cyan")
            for row in members if len(primary) <= MOST_TASKS else ():
                name = f"    {row['task']} {row['mode']}".rstrip()
                _add_line(table, name, row["metric"], [row])
    console.print(table)
    if len(primary) > MOST_TASKS:
        console.print(f"{len(primary):,} tasks; `run.py report` lists every one.", style="dim")
    mean = results.aggregate(primary)
    if mean.without_value:
        line = results.without_value_text(mean.without_value, mean.tasks)
        console.print(f"{line}.", style="yellow", markup=False, soft_wrap=True)
    for line in results.failure_lines(rows):
        console.print(line, style="red", markup=False)


def _add_line(
    table: Table, name: str, metric: str, rows: Sequence[Mapping[str, Any]], style: str = ""
) -> None:
    """Adds the mean over metric lines."""
    mean = results.aggregate(rows)
    numbers = (mean.value, mean.stderr, mean.baseline)
    values = ["–" if number is None else f"{number:.1f}" for number in numbers]
    cells = (name, metric, *values, f"{mean.examples:,}", results.exemplars_text(mean.exemplars))
    table.add_row(*cells[: len(table.columns)], style=style)  # exemplars are an optional column
