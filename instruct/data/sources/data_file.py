"""A user's data file or folder in any common format: splits, columns, and rows with their lines.

    rows.jsonl  rows.json (an array, or one object that holds a list)  rows.csv  rows.tsv
    rows.parquet  rows.arrow  a folder as Hugging Face's hub and `datasets` save them

Text files may be compressed (.gz, .zst) and begin with a byte-order mark; line ends do not matter.
"""

import csv
import dataclasses
import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from instruct.data.sources.files import NOT_CSV, NOT_UTF8, CsvRow, read_csv, read_lines
from instruct.data.sources.json_files import NoJson, read_values
from instruct.data.sources.table_files import SPLIT_NAMES, find_split, missing_shards, read_rows
from instruct.errors import UserError
from instruct.json_text import parse_json
from instruct.packed_files import PACKED_ENDINGS, open_unpacked
from instruct.prompts.render import Dropped

_FOLDERS = ("", "data", "default")
# Ending -> how the file is read; delimiters of the first kind are guessed from the first line.
_KINDS = {
    **{".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"},
    **{".parquet": "parquet", ".arrow": "arrow"},
}
ENDINGS = tuple(_KINDS)
_DELIMITERS = (",", ";", "\t", "|")
_NOT_CSV = "not CSV from here: a quote is not closed or ends within a cell, or 128 KiB in a cell"
_FIRST_ROWS = 1000  # that columns are looked for in
# First bytes of tables, whatever the file is called.
_TABLES = {b"PAR1": "parquet", b"ARROW1": "arrow"}
# First bytes of files that hold no rows, and what to do.
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive or Excel file; unpack it, or save the sheet as CSV (UTF-8)",
    b"BZh": "compressed by bzip2; unpack it, or compress it by gzip or zstd",
    b"\xfd7zXZ": "compressed by xz; unpack it, or compress it by gzip or zstd",
    b"%PDF": "a PDF; save its rows as CSV or JSON lines",
    b"\xff\xfe": "UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
}


class Row(NamedTuple):
    """A row and where it stands, such as "line 17" (text) or "row 3" (an array, a table)."""

    place: str
    values: dict[str, Any] | Dropped


def find_files(name: str, path: Path) -> dict[str, tuple[Path, ...]]:
    """Split -> files of a file (one split, train) or a folder (the splits that it has).

    Args:
        name: the flag or key that gave the path, for messages.

    Raises:
        UserError: there is nothing, the folder has no data file of a split, or shards are missing.
    """
    if path.is_file():
        return {"train": (path,)}
    if not path.is_dir():
        names = sorted(p.name for p in path.parent.glob("*") if _kind(p) or p.is_dir())
        near = difflib.get_close_matches(path.name, names) or names[:8]
        listed = f" In {path.parent} are {', '.join(near)}." if near else ""
        raise UserError(
            f"{name} is {str(path)!r}: there is no such file or folder.{listed} A data set of the "
            "hub must be on this machine: hf download --repo-type dataset OWNER/NAME --local-dir "
            "FOLDER."
        )
    for folder in (path / inside for inside in _FOLDERS):
        splits = {
            split: files
            for split, names in SPLIT_NAMES.items()
            if (files := next(filter(None, (tuple(find_split(folder, n)) for n in names)), ()))
        }
        for files in splits.values():
            if missing := missing_shards(files):
                raise UserError(
                    f"{files[0].parent} lacks {', '.join(missing)}; get the files again."
                )
        if "train" in splits:
            return splits
    below = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))[:8]
    raise UserError(
        f"{name} is the folder {str(path)!r}, which holds no file of a split 'train', such as "
        f"train-00000-of-00001.parquet or train.jsonl; it holds {', '.join(below) or 'nothing'}. "
        "Name a file, or the folder of one configuration."
    )


