"""Loads parameters of a checkpoint of any kind onto devices, for training, `eval` and `infer`.

Orbax reads this program's own checkpoints. Of the others, each device's share of each array is read
straight from the files: no host holds more than its devices do, and one array twice at most.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from instruct.checkpoints import checkpoint_files, native
from instruct.checkpoints.arrays import LazyArray, fingerprint
from instruct.checkpoints.checkpoint_files import (
    PARAMS,
    detecting_damage,
    read_document,
    read_item,
    step_of,
)
from instruct.checkpoints.detect import KINDS, detect, open_checkpoint, t5x_steps
from instruct.checkpoints.model_fields import differences, record_of
from instruct.checkpoints.tokenizers import vocabulary_of
from instruct.checkpoints.trained_run import TrainedRun
from instruct.checkpoints.weights import FRESH, compare_models, fit
from instruct.data.vocab import load_vocabulary
from instruct.distributed import num_processes
from instruct.errors import UserError
from instruct.files import absolute_path
from instruct.mesh import tree_paths
from instruct.models.adapters import is_adapter
from instruct.models.layout import STACKED, layer_paths
from instruct.models.model import AnyConfig


def load_params(path: str | os.PathLike[str], abstract_params: Any, step: int | None = None) -> Any:
    """Loads parameters for evaluation; those of adapters are merged into their kernels.

    Args:
        path: see `detect`.
        abstract_params: shapes and dtypes, with `sharding`s or without (then on one device), in
            either layout.
        step: of a folder with several; None for the newest.

    Raises:
        UserError: there is no checkpoint, it is damaged, or it belongs to another model.
    """
    checkpoint = detect(path, step)
    if checkpoint.kind == native.KIND:
        folder = absolute_path(checkpoint.place)
        sums = read_document(folder)["checksums"]
        if not any(map(is_adapter, sums)):
            return read_item(folder, PARAMS, abstract_params, sums)
        with detecting_damage(folder):
            return _read_all(checkpoint.place, abstract_params)
    return _read_all(checkpoint.place, abstract_params)


def _read_all(place: str, abstract_params: Any) -> Any:
    """All parameters of a checkpoint, array by array, unless some are missing or left over."""
    arrays, report = fit(open_checkpoint(place), _flat_shapes(abstract_params), "the model")
    report.check()
    return _read_params(arrays, abstract_params, None)


def partly_adapted(base: Any, params: Any, adaptation: float) -> Any:
    """base + adaptation * (params - base), leaf by leaf; exact for 0 and 1. Uses up `params`."""

    def mix(base: Any, params: Any) -> Any:
        return jax.tree.map(lambda a, b: (1 - adaptation) * a + adaptation * b, base, params)

    return jax.jit(mix, donate_argnums=1)(base, params)


def load_initial(
    path: str,
    abstract_params: Any,
    model: AnyConfig,
    *,
    mapping: Sequence[tuple[str, str | None]] = (),
    init_fn: Callable[[], Any] | None = None,
    vocabulary: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Any:
    """Loads the parameters that a training starts from.

    Args:
        path, abstract_params: see `load_params`.
        model: compared with the architecture that the checkpoint records, if any; a run of this
            program may go on with another one of the same shapes, and `say` gets the differences.
        mapping: see `weights.fit`; with one, arrays of the checkpoint may be left over.
        init_fn: () -> fresh parameters like `abstract_params`, for names mapped to None.
        vocabulary: of the run; compared with the checkpoint's, if it records one.
        say: takes lines for the user: the kind of checkpoint, fresh and left-over parameters.

    Raises:
        UserError: see `load_params`.
    """
    checkpoint = detect(path)
    say(f"starts from {KINDS[checkpoint.kind]}, {checkpoint.place}")
    if checkpoint.kind == native.KIND and not mapping:
        with contextlib.suppress(UserError):  # without a readable record
            trained, words = native.recorded(absolute_path(checkpoint.place))
            changes = [] if trained is None else differences(trained, model, "this run")
            sums = read_document(absolute_path(checkpoint.place))["checksums"]
            merging = ["its LoRA adapters are merged"] if any(map(is_adapter, sums)) else []
            for line in (*changes, *_other_vocabulary(words, vocabulary), *merging):
                say(f"note: {line}")
        return load_params(checkpoint.place, abstract_params)
    opened = open_checkpoint(checkpoint.place)
    if checkpoint.kind != native.KIND:
        compare_models(opened, model, type(model).__name__, in_part=bool(mapping))
    arrays, report = fit(opened, _flat_shapes(abstract_params), "the model", mapping)
    report.check(allow_left_over=bool(mapping))
    notes = (*report.notes, *_other_vocabulary(opened.vocabulary, vocabulary))
    report = dataclasses.replace(report, notes=notes)
    for line in report.table() if mapping else (report.table()[0], *report.notes):
        say(line)
    return _read_params(arrays, abstract_params, init_fn if report.of(FRESH) else None)


def _other_vocabulary(there: str | None, here: str | None) -> list[str]:
    """A note if both vocabularies are known and differ."""
    if there is None or here is None or there == here:
        return []
    try:
        if load_vocabulary(there).fingerprint == load_vocabulary(here).fingerprint:
            return []
    except UserError:
        pass  # files that are gone
    return [
        f"the checkpoint is of the vocabulary {there!r}, this run reads {here!r} (VOCABULARY): the "
        "embeddings serve only where ids stand for the same texts."
    ]


def _read_params(
    arrays: Mapping[str, LazyArray], abstract_params: Any, init_fn: Callable[[], Any] | None
) -> Any:
    """A tree of arrays on devices; `init_fn` gives what `arrays` (layers separate) lacks."""
    leaves = tree_paths(abstract_params)
    parts = {
        path: [arrays.get(name) for name in layer_paths(path, leaf.shape)] for path, leaf in leaves
    }
    missing = {
        path: checkpoint_files.sharding_of(leaf) for path, leaf in leaves if None in parts[path]
    }
    if missing and init_fn is None:
        raise UserError(
            f"the checkpoint has no {next(iter(missing))}; map it to None to initialise it."
        )

    def draw() -> dict[str, jax.Array]:
        # The compiler removes the other parameters.
        params = init_fn() if init_fn else {}
        return {path: leaf for path, leaf in tree_paths(params) if path in missing}

    fresh = jax.jit(draw, out_shardings=missing)() if missing else {}
    loaded = [_load_leaf(path, leaf, parts[path], fresh.get(path)) for path, leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(abstract_params), loaded)


def _load_leaf(
    path: str, leaf: Any, parts: Sequence[LazyArray | None], fresh: jax.Array | None
) -> Any:
    """One array on devices: the layers that the checkpoint has, the others from `fresh`."""
    in_checkpoint = np.asarray([part is not None for part in parts])
    if not in_checkpoint.any():
        return fresh
    dtype = np.dtype(leaf.dtype)
    # Devices with the same share have it read once.
    shares: dict[Any, np.ndarray] = {}

    def share(index: Any) -> np.ndarray:
        index = tuple(slice(*part.indices(size)) for part, size in zip(index, leaf.shape))
        key = tuple((part.start, part.stop) for part in index)
        if key not in shares:
            if STACKED in path:
                shares[key] = _read_layers(parts, index, dtype)
            elif parts[0] is not None:
                shares[key] = parts[0].read_as(dtype, index)
        return shares[key]

    shape, sharding = tuple(leaf.shape), checkpoint_files.sharding_of(leaf)
    loaded = jax.make_array_from_callback(shape, sharding, share, dtype=dtype)
    if fresh is None:
        return loaded
    known = in_checkpoint.reshape(-1, *[1] * (loaded.ndim - 1))
    merge = jax.jit(lambda a, b: jnp.where(known, a, b), out_shardings=loaded.sharding)
    return merge(loaded, fresh)


def _read_layers(
    parts: Sequence[LazyArray | None], index: tuple[slice, ...], dtype: np.dtype
) -> np.ndarray:
    """A share of stacked layers; zeros for layers that the checkpoint lacks."""
    layers, *inner = index
    shape = [part.stop - part.start for part in index]
    values = np.zeros(shape, dtype)
    for row, part in zip(values, parts[layers.start : layers.stop]):
        if part is not None:
            row[...] = part.read_as(dtype, inner)
    return values


def _flat_shapes(abstract_params: Any) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for path, leaf in tree_paths(abstract_params):
        shape = tuple(leaf.shape)
        for name in layer_paths(path, shape):
            shapes[name] = shape[1:] if STACKED in path else shape
    return shapes


def find_checkpoint(path: str | os.PathLike[str], step: int | None = None) -> pathlib.Path:
    """The folder of one checkpoint of any kind at or below `path`, see `detect`."""
    return absolute_path(detect(path, step).place)


def checkpoint_steps(path: str | os.PathLike[str]) -> list[int]:
    """Steps of the checkpoints below a folder, in order; none of a Hugging Face folder."""
    path = absolute_path(path)
    return checkpoint_files.checkpoint_steps(path) or t5x_steps(path)


def load_newest(
    path: str | os.PathLike[str],
    abstract_params: Any,
    *,
    strict: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[pathlib.Path, Any]:
    """Loads the newest intact checkpoint; returns its folder and parameters. Changes no file.

    Args:
        path, abstract_params: see `load_params`.
        strict: a damaged newest checkpoint is an error.
        say: takes a line for the user about each damaged checkpoint that is skipped.
    """
    newest = find_checkpoint(path)
    older = [step for step in checkpoint_steps(path) if step < step_of(newest)]
    folders = {step_of(newest): newest}
    folders |= {step: find_checkpoint(path, step) for step in reversed(older)}
    step, params, damaged = checkpoint_files.read_newest(
        newest.parent,
        folders,
        lambda step: load_params(folders[step], abstract_params),
        strict or num_processes() > 1,  # each reads its own shards: they would have to agree
    )
    for error in damaged.values():
        say(f"{error.problem} The checkpoint of step {step:,} is used instead.")
    return folders[step], params


def params_fingerprint(folder: pathlib.Path) -> str:
    """Short hash of a checkpoint's parameters: retraining at the same path changes it."""
    checkpoint = detect(folder)
    if checkpoint.kind != native.KIND:
        return fingerprint(open_checkpoint(checkpoint.place).arrays)
    sums = read_document(folder)["checksums"]
    params = sorted((path, value) for path, value in sums.items() if path.startswith(f"{PARAMS}/"))
    return hashlib.sha256(json.dumps(params).encode()).hexdigest()[:16]


def trained_run(folder: pathlib.Path, source: str | os.PathLike[str], entry: str) -> TrainedRun:
    """Description of a trained model: run.json of `folder`, else what checkpoint `source` records.

    `entry`: see `TrainedRun`.
    """
    run = TrainedRun.read(folder, entry)
    try:
        checkpoint = detect(source)
    except UserError:
        return run  # loading raises the error
    place = absolute_path(checkpoint.place)
    if checkpoint.kind == native.KIND:
        info = native.run_info(place, folder / native.RUN_FILE, run.info)
        # A converted checkpoint may have been moved since, and its tokenizer with it.
        carried = native.carried_folder(place)
        vocabulary = vocabulary_of(carried) if carried else None
        if vocabulary and "converted_from" in run.info:
            info["vocabulary"] = vocabulary
        return dataclasses.replace(run, info=info)
    if "model" in run.info:
        return run
    opened = open_checkpoint(checkpoint.place)
    known: dict[str, Any] = {}
    if opened.model is not None:
        known["model"] = record_of(opened.model)
    if opened.vocabulary is not None:
        known["vocabulary"] = opened.vocabulary
    return dataclasses.replace(run, info=known | dict(run.info))
