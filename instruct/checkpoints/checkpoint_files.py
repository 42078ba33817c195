"""One checkpoint's files: names, checksums, and reading them into any layout and mesh.

The other half of `checkpoint.py`, which has the picture of a checkpoint's folder.
"""

import errno
import hashlib
import json
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from instruct.errors import UserError, storage_error_number
from instruct.mesh import tree_paths
from instruct.models.layout import stack_layers

FOLDER = "checkpoints"
PARAMS, TRAINING, INPUT, RECORDS = "params", "training", "input", "records"
# The file of an item that is one JSON object.
JSON_FILE = "metadata"
_HASH = "sha256"
# What the system says where a file is not what was written; other errors are the storage's.
_LOST = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


def _not_of_an_abandoned_read(record: logging.LogRecord) -> bool:
    # Of the arrays that Orbax reads at once, it raises the first error; asyncio logs the others.
    return "exception was never retrieved" not in record.getMessage()


logging.getLogger("asyncio").addFilter(_not_of_an_abandoned_read)


class DamagedCheckpoint(UserError):
    """A checkpoint whose files are not those that were written.

    Attributes:
        why: what was found, in one line.
        problem: a sentence that names the folder, without what to do.
    """

    def __init__(self, folder: pathlib.Path, why: str, fix: str) -> None:
        self.why = why
        self.problem = f"checkpoint {folder} is damaged ({why})."
        super().__init__(f"{self.problem} {fix}.")


class _LocalPath(type(epath.Path())):  # pyright: ignore[reportUntypedBaseClass]
    """A folder for Orbax whose name is only a name.

    Orbax lists files with `glob`, and etils takes the folder's own `[`, `*` and `?` for a pattern
    too: in `runs/[x]` it finds nothing, and a save ends well without its index. Below `/gs` and
    `/s3` it means a bucket.
    """

    _uri_scheme = None

    def glob(self, pattern: str) -> Iterator["_LocalPath"]:
        return (type(self)(path) for path in pathlib.Path(os.fspath(self)).glob(pattern))


def for_orbax(folder: pathlib.Path) -> epath.Path:
    """The folder as Orbax's functions should get it. Raises UserError as `check_storable`."""
    check_storable(folder)
    return _LocalPath(folder)


def check_storable(path: pathlib.Path) -> None:
    """Raises UserError for a path that TensorStore, which writes the arrays, takes for another."""
    text = str(path)
    if "\\" in text:
        problem = "has a backslash, which the library of checkpoints takes for a slash"
    elif text != text.encode("utf-8", "replace").decode("utf-8"):
        problem = "is not UTF-8, and the library of checkpoints writes no other names"
    else:
        return
    raise UserError(f"the path {text!r} {problem}. Rename that folder, or choose another.")


def checkpoint_steps(path: str | pathlib.Path) -> list[int]:
    """Steps of the checkpoints of a MODEL_DIR or its `checkpoints`, in order.

    Whatever lost its files, or was replaced by a file, counts as well: it is damaged, which reading
    it says. Outside of a folder `checkpoints` a number may be anybody's; there, one item suffices.
    """
    folder = steps_folder(pathlib.Path(path).expanduser().absolute())
    if not folder.is_dir():
        return []
    numbered = [child for child in folder.iterdir() if re.fullmatch(r"0|[1-9]\d*", child.name)]
    items = (PARAMS, TRAINING, INPUT)
    return sorted(
        int(child.name)
        for child in numbered
        if folder.name == FOLDER or any((child / item).is_dir() for item in items)
    )


def steps_folder(path: pathlib.Path) -> pathlib.Path:
    return path / FOLDER if (path / FOLDER).is_dir() else path


@jax.jit
def checksums(tree: Any) -> Any:
    """Sum of each array's bits as unsigned numbers, modulo 2^32: the same on every mesh."""

    def bits(leaf):
        leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
        kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        return jnp.sum(jax.lax.bitcast_convert_type(leaf, kind), dtype=jnp.uint32)

    return jax.tree.map(bits, tree)


def node_names(tree: Any) -> set[str]:
    if not isinstance(tree, Mapping):
        return set()
    return set(tree).union(*(node_names(value) for value in tree.values()))


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object with its hash in it: a changed digit is still JSON."""
    plain = json.loads(json.dumps(document))
    return {**plain, _HASH: _hash_of(plain)}


def _hash_of(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def read_document(folder: pathlib.Path) -> dict[str, Any]:
    """`input`, `metrics` and `checksums` of a checkpoint.

    Raises:
        DamagedCheckpoint: it is not what was written, or the folder holds another step.
    """
    try:
        document = _read_sealed(folder, INPUT)
        found = {name: document[name] for name in ("input", "metrics", "checksums")}
    except Exception as error:
        _raise_if_unreadable(folder, error)
        raise damaged_checkpoint(folder, error) from error
    step = document.get("step")
    if step is not None and folder.name.isdigit() and step != int(folder.name):
        raise damaged_checkpoint(folder, f"it holds step {step}")
    return found


def read_records(folder: pathlib.Path) -> dict[str, Any]:
    """`run` (what run.json held) and `rows` (of metrics.jsonl) up to this step.

    {} if the checkpoint has none, as those of earlier versions, or they are damaged: no value that
    is computed depends on them.
    """
    try:
        records = _read_sealed(folder, RECORDS)
        return {"run": dict(records["run"]), "rows": list(records["rows"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        text = "the copies of run.json and metrics.jsonl in checkpoint %s are damaged (%s)"
        logging.getLogger(__name__).warning(text, folder, error)
        return {}


def _read_sealed(folder: pathlib.Path, item: str) -> dict[str, Any]:
    name = f"{item}/{JSON_FILE}"
    try:
        document = json.loads((folder / name).read_bytes())
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    seal = document.pop(_HASH, None)  # earlier versions wrote none
    if seal is not None and seal != _hash_of(document):
        raise ValueError(f"{name} is not what was written")
    return document


def _restored(
    folder: pathlib.Path, item: str, unrolled: Any, sums: Mapping[str, int], *, values: bool
) -> Any:
    """An item's arrays, or None without `values`, after names and shapes were compared."""
    place = for_orbax(folder / item)
    try:
        with ocp.StandardCheckpointer() as reader:
            # `Any`: older and newer Orbax wrap the tree differently.
            metadata: Any = reader.metadata(place)
            metadata = getattr(metadata, "item_metadata", metadata)
            there = dict(tree_paths(getattr(metadata, "tree", metadata) or {}))
            if not there:
                raise FileNotFoundError(f"{item} is missing or unreadable")
            prefix = f"{item}/"
            written = {name.removeprefix(prefix) for name in sums if name.startswith(prefix)}
            if set(there) != written:
                raise ValueError(f"{item}/_METADATA names other arrays than were written")
            _check_fit(folder, there, dict(tree_paths(unrolled)))
            return reader.restore(place, unrolled) if values else None
    except UserError:
        raise
    except Exception as error:
        _raise_if_unreadable(folder, error)
        raise damaged_checkpoint(folder, error) from error


