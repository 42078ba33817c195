"""This program's own checkpoints (`checkpoints/checkpoint.py`), read array by array and written so.

Training saves whole states from devices through Orbax. Converting holds one array in memory at a
time, so it writes the same files with TensorStore: an OCDBT database of zarr arrays, Orbax's list
of names, and our checksums.
"""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from instruct.checkpoints.arrays import Index, LazyArray
from instruct.checkpoints.checkpoint import step_of
from instruct.checkpoints.checkpoint_files import (
    FOLDER,
    INPUT,
    JSON_FILE,
    PARAMS,
    TRAINING,
    damaged_checkpoint,
    read_document,
    read_records,
    sealed,
)
from instruct.checkpoints.folders import new_folder, read_json, write_json
from instruct.checkpoints.huggingface import copy_files
from instruct.checkpoints.stores import ArrayWriter, Store, chunk_shape, open_arrays, refuse_links
from instruct.checkpoints.tokenizers import vocabulary_of
from instruct.checkpoints.trained_run import SPEED_ONLY
from instruct.checkpoints.weights import COMPUTED_FIELDS, Checkpoint
from instruct.errors import UserError
from instruct.models.config import SIZES, ModelConfig

KIND = "instruct"
RUN_FILE = "run.json"
# Sub-folder with the tokenizer and settings of the Hugging Face folder that was converted.
CARRIED = "huggingface"
_SLOTS = "opt_state"


def open_checkpoint(folder: pathlib.Path, slots: bool = False) -> Checkpoint:
    """The checkpoint in one step's folder; no values are read.

    Args:
        folder: as `find_checkpoint` gives it.
        slots: the optimiser's state as well.

    Raises:
        UserError: something is missing or damaged.
    """
    refuse_links(folder)
    run, info = _run_info(folder)
    sums = read_document(folder)["checksums"]
    arrays = _open_item(folder, PARAMS, sums)
    state: dict[str, LazyArray] = {}
    step = step_of(folder)
    if slots:
        training = _open_item(folder, TRAINING, sums)
        step = int(training.pop("step").read())
        state = {path.removeprefix(f"{_SLOTS}/"): array for path, array in training.items()}
    carried = carried_folder(folder)
    vocabulary = vocabulary_of(carried) if carried else None
    config = info.get("config")
    if vocabulary is None:
        vocabulary = info.get("vocabulary")
        if vocabulary is None and isinstance(config, Mapping):
            vocabulary = config.get("data.vocabulary")
    model = info.get("model")
    return Checkpoint(
        kind=KIND,
        place=str(folder),
        arrays=arrays,
        names={path: path for path in arrays},
        model=_model(model, run) if isinstance(model, Mapping) else None,
        known_fields=frozenset((*COMPUTED_FIELDS, *SIZES, "relpos_buckets")),
        slots=state,
        step=step,
        vocabulary=vocabulary if isinstance(vocabulary, str) else None,
    )


def carried_folder(folder: pathlib.Path) -> pathlib.Path | None:
    """The tokenizer and settings that came with a converted checkpoint, or with its run."""
    folders = (place / CARRIED for place in (folder, *folder.parents[:2]))
    return next((place for place in folders if place.is_dir()), None)


