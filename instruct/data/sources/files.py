"""Raw examples from users' files, as records. Nothing is read before `records` is called.

Files lie under the workspace's data folder, one sub-folder a publisher's release, named as the
publisher names them. This module reads any JSON lines, tab- and comma-separated lines;
`instruct/data/sources/public_releases.py` has the formats of known releases.

Rows that cannot become records come out as `Dropped` with a reason, so that stores can count them:
bytes that are not UTF-8, lines that are not what the format says, empty questions and answers.

Where a publisher has one file only, splits are cut by a hash of the example's own text, never by
its line: equal texts stay on one side, and a longer file keeps what it had where it was.
"""

import csv
import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.json_text import parse_json
from instruct.packed_files import open_unpacked, refuse_pointer
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import DATA_VARIABLE, Workspace

_LINE_END_BLANKS = re.compile(r"[ \t]+(?=\n)")
_FORMAT = 2  # counts up when the same file gives other records


@dataclasses.dataclass(frozen=True)
class Part:
    """A split as a part of a file: rows whose text hashes into [low, high) of the unit interval."""

    path: str
    low: float = 0.0
    high: float = 1.0


def hashed_parts(path: str) -> dict[str, Part]:
    """90 % train, 5 % validation, 5 % test of one file."""
    return {
        "train": Part(path, 0.1, 1.0),
        "validation": Part(path, 0.0, 0.05),
        "test": Part(path, 0.05, 0.1),
    }


def expected_records(parts: Mapping[str, Part], rows: int) -> dict[str, int]:
    """About how many of `rows` fall into each part; a store's manifest has the true number."""
    return {split: round(rows * (part.high - part.low)) for split, part in parts.items()}


def hash_unit(text: str | bytes) -> float:
    """A number in [0, 1) that depends on nothing but `text`, the same on every machine."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") / 2**64


# What `rows` yields: an item, and the text that decides its split.
Row = tuple[Record | Dropped, str | bytes]


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Records from files; a subclass says how a file is read.

    Attributes:
        name: the data set's name; ids of records begin with it.
        parts: split -> part of a file, paths relative to the data folder.
        origin: where a user gets the files.
    """

    name: str
    parts: Mapping[str, Part]
    origin: str = ""

    def rows(self, path: Path) -> Iterator[Row]:
        """Every row of one file, in file order."""
        raise NotImplementedError

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def paths(self, workspace: Workspace) -> tuple[Path, ...]:
        """The files, each once."""
        names = dict.fromkeys(part.path for part in self.parts.values())
        return tuple(self.locate(workspace, name) for name in names)

    def locate(self, workspace: Workspace, name: str) -> Path:
        """Where the file of that name is or should be."""
        return workspace.data_dir / name

    def fingerprint(self, workspace: Workspace) -> str:
        """Hash of the files' bytes and of how they are read; "absent" while one is missing."""
        digest = hashlib.sha256(f"{_FORMAT} {self!r}".encode())
        for path in self.paths(workspace):
            try:
                status = path.stat()
                digest.update(file_digest(str(path), status.st_size, status.st_mtime_ns))
            except OSError:
                return "absent"
        return digest.hexdigest()

    def available(self, workspace: Workspace) -> str | None:
        """None, or a message: which file is missing, which path was searched, where to get it."""
        for path in self.paths(workspace):
            try:
                path.open("rb").close()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                reason = (
                    f"{path} is not there. The data folder is {workspace.data_dir}; set it with "
                    f"--gin.DATA_DIR=FOLDER or the variable {DATA_VARIABLE}"
                )
                return f"{reason}. Get the file from {self.origin}" if self.origin else reason
            except OSError as error:
                return f"{path} cannot be read ({error.strerror})"
        return None

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """Streams one split in file order.

        Raises:
            KeyError: no such split. OSError: the file cannot be read.
            UserError: the file is only Git LFS's pointer to it.
        """
        part = self.parts[split]
        whole = part.low <= 0.0 and part.high >= 1.0
        path = self.locate(workspace, part.path)
        refuse_pointer(path)
        for item, text in self.rows(path):
            if whole or part.low <= hash_unit(text) < part.high:
                yield item