def _kind(path: Path) -> str | None:
    """How a file is read, by the ending of its name before .gz or .zst; None if unknown."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED_ENDINGS:
        suffixes.pop()
    return _KINDS.get(suffixes[-1]) if suffixes else None


@dataclasses.dataclass(frozen=True)
class DataFile:
    """Files of one split and how their rows are read.

    Attributes:
        paths: of one format, absolute.
        kind: "json", "csv", "parquet" or "arrow".
        delimiter: between the cells of a CSV file.
        header: whether a CSV file's first line names its columns; else they are called "1", "2".
        quoted: whether quotes of a CSV file enclose cells; else they are characters.
        list_key: the key of the list of rows in a file of one JSON object; "" for other files.
    """

    paths: tuple[Path, ...]
    kind: str
    delimiter: str = ","
    header: bool = True
    quoted: bool = True
    list_key: str = ""

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Streams the rows in file order; those that are no row are `Dropped`.

        Args:
            columns: that are read from Parquet and Arrow files; None for all.

        Raises:
            OSError: a file cannot be read. UserError: it is damaged.
        """
        for path in self.paths:
            shard = f"{path.name} " if len(self.paths) > 1 else ""
            if self.kind == "csv":
                rows = self._csv_rows(path)
            elif self.kind == "json":
                rows = self._json_rows(path)
            else:
                table = read_rows([path], columns, format=f".{self.kind}")
                rows = (Row(f"row {number}", values) for number, values in enumerate(table, 1))
            yield from (Row(shard + row.place, row.values) for row in rows)

    def _csv_rows(self, path: Path) -> Iterator[Row]:
        for line in read_csv(path, self.header, self.delimiter, **_dialect(self.quoted)):
            values, place = self._cells(line), f"line {line.line}"
            if isinstance(values, Dropped) and line.last_line > line.line:
                place = f"lines {line.line} to {line.last_line}"  # these are lost
            yield Row(place, values)

    def _cells(self, line: CsvRow) -> dict[str, Any] | Dropped:
        if isinstance(line.row, list):
            return {str(number): cell for number, cell in enumerate(line.row, 1)}
        return Dropped(_NOT_CSV) if line.row == Dropped(NOT_CSV) else line.row

    def _json_rows(self, path: Path) -> Iterator[Row]:
        values: Iterator[tuple[str, int, Any]] = read_values(path)
        if self.list_key:
            with open_unpacked(path) as stream:
                items = parse_json(stream.read())[self.list_key]
            values = (("row", number, value) for number, value in enumerate(items, 1))
        for kind, number, value in values:
            if isinstance(value, NoJson):
                reason = NOT_UTF8 if value.reason == NOT_UTF8 else "not JSON"
                value = Dropped(f"{kind} is {reason}" if reason != NOT_UTF8 else reason)
            elif not isinstance(value, dict):
                value = Dropped(f"{kind} is not a JSON object")
            yield Row(f"{kind} {number}", value)

    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the first rows, in order of first mention."""
        names: dict[str, None] = {}
        for row in itertools.islice(self.rows(), _FIRST_ROWS):
            if isinstance(row.values, dict):
                names |= dict.fromkeys(map(str, row.values))
        return tuple(names)


def open_data(paths: Sequence[Path], columns: Sequence[str] = ()) -> DataFile:
    """Finds out how the files of a split are read.

    Args:
        paths: at least one, of one format.
        columns: that the reader needs. A CSV file is read without a header if they are numbers
            ("1" is the first column) and its first line has no such names.

    Raises:
        UserError: no format that can be read.
        OSError: a file cannot be read.
    """
    path, kind = paths[0], _kind(paths[0])
    paths = tuple(path.absolute() for path in paths)
    if kind in ("parquet", "arrow"):
        if path.suffix.lower() in PACKED_ENDINGS:
            raise UserError(f"{path} is compressed twice, as these formats are anyway; unpack it.")
        return DataFile(paths, kind)
    try:
        with open_unpacked(path) as stream:
            head = stream.read(4096)
    except (UserError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    for start, problem in _NO_TEXT.items():
        if head.startswith(start):
            raise UserError(f"{path} is {problem}.")
    if by_content := next((k for start, k in _TABLES.items() if head.startswith(start)), None):
        return DataFile(paths, by_content)
    if b"\0" in head[:1024]:
        raise UserError(f"{path} is not UTF-8 text: it holds zero bytes. Save it as UTF-8.")
    if not head.removeprefix(b"\xef\xbb\xbf").strip() and len(head) < 4096:
        raise UserError(f"{path} is empty: it holds no row.")
    if kind is None and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        kind = "json"
    if kind is None:
        raise UserError(
            f"{path} has no ending that says what it is; name it after its format: "
            f"{', '.join(ENDINGS)}, and .gz or .zst after these."
        )
    if kind == "json":
        return DataFile(paths, kind, list_key=_list_key(path, columns))
    return _open_csv(paths, columns)


def _open_csv(paths: tuple[Path, ...], columns: Sequence[str]) -> DataFile:
    """The delimiter with which the first line has the columns, else the most cells."""
    headers: dict[str, list[str]] = {}
    for delimiter in _DELIMITERS:
        first = next(read_csv(paths[0], False, delimiter), None)
        if first is not None and isinstance(first.row, list):
            headers[delimiter] = [cell.strip() for cell in first.row]
    default = "\t" if ".tsv" in paths[0].suffixes else ","
    fitting = [delimiter for delimiter in headers if set(columns) <= set(headers[delimiter])]
    is_numbered = bool(columns) and all(name.isdecimal() for name in columns) and not fitting
    if (columns and default in fitting) or not headers:
        best = default
    else:
        candidates = fitting if columns and fitting else list(headers)
        best = max(candidates, key=lambda d: (len(headers[d]), d == default))
    header = not is_numbered
    if twice := [name for name in columns if headers.get(best, []).count(name) > 1]:
        raise UserError(f"{paths[0]}: several columns are called {twice[0]!r}; rename them.")
    quoted = not (_has_rejected(paths, best, True) and not _has_rejected(paths, best, False))
    return DataFile(paths, "csv", best, header, quoted)


def _dialect(quoted: bool) -> dict[str, Any]:
    """Arguments of `csv.reader`: quotes around whole cells, or none."""
    return {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}


def _has_rejected(paths: Sequence[Path], delimiter: str, quoted: bool) -> bool:
    """Whether a row is no CSV or has another number of cells than the first."""
    rows = (row for path in paths for row in read_csv(path, False, delimiter, **_dialect(quoted)))
    return any(isinstance(row.row, Dropped) and row.row.reason != NOT_UTF8 for row in rows)


def _list_key(path: Path, columns: Sequence[str]) -> str:
    """The key of the one list of objects in a file that is one JSON object; "" otherwise.

    An object that has one of the columns itself is a row.
    """
    first = list(itertools.islice((line for line in read_lines(path)), 2))
    if not first or not first[0][1].lstrip().startswith(b"{"):
        return ""
    values = [_value(text) for _, _, text in first]
    if len(values) == 2 and any(isinstance(value, dict) for value in values):
        return ""  # JSON lines
    try:
        with open_unpacked(path) as stream:
            value = parse_json(stream.read())
    except ValueError:
        return ""
    if not isinstance(value, Mapping) or set(columns) & set(value):
        return ""
    lists = [key for key, items in value.items() if _is_rows(items)]
    if not columns and lists == ["messages"]:
        return ""  # one conversation
    if len(lists) > 1:
        raise UserError(
            f"{path} is one JSON object with several lists of rows ({', '.join(lists)}); save the "
            "one to train on as JSON lines or as a JSON array of its own."
        )
    return lists[0] if lists else ""


def _value(text: str | None) -> Any:
    try:
        return parse_json(text or "")
    except ValueError:
        return None


def _is_rows(items: Any) -> bool:
    return isinstance(items, list) and bool(items) and all(isinstance(item, dict) for item in items)
