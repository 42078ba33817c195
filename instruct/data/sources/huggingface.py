"""Records from data sets in the layout of the Hugging Face hub; no repository's code is run.

Searched in this order: files under the data folder, the hub's caches on this machine (prepared by
`datasets` or fetched by `hf download`), and, only if the workspace allows downloads, the hub.
pyarrow reads the files batch by batch; only downloads need the library `datasets`
(`pip install 'instruct[hf]'`), in a version that cannot run a repository's code.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from instruct.data.sources.files import FieldMap, file_digest, hash_unit, identity
from instruct.data.sources.table_files import Where, find_split, missing_shards, read_rows
from instruct.data.spec import function_name
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import DATA_VARIABLE, DOWNLOAD_VARIABLE, Workspace

_FORMAT = 2  # increment when the same files give other records

# (row, id to use if the row has none) -> record; None for a row that belongs to another task.
ToRecord = Callable[[Mapping[str, Any], str], Record | Dropped | None]
# The publisher's split, or a part of its rows: those whose text hashes into [low, high).
SplitPart = str | tuple[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class HuggingFaceSource:
    """One data set, or one configuration of it.

    Local files are in `<data folder>/<path>`, or in a folder named like its last part, with the
    configuration `X` as a sub-folder (`X`, `data/X` or `X/data`); file names and formats are
    those of instruct/data/sources/table_files.py.

    Attributes:
        path: the name on the hub ("owner/name"), and of the folder.
        config: configuration; None for the only one.
        parts: our split -> the publisher's split or a part of it.
        to_record: makes a record from a row; a `FieldMap`; None for a source of raw `rows` only.
        revision: commit or branch on the hub; None for the newest.
        where: column, and the value (or a tuple of values) of this task's rows.
        columns: columns that `to_record` reads, None for all; a `FieldMap` names its own.
        repository_files: pattern of files to download unchanged, for repositories that hold
            plain files and a script ("data/{config}/*"); "" to load through `datasets`.
        name: prefix of record ids; "" for one made of `path` and `config`.
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
        """Hash of the files' bytes and of how they are read; "absent" if files are missing.

        Downloads nothing: a store whose files were deleted must not wait for the network.
        """
        make = self.to_record if isinstance(self.to_record, FieldMap) else _name_of(self.to_record)
        parts = {split: self._part(split) for split in self.parts}
        described = repr((self.label, parts, make, self.where))
        digest = hashlib.sha256(f"{_FORMAT} {described}".encode())
        try:
            for split in self._publisher_splits():
                files = self.local_files(workspace, split)
                if not files:
                    return "absent"
                for path in files:
                    digest.update(f"{split} {path.name}".encode() + file_digest(path))
        except OSError:
            return "absent"
        return digest.hexdigest()

    def available(self, workspace: Workspace) -> str | None:
        """None, or a message: what is missing, which folders were searched, how to get it."""
        reason = self._why_absent(workspace)
        return _why_no_downloads() if reason and workspace.downloads else reason

    def _why_absent(self, workspace: Workspace) -> str | None:
        absent = []
        for split in self._publisher_splits():
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
        """Streams the raw rows of one of our splits; a hash of the whole row decides its part.

        Like `records`, downloads missing files at the call.
        """
        return self._stream(workspace, split, lambda row, _: row)

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """Streams one split in file order.

        Missing files are downloaded, if allowed, at the call and not at the first row.

        Raises:
            KeyError: no such split. UserError: the files are missing or cannot be read.
        """
        if self.to_record is None:
            raise UserError(f"the source of {self.label} has raw rows only; set its to_record")
        make = self.to_record.record if isinstance(self.to_record, FieldMap) else self.to_record
        return self._stream(workspace, split, make)

    def _stream(
        self, workspace: Workspace, split: str, make: Callable[[Any, str], Any]
    ) -> Iterator[Any]:
        theirs, low, high = self._part(split)
        columns = self.columns
        if columns is None and isinstance(self.to_record, FieldMap):
            columns = self.to_record.columns
        rows = read_rows(self._ready_files(workspace, theirs), columns, self.where)

        def items() -> Iterator[Any]:
            for number, row in enumerate(rows):
                item = row
                if not isinstance(row, Dropped):
                    item = make(row, f"{self.label}-{theirs}-{number}")
                if item is None:
                    continue
                if isinstance(item, Dropped):
                    item = item.of_row(row)
                if low > 0.0 or high < 1.0:
                    text = identity(item) if isinstance(item, Record) else _row_text(row)
                    if not low <= hash_unit(text) < high:
                        continue
                yield item

        return items()

    def _part(self, split: str) -> tuple[str, float, float]:
        part = self.parts[split]
        return (part, 0.0, 1.0) if isinstance(part, str) else (part[0], *part[1])

    def _publisher_splits(self) -> list[str]:
        return list(dict.fromkeys(self._part(split)[0] for split in self.parts))

    def _folders(self, workspace: Workspace) -> list[Path]:
        """Folders that may hold the files, best first."""
        data_dir = workspace.data_dir
        roots = [data_dir / self.path, data_dir / self.path.rsplit("/", 1)[-1]]
        roots += _snapshots(workspace.hub_cache, self.path, self.revision)
        inside = ["", "data", "default"]
        if self.config is not None:
            inside = [self.config, f"data/{self.config}", f"{self.config}/data"]
        folders = [root / name for root in dict.fromkeys(roots) for name in inside]
        return folders + _prepared(workspace.datasets_cache, self.path, self.config, self.revision)

    def _files(self, workspace: Workspace, split: str) -> list[Path]:
        """Files of the first folder that has all shards, else of the first that has some."""
        partial: list[Path] = []
        for folder in self._folders(workspace):
            files = find_split(folder, split)
            if files and not missing_shards(files):
                return files
            partial = partial or files
        return partial

    def local_files(self, workspace: Workspace, split: str) -> list[Path]:
        """The files of one of the publisher's splits, if all are on this machine; else []."""
        files = self._files(workspace, split)
        return [] if missing_shards(files) else files

    def _ready_files(self, workspace: Workspace, split: str) -> list[Path]:
        files = self.local_files(workspace, split)
        if not files and workspace.downloads:
            _download(self, workspace)
            if not self._files(workspace, split):
                raise UserError(f"{self.label} was downloaded, but it has no split {split!r}")
            files = self.local_files(workspace, split)
        if not files:
            raise UserError(str(self._why_absent(workspace)))
        return files


