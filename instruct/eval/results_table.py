"""The table printed after an evaluation: categories and tasks, held-in and held-out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from instruct import results

TITLES = {"held_in": "held-in", "held_out": "held-out", "unknown": "all"}
# Tasks are listed one by one up to this many; the report has all of them.
MOST_TASKS = 60
# Most failures to print; the results file has all of them.
MOST_FAILURES = 5


def print_table(console: Console, title: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Prints value, standard error, baseline, n and exemplars shown of every primary metric.

    Means over tasks come first. The baseline is the better of the most frequent answer and a
    random choice.
    """
    rows = list(rows)
    primary = results.primary_metrics(rows)
    failures = [row for row in rows if row["kind"] == "failure"]
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("", overflow="fold", no_wrap=False)
    table.add_column("metric")
    has_exemplars = any(results.exemplars_of([row]) for row in primary)
    for name in ("score", "± s.e.", "baseline", "n", *(("exemplars",) if has_exemplars else ())):
        table.add_column(name, justify="right")
    for group in results.GROUPS:
        inside = [row for row in primary if row["group"] == group]
        if inside:
            _add_group(table, TITLES[group], inside, len(primary) <= MOST_TASKS)
    console.print(table)
    if len(primary) > MOST_TASKS:
        console.print(f"{len(primary):,} tasks; `run.py report` lists every one.", style="dim")
    for row in failures[:MOST_FAILURES]:
        text = f"failed: {row['task']} {row['mode']}: {row['error']}"
        console.print(text, style="red", markup=False)
    if others := [row["task"] for row in failures[MOST_FAILURES:]]:
        names = ", ".join(dict.fromkeys(others[:MOST_FAILURES]))
        more = ", ..." if len(others) > MOST_FAILURES else ""
        text = f"failed: {len(others):,} more ({names}{more}); the results file has the reasons"
        console.print(text, style="red", markup=False)


def _add_group(
    table: Table, title: str, rows: Sequence[Mapping[str, Any]], with_tasks: bool
) -> None:
    if table.rows:
        table.add_section()
    _add_line(table, f"{title} tasks ({len(rows)})", "mean", rows, "bold")
    for category in dict.fromkeys(row["category"] for row in rows):
        inside = [row for row in rows if row["category"] == category]
        _add_line(table, f"  {category} ({len(inside)})", "mean", inside, "cyan")
        for row in inside if with_tasks else ():
            name = f"    {row['task']} {row['mode']}".rstrip()
            _add_line(table, name, row["metric"], [row])


def _add_line(
    table: Table, name: str, metric: str, rows: Sequence[Mapping[str, Any]], style: str = ""
) -> None:
    """A mean over metric lines, or one of them; as many cells as the table has columns."""
    mean = results.aggregate(rows)
    values = [_text(value) for value in (mean.value, mean.stderr, mean.baseline)]
    cells = (name, metric, *values, f"{mean.examples:,}", results.exemplars_text(mean.exemplars))
    table.add_row(*cells[: len(table.columns)], style=style)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
