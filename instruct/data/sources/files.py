"""Sources of records in users' files: JSON lines, tab-separated and comma-separated values.

Files lie under the workspace's data folder, one sub-folder per release, named as published.
`instruct/data/sources/public_releases.py` has the formats of known releases.

Rows that cannot become records are yielded as `Dropped` with a reason, so that stores count them:
bytes that are not UTF-8, malformed lines, empty questions and answers.

Where a publisher has one file only, splits are cut by a hash of each example's own text, not by
its line number: equal texts share a split, and appending rows to the file moves no example.
"""

import collections
import csv
import dataclasses
import functools
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from instruct.json_text import parse_json
from instruct.packed_files import open_unpacked, refuse_pointer
from instruct.prompts.messages import conversation
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import DATA_VARIABLE, Workspace

NOT_UTF8 = "text is not UTF-8"
_LINE_END_BLANKS = re.compile(r"[ \t]+(?=\n)")
_FORMAT = 2  # increment when the same file gives other records

Content = TypeVar("Content")


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of a file whose text hashes into [low, high) of the unit interval."""

    path: str
    low: float = 0.0
    high: float = 1.0

    def contains(self, text: str | bytes) -> bool:
        """Whether a row with this text belongs to the part."""
        whole = self.low <= 0.0 and self.high >= 1.0
        return whole or self.low <= hash_unit(text) < self.high


def hashed_parts(path: str) -> dict[str, Part]:
    """90 % train, 5 % validation, 5 % test of one file."""
    return {
        "train": Part(path, 0.1, 1.0),
        "validation": Part(path, 0.0, 0.05),
        "test": Part(path, 0.05, 0.1),
    }


def expected_records(parts: Mapping[str, Part], rows: int) -> dict[str, int]:
    """Approximate number of `rows` in each part; a store's manifest has the exact one."""
    return {split: round(rows * (part.high - part.low)) for split, part in parts.items()}


def hash_unit(text: str | bytes) -> float:
    """Hash of `text` in [0, 1), the same on every machine."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") / 2**64


def cached_by_file(maxsize: int | None) -> Callable[[Callable[[Path], Content]], Any]:
    """Caches a function of a path until the size or modification time of the file changes."""

    def decorate(function: Callable[[Path], Content]) -> Callable[[Path], Content]:
        @functools.lru_cache(maxsize)
        def cached(path: Path, *_: int) -> Content:
            return function(path)

        @functools.wraps(function)
        def current(path: Path) -> Content:
            status = path.stat()
            return cached(path, status.st_size, status.st_mtime_ns)

        return current

    return decorate


@cached_by_file(maxsize=None)
def file_digest(path: Path) -> bytes:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


# A record or rejected row, and the text that decides its split.
Row = tuple[Record | Dropped, str | bytes]


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Records from files; subclasses define how a file is read.

    Attributes:
        name: the data set's name; ids of records begin with it.
        parts: split -> part of a file, paths relative to the data folder.
        origin: where a user gets the files.
    """

    name: str
    parts: Mapping[str, Part]
    origin: str = ""

    def rows(self, path: Path) -> Iterator[Row]:
        """Yields every row of one file, in file order."""
        raise NotImplementedError

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def paths(self, workspace: Workspace) -> tuple[Path, ...]:
        """The files, each once."""
        names = dict.fromkeys(part.path for part in self.parts.values())
        return tuple(self.locate(workspace, name) for name in names)

    def locate(self, workspace: Workspace, name: str) -> Path:
        """Path of a file of `parts`, whether it exists or not."""
        return workspace.data_dir / name

    def fingerprint(self, workspace: Workspace) -> str:
        """Hash of the files' bytes and of how they are read; "absent" if one is missing."""
        digest = hashlib.sha256(f"{_FORMAT} {self!r}".encode())
        try:
            for path in self.paths(workspace):
                digest.update(file_digest(path))
        except OSError:
            return "absent"
        return digest.hexdigest()

    def available(self, workspace: Workspace) -> str | None:
        """None, or a message: which file is missing, where to get it, where to put it."""
        for path in self.paths(workspace):
            try:
                path.open("rb").close()
            except OSError as error:
                reason = (
                    f"{path} cannot be read ({error.strerror}). The data folder is "
                    f"{workspace.data_dir}; set it with --gin.DATA_DIR=FOLDER or the variable "
                    f"{DATA_VARIABLE}"
                )
                return f"{reason}. Get the file from {self.origin}" if self.origin else reason
        return None

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """Streams one split in file order.

        Raises:
            KeyError: no such split. OSError: the file cannot be read.
            UserError: the file is a Git LFS pointer.
        """
        part = self.parts[split]
        path = self.locate(workspace, part.path)
        refuse_pointer(path)
        for item, text in self.rows(path):
            if part.contains(text):
                yield item


def read_lines(path: Path) -> Iterator[tuple[int, bytes, str | None]]:
    """Yields (number from 0, bytes, text or None if not UTF-8) of every line that is not blank.

    Raises:
        OSError: the file cannot be read. UserError: it is compressed and damaged.
    """
    with open_unpacked(path) as stream:
        for number, raw in enumerate(stream):
            raw = raw.rstrip(b"\r\n")
            if number == 0:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            try:
                yield number, raw, raw.decode("utf-8")
            except UnicodeDecodeError:
                yield number, raw, None


