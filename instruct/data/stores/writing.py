"""Writing of record stores: the whole of one at its place, or what was there before."""

import collections
import errno
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter

from instruct.data.stores.store import MANIFEST_FILE, RECORDS_FILE, Manifest, hash_file
from instruct.data.token_record import TokenRecord
from instruct.errors import errno_words, storage_error_number, storage_error_path
from instruct.files import replace_file, whole_folder
from instruct.prompts.record import Record

# Measured on 750-byte records: one random read 16 us, against 41 us and twice the size with
# groups of 1; a batched read costs 4 us a record either way.
_WRITER_OPTIONS = "group_size:16,zstd:1"
# An answer longer than this is not counted for the majority baseline: long answers hardly ever
# repeat, and remembering millions of them would fill the memory.
_LONGEST_COUNTED_ANSWER = 200


class StoreWriteError(OSError):
    """A store could not be written: the disk is full or fails, or the folder is not ours."""


class _Counts:
    """What the manifest says about the items that went by."""

    def __init__(self) -> None:
        self.records = 0
        self.dropped: collections.Counter[str] = collections.Counter()
        self.answers: collections.Counter[str] = collections.Counter()

    def majority(self) -> tuple[str, float]:
        if not self.answers:
            return "", 0.0
        # Ties go to the alphabetically first, so that the manifest does not depend on hashing.
        answer, count = min(self.answers.items(), key=lambda item: (-item[1], item[0]))
        return answer, count / self.records


def _write_records(
    file: Path, items: Iterable[Any], counts: _Counts, progress_fn: Callable[[int], None]
) -> None:
    writer = ArrayRecordWriter(str(file), _WRITER_OPTIONS)
    try:
        for number, item in enumerate(items, 1):
            if isinstance(item, Record | TokenRecord):
                try:
                    line = item.to_json().encode("utf-8")
                except UnicodeEncodeError:
                    counts.dropped["text is not UTF-8"] += 1
                    continue
                writer.write(line)
                counts.records += 1
                if len(item.answer) <= _LONGEST_COUNTED_ANSWER:
                    counts.answers[item.answer] += 1
            else:
                counts.dropped[item.reason] += 1
            if number % 500 == 0:
                progress_fn(500)
        progress_fn((counts.records + counts.dropped.total()) % 500)
    finally:
        writer.close()
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def write_store(
    path: Path,
    items: Iterable[Any],
    *,
    task: str,
    kind: str,
    version: str,
    source_fingerprint: str,
    progress_fn: Callable[[int], None] = lambda rows: None,
) -> Manifest:
    """Writes a store; at `path` there is the whole of it or what was there before.

    Args:
        path: `store_path(workspace, key, split)`; an older store there is replaced.
        items: `Record`s or `TokenRecord`s, or anything with a `reason` for rows that are none.
        progress_fn: called with the number of rows since its last call.

    Raises:
        StoreWriteError: no space, no permission.
        whatever reading `items` raises; nothing is left behind then.
    """
    counts = _Counts()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        # The name says which process of which machine uses the folder.
        prefix = f"{_working_prefix(path)}{os.getpid()}-"
        with whole_folder(path, prefix, replace=True) as working:
            file = working / RECORDS_FILE
            _write_records(file, items, counts, progress_fn)
            answer, share = counts.majority()
            manifest = Manifest(
                task=task,
                split=path.name,
                kind=kind,
                version=version,
                source_fingerprint=source_fingerprint,
                num_records=counts.records,
                num_bytes=file.stat().st_size,
                sha256=hash_file(file),
                dropped=dict(sorted(counts.dropped.items())),
                majority_answer=answer,
                majority_share=round(share, 6),
            )
            replace_file(working / MANIFEST_FILE, manifest.to_json())
        return manifest
    except (RuntimeError, OSError) as error:
        clear = _write_error(path, error)
        if clear is None:
            raise
        raise clear from error


def _working_prefix(path: Path) -> str:
    return f".{path.name}.building-{socket.gethostname()}-"


def _remove_abandoned(path: Path) -> None:
    """Removes what killed builds of this machine left behind."""
    prefix = _working_prefix(path)
    for folder in path.parent.iterdir():
        # The whole name must fit: another machine's may begin like ours, as "node-1" and "node".
        found = re.fullmatch(r"(\d+)-[^-]+", folder.name.removeprefix(prefix))
        if folder.name.startswith(prefix) and found and not _is_running(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _write_error(path: Path, error: Exception) -> StoreWriteError | None:
    """A clear error if the storage was the cause, else None."""
    number, where = storage_error_number(error), storage_error_path(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "quota exceeded" in str(error):
        return StoreWriteError(
            f"no space left on the disk of {path.parent} while writing a record store. Free "
            "some, or set STORE_DIR to a larger disk; what is finished stays"
        )
    if number is None or not _concerns(path, where):
        return None
    if number in (errno.EACCES, errno.EPERM):
        return StoreWriteError(f"may not write to {path.parent}; set STORE_DIR to another folder")
    return StoreWriteError(
        f"could not write {where or path}: {errno_words(number)}. Check that storage, or set "
        "STORE_DIR to another folder; what is finished stays"
    )


def _concerns(path: Path, where: str) -> bool:
    """Whether a failure at `where` ("": not known) is the store's and not its source's."""
    store = path.absolute()
    return not where or store.is_relative_to(where) or Path(where).is_relative_to(store.parent)
