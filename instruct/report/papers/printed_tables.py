"""The figures of the two Flan papers, as data: `flan_palm.5`, `flan_collection.1`, ...

Read from the TOML files of this package. A table's rows are labels (which model) and values (one a
column); a column is a key of `measures.MEASURES` where an evaluation can fill it, else a title.
"""

import dataclasses
import difflib
import functools
import importlib.resources
import tomllib
from typing import Any

from instruct.errors import UserError

PAPERS = ("flan_palm", "flan_collection")
# Parameters behind the papers' names of sizes, for axes. T5 1.1 counts; PaLM's own.
PARAMETERS = {
    "80M": 77e6,
    "250M": 248e6,
    "780M": 783e6,
    "3B": 2.85e9,
    "8B": 8.63e9,
    "11B": 11.1e9,
    "62B": 62.5e9,
    "540B": 540e9,
}


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """Labels, and one value a column; NaN where the paper gives none."""

    labels: tuple[str, ...]
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """One table of a paper.

    Attributes:
        name: `flan_palm.5`. title: what it shows. paper: how the paper is called for short.
        source: authors and address.
        labels: names of the label columns. columns: keys of measures, or titles.
        rows: in the paper's order.
        notes: what to know about the figures.
        mmlu_split: the split of MMLU that this table reports.
    """

    name: str
    title: str
    paper: str
    source: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]
    mmlu_split: str

    def column(self, key: str) -> tuple[float, ...]:
        """The values of one column, in the order of the rows."""
        index = self.columns.index(key)
        return tuple(row.values[index] for row in self.rows)


@functools.cache
def all_tables() -> dict[str, PaperTable]:
    """Every table by name, in the order of the papers."""
    tables = {}
    for paper in PAPERS:
        file = importlib.resources.files("instruct.report.papers").joinpath(f"{paper}.toml")
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        about = content.pop("paper")
        for number, table in content.items():
            tables[f"{paper}.{number}"] = _table(f"{paper}.{number}", about, table)
    return tables


def _table(name: str, about: dict[str, str], table: dict[str, Any]) -> PaperTable:
    count = len(table["labels"])
    rows = tuple(
        PaperRow(tuple(str(label) for label in row[:count]), tuple(float(v) for v in row[count:]))
        for row in table["rows"]
    )
    return PaperTable(
        name=name,
        title=table["title"],
        paper=about["short"],
        source=f"{about['authors']}, {about['title']}, {about['url']}",
        labels=tuple(table["labels"]),
        columns=tuple(table["columns"]),
        rows=rows,
        notes=tuple(table.get("notes", ())),
        mmlu_split=table.get("mmlu_split", "validation"),
    )


def find_table(name: str) -> PaperTable:
    """The table of that name. Raises UserError, with the nearest name, if there is none."""
    tables = all_tables()
    if name not in tables:
        near = difflib.get_close_matches(name, tables, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"no table {name!r}.{hint} The tables are: {', '.join(tables)}.")
    return tables[name]
