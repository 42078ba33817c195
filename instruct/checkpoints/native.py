"""Reads and writes this program's own checkpoints array by array, for conversion.

Training saves whole states from devices through Orbax (`checkpoint.py`). Converting holds one array
in memory at a time, so it writes the same files with TensorStore: an OCDBT database of zarr arrays,
Orbax's list of names, and our checksums.
"""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from instruct.checkpoints.adapter_arrays import merged, merged_note, split_adapters
from instruct.checkpoints.arrays import Index, LazyArray, held
from instruct.checkpoints.checkpoint_files import (
    COMMITTED,
    FOLDER,
    INPUT,
    JSON_FILE,
    PARAMS,
    TRAINING,
    DamagedCheckpoint,
    DamagedFile,
    check_names,
    read_document,
    read_records,
    step_of,
)
from instruct.checkpoints.folders import json_bytes, new_folder, read_json
from instruct.checkpoints.huggingface import KIND as HUGGINGFACE
from instruct.checkpoints.huggingface import copy_files
from instruct.checkpoints.model_fields import record_of, recorded_model
from instruct.checkpoints.stores import ArrayWriter, Store, chunk_shape, open_arrays, refuse_links
from instruct.checkpoints.tokenizers import vocabulary_of
from instruct.checkpoints.trained_run import SPEED_ONLY
from instruct.checkpoints.weights import Checkpoint
from instruct.errors import UserError
from instruct.files import absolute_path, expanded
from instruct.json_text import sealed
from instruct.lineage import initial_path
from instruct.models.model import AnyConfig

KIND = "instruct"
RUN_FILE = "run.json"
# Sub-folder with the tokenizer and settings of the Hugging Face folder that was converted.
CARRIED = "huggingface"
_SLOTS = "opt_state"


def open_checkpoint(folder: pathlib.Path, slots: bool = False) -> Checkpoint:
    """Opens the checkpoint in the folder of a step or of converted parameters; reads no values.

    Adapters are merged into kernels. With `slots` also the optimiser's state. Raises UserError if
    something is missing or damaged.
    """
    refuse_links(folder)
    model, vocabulary = recorded(folder)
    sums = read_document(folder)["checksums"]
    arrays, adapters = split_adapters(_open_item(folder, PARAMS, sums))
    arrays |= {path: merged(adapter) for path, adapter in adapters.items()}
    state: dict[str, LazyArray] = {}
    step = step_of(folder)
    if slots:
        training = _open_item(folder, TRAINING, sums)
        step = int(training.pop("step").read())
        state = {path.removeprefix(f"{_SLOTS}/"): array for path, array in training.items()}
    return Checkpoint(
        kind=KIND,
        place=str(folder),
        arrays=arrays,
        names={path: path for path in arrays},
        model=model,
        slots=state,
        step=step,
        vocabulary=vocabulary,
        notes=(merged_note(adapters),) if adapters else (),
        adapters=adapters,
    )


def recorded(folder: pathlib.Path) -> tuple[AnyConfig | None, str | None]:
    """(model, specification of the vocabulary) that a checkpoint was trained with, if recorded."""
    run, info = _find_run_info(folder)
    carried = carried_folder(folder)
    vocabulary = vocabulary_of(carried) if carried else None
    config, model = info.get("config"), info.get("model")
    if vocabulary is None:
        vocabulary = info.get("vocabulary")
    if vocabulary is None and isinstance(config, Mapping):
        vocabulary = config.get("data.vocabulary")
    return (
        recorded_model(model, run) if isinstance(model, Mapping) else None,
        vocabulary if isinstance(vocabulary, str) else None,
    )


def base_of(folder: pathlib.Path) -> str:
    """The model that a checkpoint's adapters belong to: what training started from; "" if unknown.

    For a checkpoint that was converted from a Hugging Face folder, that folder. A path is absolute
    if it is on this machine.
    """
    run, info = _find_run_info(folder)
    if info.get("base_model"):
        return str(info["base_model"])
    config = info.get("config")
    path = str((config.get("initial_checkpoint_path") if isinstance(config, Mapping) else "") or "")
    if not path:
        return ""
    # As the user wrote it: with `~`, or relative to where the training started.
    path = expanded(initial_path(path, run.parent))
    start = absolute_path(path)
    if any((start / name).exists() for name in (RUN_FILE, PARAMS)):
        kind, _, place = str(_find_run_info(start)[1].get("converted_from")).partition(" ")
        return place if kind == HUGGINGFACE else path
    return path


