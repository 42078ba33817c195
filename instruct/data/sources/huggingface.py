"""Records from data sets in the layout of the Hugging Face hub; nothing here runs a script.

Looked for in this order: files under the data folder, the hub's caches on this machine (what
`datasets` has prepared, what `hf download` has fetched), and, only if the workspace allows
downloads, the hub itself.
Files are read with pyarrow, batch by batch; the library `datasets` (`pip install
'instruct[hf]'`) is needed for downloads only, in a version that cannot run a repository's code.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from instruct.data.sources.files import (
    FieldMap,
    file_digest,
    hash_unit,
    identity,
)
from instruct.data.sources.table_files import Where, find_split, missing_shards, read_rows
from instruct.data.spec import function_name
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import DATA_VARIABLE, DOWNLOAD_VARIABLE, Workspace

_FORMAT = 2  # counts up when the same files give other records

# (row, id to use if the row has none) -> record; None for a row that belongs to another task.
ToRecord = Callable[[Mapping[str, Any], str], Record | Dropped | None]
# The source's split, or that and the part [low, high) of its rows by a hash of their text.
SplitPart = str | tuple[str] | tuple[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class HuggingFaceSource:
    """One data set, or one configuration of it.

    Local files lie under `<data folder>/<path>`, or under its last part alone, with the
    configuration as a sub-folder (`X`, `data/X` or `X/data`); see
    instruct/data/sources/table_files.py for names and formats.

    Attributes:
        path: the hub's name ("owner/name"), and the folder's.
        config: configuration; None for the only one.
        parts: our split -> the source's split, alone or with the part of its rows.
        to_record: makes a record from a row; a `FieldMap`; None for a source of raw `rows` only.
        revision: commit or branch on the hub; None for the newest.
        where: column, and the value (or a tuple of values) of the rows that are this task's.
        columns: what `to_record` reads, None for everything; a `FieldMap` names its own columns.
        repository_files: pattern of files to download as they are, for repositories that hold
            plain files and a script ("data/{config}/*"); "" to load through `datasets`.
        name: ids of records begin with it; "" for one made of `path` and `config`.
    """

    path: str
    config: str | None = None
    parts: Mapping[str, SplitPart] = dataclasses.field(default_factory=lambda: {"train": "train"})
    to_record: ToRecord | FieldMap | None = None
    revision: str | None = None
    where: Where | None = None
    columns: tuple[str, ...] | None = None
    repository_files: str = ""
    name: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    @property
    def label(self) -> str:
        """The data set's name for ids and messages."""
        return self.name or "/".join(filter(None, (self.path, self.config)))

    def fingerprint(self, workspace: Workspace) -> str:
        """Hash of the files' bytes and of how they are read; "absent" while there are none.

        Fetches nothing: a store whose files are gone must not wait for the network.
        """
        digest = hashlib.sha256(f"{_FORMAT} {self._described()}".encode())
        for split in self._their_splits():
            files = self._files(workspace, split)
            if not files or missing_shards(files):
                return "absent"
            for path in files:
                try:
                    status = path.stat()
                    digest.update(f"{split} {path.name}".encode())
                    digest.update(file_digest(str(path), status.st_size, status.st_mtime_ns))
                except OSError:
                    return "absent"
        return digest.hexdigest()

    def available(self, workspace: Workspace) -> str | None:
        """None, or a message: what is missing, which places were searched, how to get it."""
        why = self._why_absent(workspace)
        return _why_no_downloads() if why and workspace.downloads else why

    def _why_absent(self, workspace: Workspace) -> str | None:
        absent = []
        for split in self._their_splits():
            files = self._files(workspace, split)
            missing = missing_shards(files)
            if missing:
                return f"{files[0].parent} lacks {', '.join(missing)}; get the files again"
            if not files:
                absent.append(split)
        if not absent:
            return None
        folder = workspace.data_dir / self.path
        return (
            f"{self.label} ({', '.join(absent)}) is neither in {folder} nor in the hub's cache. "
            f"Put its files there (the data folder is set with --gin.DATA_DIR=FOLDER or "
            f"{DATA_VARIABLE}), or allow downloads with {DOWNLOAD_VARIABLE}=1 and "
            "`pip install 'instruct[hf]'`"
        )

    def rows(self, workspace: Workspace, split: str) -> Iterator[dict[str, Any] | Dropped]:
        """Raw rows of one of our splits; a part of them is chosen by a hash of the whole row.

        As `records`, files are fetched at the call.
        """
        theirs, low, high = self._part(split)
        rows = read_rows(self._ready_files(workspace, theirs), self._read_columns(), self.where)
        if low <= 0.0 and high >= 1.0:
            return rows
        return (row for row in rows if low <= hash_unit(_row_text(row)) < high)

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """Streams one split in file order.

        Missing files are fetched at the call, not at the first row, where that is allowed.

        Raises:
            KeyError: no such split. UserError: the files cannot be read or are not there.
        """
        if self.to_record is None:
            raise UserError(f"the source of {self.label} gives raw rows only; set its to_record")
        make = self.to_record.record if isinstance(self.to_record, FieldMap) else self.to_record
        files = self._ready_files(workspace, self._part(split)[0])
        rows = read_rows(files, self._read_columns(), self.where)
        return self._made(rows, make, split)

    def _made(
        self, rows: Iterator[dict[str, Any] | Dropped], make: ToRecord, split: str
    ) -> Iterator[Record | Dropped]:
        theirs, low, high = self._part(split)
        whole = low <= 0.0 and high >= 1.0
        prefix = f"{self.label}-{theirs}"
        for number, row in enumerate(rows):
            item = row if isinstance(row, Dropped) else make(row, f"{prefix}-{number}")
            if item is None:
                continue
            if isinstance(item, Dropped):
                item = item.of_row(row)
            if not whole:
                text = _row_text(row) if isinstance(item, Dropped) else identity(item)
                if not low <= hash_unit(text) < high:
                    continue
            yield item

    def _part(self, split: str) -> tuple[str, float, float]:
        part = self.parts[split]
        if isinstance(part, str):
            return part, 0.0, 1.0
        if len(part) == 1:
            return part[0], 0.0, 1.0
        return part[0], *part[1]

    def _their_splits(self) -> list[str]:
        return list(dict.fromkeys(self._part(split)[0] for split in self.parts))

    def _described(self) -> str:
        """Settings that affect the records, files aside; the same in every process."""
        make = self.to_record if isinstance(self.to_record, FieldMap) else _name_of(self.to_record)
        parts = {split: self._part(split) for split in self.parts}
        return repr((self.label, parts, make, self.where))

    def _read_columns(self) -> tuple[str, ...] | None:
        if self.columns is not None or not isinstance(self.to_record, FieldMap):
            return self.columns
        to_record = self.to_record
        keys = [
            *to_record.fields.values(),
            to_record.answer,
            to_record.options,
            to_record.rationale,
        ]
        keys += [to_record.references, to_record.id]
        return tuple(dict.fromkeys(str(key) for key in keys if key is not None))

    def _folders(self, workspace: Workspace) -> list[Path]:
        """Where files may lie, best first."""
        data_dir = workspace.data_dir
        roots = [data_dir / self.path, data_dir / self.path.rsplit("/", 1)[-1]]
        roots += _snapshots(workspace.hub_cache, self.path, self.revision)
        if self.config is None:
            inside = ["", "data", "default"]
        else:
            inside = [self.config, f"data/{self.config}", f"{self.config}/data"]
        folders = [root / name for root in dict.fromkeys(roots) for name in inside]
        return folders + _prepared(workspace.datasets_cache, self.path, self.config, self.revision)

    def _files(self, workspace: Workspace, split: str, download: bool = False) -> list[Path]:
        """Files of the first folder that has all of them, else those of one that has some."""
        partial: list[Path] = []
        for folder in self._folders(workspace):
            files = find_split([folder], split)
            if files and not missing_shards(files):
                return files
            partial = partial or files
        if download:
            _download(self, workspace)
            return self._files(workspace, split)
        return partial

    def local_files(self, workspace: Workspace, split: str) -> list[Path]:
        """The files of one of the publisher's splits, if all are on this machine; else []."""
        files = self._files(workspace, split)
        return [] if missing_shards(files) else files

    def _ready_files(self, workspace: Workspace, split: str) -> list[Path]:
        files = self._files(workspace, split, download=workspace.downloads)
        if not files and workspace.downloads:
            raise UserError(f"{self.label} was downloaded, but no file of it is a split {split!r}")
        if not files or missing_shards(files):
            raise UserError(str(self._why_absent(workspace)))
        return files


