"""Record stores in a bucket: staged to this machine before they are read, uploaded when built.

    BUCKET/<key>/<split>/...           as on a disk (store.py); the manifest is uploaded last
    STAGE_DIR/gs/<bucket>/<path>/...   the copies of this machine, with the same names

Random access to single records needs a disk, so a host copies the stores that its mixture needs,
once. A copy is compared with the manifest's hash before it counts. An interrupted copy continues
where it stopped; processes of one machine wait for each other. The copies of a bucket are a cache:
they may be deleted at any time when no run uses them.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from instruct.data.stores.store import (
    MANIFEST_FILE,
    RECORDS_FILE,
    Manifest,
    Store,
    hash_file,
    read_manifest,
)
from instruct.errors import UserError, naming_file
from instruct.files import locked, replace_file, upload_folder, whole_folder
from instruct.workspace import STAGE_VARIABLE, Workspace

_BLOCK_BYTES = 32 << 20
_AT_ONCE = 8  # stores; TensorStore itself limits its requests
_ATTEMPTS = 3  # of a store that another process replaces meanwhile


def remote_path(workspace: Workspace, path: Path) -> Path:
    """Where the store at `path` (`store_path`) is in the bucket."""
    assert workspace.store_bucket is not None
    return workspace.store_bucket / path.relative_to(workspace.store_dir).as_posix()


def upload_store(workspace: Workspace, path: Path) -> None:
    """Uploads a finished store, the manifest last; does nothing if STORE_DIR is no bucket."""
    if workspace.store_bucket is not None:
        upload_folder(path, remote_path(workspace, path))


def stage_stores(
    workspace: Workspace,
    paths: Iterable[Path],
    console: Console | None = None,
    verify: bool = False,
) -> None:
    """Copies stores that are in the bucket to this machine, and uploads those that are only here.

    Args:
        workspace: with a `store_bucket`.
        paths: `store_path`s; one that is nowhere is skipped.
        console: for the progress bar; None for none.
        verify: compare the copies that are here with their hashes, and copy damaged ones again.

    Raises:
        UserError: there is no space, or a store in the bucket is damaged.
        OSError: the bucket or the disk failed; a later call continues.
    """
    columns = (TextColumn("staging"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool,
        Progress(
            *columns,
            TimeRemainingColumn(),
            console=console,
            disable=console is None,
            transient=True,
        ) as bar,
    ):
        found = pool.map(lambda path: _find(workspace, path, verify), dict.fromkeys(paths))
        stores = [store for store in found if store is not None]
        _check_space(workspace, stores)
        task = bar.add_task("", total=sum(store.manifest.num_bytes for store in stores))
        stopped = threading.Event()

        def advance(num_bytes: int) -> None:
            if stopped.is_set():
                raise concurrent.futures.CancelledError
            bar.advance(task, num_bytes)

        copies = [pool.submit(_stage, store, verify, advance) for store in stores]
        try:
            for copy in copies:
                copy.result()
        finally:
            stopped.set()  # after an error or an interrupt the other copies end soon


@dataclasses.dataclass(frozen=True)
class _RemoteStore:
    """A store of the bucket that this machine lacks."""

    remote: Path
    path: Path
    text: str
    manifest: Manifest

    @property
    def part(self) -> Path:
        """The unfinished copy, named by its hash: nobody continues another version's copy."""
        return self.path.parent / f".{self.path.name}.staging" / self.manifest.sha256

    def num_missing(self) -> int:
        """Bytes that are still to be copied."""
        copied = self.part.stat().st_size if self.part.is_file() else 0
        return max(0, self.manifest.num_bytes - copied)


def _find(workspace: Workspace, path: Path, verify: bool) -> _RemoteStore | None:
    """The store to copy, if the bucket has another one than this machine."""
    remote = remote_path(workspace, path)
    text = _manifest_text(remote)
    if text is None:
        if _is_whole(path, None, verify):
            upload_store(workspace, path)
        return None
    if _is_whole(path, text, verify):
        return None
    return _RemoteStore(remote, path, text, _parsed(remote, text))


def _manifest_text(folder: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return (folder / MANIFEST_FILE).read_text(encoding="utf-8")
    return None


def _parsed(remote: Path, text: str) -> Manifest:
    try:
        return Manifest.from_json(text)
    except (ValueError, TypeError) as error:
        raise _damaged(remote, f"{MANIFEST_FILE}: {error}") from error


def _is_whole(path: Path, text: str | None, verify: bool) -> bool:
    """Whether a usable store is here, with the bucket's manifest `text` if that is known."""
    try:
        if read_manifest(path) is None or text not in (None, _manifest_text(path)):
            return False
        store = Store(path)
        if verify:
            store.verify()
    except UserError:
        return False
    return True


def _check_space(workspace: Workspace, stores: Iterable[_RemoteStore]) -> None:
    needed = sum(store.num_missing() for store in stores)
    folder = workspace.store_dir
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the stores take {needed / 1e9:,.2f} GB, and {folder}, where this machine keeps its "
            f"copies of {workspace.store_bucket}, has {free / 1e9:,.2f} GB free. Free some space, "
            f"or set {STAGE_VARIABLE} to a larger disk."
        )


def _stage(store: _RemoteStore, verify: bool, advance: Callable[[int], None]) -> None:
    """Copies one store; `advance` is called with numbers of bytes."""
    store.path.parent.mkdir(parents=True, exist_ok=True)
    with locked(store.path.parent, str(store.path.parent), wait=True):
        for _ in range(_ATTEMPTS):
            if _is_whole(store.path, store.text, verify):  # by another process meanwhile
                return
            if _copy(store, advance):
                return
            text = _manifest_text(store.remote)
            if text is None:
                break
            # Another process may have replaced the store between the two requests.
            store = dataclasses.replace(store, text=text, manifest=_parsed(store.remote, text))
    raise _damaged(store.remote, f"the SHA-256 of {RECORDS_FILE} is not the manifest's")


def _copy(store: _RemoteStore, advance: Callable[[int], None]) -> bool:
    """Copies the records, or what is missing of them. Returns whether they have the right hash."""
    from instruct.buckets import read_range

    path, manifest = store.path, store.manifest
    part = store.part
    staging = part.parent
    staging.mkdir(exist_ok=True)
    for other in staging.iterdir():
        if other != part:
            other.unlink()
    for leftover in path.parent.glob(f".{path.name}.staged-*"):  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    with part.open("ab") as stream:
        start = min(stream.tell(), manifest.num_bytes)
        advance(start)
        while start < manifest.num_bytes:
            end = min(start + _BLOCK_BYTES, manifest.num_bytes)
            try:
                block = read_range(cast(Any, store.remote / RECORDS_FILE), start, end)
            except FileNotFoundError as error:
                raise _damaged(store.remote, f"{RECORDS_FILE} is missing") from error
            if not block:
                break
            with naming_file(part):
                stream.write(block)
            start += len(block)
            advance(len(block))
        with naming_file(part):
            stream.flush()
            os.fsync(stream.fileno())
    good = hash_file(part) == manifest.sha256
    if good:
        with whole_folder(path, f".{path.name}.staged-", replace=True) as folder:
            part.rename(folder / RECORDS_FILE)
            replace_file(folder / MANIFEST_FILE, store.text)
    shutil.rmtree(staging, ignore_errors=True)
    return good


def _damaged(remote: Path, problem: str) -> UserError:
    return UserError(
        f"the record store {remote} is damaged: {problem}. Delete it there and run "
        "`python run.py prepare` again, where its source is"
    )