@functools.cache
def file_digest(path: str, size: int, mtime_ns: int) -> bytes:
    """SHA-256 of a file; size and time only say when the remembered one is stale."""
    del size, mtime_ns
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def read_lines(path: Path) -> Iterator[tuple[int, bytes, str | None]]:
    """(number from 0, bytes, text or None if not UTF-8) of every line that is not blank.

    Raises:
        OSError: the file cannot be read. UserError: it is packed and damaged.
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


@dataclasses.dataclass(frozen=True)
class FieldMap:
    """Which key (JSON, CSV with a header) or column number (TSV, other CSV) of a row holds what.

    Attributes:
        fields: record field -> key.
        answer: key of the answer; with `options`, it may hold the option's text or its number.
        options: key of a list of options; None without.
        rationale, references, id: keys, or None; references are a list of texts, or one text.
    """

    fields: Mapping[str, str | int]
    answer: str | int
    options: str | int | None = None
    rationale: str | int | None = None
    references: str | int | None = None
    id: str | int | None = None

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


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise TypeError(f"{value!r} is not text")
    return str(value).strip()


def _texts(values: Any) -> tuple[str, ...]:
    # Texts and tables are iterable too, and would give letters or keys.
    if not isinstance(values, list | tuple):
        raise TypeError(f"{values!r} is no list")
    return tuple(_text(value) for value in values)


def clean(text: str) -> str:
    """Text without blanks at its ends and at the ends of its lines."""
    return _LINE_END_BLANKS.sub("", text).strip()


def identity(record: Record) -> str:
    """Key of equal examples: the source texts without case and runs of blanks."""
    return "\n".join(" ".join(text.casefold().split()) for text in record.fields.values())


def keyed(item: Record | Dropped, raw: bytes) -> Row:
    """A row with the text that decides its split: the record's own, else the line's bytes."""
    return item, raw if isinstance(item, Dropped) else identity(item)


@dataclasses.dataclass(frozen=True)
class JsonLinesSource(FileSource):
    """One JSON object a line.

    `parts` is `hashed_parts(path)`, or one file a split.
    """

    field_map: FieldMap = FieldMap({}, "answer")

    def record(self, row: Mapping[str, Any], default_id: str) -> Record | Dropped:
        """A record from one JSON object."""
        return self.field_map.record(row, default_id)

    def rows(self, path: Path) -> Iterator[Row]:
        for number, raw, text in read_lines(path):
            try:
                row = None if text is None else parse_json(text)
            except ValueError:
                row = None
            if text is None:
                item: Record | Dropped = Dropped("text is not UTF-8")
            elif not isinstance(row, dict):
                item = Dropped("line is not a JSON object")
            else:
                item = self.record(row, f"{self.name}-{path.stem}-{number}")
                item = item.of_row(row) if isinstance(item, Dropped) else item
            yield keyed(item, raw)


@dataclasses.dataclass(frozen=True)
class TsvSource(FileSource):
    """Tab-separated lines without header and without quoting; `field_map` holds column numbers.

    Attributes:
        num_columns: how many columns every line has; None for any number.
    """

    field_map: FieldMap = FieldMap({}, 1)
    num_columns: int | None = None

    def record(self, row: Sequence[str], default_id: str) -> Record | Dropped:
        """A record from the columns of one line."""
        return self.field_map.record(row, default_id)

    def rows(self, path: Path) -> Iterator[Row]:
        for number, raw, text in read_lines(path):
            columns = [] if text is None else text.split("\t")
            if text is None:
                item: Record | Dropped = Dropped("text is not UTF-8")
            elif self.num_columns is not None and len(columns) != self.num_columns:
                item = Dropped(f"line does not have {self.num_columns} columns")
            else:
                item = self.record(columns, f"{self.name}-{number}")
            yield keyed(item, raw)


@dataclasses.dataclass(frozen=True)
class CsvSource(FileSource):
    """Comma-separated values with quoting: a quoted cell may hold commas, quotes and newlines.

    Attributes:
        field_map: holds column names if the file has a header, else column numbers.
        header: whether the first line names the columns.
        delimiter: one character.
    """

    field_map: FieldMap = FieldMap({}, 1)
    header: bool = True
    delimiter: str = ","

    def record(self, row: Mapping[str, str] | Sequence[str], default_id: str) -> Record | Dropped:
        """A record from the cells of one row."""
        return self.field_map.record(row, default_id)

    def rows(self, path: Path) -> Iterator[Row]:
        names: list[str] = []
        width = 0
        # Bytes that are not UTF-8 become lone surrogates, so that one bad row is one dropped row.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            for number, cells in enumerate(csv_rows(stream, self.delimiter)):
                text = self.delimiter.join(cells or ())
                if cells is not None and not width:
                    width = len(cells)
                    if self.header:
                        names = [cell.strip() for cell in cells]
                        continue
                if cells is None:
                    item: Record | Dropped = Dropped("line is not CSV")
                elif any("\udc80" <= sign <= "\udcff" for sign in text):
                    item = Dropped("text is not UTF-8")
                elif len(cells) != width:
                    item = Dropped(f"line does not have {width} columns")
                else:
                    row = dict(zip(names, cells)) if self.header else cells
                    item = self.record(row, f"{self.name}-{path.stem}-{number - self.header}")
                    item = item.of_row(row) if isinstance(item, Dropped) else item
                yield keyed(item, text.encode("utf-8", "surrogateescape"))


def csv_rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str] | None]:
    """Rows that are not blank; None for one that cannot be read (a cell of over 128 KiB)."""
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None
            continue
        if cells:
            yield cells
