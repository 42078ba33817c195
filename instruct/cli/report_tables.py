"""`run.py report --scores` and `--table`: the papers' numbers on the terminal, or as JSON."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from instruct.errors import UserError
from instruct.files import path_of
from instruct.json_text import parse_json
from instruct.report import read
from instruct.report.blocks import Row
from instruct.report.papers import filled_tables, measures, normalized, printed_tables


def print_scores(flags: argparse.Namespace) -> None:
    """Prints the normalised average of the scores in a file (`--scores FILE.json`)."""
    scores = _read_scores(flags.scores)
    average = normalized.normalized_average(scores)
    if all(part.raw <= 1.0 for part in average.parts.values()):
        raise UserError(
            f"--scores={flags.scores}: every score is at most 1. Scores are per cent, 0 to 100: "
            "multiply shares by 100."
        )
    if flags.json:
        print(json.dumps(normalized.as_json(average), indent=2))
        return
    rows = []
    for name, part in average.parts.items():
        bound = "by sub-task" if part.lower_bound is None else f"{part.lower_bound:.1f}"
        rows.append(Row((name, f"{part.raw:.1f}", bound, f"{part.normalized:.1f}"), strong=True))
        for key, values in part.sub_tasks.items():
            rows.append(Row((f"  {key}", *(f"{score:.1f}" for score in values.values()))))
    rows.append(Row(("normalised average", "", "", f"{average.value:.1f}"), strong=True))
    _print_rows(("", "score", "lower bound", "normalised"), rows, 1)
    unused = [ascii(name) for name in scores if name not in normalized.PARTS]
    if unused:
        print(f"not used: {', '.join(unused)}")


def print_table(flags: argparse.Namespace) -> None:
    """Prints a paper's table with the runs beside it (`--table NAME`), or the names of all."""
    if flags.table == "list":
        titles = {name: table.title for name, table in printed_tables.all_tables().items()}
        if flags.json:
            print(json.dumps(titles, indent=2))
        else:
            _print_rows(("Table", "What it shows"), list(map(Row, titles.items())), 2)
        return
    table = printed_tables.find_table(flags.table)
    content = filled_tables.fill(table, read.read_runs(flags.model_dir) if flags.model_dir else [])
    if flags.json:
        print(json.dumps(filled_tables.as_json(content), indent=2))
        return
    print(f"{table.name}: {table.title}\n")
    headings, rows = filled_tables.lines(content)
    _print_rows(headings, rows, len(table.labels))
    if content.ours:
        print()
        _print_rows(filled_tables.DETAIL_COLUMNS, filled_tables.details(content), 2)
    print()
    print("\n".join(filled_tables.remarks(content)))
    evaluated = any(measures.is_measure(column) for column in table.columns)
    for label in content.without:
        lacks = "no result for any column. Evaluate a suite of this table first."
        print(f"{label}: {lacks if evaluated else 'no column of this table is an evaluation.'}")


def _print_rows(columns: Sequence[str], rows: Sequence[Row], texts: int) -> None:
    """Prints a table whose first `texts` columns are text."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(escape(name), no_wrap=True, justify="left" if index < texts else "right")
    for row in rows:
        table.add_row(*map(escape, row.cells), style="bold" if row.strong else None)
    # Wide tables are for scrolling or a file: never wrap a number.
    Console(width=2000, highlight=False, soft_wrap=True).print(table)


def _read_scores(path: str) -> dict[str, Any]:
    try:
        scores = parse_json(path_of(path).read_bytes(), unique_names=True)
    except OSError as error:
        raise UserError(f"--scores={path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"--scores={path} is no JSON ({error}).") from None
    if not isinstance(scores, dict):
        raise UserError(
            f"--scores={path} holds {type(scores).__name__}, expected one object with the keys "
            f"{', '.join(normalized.PARTS)}."
        )
    return scores
