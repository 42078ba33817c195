"""Tables of facts about data sets: the tab-separated files of `tasks/tables/`."""

import csv
from pathlib import Path

FOLDER = Path(__file__).parent / "tables"


def read_table(name: str) -> list[dict[str, str]]:
    """Rows of `<name>.tsv`: column of its header -> text.

    A line that begins with "#" is a comment; a cell "-" is empty.
    """
    lines = (FOLDER / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(
        (line for line in lines if not line.startswith("#")),
        delimiter="\t",
        quoting=csv.QUOTE_NONE,
        strict=True,
    )
    return [{key: "" if cell == "-" else cell for key, cell in row.items()} for row in rows]
