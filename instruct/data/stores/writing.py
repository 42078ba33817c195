"""Writing of record stores: a store is replaced whole or not at all."""

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
from instruct.errors import storage_error_number, storage_error_path, storage_failure
from instruct.files import replace_file, whole_folder
from instruct.prompts.record import Record

# A record is read with its group. CPU time of a drawn record of 1,400 bytes, alone and beside 199
# others, and its size on disk: groups of 16: 22 us, 18 us, 405 bytes; of 4: 10 us, 11 us, 488; of
# 1: 12 us, 9 us, 678. Records read in order take 4, 6 and 9 us.
_WRITER_OPTIONS = "group_size:4,zstd:1"
# Longer answers are not counted for the majority baseline: they hardly ever repeat, and millions of
# them would fill the memory.
_LONGEST_COUNTED_ANSWER = 200


class StoreWriteError(OSError):
    """A store could not be written: the disk is full or fails, or the folder is not ours."""


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
    """Writes a store; if that fails, `path` is unchanged.

    Args:
        path: `store_path(workspace, key, split)`; an older store there is replaced.
        items: `Record`s or `TokenRecord`s, or anything with a `reason` for rejected rows.
        progress_fn: called with the number of rows since its last call.

    Raises:
        StoreWriteError: no space, no permission.
        whatever reading `items` raises; nothing is left behind then.
    """
    prefix = f".{path.name}.building-{socket.gethostname()}-"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent, prefix)
        with whole_folder(path, f"{prefix}{os.getpid()}-", replace=True) as folder:
            file = folder / RECORDS_FILE
            num_records, answers, dropped = _write_records(file, items, progress_fn)
            # Ties go to the alphabetically first, so that equal records give equal manifests.
            answer, count = min(
                answers.items(), key=lambda item: (-item[1], item[0]), default=("", 0)
            )
            manifest = Manifest(
                task=task,
                split=path.name,
                kind=kind,
                version=version,
                source_fingerprint=source_fingerprint,
                num_records=num_records,
                num_bytes=file.stat().st_size,
                sha256=hash_file(file),
                dropped=dict(sorted(dropped.items())),
                majority_answer=answer,
                majority_share=round(count / max(1, num_records), 6),
            )
            replace_file(folder / MANIFEST_FILE, manifest.to_json())
        return manifest
    except (RuntimeError, OSError) as error:
        write_error = _write_error(path, error)
        if write_error is None:
            raise
        raise write_error from error


def _write_records(
    file: Path, items: Iterable[Any], progress_fn: Callable[[int], None]
) -> tuple[int, collections.Counter[str], collections.Counter[str]]:
    """Writes the records; returns their number, counts of answers, counts of drops by reason."""
    num_records = number = 0
    answers: collections.Counter[str] = collections.Counter()
    dropped: collections.Counter[str] = collections.Counter()
    writer = ArrayRecordWriter(str(file), _WRITER_OPTIONS)
    try:
        for number, item in enumerate(items, 1):
            if number % 500 == 0:
                progress_fn(500)
            if not isinstance(item, Record | TokenRecord):
                dropped[item.reason] += 1
                continue
            try:
                line = item.to_json().encode("utf-8")
            except UnicodeEncodeError:
                dropped["text is not UTF-8"] += 1
                continue
            writer.write(line)
            num_records += 1
            if len(item.answer) <= _LONGEST_COUNTED_ANSWER:
                answers[item.answer] += 1
        progress_fn(number % 500)
    finally:
        writer.close()
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return num_records, answers, dropped


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Deletes temporary folders of killed builds of this host."""
    for path in folder.iterdir():
        # The whole name must match: another host's may begin like ours, as "node-1" and "node".
        match = re.fullmatch(rf"{re.escape(prefix)}(\d+)-[^-]+", path.name)
        if match and not _is_running(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _write_error(path: Path, error: Exception) -> StoreWriteError | None:
    """A clear error if the store's storage failed, not its source's; else None."""
    number, where, store = storage_error_number(error), storage_error_path(error), path.absolute()
    is_full = number in (errno.ENOSPC, errno.EDQUOT)
    is_ours = store.is_relative_to(where) or Path(where).is_relative_to(store.parent)
    if number is None or not (is_full or is_ours or not where):
        return None
    return StoreWriteError(
        f"{storage_failure(error)} Or set STORE_DIR to another folder than {path.parents[1]}; "
        "finished stores are kept"
    )
