"""Folders of checkpoints: written whole or not at all, and never read outside of themselves."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from instruct.errors import UserError
from instruct.permissions import as_made_by_mkdir

_TEMPORARY = ".partial-"


@contextlib.contextmanager
def whole_folder(target: str | os.PathLike[str], num_bytes: int) -> Iterator[pathlib.Path]:
    """An empty folder beside `target` that becomes it when the block ends, else disappears.

    Args:
        target: must not exist, or be an empty folder.
        num_bytes: what will be written; compared with the free space first.

    Raises:
        UserError: `target` is taken, or its folder cannot be written.
        OSError: the disk is full (ENOSPC).
    """
    path = pathlib.Path(target).expanduser().absolute()
    if path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UserError(f"{path} exists already; choose a new folder, or remove it first.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=path.name + _TEMPORARY, dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}.") from error
    try:
        free = shutil.disk_usage(temporary).free
        if free < num_bytes:
            why = f"it takes {num_bytes / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
            raise OSError(errno.ENOSPC, f"no space left for a checkpoint ({why})", str(path))
        yield temporary
        as_made_by_mkdir(temporary)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def file_inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The file `name` of a checkpoint's folder.

    A symbolic link may only lead to a file of the same folder, or, in Hugging Face's cache
    (`models--*/snapshots/<revision>/`), to one of that model's `blobs`.

    Raises:
        UserError: the name or a link leads elsewhere.
    """
    if name in ("", ".", "..") or pathlib.PurePath(name).name != name or "\\" in name:
        raise UserError(
            f"{folder} names the file {name!r}, which is not in that folder; the checkpoint is "
            "damaged or was made to read other files."
        )
    path = folder / name
    if not path.is_symlink():
        return path
    real, home = path.resolve(), folder.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(home.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in allowed):
        raise UserError(
            f"{path} is a symbolic link to {real}, outside of the checkpoint's folder. Copy the "
            "file there instead of linking it."
        )
    return path


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: it cannot be read or is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}). Download or copy it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object but {type(value).__name__}.")
    return value


def write_json(path: pathlib.Path, value: Any) -> None:
    """A JSON file, keys sorted, as Hugging Face writes them."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
