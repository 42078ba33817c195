"""Sources of the suites: publishers' files, some of which a user may not have.

People often use one split and one protocol of a benchmark: MMLU's test files without the
validation ones, direct prompts without the file of reasoned exemplars. So each split names the
files that it needs, and reading it needs no other.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from instruct.data.sources.files import file_digest, read_lines
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.spec import Source, function_name
from instruct.errors import UserError
from instruct.json_text import parse_json
from instruct.packed_files import refuse_pointer
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import DATA_VARIABLE, Workspace

_FORMAT = 1  # counts up when the same files give other records


class HubSplit(NamedTuple):
    """A split's files as a data hub lays them out (layouts: instruct/data/sources/table_files.py).

    Attributes:
        path: the hub's name, "owner/name".
        config: configuration, a folder of its own there; None for the only one.
        split: its name on the hub.
    """

    path: str
    config: str | None
    split: str

    def find(self, workspace: Workspace) -> tuple[Path, ...]:
        """The files in the data folder or the hub's cache on this machine; () if any is missing."""
        return tuple(HuggingFaceSource(self.path, self.config).local_files(workspace, self.split))

    def __str__(self) -> str:
        return "/".join(filter(None, (self.path, self.config, self.split)))


def hub_url(path: str) -> str:
    """The page of a data set on the hub."""
    return f"https://huggingface.co/datasets/{path}"


Entry = str | HubSplit | tuple[str | HubSplit, ...]


class SplitFiles(NamedTuple):
    """The reader of one split and the files that it needs.

    Attributes:
        read: called with the paths, yields records; a function of a module (or a `partial` of
            one), because worker processes get it by its name.
        files: one entry for each needed file, relative to the data folder; an entry of several
            names is one file under the first of these names that exists. `read` gets a `HubSplit`
            as a tuple of paths.
    """

    read: Callable[..., Iterator[Record | Dropped]]
    files: tuple[Entry, ...]


@dataclasses.dataclass(frozen=True)
class SuiteSource:
    """Splits that are read from files of their own.

    Attributes:
        name: of the data set, for messages.
        parts: split -> its files.
        origin: where a user gets the files.
        fallback: another source for splits whose files are missing, or several, best first;
            sources on this machine are preferred to downloads.
    """

    name: str
    parts: Mapping[str, SplitFiles]
    origin: str
    fallback: Source | tuple[Source, ...] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def fingerprint(self, workspace: Workspace) -> str:
        """Hash of the existing files and of how they are read; "absent" without any."""
        digest = hashlib.sha256(f"{_FORMAT} {self.name}".encode())
        absent = True
        for split, part in self.parts.items():
            digest.update(f"{split} {_name_of(part.read)} {part.files}".encode())
            for path in _existing(workspace, part):
                digest.update(file_digest(path))
                absent = False
        # Splits may have different fallbacks. Another layout of the same files counts only where
        # it is read.
        used = {}
        for split in self.parts:
            other = self._fallback(workspace, split)
            if other is not None and (
                self._missing(workspace, split) or not isinstance(other, SuiteSource)
            ):
                used[id(other)] = other
        for other in used.values():
            digest.update(other.fingerprint(workspace).encode())
            absent = False
        return "absent" if absent else digest.hexdigest()

    def available(self, workspace: Workspace) -> str | None:
        """None if a split can be read, else which file is missing and where to get it."""
        for split in self.parts:
            if not self._missing(workspace, split) or self._fallback(workspace, split):
                return None
        return self._message(workspace, next(iter(self.parts)))

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """The records of a split, in file order; the call looks for the files.

        Raises:
            KeyError: no such split. UserError: a file it needs is not there.
        """
        part = self.parts[split]
        if not self._missing(workspace, split):
            for path in _existing(workspace, part):
                refuse_pointer(path)
            return part.read(*(_find(workspace, entry) for entry in part.files))
        other = self._fallback(workspace, split)
        if other is None:
            raise UserError(self._message(workspace, split))
        return other.records(workspace, split)

    @property
    def _fallbacks(self) -> tuple[Source, ...]:
        if self.fallback is None or isinstance(self.fallback, tuple):
            return self.fallback or ()
        return (self.fallback,)

    def _fallback(self, workspace: Workspace, split: str) -> Source | None:
        """The fallback of a split whose files are missing; None if no fallback has it."""
        ready = [
            other
            for other in self._fallbacks
            if split in other.splits
            and other.available(workspace) is None
            and not (isinstance(other, SuiteSource) and other._missing(workspace, split))
        ]
        local = (other for other in ready if not other.fingerprint(workspace).endswith("absent"))
        return next(local, None) or next(iter(ready), None)

    def _missing(self, workspace: Workspace, split: str) -> list[str]:
        """The first names of the files that a split lacks."""
        files = self.parts[split].files
        return [str(_names(file)[0]) for file in files if _find(workspace, file) is None]

    def _message(self, workspace: Workspace, split: str) -> str:
        missing = ", ".join(
            str(workspace.data_dir / name) for name in self._missing(workspace, split)
        )
        message = (
            f"split {split!r} of {self.name} needs {missing}, which is not there. The data folder "
            f"is {workspace.data_dir}; set it with --gin.DATA_DIR=FOLDER or the variable "
            f"{DATA_VARIABLE}. Get the file from {self.origin}"
        )
        others = (other for other in self._fallbacks if split in other.splits)
        return ". Or: ".join(filter(None, [message, *(o.available(workspace) for o in others)]))


def _names(entry: Entry) -> tuple[str | HubSplit, ...]:
    return (entry,) if isinstance(entry, str | HubSplit) else entry


def _find(workspace: Workspace, entry: Entry) -> Path | tuple[Path, ...] | None:
    for name in _names(entry):
        if isinstance(name, HubSplit):
            if paths := name.find(workspace):
                return paths
        elif (path := workspace.data_dir / name).is_file():
            return path
    return None


def _existing(workspace: Workspace, part: SplitFiles) -> Iterator[Path]:
    """Every existing file of a split."""
    for entry in part.files:
        file = _find(workspace, entry)
        yield from file if isinstance(file, tuple) else filter(None, (file,))


def _name_of(fn: Any) -> str:
    """A function with its bound arguments, without its address."""
    if isinstance(fn, functools.partial):
        return f"{_name_of(fn.func)}{fn.args}{sorted(fn.keywords.items())}"
    return function_name(fn)


def broken_csv(path: Path, line: int) -> UserError:
    """The error about a line of a CSV file that `csv_cells` could not read.

    A user's own file loses such a line. A benchmark's is the same for everybody: a question less
    would be another benchmark.
    """
    return UserError(
        f"{path} is not CSV from line {line}: a quote is not closed or ends within a cell, or a "
        "cell is too long. Get the file again"
    )


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: it is not JSON, or not UTF-8.
    """
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); get the file again") from error


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 0, value) of every line that is not blank; None where it is not JSON."""
    for number, _, line in read_lines(path):
        try:
            yield number, parse_json(line or "")
        except ValueError:
            yield number, None


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); get the file again") from error
