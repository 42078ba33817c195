"""Records from columns of a user's data files (instruct/data/sources/data_file.py)."""

import dataclasses
import decimal
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instruct.data.sources.data_file import DataFile
from instruct.data.sources.files import file_digest, hash_unit, identity
from instruct.prompts.messages import conversation
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

_FORMAT = 1  # increment when the same file gives other records
_ABSENT = object()


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or of a nested one: "a.b" is `row["a"]["b"]`, "a.0" `row["a"][0]`.

    Raises:
        KeyError: the row has no such column.
    """
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        if isinstance(value, Mapping):
            value = value.get(key, _ABSENT)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            value = _ABSENT
        if value is _ABSENT:
            raise KeyError(column)
    return value


def text_of(value: Any) -> str:
    """A text, number or truth value as text, without blanks at its ends; "" for null.

    Raises:
        TypeError: any other value.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, decimal.Decimal):  # of a table's column of exact numbers
        return format(value, "f")
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise TypeError("an object" if isinstance(value, Mapping) else "a list or of another type")


@dataclasses.dataclass(frozen=True)
class ColumnMap:
    """Maps a row's columns to a record.

    Attributes:
        fields: record field -> column; a list of texts is joined by line breaks.
        targets: column of the answer; a list of texts is an answer and its alternatives.
        messages: column of a list of messages, a conversation; the others are empty then.
    """

    fields: Mapping[str, str]
    targets: str
    messages: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column, once."""
        names = (*self.fields.values(), self.targets, self.messages)
        return tuple(dict.fromkeys(filter(None, names)))

    def record(self, row: Mapping[str, Any], record_id: str) -> Record | Dropped:
        """A record from one row."""
        record = self._record(row, record_id)
        if isinstance(record, Record):
            texts = (*record.fields.values(), record.answer, *record.references)
            if not all(map(_is_unicode, texts)):  # JSON may escape what no UTF-8 file holds
                return Dropped("a text holds half of a surrogate pair")
        return record

    def _record(self, row: Mapping[str, Any], record_id: str) -> Record | Dropped:
        values = {}
        for column in self.columns:
            try:
                values[column] = value_of(row, column)
            except KeyError:
                return Dropped(f"no value for {column!r}")
        if self.messages:
            return conversation(values[self.messages], record_id)
        fields = {}
        for name, column in self.fields.items():
            try:
                fields[name] = "\n".join(_texts(values[column]))
            except TypeError as error:
                return Dropped(f"{column!r} is {error}, not text")
        try:
            answers = tuple(filter(None, _texts(values[self.targets])))
        except TypeError as error:
            return Dropped(f"{self.targets!r} is {error}, not text")
        if not answers:
            return Dropped(f"{self.targets!r} is empty")
        if not any(fields.values()):
            return Dropped(f"{' and '.join(map(repr, self.fields.values()))} empty")
        references = answers if isinstance(values[self.targets], list) else ()
        return Record(record_id, fields, answers[0], references=references)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(value: Any) -> list[str]:
    return [text_of(item) for item in (value if isinstance(value, list) else [value])]


@dataclasses.dataclass(frozen=True)
class ColumnSource:
    """A `Source` over files of users; paths are absolute.

    Attributes:
        name: ids of records begin with it, and end in the row's place in its file.
        files: split -> its files.
        column_map: from a row to a record.
        held_out: rows of the train files whose inputs hash below it are the validation split, if
            no files are; 0 for none.
    """

    name: str
    files: Mapping[str, DataFile]
    column_map: ColumnMap
    held_out: float = 0.0

    @property
    def splits(self) -> tuple[str, ...]:
        held_out = ("validation",) if self.held_out and "validation" not in self.files else ()
        return (*self.files, *held_out)

    def digest(self) -> str:
        """Hash of the bytes of all files and of how they are read, in hexadecimal.

        Raises:
            OSError: a file cannot be read.
        """
        fields, targets = dict(self.column_map.fields), self.column_map.targets
        how = [_FORMAT, fields, targets, self.column_map.messages, self.held_out]
        digest = hashlib.sha256(repr(how).encode())
        for split, data in self.files.items():
            reading = (split, data.kind, data.delimiter, data.header, data.quoted, data.list_key)
            digest.update(repr(reading).encode())
            for path in data.paths:
                digest.update(file_digest(path))
        return digest.hexdigest()

    def fingerprint(self, workspace: Workspace) -> str:
        """`digest`; "absent" if a file is missing."""
        del workspace
        try:
            return self.digest()
        except OSError:
            return "absent"

    def available(self, workspace: Workspace) -> str | None:
        """None, or which file cannot be read."""
        del workspace
        for path in (path for data in self.files.values() for path in data.paths):
            try:
                Path(path).open("rb").close()
            except OSError as error:
                return f"{path} cannot be read ({error.strerror})"
        return None

    def rows(self, split: str) -> Iterator[tuple[str, Record | Dropped, Mapping[str, Any]]]:
        """Yields (place, record or rejected row, the row; {} if it is none) of a split's files."""
        columns = {column.partition(".")[0] for column in self.column_map.columns}
        for place, values in self.files[split].rows(sorted({*columns, *self.column_map.columns})):
            if isinstance(values, Dropped):
                yield place, values, {}
            else:
                record_id = f"{self.name} {split} {place}".replace(" ", "-")
                yield place, self.column_map.record(values, record_id), values

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """Streams one split in file order. Rejected rows of the train files count as train's.

        Raises:
            OSError: a file cannot be read. UserError: it is damaged.
        """
        del workspace
        file_split = split if split in self.files else "train"
        is_held_out = split not in self.files
        for _, item, _ in self.rows(file_split):
            below = isinstance(item, Record) and hash_unit(identity(item)) < self.held_out
            if file_split != "train" or "validation" in self.files or below == is_held_out:
                yield item
