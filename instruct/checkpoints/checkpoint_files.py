"""One checkpoint's files: names, checksums, and reading into any layout and mesh.

`checkpoint.py` shows the folder.
"""

import contextlib
import errno
import json
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from instruct.errors import LOST_FILE, UserError, naming_file, storage_error_number
from instruct.files import absolute_path, is_address
from instruct.json_text import unsealed
from instruct.mesh import tree_paths
from instruct.models.layout import stack_layers, unstack_layers

FOLDER = "checkpoints"
PARAMS, TRAINING, INPUT, RECORDS = "params", "training", "input", "records"
# A file of this name in a checkpoint's folder, whatever it holds, keeps the checkpoint for ever.
PINNED = "pinned"
# The file of an item that is one JSON object.
JSON_FILE = "metadata"
# Orbax's file with the times of a save, its field, and the file that it writes last.
_METADATA, _COMMIT_TIME = "_CHECKPOINT_METADATA", "commit_timestamp_nsecs"
COMMITTED = "commit_success.txt"
# Buckets that Orbax writes to and T5X's checkpoints are read from.
REMOTE = "gs://"


def _not_of_an_abandoned_read(record: logging.LogRecord) -> bool:
    # Orbax reads arrays concurrently and raises the first error; asyncio logs the others.
    return "exception was never retrieved" not in record.getMessage()


def _not_of_an_items_metadata(record: logging.LogRecord) -> bool:
    # Orbax looks for this file in the folder of each item, and writes it into the one above them.
    return not record.getMessage().startswith("Metadata file does not exist")


logging.getLogger("asyncio").addFilter(_not_of_an_abandoned_read)
logging.getLogger("absl").addFilter(_not_of_an_items_metadata)  # the command line shows errors only


class DamagedCheckpoint(UserError):
    """A checkpoint whose files differ from what was written; `why` and `problem` omit the fix."""

    def __init__(self, folder: pathlib.Path, why: Any) -> None:
        logging.getLogger(__name__).debug("reading %s", folder, exc_info=True)
        if isinstance(why, KeyError):
            why = f"its metadata lack {why}"
        self.why = (str(why).strip() or repr(why)).splitlines()[0].partition(" See full")[0][:200]
        self.problem = f"checkpoint {folder} is damaged ({self.why})."
        others = [step for step in checkpoint_steps(folder.parent) if str(step) != folder.name]
        goal = f"resume from step {others[-1]}" if others else "start over"
        super().__init__(f"{self.problem} Delete that folder to {goal}.")


class DamagedFile(UserError):
    """A file of a checkpoint, of any format, that cannot be read."""


@contextlib.contextmanager
def detecting_damage(folder: pathlib.Path) -> Iterator[None]:
    """Raises DamagedCheckpoint for errors that indicate corruption, and re-raises all others.

    Nobody should delete files because memory or a network drive failed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) and not isinstance(error, DamagedFile):
            raise
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise
        number = storage_error_number(error)
        if number in (errno.EACCES, errno.EPERM) or "PERMISSION_DENIED" in str(error):
            raise UserError(
                f"checkpoint {folder} may not be read by this user; make its files readable."
            ) from error
        if number is not None and number not in LOST_FILE:
            if isinstance(error, OSError) and error.filename is None:  # of an open file
                error.filename = str(folder)
            raise
        raise DamagedCheckpoint(folder, error) from error


def read_newest(
    folder: pathlib.Path, steps: Iterable[int], read_fn: Callable[[int], Any], strict: bool
) -> tuple[int, Any, dict[int, DamagedCheckpoint]]:
    """Reads the newest intact checkpoint: (its step, its contents, errors of newer ones by step).

    `steps` are in order, newest first. Raises DamagedCheckpoint if the first is damaged and
    `strict`, UserError if all are.
    """
    damaged: dict[int, DamagedCheckpoint] = {}
    for step in steps:
        try:
            return step, read_fn(step), damaged
        except DamagedCheckpoint as error:
            if strict:
                raise
            damaged[step] = error
    if len(damaged) == 1:
        raise next(iter(damaged.values()))
    reasons = "; ".join(f"{step}: {error.why}" for step, error in damaged.items())
    raise UserError(
        f"every checkpoint in {folder} is damaged ({reasons}). Nothing was moved or deleted. "
        "Restore one from a copy, or move the folder away to start over."
    )


class _LocalPath(type(epath.Path())):  # pyright: ignore[reportUntypedBaseClass]
    """A folder for Orbax whose name is only a name.

    Orbax lists files with `glob`, and etils takes `[`, `*` and `?` in the folder's own name for a
    pattern: in `runs/[x]` it finds nothing, and a save ends without its index and without an
    error. Paths below `/gs` and `/s3` would mean a bucket.
    """

    _uri_scheme = None

    def glob(self, pattern: str) -> Iterator["_LocalPath"]:
        return (type(self)(path) for path in pathlib.Path(os.fspath(self)).glob(pattern))


def for_orbax(folder: pathlib.Path) -> epath.Path:
    """The folder as Orbax's functions should get it. Raises UserError as `check_storable`."""
    check_storable(folder)
    return cast(Any, folder) if is_address(folder) else _LocalPath(folder)