def carried_folder(folder: pathlib.Path) -> pathlib.Path | None:
    """The tokenizer and settings that came with a converted checkpoint, or with its run."""
    folders = (parent / CARRIED for parent in (folder, *folder.parents[:2]))
    return next((path for path in folders if path.is_dir()), None)


def _find_run_info(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """(path of run.json, see `run_info`) of the run that a checkpoint belongs to."""
    paths = [parent / RUN_FILE for parent in (folder, *folder.parents[:2])]
    path = next((path for path in paths if path.exists()), paths[0])
    try:
        return path, run_info(folder, path, read_json(path) if path.exists() else {})
    except UserError:
        recorded = run_info(folder, path, {})
        if not recorded:
            raise
        return path, recorded


def run_info(folder: pathlib.Path, path: pathlib.Path, info: Mapping[str, Any]) -> dict[str, Any]:
    """`info`, the contents of run.json at `path`, with the model that the checkpoint recorded.

    Warns where they differ. If `info` has no model, returns the checkpoint's copy of run.json.
    """
    recorded = read_records(folder).get("run", {})
    model = recorded.get("model")
    if not isinstance(model, Mapping):  # a checkpoint of an earlier version, or converted
        return dict(info)
    log = logging.getLogger(__name__)
    if not isinstance(info.get("model"), Mapping):
        if path.exists() or folder.is_relative_to(path.parent):  # not a folder for results alone
            state = "damaged" if path.exists() else "missing"
            log.warning("%s is %s; the copy in %s is used", path, state, folder)
        return recorded
    changed = {
        name: value
        for name, value in model.items()
        if info["model"].get(name) != value and f"model.{name}" not in SPEED_ONLY
    }
    if changed:
        log.warning("%s was changed after training; %s is used: %s", path, folder, changed)
    return {**info, "model": {**info["model"], **changed}}


def _open_item(folder: pathlib.Path, item: str, sums: Mapping[str, int]) -> dict[str, LazyArray]:
    if not (folder / item).is_dir():
        raise UserError(f"checkpoint {folder} has no {item!r}; it holds parameters only.")
    arrays = open_orbax(Store(str(folder / item)))
    check_names(folder, item, set(arrays), sums)
    return {path: _checked(array, sums[f"{item}/{path}"], folder) for path, array in arrays.items()}


def _checked(array: LazyArray, expected: int, folder: pathlib.Path) -> LazyArray:
    """The array, its checksum verified at the first read; a slice reads all blocks for that."""
    verified = False

    def read(index: Index) -> np.ndarray:
        nonlocal verified
        values = array.read(index)
        if not verified:
            is_whole = list(index) == [slice(0, size) for size in array.shape]
            blocks = [values] if is_whole else array.blocks()
            if sum(map(checksum, blocks)) % 2**32 != expected:
                raise DamagedCheckpoint(folder, f"{array.place} is not what was written")
            verified = True
        return values

    return dataclasses.replace(array, read_fn=read)


def open_orbax(store: Store) -> dict[str, LazyArray]:
    """Opens all arrays of a folder that Orbax wrote, names joined by '/'."""
    metadata = store.read_json("_METADATA")
    tree = (metadata or {}).get("tree_metadata")
    if metadata is None or not isinstance(tree, dict):
        raise DamagedFile(f"{store.place} has no _METADATA with names: it is no Orbax checkpoint.")
    names = {}
    for entry in tree.values():
        try:
            keys = [str(part["key"]) for part in entry["key_metadata"]]
            kind = str(entry["value_metadata"]["value_type"])
        except (KeyError, TypeError) as error:
            raise DamagedFile(f"{store.place}/_METADATA is damaged ({error!r}).") from error
        if kind not in ("None", "Dict", "List", "empty"):
            names["/".join(keys)] = ".".join(keys)
    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    kvstore = store.database() if metadata.get("use_ocdbt") else store.spec
    elided = not metadata.get("store_array_data_equal_to_fill_value")
    return open_arrays(store, names, kvstore, driver=driver, zeros_left_out=elided)


def write_checkpoint(
    target: pathlib.Path,
    arrays: Mapping[str, LazyArray],
    model: AnyConfig,
    *,
    info: Mapping[str, Any],
    slots: Mapping[str, LazyArray] | None = None,
    step: int = 0,
    carried: Mapping[str, pathlib.Path] | None = None,
) -> None:
    """Writes a checkpoint that `load_params` reads; with slots, a run that training resumes.

        TARGET/params, input, run.json, huggingface/                         parameters only
        TARGET/checkpoints/<step>/params, training, input, TARGET/run.json   with slots

    `arrays` and `slots` are under our names, layers separate, and are written as float32. `info` is
    further content of run.json, `carried` see `huggingface.carried_files`. Raises UserError if
    `target` is taken, OSError if the disk is full.
    """
    size = sum(4 * array.size for array in (*arrays.values(), *(slots or {}).values()))
    with new_folder(target, size) as folder:
        checkpoint = folder / FOLDER / str(step) if slots else folder
        checkpoint.mkdir(parents=True, exist_ok=True)
        sums = _write_item(checkpoint, PARAMS, arrays)
        if slots:
            training = {f"{_SLOTS}/{path}": array for path, array in slots.items()}
            training["step"] = held(np.asarray(step, np.int32), "step")
            sums |= _write_item(checkpoint, TRAINING, training)
        document = {"step": step, "input": {"processes": []}, "metrics": {}, "checksums": sums}
        (checkpoint / INPUT).mkdir()
        (checkpoint / INPUT / JSON_FILE).write_text(json.dumps(sealed(document)), encoding="utf-8")
        described = {"num_params": model.num_params(), "step": step}
        described |= {"model": record_of(model)}
        (folder / RUN_FILE).write_bytes(json_bytes(dict(info) | described))
        if carried:
            (folder / CARRIED).mkdir()
            copy_files(carried, folder / CARRIED)


def _write_item(folder: pathlib.Path, item: str, arrays: Mapping[str, LazyArray]) -> dict[str, int]:
    """Writes one item; returns checksums as `checkpoint_files.checksums` computes them."""
    store = Store(str(folder / item))
    (folder / item).mkdir()
    sums, tree = {}, {}
    with ArrayWriter() as writer:
        for path, array in arrays.items():
            values = array.read() if path == "step" else array.read_as(np.dtype(np.float32))
            keys, shape = path.split("/"), list(values.shape)
            metadata = {
                "compressor": {"id": "zstd"},
                "shape": shape,
                "chunks": chunk_shape(shape, values.dtype.itemsize),
                "dimension_separator": ".",
            }
            kvstore = store.database() | {"path": ".".join(keys) + "/"}
            spec = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata}
            writer.add(spec | {"store_data_equal_to_fill_value": True}, values)
            sums[f"{item}/{path}"] = checksum(values)
            value = {"value_type": "jax.Array", "skip_deserialize": False, "write_shape": shape}
            tree[str(tuple(keys))] = {
                "key_metadata": [{"key": key, "key_type": 2} for key in keys],
                "value_metadata": value,
            }
    described = {
        "tree_metadata": tree,
        "use_ocdbt": True,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
        "custom_metadata": None,
    }
    (folder / item / "_METADATA").write_text(json.dumps(described), encoding="utf-8")
    (folder / item / COMMITTED).touch()  # without it Orbax reads nothing from a bucket
    return sums


def checksum(values: np.ndarray) -> int:
    """The checksum of one array on the host, as in `checkpoint_files.checksums`."""
    bits = np.ascontiguousarray(values).reshape(-1).view(f"u{values.dtype.itemsize}")
    return int(np.sum(bits, dtype=np.uint64) & 0xFFFFFFFF)