def _name_of(fn: Any) -> str:
    """A function's name with its bound arguments, without its address."""
    if isinstance(fn, functools.partial):
        bound = [*map(repr, fn.args), *(f"{k}={v!r}" for k, v in sorted(fn.keywords.items()))]
        return f"{_name_of(fn.func)}({', '.join(bound)})"
    if fn is None or not hasattr(fn, "__qualname__"):
        return repr(fn)
    return function_name(fn)


def _row_text(row: dict[str, Any] | Dropped) -> str:
    if isinstance(row, Dropped):
        return row.reason
    return json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)


# ---------------------------------------------------------------- the hub's caches and the hub


def _snapshots(hub_cache: Path, path: str, revision: str | None) -> list[Path]:
    """Folders that `hf download --repo-type dataset` has made, the asked revision or the newest."""
    repository = hub_cache / f"datasets--{path.replace('/', '--')}"
    try:
        wanted = (repository / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        wanted = revision or ""
    folder = repository / "snapshots" / wanted
    return [folder] if wanted and folder.is_dir() else []


def _prepared(cache: Path, path: str, config: str | None, revision: str | None) -> list[Path]:
    """Folders of Arrow files that the `datasets` library has prepared, newest first.

    They are `owner___name/<config>/<version>/<commit>`.
    """
    owner, mark, name = path.rpartition("/")
    name = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name))
    base = cache / f"{owner}{'___' if mark else ''}{name.lower()}" / (config or "default")
    found = [folder for folder in base.glob("*/*") if folder.is_dir()]
    if revision and any(folder.name == revision for folder in found):
        found = [folder for folder in found if folder.name == revision]
    return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _why_no_downloads() -> str | None:
    """None if the libraries that downloads need are here."""
    try:
        import datasets
    except ImportError:
        return "downloads need the library datasets; run `pip install 'instruct[hf]'`"
    if int(datasets.__version__.split(".")[0]) < 4:
        return (
            f"datasets {datasets.__version__} can run a repository's own code, which is refused "
            "here; run `pip install 'datasets>=4'`"
        )
    return None


def _download(source: HuggingFaceSource, workspace: Workspace) -> None:
    """Fetches a data set into the hub's cache on this machine.

    Raises:
        UserError: no library, no network, no such data set, or one that is a script.
    """
    why = _why_no_downloads()
    if why is not None:
        raise UserError(why)
    import datasets
    import huggingface_hub

    try:
        if source.repository_files:
            huggingface_hub.snapshot_download(
                source.path,
                repo_type="dataset",
                revision=source.revision,
                cache_dir=workspace.hub_cache,
                allow_patterns=[source.repository_files.format(config=source.config)],
            )
        else:
            datasets.load_dataset(
                source.path,
                source.config,
                revision=source.revision,
                cache_dir=str(workspace.datasets_cache),
            )
    except Exception as error:  # the network, the hub or a damaged file may raise anything
        reason = str(error).strip().split("\n")[0]
        if "script" in reason.lower():
            reason = (
                "it is published as a script, and scripts are never run here. Convert it to "
                f"Parquet or JSON lines and put that into {workspace.data_dir / source.path}"
            )
        raise UserError(f"{source.label} cannot be downloaded from the hub: {reason}") from error