class CsvRow(NamedTuple):
    """A row of a CSV file.

    Attributes:
        number: from 0, without the header.
        line: of its first character in the file, from 1.
        raw: its cells and delimiters.
        row: a dictionary if the file has a header, else a list of cells; `Dropped` if rejected.
        last_line: the line of its last character.
    """

    number: int
    line: int
    raw: bytes
    row: Any
    last_line: int


NOT_CSV = "line is not CSV"


def read_csv(
    path: Path, header: bool = True, delimiter: str = ",", **dialect: Any
) -> Iterator[CsvRow]:
    """Streams every row that is not blank of a CSV file, which may be compressed.

    Args:
        header: the first row names the columns: rows are dictionaries, else lists of cells.
        dialect: further arguments of `csv.reader`, such as `strict` and `quoting`.

    Raises:
        OSError: the file cannot be read. UserError: it is compressed and damaged.
    """
    columns: list[str] = []
    for number, (line, last_line, cells) in enumerate(
        csv_cells(path, delimiter=delimiter, **dialect)
    ):
        text = delimiter.join(cells or ())
        if cells is not None and not columns:
            columns = [cell.strip() for cell in cells]
            if header:
                continue
        row: Any = dict(zip(columns, cells)) if cells and header else cells
        if cells is None:
            row = Dropped(NOT_CSV)
        elif has_bad_bytes(cells):
            row = Dropped(NOT_UTF8)
        elif len(cells) != len(columns):
            row = Dropped(f"line does not have {len(columns)} columns")
        raw = text.encode("utf-8", "surrogateescape")
        yield CsvRow(number - header, line, raw, row, last_line)


def has_bad_bytes(cells: Iterable[str]) -> bool:
    """Whether a cell of `csv_cells` was not UTF-8."""
    return any("\udc80" <= sign <= "\udcff" for cell in cells for sign in cell)


class _RowLines:
    """The lines of a file; keeps those of the row that is read, to read them again.

    Attributes:
        number: of lines read.
        of_row: lines read since it was emptied.
        ended: whether a line was asked for after the last.
    """

    def __init__(self, lines: Iterable[str]):
        self._lines = iter(lines)
        self._again: collections.deque[str] = collections.deque()
        self.of_row: list[str] = []
        self.number = 0
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._again.popleft() if self._again else next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self.of_row.append(line)
        self.number += 1
        return line

    def return_to_second(self) -> None:
        """Goes back to the second line of the row."""
        lines = self.of_row[1:]
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)
        self.ended = False


def csv_cells(path: Path, **dialect: Any) -> Iterator[tuple[int, int, list[str] | None]]:
    """(first line, last line, cells) of rows that are not blank; None for an unreadable line.

    A line is unreadable if a quote opens in it that nothing closes, or a cell over 128 KiB begins
    in it; with `strict` also if its quote ends within a cell. A plain reader takes such a quote for
    a cell with all that follows: here the lines after it are rows.

    Bytes that are not UTF-8 become lone surrogates, so one bad row is one rejected row.

    Args:
        dialect: arguments of `csv.reader`.

    Raises:
        OSError: the file cannot be read. UserError: it is compressed and damaged.
    """
    with open_unpacked(path) as packed:
        lines = _RowLines(
            io.TextIOWrapper(packed, encoding="utf-8-sig", errors="surrogateescape", newline="")
        )
        reader = csv.reader(lines, **dialect)
        while True:
            lines.of_row = []
            first = lines.number + 1
            try:
                cells = next(reader)
                is_whole = not lines.ended  # a row that is whole does not ask for another line
            except StopIteration:
                return
            except csv.Error:
                cells, is_whole = None, False
            if not is_whole:
                lines.return_to_second()
                yield first, first, None
            elif cells:
                yield first, lines.number, cells