def check_storable(path: pathlib.Path) -> None:
    """Raises UserError for a path that Orbax cannot use, or TensorStore, which writes the arrays,
    misreads.
    """
    text = str(path)
    if is_address(path) and not text.startswith(REMOTE):
        raise UserError(
            f"{text}: checkpoints of training are kept on this machine or at {REMOTE}, since Orbax "
            "writes to no other buckets. Choose another MODEL_DIR, or mount that bucket."
        )
    if "\\" in text:
        problem = "has a backslash, which TensorStore reads as a slash"
    elif text != text.encode("utf-8", "replace").decode("utf-8"):
        problem = "is not UTF-8, and TensorStore writes no other names"
    else:
        return
    raise UserError(f"the path {text!r} {problem}. Rename that folder, or choose another.")


def checkpoint_steps(path: str | pathlib.Path) -> list[int]:
    """Steps of the checkpoints of a MODEL_DIR or its `checkpoints`, in order.

    In a folder `checkpoints` every number counts, also a file or an empty folder: that is a damaged
    checkpoint, and reading it says so. In any other folder a number needs at least one item.
    """
    folder = steps_folder(absolute_path(path))
    if not folder.is_dir():
        return []
    numbered = [child for child in folder.iterdir() if re.fullmatch(r"0|[1-9]\d*", child.name)]
    items = (PARAMS, TRAINING, INPUT)
    return sorted(
        int(child.name)
        for child in numbered
        if (folder.name == FOLDER or any((child / item).is_dir() for item in items))
        and not (is_address(child) and is_unfinished(child))
    )


def steps_folder(path: pathlib.Path) -> pathlib.Path:
    return path / FOLDER if (path / FOLDER).is_dir() else path


def is_unfinished(folder: pathlib.Path) -> bool:
    """Whether a checkpoint in a bucket was not written to its end, or is being removed.

    Orbax writes `_CHECKPOINT_METADATA` first, and at the end a time into it and a commit file. A
    checkpoint that was copied there from this machine has both; `convert` writes neither.
    """
    if (folder / COMMITTED).is_file():
        return False
    try:
        return json.loads((folder / _METADATA).read_bytes()).get(_COMMIT_TIME) is None
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError):
        return True


def remove_from_bucket(folder: pathlib.Path) -> None:
    """Deletes a checkpoint in a bucket, which counts as unfinished from the first moment on."""
    (folder / _METADATA).write_bytes(json.dumps({_COMMIT_TIME: None}).encode())
    (folder / COMMITTED).unlink(missing_ok=True)
    for child in list(folder.iterdir()):  # the mark goes last
        if child.is_dir():
            cast(Any, child).rmtree()
        elif child.name != _METADATA:
            child.unlink(missing_ok=True)
    cast(Any, folder).rmtree()


def step_of(place: str | pathlib.Path) -> int:
    """The step that a checkpoint's path or address ends with: `100`, `checkpoint_100`; else 0."""
    match = re.search(r"(?:^|/|checkpoint_)([0-9]+)/*$", os.fspath(place))
    return int(match[1]) if match else 0


def checksums(tree: Any) -> dict[str, int]:
    """Path -> sum of an array's bits as unsigned numbers, modulo 2^32; the same on every mesh."""
    return {path: int(value) for path, value in tree_paths(jax.device_get(_bit_sums(tree)))}


@jax.jit
def _bit_sums(tree: Any) -> Any:
    def bits(leaf):
        leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
        kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        return jnp.sum(jax.lax.bitcast_convert_type(leaf, kind), dtype=jnp.uint32)

    return jax.tree.map(bits, tree)