def _name_of(fn: Any) -> str:
    """A function's name with its bound arguments, the same in every process."""
    if isinstance(fn, functools.partial):
        bound = [*map(repr, fn.args), *(f"{k}={v!r}" for k, v in sorted(fn.keywords.items()))]
        return f"{_name_of(fn.func)}({', '.join(bound)})"
    return function_name(fn) if hasattr(fn, "__qualname__") else repr(fn)


def _row_text(row: dict[str, Any] | Dropped) -> str:
    if isinstance(row, Dropped):
        return row.reason
    return json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)


def _snapshots(hub_cache: Path, path: str, revision: str | None) -> list[Path]:
    """Folder that `hf download --repo-type dataset` created for the revision; [] without one."""
    repository = hub_cache / f"datasets--{path.replace('/', '--')}"
    try:
        commit = (repository / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        commit = revision or ""
    folder = repository / "snapshots" / commit
    return [folder] if commit and folder.is_dir() else []


def _prepared(cache: Path, path: str, config: str | None, revision: str | None) -> list[Path]:
    """Folders `owner___name/<config>/<version>/<commit>` of the `datasets` cache, newest first."""
    owner, mark, name = path.rpartition("/")
    name = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name))
    base = cache / f"{owner}{'___' if mark else ''}{name.lower()}" / (config or "default")
    folders = [folder for folder in base.glob("*/*") if folder.is_dir()]
    folders = [folder for folder in folders if folder.name == revision] or folders
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _why_no_downloads() -> str | None:
    """None if the libraries that downloads need are installed, else a message."""
    try:
        import datasets
    except ImportError:
        return "downloads need the library datasets; run `pip install 'instruct[hf]'`"
    if int(datasets.__version__.split(".")[0]) < 4:
        return (
            f"datasets {datasets.__version__} can run a repository's own code, which is not "
            "allowed; run `pip install 'datasets>=4'`"
        )
    return None


def _download(source: HuggingFaceSource, workspace: Workspace) -> None:
    """Downloads a data set into the hub's cache on this machine.

    Raises:
        UserError: no library, no network, no such data set, or one that is a script.
    """
    reason = _why_no_downloads()
    if reason is not None:
        raise UserError(reason)
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
                "it is published as a script, and scripts are never run. Convert it to "
                f"Parquet or JSON lines and put them into {workspace.data_dir / source.path}"
            )
        raise UserError(f"{source.label} cannot be downloaded from the hub: {reason}") from error