def _run_info(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    for place in (folder, *folder.parents[:2]):
        path = place / RUN_FILE
        if path.exists():
            try:
                return path, run_info(folder, path, read_json(path))
            except UserError as error:
                info = run_info(folder, path, {})
                if not info:
                    raise error
                return path, info
    return folder / RUN_FILE, run_info(folder, folder / RUN_FILE, {})


def run_info(folder: pathlib.Path, path: pathlib.Path, info: Mapping[str, Any]) -> dict[str, Any]:
    """Contents of run.json with the model that the checkpoint recorded; warns where they differ.

    Args:
        folder: one step's.
        path: of run.json.
        info: its readable contents; without a model the checkpoint's copy replaces them.
    """
    recorded = read_records(folder).get("run", {})
    model = recorded.get("model")
    if not isinstance(model, Mapping):  # a checkpoint of an earlier version, or converted
        return dict(info)
    log = logging.getLogger(__name__)
    if not isinstance(info.get("model"), Mapping):
        state = "damaged" if path.exists() else "missing"
        log.warning("%s is %s; the copy in %s is used", path, state, folder)
        return recorded
    changed = {
        name: value
        for name, value in model.items()
        if info["model"].get(name) != value and f"model.{name}" not in SPEED_ONLY
    }
    if changed:
        log.warning("%s is not what training wrote; %s says and is used: %s", path, folder, changed)
    return {**info, "model": {**info["model"], **changed}}


def _model(recorded: Mapping[str, Any], place: pathlib.Path) -> ModelConfig:
    names = ModelConfig.__dataclass_fields__
    try:
        return ModelConfig(**{name: recorded[name] for name in names if name in recorded})
    except UserError as error:
        raise UserError(f"{place} describes a model that cannot be: {error}") from error


def _open_item(folder: pathlib.Path, item: str, sums: Mapping[str, int]) -> dict[str, LazyArray]:
    if not (folder / item).is_dir():
        raise UserError(f"checkpoint {folder} has no {item!r}; it holds parameters only.")
    arrays = open_orbax(Store(str(folder / item)))
    written = {name.removeprefix(f"{item}/") for name in sums if name.startswith(f"{item}/")}
    if set(arrays) != written:
        raise damaged_checkpoint(folder, f"{item}/_METADATA names other arrays than were written")
    return {path: _checked(array, sums[f"{item}/{path}"], folder) for path, array in arrays.items()}


def _checked(array: LazyArray, expected: int, folder: pathlib.Path) -> LazyArray:
    """The array with its checksum verified at the first read, by blocks if that is a slice."""
    verified = False

    def read(index: Index) -> np.ndarray:
        nonlocal verified
        whole = [slice(0, size) for size in array.shape]
        values = array.read(index)
        if not verified:
            parts = [values] if list(index) == whole else array.blocks()
            if sum(map(checksum, parts)) % 2**32 != expected:
                raise damaged_checkpoint(folder, f"{array.place} is not what was written")
            verified = True
        return values

    return dataclasses.replace(array, read_fn=read)


def open_orbax(store: Store) -> dict[str, LazyArray]:
    """All arrays of a folder that Orbax wrote, names joined by '/'.

    Raises:
        UserError: it has no `_METADATA`, or an array of it is missing.
    """
    metadata = store.read_json("_METADATA")
    tree = (metadata or {}).get("tree_metadata")
    if metadata is None or not isinstance(tree, dict):
        raise UserError(f"{store.place} has no _METADATA with names: it is no Orbax checkpoint.")
    names = {}
    for entry in tree.values():
        try:
            keys = [str(part["key"]) for part in entry["key_metadata"]]
            kind = str(entry["value_metadata"]["value_type"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{store.place}/_METADATA is damaged ({error!r}).") from error
        if kind not in ("None", "Dict", "List", "empty"):
            names["/".join(keys)] = ".".join(keys)
    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    kvstore = store.database() if metadata.get("use_ocdbt") else store.spec
    elided = not metadata.get("store_array_data_equal_to_fill_value")
    return open_arrays(
        kvstore, names, store.place, store.context, driver=driver, zeros_left_out=elided
    )


def write_checkpoint(
    target: pathlib.Path,
    arrays: Mapping[str, LazyArray],
    model: ModelConfig,
    *,
    info: Mapping[str, Any],
    slots: Mapping[str, LazyArray] | None = None,
    step: int = 0,
    carried: Mapping[str, pathlib.Path] | None = None,
) -> None:
    """Writes a checkpoint that `load_params` reads; with slots, a run that training resumes.

        TARGET/params, input, run.json, huggingface/                         parameters only
        TARGET/checkpoints/<step>/params, training, input, TARGET/run.json   with slots

    Args:
        target: new folder.
        arrays, slots: under our names, layers separate; written as float32.
        model: architecture, for run.json.
        info: further content of run.json.
        step: finished updates.
        carried: tokenizer and settings that are kept, see `huggingface.carried_files`.

    Raises:
        UserError: `target` is taken.
        OSError: the disk is full.
    """
    size = sum(4 * array.nbytes // array.dtype.itemsize for array in arrays.values())
    size += sum(array.nbytes for array in (slots or {}).values())
    with new_folder(target, size) as folder:
        place = folder / FOLDER / str(step) if slots else folder
        place.mkdir(parents=True, exist_ok=True)
        sums = _write_item(place, PARAMS, arrays)
        if slots:
            training = {f"{_SLOTS}/{path}": array for path, array in slots.items()}
            sums |= _write_item(place, TRAINING, training, np.int32(step))
        document = {"step": step, "input": {"processes": []}, "metrics": {}, "checksums": sums}
        (place / INPUT).mkdir()
        (place / INPUT / JSON_FILE).write_text(json.dumps(sealed(document)), encoding="utf-8")
        fields = {name: getattr(model, name) for name in ModelConfig.__dataclass_fields__}
        described = {"model": fields, "num_params": model.num_params(), "step": step}
        write_json(folder / RUN_FILE, dict(info) | described)
        if carried:
            (folder / CARRIED).mkdir()
            copy_files(carried, folder / CARRIED)


def _write_item(
    folder: pathlib.Path, item: str, arrays: Mapping[str, LazyArray], step: np.int32 | None = None
) -> dict[str, int]:
    """Writes one item; checksums as `checkpoint_files.checksums` computes them."""
    store = Store(str(folder / item))
    (folder / item).mkdir()
    sums, tree = {}, {}

    def write(writer: ArrayWriter, path: str, values: np.ndarray) -> None:
        keys = path.split("/")
        metadata = {
            "compressor": {"id": "zstd"},
            "shape": list(values.shape),
            "chunks": chunk_shape(values.shape, values.dtype.itemsize),
            "dimension_separator": ".",
        }
        kvstore = store.database() | {"path": ".".join(keys) + "/"}
        spec = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata}
        writer.add(spec | {"store_data_equal_to_fill_value": True}, values)
        sums[f"{item}/{path}"] = checksum(values)
        tree[str(tuple(keys))] = {
            "key_metadata": [{"key": key, "key_type": 2} for key in keys],
            "value_metadata": {
                "value_type": "jax.Array",
                "skip_deserialize": False,
                "write_shape": list(values.shape),
            },
        }

    with ArrayWriter() as writer:
        for path, array in arrays.items():
            write(writer, path, array.read_as(np.dtype(np.float32)))
        if step is not None:
            write(writer, "step", np.asarray(step))
    described = {
        "tree_metadata": tree,
        "use_ocdbt": True,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
        "custom_metadata": None,
    }
    (folder / item / "_METADATA").write_text(json.dumps(described), encoding="utf-8")
    return sums


def checksum(values: np.ndarray) -> int:
    """As `checkpoint_files.checksums`, of one array on the host."""
    bits = np.ascontiguousarray(values).reshape(-1).view(f"u{values.dtype.itemsize}")
    return int(np.sum(bits, dtype=np.uint64) & 0xFFFFFFFF)
