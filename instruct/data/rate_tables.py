"""Mixtures whose rates are a user's table, such as submodular or learned task rates.

    rates.tsv     a task, mode or mixture, a tab, and its rate, line by line; "#" begins a comment
    rates.json    {"cot.gsm8k": 0.2, "niv2": null}

The mixture is called like the file, without its ending. Rates are relative. An empty rate (null)
stands for the number of records, at most the cap of each task; 0 leaves the row's tasks out.
"""

import dataclasses
import json
from pathlib import Path

from instruct.data import registry
from instruct.errors import UserError
from instruct.files import local_path
from instruct.workspace import Workspace

ENDINGS = (".tsv", ".json")


@dataclasses.dataclass(frozen=True)
class RateTable:
    """The rates of a file, read whenever the mixture is resolved."""

    path: Path

    def __call__(self, workspace: Workspace) -> registry.Rates:
        """Child -> rate, without the children of rate 0."""
        del workspace
        rates = read_rates(self.path)
        return {name: rate for name, rate in rates.items() if rate is None or rate > 0}


def register(name: str) -> None:
    """Registers the mixture of a table, unless it is registered already.

    Raises:
        UserError: the file is missing or no table, or the name of its mixture is taken.
    """
    path = local_path("MIXTURE_OR_TASK_MODULE", name, "rates.tsv").absolute()
    table = RateTable(path)
    registry.import_modules_of(path.stem)
    if registry.rates_of(path.stem) == table:
        return
    if not path.stem.replace(".", "_").isidentifier():
        raise UserError(
            f"the mixture of {path} would be called {path.stem!r}; name the file with letters, "
            "digits, '_' and '.' only."
        )
    if path.stem in read_rates(path):
        raise UserError(
            f"{path} names {path.stem!r}, which is its own mixture; rename the file, or that row."
        )
    registry.add_mixture(path.stem, table)


def read_rates(path: Path) -> dict[str, float | None]:
    """Reads a table: child -> rate, None for the number of records.

    Raises:
        UserError: the file is missing, or a row is wrong; the message names it.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the table of rates {path}: {error}") from error
    rows = _json_rows(path, text) if path.suffix == ".json" else _tsv_rows(path, text)
    rates: dict[str, float | None] = {}
    for place, name, value in rows:
        if name in rates:
            raise UserError(f"{path}, {place}: {name!r} has a rate already; give it once.")
        try:
            rate = None if value in (None, "") else float(str(value))
        except ValueError:
            rate = float("nan")
        if rate is not None and not 0 <= rate < float("inf"):
            raise UserError(
                f"{path}, {place}: the rate of {name!r} is {value!r}; use a number of at least 0, "
                "or nothing for the number of records."
            )
        rates[name] = rate
    if not any(rate is None or rate for rate in rates.values()):
        raise UserError(f"{path} has no rate above 0; give one a line: a task, a tab, its rate.")
    return rates


def _tsv_rows(path: Path, text: str) -> list[tuple[str, str, str]]:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = [field.strip() for field in line.partition("#")[0].split("\t")]
        if fields == [""]:
            continue
        if len(fields) != 2 or not fields[0]:
            raise UserError(f"{path}, line {number}: {line!r} is not a task, a tab and its rate.")
        rows.append((f"line {number}", *fields))
    return rows


def _json_rows(path: Path, text: str) -> list[tuple[str, str, object]]:
    try:
        pairs = json.loads(text, object_pairs_hook=list)
        return [(f"entry {number}", name, value) for number, (name, value) in enumerate(pairs, 1)]
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON object of rates: {error}") from error
