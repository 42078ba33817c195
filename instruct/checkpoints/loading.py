"""Parameters of a checkpoint of any kind, onto devices: what training, `eval` and `infer` call.

This program's own checkpoints use `checkpoints/checkpoint.py`. Of the others, each device's share
of each array is read straight from the files: no host holds more than its devices do, and one array
twice at most.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from instruct.checkpoints import checkpoint as own
from instruct.checkpoints import checkpoint_files, native
from instruct.checkpoints.arrays import LazyArray, fingerprint
from instruct.checkpoints.checkpoint_files import DamagedCheckpoint
from instruct.checkpoints.detect import KINDS, detect, open_checkpoint, t5x_steps
from instruct.checkpoints.stores import REMOTE
from instruct.checkpoints.tokenizers import vocabulary_of
from instruct.checkpoints.trained_run import TrainedRun
from instruct.checkpoints.weights import FRESH, compare_models, fit
from instruct.errors import UserError
from instruct.mesh import tree_paths
from instruct.models.config import ModelConfig

Pairs = Sequence[tuple[str, str | None]]
_STACKED = "/layers/"


def load_initial(
    path: str,
    abstract_params: Any,
    model: ModelConfig,
    *,
    mapping: Pairs = (),
    init_fn: Callable[[], Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Any:
    """Parameters to start a training from.

    Args:
        path: see `detect`.
        abstract_params: shapes and dtypes with `sharding`s, in either layout.
        model: the architecture; where the checkpoint says what it was, the two are compared.
        mapping: see `weights.fit`; with one, arrays of the checkpoint may be left over.
        init_fn: () -> fresh parameters like `abstract_params`; for what is mapped to None.
        say: takes lines for the user: the kind of checkpoint, fresh and left-over parameters.

    Raises:
        UserError: no checkpoint, a damaged one, or one that does not fit.
    """
    checkpoint = detect(path)
    say(f"starts from {KINDS[checkpoint.kind]}, {checkpoint.place}")
    if checkpoint.kind == native.KIND and not mapping:
        return own.load_params(checkpoint.place, abstract_params)
    opened = open_checkpoint(checkpoint.place)
    if checkpoint.kind != native.KIND:
        compare_models(opened, model, "ModelConfig", in_part=bool(mapping))
    arrays, report = fit(opened, _flat_shapes(abstract_params), "the model", mapping)
    report.check(allow_left_over=bool(mapping))
    for line in report.table() if mapping else (report.table()[0], *report.notes):
        say(line)
    return read_params(arrays, abstract_params, init_fn if report.of(FRESH) else None)


def read_params(
    arrays: Mapping[str, LazyArray],
    abstract_params: Any,
    init_fn: Callable[[], Any] | None = None,
) -> Any:
    """A tree of arrays on devices, read share by share.

    Args:
        arrays: by our name, layers separate.
        abstract_params: see `load_initial`; a leaf without a sharding goes to one device.
        init_fn: gives what `arrays` lacks.
    """
    sources = {
        path: [arrays.get(name) for name in _layer_paths(path, leaf.shape)]
        for path, leaf in tree_paths(abstract_params)
    }
    fresh = _draw_fresh(abstract_params, sources, init_fn)
    leaves = []
    for path, leaf in tree_paths(abstract_params):
        found, parts = fresh.get(path), sources[path]
        if any(part is not None for part in parts):
            loaded = _read_leaf(parts, leaf, stacked=_STACKED in path)
            found = loaded if found is None else _merge_layers(loaded, found, parts)
        leaves.append(found)
    return jax.tree.unflatten(jax.tree.structure(abstract_params), leaves)


def _read_leaf(parts: Sequence[LazyArray | None], leaf: Any, stacked: bool) -> jax.Array:
    sharding = checkpoint_files.sharding_of(leaf)
    dtype = np.dtype(leaf.dtype)
    # Devices with the same share have it read once.
    shares: dict[Any, np.ndarray] = {}

    def share(index: Any) -> np.ndarray:
        index = tuple(slice(*part.indices(size)) for part, size in zip(index, leaf.shape))
        key = tuple((part.start, part.stop) for part in index)
        if key not in shares:
            shares[key] = _read_share(parts, index, dtype, stacked)
        return shares[key]

    return jax.make_array_from_callback(tuple(leaf.shape), sharding, share, dtype=dtype)


def _read_share(
    parts: Sequence[LazyArray | None], index: tuple[slice, ...], dtype: np.dtype, stacked: bool
) -> np.ndarray:
    if not stacked:
        (part,) = parts
        assert part is not None
        return part.read_as(dtype, index)
    layers, inner = range(index[0].start, index[0].stop), index[1:]
    values = np.zeros((len(layers), *(part.stop - part.start for part in inner)), dtype)
    for place, number in enumerate(layers):
        part = parts[number]
        if part is not None:
            values[place] = part.read_as(dtype, inner)
    return values


def _draw_fresh(
    abstract_params: Any,
    sources: Mapping[str, Sequence[LazyArray | None]],
    init_fn: Callable[[], Any] | None,
) -> dict[str, jax.Array]:
    """Fresh values of the leaves that are not, or not in all layers, in the checkpoint."""
    wanted = {
        path: checkpoint_files.sharding_of(leaf)
        for path, leaf in tree_paths(abstract_params)
        if any(part is None for part in sources[path])
    }
    if not wanted:
        return {}
    if init_fn is None:
        raise UserError(f"the checkpoint has no {next(iter(wanted))}; map it to None if it may be.")

    def draw() -> dict[str, jax.Array]:
        # The compiler leaves out what is not asked for.
        return {path: leaf for path, leaf in tree_paths(init_fn()) if path in wanted}

    return jax.jit(draw, out_shardings=wanted)()


def _merge_layers(
    loaded: jax.Array, fresh: jax.Array, parts: Sequence[LazyArray | None]
) -> jax.Array:
    """Stacked layers, each from the checkpoint if it has it."""
    known = np.asarray([part is not None for part in parts])
    known = known.reshape(-1, *[1] * (loaded.ndim - 1))
    merge = jax.jit(lambda a, b: jnp.where(known, a, b), out_shardings=loaded.sharding)
    return merge(loaded, fresh)


def _layer_paths(path: str, shape: Sequence[int]) -> list[str]:
    """Our names, layers separate, of what a leaf of either layout holds."""
    if _STACKED not in path:
        return [path]
    return [path.replace(_STACKED, f"/layers_{number}/") for number in range(shape[0])]


def _flat_shapes(abstract_params: Any) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for path, leaf in tree_paths(abstract_params):
        shape = tuple(leaf.shape)
        for name in _layer_paths(path, shape):
            shapes[name] = shape[1:] if _STACKED in path else shape
    return shapes


# The functions below are those of `checkpoints.checkpoint` for checkpoints of any kind.


def find_checkpoint(path: str | os.PathLike[str], step: int | None = None) -> pathlib.Path:
    """The folder of one checkpoint of any kind at or below `path`.

    Raises:
        UserError: see `detect`; or it is remote.
    """
    if os.fspath(path).startswith(REMOTE):
        raise UserError(
            f"checkpoint {os.fspath(path)!r} is remote; eval and infer read local ones. Fetch and "
            "convert it once, or give it to training as INITIAL_CHECKPOINT_PATH."
        )
    return pathlib.Path(detect(path, step).place)


def checkpoint_steps(path: str | os.PathLike[str]) -> list[int]:
    """Steps of the checkpoints below a folder, in order; none of a Hugging Face folder."""
    path = pathlib.Path(path).expanduser().absolute()
    return checkpoint_files.checkpoint_steps(path) or t5x_steps(path)


def load_params(path: str | os.PathLike[str], abstract_params: Any, step: int | None = None) -> Any:
    """Parameters for evaluation; `checkpoint.load_params` for checkpoints of any kind."""
    checkpoint = detect(path, step)
    if checkpoint.kind == native.KIND:
        return own.load_params(checkpoint.place, abstract_params)
    arrays, report = fit(
        open_checkpoint(checkpoint.place), _flat_shapes(abstract_params), "the model"
    )
    report.check()
    return read_params(arrays, abstract_params)


def load_newest(
    path: str | os.PathLike[str],
    abstract_params: Any,
    *,
    strict: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[pathlib.Path, Any]:
    """The folder and the parameters of the newest whole checkpoint; nothing is moved or changed.

    Args:
        path: as for `find_checkpoint`.
        abstract_params: see `load_initial`.
        strict: a damaged newest checkpoint is an error.
        say: takes a line for the user about each damaged one that is passed over.

    Raises:
        UserError: none is whole, or it does not fit.
    """
    newest = find_checkpoint(path)
    older = [step for step in checkpoint_steps(path) if step < step_of(newest)]
    damaged: dict[int, DamagedCheckpoint] = {}
    for folder in (newest, *(find_checkpoint(path, step) for step in reversed(older))):
        try:
            params = load_params(folder, abstract_params)
        except DamagedCheckpoint as error:
            if strict:
                raise
            damaged[step_of(folder)] = error
            continue
        for error in damaged.values():
            say(f"{error.problem} The checkpoint of step {step_of(folder):,} is used instead.")
        return folder, params
    raise checkpoint_files.none_whole(newest.parent, damaged)


def params_fingerprint(folder: pathlib.Path) -> str:
    """Short hash of a checkpoint's parameters."""
    checkpoint = detect(folder)
    if checkpoint.kind == native.KIND:
        return own.params_fingerprint(folder)
    return fingerprint(open_checkpoint(checkpoint.place).arrays)


