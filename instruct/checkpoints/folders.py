"""Checkpoint folders: atomic writing, and reading that follows no link out of them."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from instruct import files
from instruct.errors import UserError
from instruct.json_text import parse_json
from instruct.packed_files import refuse_pointer

_TEMPORARY = ".partial-"


@contextlib.contextmanager
def new_folder(target: str | os.PathLike[str], num_bytes: int) -> Iterator[pathlib.Path]:
    """Context: an empty folder beside `target`, renamed to it at the end, deleted on an error.

    Raises UserError if `target` is taken (not an empty folder) or cannot be written, OSError
    (ENOSPC) unless `num_bytes` are free.
    """
    path = files.any_path("the folder to write", target).absolute()
    with contextlib.ExitStack() as stack:
        try:
            if path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir())):
                raise UserError(f"{path} exists already; choose a new folder, or remove it first.")
            # Cut, so that a target with the longest possible name works too.
            folder = stack.enter_context(files.whole_folder(path, path.name[:50] + _TEMPORARY))
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror or error}. Choose a folder that can be made."
            ) from error
        free = shutil.disk_usage(folder).free
        if free < num_bytes:
            why = f"it takes {num_bytes / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
            raise OSError(errno.ENOSPC, f"no space left for a checkpoint ({why})", str(path))
        yield folder


def file_inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The path of the file `name` in a checkpoint's folder; the file need not exist.

    A symbolic link may only lead to a file of the same folder, or, in Hugging Face's cache
    (`models--*/snapshots/<revision>/`), to one of that model's `blobs`. Raises UserError if the
    name or a link leads elsewhere, or to a folder or a device.
    """
    if name in ("", ".", "..") or pathlib.PurePath(name).name != name or "\\" in name:
        raise UserError(
            f"{folder} names the file {name!r}, which is not in that folder; the checkpoint is "
            "damaged or malicious."
        )
    path, home = folder / name, folder.resolve()
    if path.is_symlink():
        allowed = [home]
        if home.parent.name == "snapshots":
            allowed.append(home.parent.parent / "blobs")
        refuse_link(path, allowed)
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file; copy or download the checkpoint again.")
    return path


def refuse_link(path: pathlib.Path, allowed: Sequence[pathlib.Path]) -> None:
    """Raises UserError if a symbolic link leads into none of the folders, or nowhere."""
    # Unlike pathlib's, this resolves a loop of links, to one of its links.
    real = pathlib.Path(os.path.realpath(path))
    if not any(real.is_relative_to(folder) for folder in allowed):
        raise UserError(
            f"{path} is a symbolic link to {real}, outside of the checkpoint's folder. Copy the "
            "file into that folder instead of linking it."
        )
    if real.is_symlink() or not real.exists():
        raise UserError(
            f"{path} is a symbolic link to {real}, which does not exist. Copy the file."
        )


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object; raises UserError if it is none, or a name in it occurs twice."""
    refuse_pointer(path)
    try:
        value = parse_json(path.read_bytes(), unique_names=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}). Download or copy it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object but {type(value).__name__}.")
    return value


def json_bytes(value: Any) -> bytes:
    """The content of a JSON file with sorted keys, as Hugging Face writes them."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