def has_stacked_layers(tree: Any) -> bool:
    """Whether a tree of dictionaries has the layout of `scan_layers`."""
    return any("layers" in path.split("/") for path, _ in tree_paths(tree))


def _read_sealed(folder: pathlib.Path, item: str) -> dict[str, Any]:
    name = f"{item}/{JSON_FILE}"
    with naming_file(folder / name):
        content = (folder / name).read_bytes()
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    try:
        return unsealed(document)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def read_document(folder: pathlib.Path) -> dict[str, Any]:
    """`input`, `metrics` and `checksums` of a checkpoint; raises DamagedCheckpoint."""
    with detecting_damage(folder):
        document = _read_sealed(folder, INPUT)
        fields = {name: document[name] for name in ("input", "metrics", "checksums")}
        step = document.get("step")
    if step is not None and folder.name.isdigit() and step != int(folder.name):
        raise DamagedCheckpoint(folder, f"it holds step {step}")
    return fields


def read_records(folder: pathlib.Path) -> dict[str, Any]:
    """`run` (what run.json held), `rows` (of metrics.jsonl) and `goodput` up to this step.

    {} if they are damaged, or missing as in checkpoints of earlier versions: no value that is
    computed depends on them.
    """
    try:
        records = _read_sealed(folder, RECORDS)
        goodput = dict(records.get("goodput", {}))  # absent in checkpoints of earlier versions
        return {"run": dict(records["run"]), "rows": list(records["rows"]), "goodput": goodput}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        text = "the copies of run.json and metrics.jsonl in checkpoint %s are damaged (%s)"
        logging.getLogger(__name__).warning(text, folder, error)
        return {}


def check_names(folder: pathlib.Path, item: str, names: set[str], sums: Mapping[str, int]) -> None:
    """Raises DamagedCheckpoint unless an item's arrays are those that have checksums."""
    prefix = f"{item}/"
    if names != {name.removeprefix(prefix) for name in sums if name.startswith(prefix)}:
        raise DamagedCheckpoint(folder, f"{item}/_METADATA names other arrays than were written")


def read_item(
    folder: pathlib.Path, item: str, abstract: Any, sums: Mapping[str, int], values: bool = True
) -> Any:
    """Reads `PARAMS` or `TRAINING` and verifies the checkpoint's checksums (`sums`).

    `abstract` gives layout, shapes and dtypes; a leaf without `sharding` goes to the first device.
    Without `values` every array is only opened. Raises UserError if the item is damaged, or belongs
    to another model.
    """
    unrolled = unstack_layers(
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding_of(leaf)),
            abstract,
        )
    )
    path = for_orbax(folder / item)
    with detecting_damage(folder), ocp.StandardCheckpointer() as reader:
        # `Any`: older and newer Orbax wrap the tree differently.
        metadata: Any = reader.metadata(path)
        metadata = getattr(metadata, "item_metadata", metadata)
        stored = dict(tree_paths(getattr(metadata, "tree", metadata) or {}))
        if not stored:
            raise FileNotFoundError(f"{item} is missing or unreadable")
        check_names(folder, item, set(stored), sums)
        _check_fit(folder, stored, dict(tree_paths(unrolled)))
        if not values:
            return None
        arrays = reader.restore(path, unrolled)
    for name, value in checksums({item: arrays}).items():
        if sums.get(name) != value:
            raise DamagedCheckpoint(folder, f"{name} is not what was written")
    if not has_stacked_layers(abstract):
        return arrays
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(stack_layers, out_shardings=shardings)(arrays)


def sharding_of(leaf: Any) -> Any:
    """An abstract array's sharding; without one, all of it on the first device."""
    sharding = getattr(leaf, "sharding", None)
    return jax.sharding.SingleDeviceSharding(jax.devices()[0]) if sharding is None else sharding


def _check_fit(folder: pathlib.Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises UserError unless names and shapes agree."""
    problems = [f"{path} is missing" for path in wanted if path not in stored]
    problems += [f"{path} is not in the model" for path in stored if path not in wanted]
    problems += [
        f"{path} is {tuple(stored[path].shape)}, the model's {tuple(leaf.shape)}"
        for path, leaf in wanted.items()
        if path in stored and tuple(stored[path].shape) != tuple(leaf.shape)
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"checkpoint {folder} belongs to another model or optimiser: "
            f"{'; '.join(problems[:3])}{more}. Use the gin file of the model that was trained."
        )