def check_item(folder: pathlib.Path, item: str, abstract: Any, sums: Mapping[str, int]) -> None:
    """Opens every array of an item, no values. Raises UserError as `read_item`."""
    _restored(folder, item, _unrolled_abstract(abstract), sums, values=False)


def read_item(folder: pathlib.Path, item: str, abstract: Any, sums: Mapping[str, int]) -> Any:
    """One item in the layout and with the shardings of `abstract`, compared with its checksums."""
    found = _restored(folder, item, _unrolled_abstract(abstract), sums, values=True)
    read = {
        path: int(value) for path, value in tree_paths(jax.device_get(checksums({item: found})))
    }
    wrong = [path for path, value in read.items() if sums.get(path) != value]
    if wrong:
        raise damaged_checkpoint(folder, f"{wrong[0]} is not what was written")
    if "layers" not in node_names(abstract):
        return found
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(stack_layers, out_shardings=shardings)(found)


def _unrolled_abstract(tree: Any) -> Any:
    """`unstack_layers` on abstract arrays, the layers keeping their share of the sharding."""
    if not isinstance(tree, Mapping):
        return jax.ShapeDtypeStruct(tree.shape, tree.dtype, sharding=sharding_of(tree))

    def layer(leaf):
        sharding = sharding_of(leaf)
        if isinstance(sharding, NamedSharding):
            sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, sharding=sharding)

    found = {name: _unrolled_abstract(node) for name, node in tree.items() if name != "layers"}
    if "layers" in tree:
        count = jax.tree.leaves(tree["layers"])[0].shape[0]
        one = jax.tree.map(layer, tree["layers"])
        found |= {f"layers_{i}": one for i in range(count)}
    return found


def sharding_of(leaf: Any) -> Any:
    """An abstract array's sharding; without one, all of it on the first device."""
    found = getattr(leaf, "sharding", None)
    return jax.sharding.SingleDeviceSharding(jax.devices()[0]) if found is None else found


def _check_fit(folder: pathlib.Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises UserError unless names and shapes agree."""
    problems = [f"{path} is missing" for path in wanted if path not in there]
    problems += [f"{path} is not in the model" for path in there if path not in wanted]
    problems += [
        f"{path} is {tuple(there[path].shape)}, the model's {tuple(leaf.shape)}"
        for path, leaf in wanted.items()
        if path in there and tuple(there[path].shape) != tuple(leaf.shape)
    ]
    if problems:
        raise UserError(
            f"checkpoint {folder} belongs to another model or optimiser: "
            + "; ".join(problems[:3])
            + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
            + ". Use the model's gin file that it was trained with."
        )


def _raise_if_unreadable(folder: pathlib.Path, error: Exception) -> None:
    """Re-raises errors that do not indicate corruption: nobody should delete files for them."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        raise error
    number = storage_error_number(error)
    if number in (errno.EACCES, errno.EPERM) or "PERMISSION_DENIED" in str(error):
        raise UserError(
            f"checkpoint {folder} may not be read by this user; make its files readable."
        ) from error
    if number not in _LOST:
        raise error


def none_whole(folder: pathlib.Path, damaged: Mapping[int, DamagedCheckpoint]) -> UserError:
    """What to raise where every checkpoint of a run, by step, is damaged."""
    if len(damaged) == 1:
        return next(iter(damaged.values()))
    reasons = "; ".join(f"{step}: {error.why}" for step, error in damaged.items())
    return UserError(
        f"no checkpoint in {folder} is whole ({reasons}). Nothing was moved or deleted. "
        "Restore one from a copy, or move the folder away to start anew."
    )


def damaged_checkpoint(folder: pathlib.Path, why: Any) -> DamagedCheckpoint:
    others = [step for step in checkpoint_steps(folder.parent) if str(step) != folder.name]
    logging.getLogger(__name__).debug("reading %s", folder, exc_info=True)
    fix = (
        f"Delete that folder to go on from step {others[-1]}"
        if others
        else "Delete that folder to start anew"
    )
    if isinstance(why, KeyError):
        why = f"its metadata lack {why}"
    first_line = (str(why).strip() or repr(why)).splitlines()[0].partition(" See full")[0][:200]
    return DamagedCheckpoint(folder, first_line, fix)