@dataclasses.dataclass(frozen=True)
class FieldMap:
    """Maps the keys (JSON, CSV with a header) or column numbers of a row to a record's fields.

    Attributes:
        fields: record field -> key.
        answer: key of the answer; with `options`, the option's text or its number.
        options: key of a list of options; None without.
        rationale, references, id: keys, or None; references are a list of texts, or one text.
    """

    fields: Mapping[str, str | int]
    answer: str | int
    options: str | int | None = None
    rationale: str | int | None = None
    references: str | int | None = None
    id: str | int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every key, once."""
        keys = (*self.fields.values(), self.answer, self.options, self.rationale)
        keys = (*keys, self.references, self.id)
        return tuple(dict.fromkeys(str(key) for key in keys if key is not None))

    def record(self, row: Any, default_id: str) -> Record | Dropped:
        """A record from one row."""
        try:
            fields = {name: _text(row[key]) for name, key in self.fields.items()}
            options = _texts(row[self.options]) if self.options is not None else ()
            answer, index = row[self.answer], -1
            if options and isinstance(answer, int) and not isinstance(answer, bool):
                index = answer
                answer = options[index] if 0 <= index < len(options) else ""
            answer = _text(answer)
            if options and index < 0:
                index = options.index(answer)
            rationale = _text(row[self.rationale]) if self.rationale is not None else ""
            references = row[self.references] if self.references is not None else ()
            references = _texts([references] if isinstance(references, str) else references)
            identity = _text(row[self.id]) if self.id is not None else default_id
        except (KeyError, IndexError) as error:
            return Dropped(f"no value for {error.args[0]!r}" if error.args else "missing value")
        except (TypeError, ValueError):
            return Dropped("a value has the wrong type, or the answer is none of the options")
        if not answer:
            return Dropped("empty answer")
        if fields and not any(fields.values()):
            return Dropped("empty question")
        return Record(identity, fields, answer, options, index, references, rationale)


@dataclasses.dataclass(frozen=True)
class MessagesMap(FieldMap):
    """Maps a row's list of messages to a conversation (instruct/prompts/messages.py).

    Attributes:
        answer: key of the list.
        id: key, or None.
    """

    fields: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    answer: str | int = "messages"

    def record(self, row: Any, default_id: str) -> Record | Dropped:
        """A record from one row."""
        try:
            identity = default_id if self.id is None else _text(row[self.id])
            return conversation(row[self.answer], identity)
        except (KeyError, TypeError) as error:
            return Dropped(f"no value for {error.args[0]!r}")


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise TypeError(f"{value!r} is not text")
    # As in `column_source.text_of`: what pandas writes for a missing value.
    return "" if value != value else str(value).strip()


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):  # a text or dictionary is iterable too
        raise TypeError(f"{values!r} is not a list")
    return tuple(_text(value) for value in values)


def clean(text: str) -> str:
    """Strips a text and the end of each of its lines."""
    return _LINE_END_BLANKS.sub("", text).strip()


def identity(record: Record) -> str:
    """Key of equal examples: the fields with case and runs of whitespace normalized."""
    return "\n".join(" ".join(text.casefold().split()) for text in record.fields.values())


def keyed(item: Record | Dropped, raw: bytes) -> Row:
    """An item with the text that decides its split: a record's own text, else the raw bytes."""
    return item, raw if isinstance(item, Dropped) else identity(item)


@dataclasses.dataclass(frozen=True)
class MappedSource(FileSource):
    """One record per row of a file, made by a `FieldMap` or a subclass's `record`."""

    field_map: FieldMap = FieldMap({}, "answer")

    def parsed_rows(self, path: Path) -> Iterator[tuple[str, bytes, Any]]:
        """Yields (id if the row has none, bytes, row or `Dropped`) of every row."""
        raise NotImplementedError

    def record(self, row: Any, default_id: str) -> Record | Dropped:
        """A record from one row."""
        return self.field_map.record(row, default_id)

    def rows(self, path: Path) -> Iterator[Row]:
        for default_id, raw, row in self.parsed_rows(path):
            item = row if isinstance(row, Dropped) else self.record(row, default_id)
            yield keyed(item.of_row(row) if isinstance(item, Dropped) else item, raw)


@dataclasses.dataclass(frozen=True)
class JsonLinesSource(MappedSource):
    """One JSON object per line. `parts` is `hashed_parts(path)`, or one file per split."""

    def parsed_rows(self, path: Path) -> Iterator[tuple[str, bytes, Any]]:
        for number, raw, text in read_lines(path):
            try:
                row = Dropped(NOT_UTF8) if text is None else parse_json(text)
            except ValueError:
                row = None
            if not isinstance(row, dict | Dropped):
                row = Dropped("line is not a JSON object")
            yield f"{self.name}-{path.stem}-{number}", raw, row


@dataclasses.dataclass(frozen=True)
class TsvSource(MappedSource):
    """Tab-separated lines without header and without quoting; `field_map` holds column numbers.

    Attributes:
        num_columns: columns of every line; None for any number.
    """

    field_map: FieldMap = FieldMap({}, 1)
    num_columns: int | None = None

    def parsed_rows(self, path: Path) -> Iterator[tuple[str, bytes, Sequence[str] | Dropped]]:
        for number, raw, text in read_lines(path):
            row = Dropped(NOT_UTF8) if text is None else text.split("\t")
            if isinstance(row, list) and self.num_columns not in (None, len(row)):
                row = Dropped(f"line does not have {self.num_columns} columns")
            yield f"{self.name}-{number}", raw, row


@dataclasses.dataclass(frozen=True)
class CsvSource(MappedSource):
    """Comma-separated values with quoting: a quoted cell may hold commas, quotes and newlines.

    Attributes:
        field_map: holds column names if the file has a header, else column numbers.
        header: whether the first line names the columns.
        delimiter: one character.
    """

    field_map: FieldMap = FieldMap({}, 1)
    header: bool = True
    delimiter: str = ","

    def parsed_rows(self, path: Path) -> Iterator[tuple[str, bytes, Any]]:
        for line in read_csv(path, self.header, self.delimiter):
            yield f"{self.name}-{path.stem}-{line.number}", line.raw, line.row
