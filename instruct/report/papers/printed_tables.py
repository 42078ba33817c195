"""The tables of the two Flan papers: `flan_palm.5`, `flan_collection.1`, ...

The TOML files of this package hold them. A row has labels (which model) and one value a column; a
column is a key of `measures.MEASURES` if an evaluation can fill it, else a title.
"""

import dataclasses
import functools

from instruct.errors import unknown_name
from instruct.files import read_package_toml

PAPERS = ("flan_palm", "flan_collection")
# Size in the papers -> parameters: counted for T5 1.1, as published for PaLM.
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
    """Labels, and one value a column: NaN where the paper gives none."""

    labels: tuple[str, ...]
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """One table of a paper.

    Attributes:
        name: `flan_palm.5`. paper: its short name. source: authors, title and address.
        labels: names of the label columns. columns: keys of measures, or titles.
        rows: in the paper's order. notes: remarks on the figures.
        mmlu_split: the split of MMLU that the table reports.
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
        """The values of one column."""
        index = self.columns.index(key)
        return tuple(row.values[index] for row in self.rows)


@functools.cache
def all_tables() -> dict[str, PaperTable]:
    """Read every table, by name, in the order of the papers."""
    tables = {}
    for paper in PAPERS:
        content = read_package_toml("instruct.report.papers", f"{paper}.toml")
        about = content.pop("paper")
        for number, table in content.items():
            count = len(table["labels"])
            tables[f"{paper}.{number}"] = PaperTable(
                name=f"{paper}.{number}",
                title=table["title"],
                paper=about["short"],
                source=f"{about['authors']}, {about['title']}, {about['url']}",
                labels=tuple(table["labels"]),
                columns=tuple(table["columns"]),
                rows=tuple(
                    PaperRow(tuple(map(str, row[:count])), tuple(map(float, row[count:])))
                    for row in table["rows"]
                ),
                notes=tuple(table.get("notes", ())),
                mmlu_split=table.get("mmlu_split", "validation"),
            )
    return tables


def find_table(name: str) -> PaperTable:
    """The table of that name; UserError, with the nearest names, if there is none."""
    if name not in all_tables():
        raise unknown_name("table", name, all_tables())
    return all_tables()[name]