def step_of(folder: pathlib.Path) -> int:
    """The step a checkpoint's folder is named after ('100', 'checkpoint_100'); else 0."""
    match = re.fullmatch(r"checkpoint_(\d+)", folder.name)
    return int(match[1]) if match else own.step_of(folder)


def trained_run(folder: pathlib.Path, source: str | os.PathLike[str], entry: str) -> TrainedRun:
    """Description of a trained model: run.json of `folder`, else the foreign checkpoint's own.

    Args:
        folder: the run.
        source: the checkpoint that is used.
        entry: see `TrainedRun`.
    """
    run = TrainedRun.read(folder, entry)
    if os.fspath(source).startswith(REMOTE):
        return run
    try:
        checkpoint = detect(source)
    except UserError:
        return run  # loading raises the error
    carried = native.carried_folder(pathlib.Path(checkpoint.place))
    if checkpoint.kind == native.KIND:
        # What was trained here says all in run.json; a converted one may have been moved since.
        vocabulary = vocabulary_of(carried) if carried else None
        moved = {"vocabulary": vocabulary} if vocabulary and "converted_from" in run.info else {}
        info = native.run_info(pathlib.Path(checkpoint.place), folder / native.RUN_FILE, run.info)
        return dataclasses.replace(run, info=dict(info) | moved)
    if "model" in run.info:
        return run
    opened = open_checkpoint(checkpoint.place)
    known: dict[str, Any] = {}
    if opened.model is not None:
        known["model"] = dataclasses.asdict(opened.model)
    if opened.vocabulary is not None:
        known["vocabulary"] = opened.vocabulary
    return dataclasses.replace(run, info=known | dict(run.info))
