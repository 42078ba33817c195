"""Where a suite's records come from: publishers' files, some of which a user may not have.

A benchmark is often used by one split and one protocol at a time: MMLU's test files without the
validation ones, direct prompts without the file of reasoned exemplars. So each split names the
files it needs, and only what is asked for must be there.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from instruct.data.sources.files import file_digest
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.spec import Source, function_name
from instruct.errors import UserError
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

    def find(self, workspace: Workspace) -> tuple[Path, ...] | None:
        """The files, from the data folder or the hub's cache on this machine."""
        files = HuggingFaceSource(self.path, self.config).local_files(workspace, self.split)
        return tuple(files) or None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.path, self.config, self.split)))


Entry = str | HubSplit | tuple[str | HubSplit, ...]


class SplitFiles(NamedTuple):
    """What one split is read from.

    Attributes:
        read: called with the paths, yields records; a function of a module (or a `partial` of
            one), because worker processes get it by its name.
        files: one entry a needed file, relative to the data folder; an entry of several names is
            one file that may have any of them, the first that is there counts. A `HubSplit` is
            read from a tuple of paths.
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
        fallback: another source for splits whose files are not there, or several, best first;
            what is on this machine comes before what would be downloaded.
    """

    name: str
    parts: Mapping[str, SplitFiles]
    origin: str
    fallback: Source | tuple[Source, ...] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def fingerprint(self, workspace: Workspace) -> str:
        """Hash of the files that are there and of how they are read; "absent" without any."""
        digest = hashlib.sha256(f"{_FORMAT} {self.name}".encode())
        found = False
        for split, part in self.parts.items():
            digest.update(f"{split} {_name_of(part.read)} {part.files}".encode())
            for path in (path for entry in part.files for path in _paths(_find(workspace, entry))):
                digest.update(file_digest(path))
                found = True
        # Splits may come from different ones. Another layout of the same files counts only where
        # it is read.
        ready = {split: self._fallback(workspace, split) for split in self.parts}
        used = {
            id(other): other
            for split, other in ready.items()
            if other is not None
            and (self._missing(workspace, split) or not isinstance(other, SuiteSource))
        }
        for other in used.values():
            digest.update(other.fingerprint(workspace).encode())
            found = True
        return digest.hexdigest() if found else "absent"

    def available(self, workspace: Workspace) -> str | None:
        """None if a split can be read, else which file is missing and where to get it."""
        if not all(self._missing(workspace, split) for split in self.parts):
            return None
        if any(self._fallback(workspace, split) is not None for split in self.parts):
            return None
        return self._message(workspace, next(iter(self.parts)))

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """The records of a split, in file order; files are looked for at the call.

        Raises:
            KeyError: no such split. UserError: a file it needs is not there.
        """
        part = self.parts[split]
        if not self._missing(workspace, split):
            paths = [_find(workspace, entry) for entry in part.files]
            for path in paths:
                for file in path if isinstance(path, tuple) else (path,):
                    if file is not None:
                        refuse_pointer(file)
            return part.read(*paths)
        other = self._fallback(workspace, split)
        if other is not None:
            return other.records(workspace, split)
        raise UserError(self._message(workspace, split))

    @property
    def _fallbacks(self) -> tuple[Source, ...]:
        if self.fallback is None or isinstance(self.fallback, tuple):
            return self.fallback or ()
        return (self.fallback,)

    def _fallback(self, workspace: Workspace, split: str) -> Source | None:
        """The source that a split without its files is read from; None if there is none."""
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
        """The files of a split that are not there, by their first names."""
        files = self.parts[split].files
        return [_first(entry) for entry in files if _find(workspace, entry) is None]

    def _message(self, workspace: Workspace, split: str) -> str:
        missing = ", ".join(
            str(workspace.data_dir / name) for name in self._missing(workspace, split)
        )
        message = (
            f"split {split!r} of {self.name} needs {missing}, which is not there. The data folder "
            f"is {workspace.data_dir}; set it with --gin.DATA_DIR=FOLDER or the variable "
            f"{DATA_VARIABLE}. Get the file from {self.origin}"
        )
        reasons = [
            why
            for other in self._fallbacks
            if split in other.splits and (why := other.available(workspace))
        ]
        return ". Or: ".join([message, *reasons])


def _names(entry: Entry) -> tuple[str | HubSplit, ...]:
    return (entry,) if isinstance(entry, str | HubSplit) else entry


def _first(entry: Entry) -> str:
    return str(_names(entry)[0])


def _find(workspace: Workspace, entry: Entry) -> Path | tuple[Path, ...] | None:
    for name in _names(entry):
        if isinstance(name, HubSplit):
            found: Path | tuple[Path, ...] | None = name.find(workspace)
        else:
            found = workspace.data_dir / name
            found = found if found.is_file() else None
        if found is not None:
            return found
    return None


def _paths(found: Path | tuple[Path, ...] | None) -> tuple[Path, ...]:
    return found if isinstance(found, tuple) else (found,) if found is not None else ()


def _name_of(fn: Any) -> str:
    """A function with its bound arguments, without its address."""
    if isinstance(fn, functools.partial):
        return f"{_name_of(fn.func)}{fn.args}{sorted(fn.keywords.items())}"
    return function_name(fn)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it is not JSON, or not UTF-8.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); get the file again") from error


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); get the file again") from error
