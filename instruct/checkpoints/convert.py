"""`convert` and `describe`: checkpoints from one format into another, with every key accounted for.

    kind            is                                             written as
    instruct        this program's                                 float32; with slots, a run
    t5x             T5X's, legacy layout (Orbax's is read too)     float32 or bfloat16
    huggingface     transformers' folder with safetensors          float32 or bfloat16

One array is in memory at a time, so the largest checkpoint converts on a small machine.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from instruct.checkpoints import huggingface, native, t5x, t5x_writing
from instruct.checkpoints.arrays import LazyArray, dtype_named
from instruct.checkpoints.detect import KINDS, detect, open_checkpoint
from instruct.checkpoints.folders import file_inside, read_json
from instruct.checkpoints.generation_settings import settings_of_config
from instruct.checkpoints.tokenizers import vocabulary_of
from instruct.checkpoints.weights import (
    FRESH,
    Checkpoint,
    KeyReport,
    compare_models,
    fit,
    model_shapes,
)
from instruct.data.vocab import check_embedding_rows, load_vocabulary, why_unread
from instruct.errors import UserError, unknown_name
from instruct.files import local_path
from instruct.models.config import SIZES, ModelConfig

_SIDES = ("v_row", "v_col")  # Adafactor's factored second moments


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: str,
    *,
    step: int | None = None,
    dtype: str = "float32",
    slots: bool = False,
    model: ModelConfig | None = None,
    mapping: Sequence[tuple[str, str | None]] = (),
    allow_left_over: bool = False,
    vocab_rows: int | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    shard_bytes: int = huggingface.SHARD_BYTES,
) -> KeyReport:
    """Converts a checkpoint; nothing is written unless every key is accounted for.

    Args:
        source: any kind, see `detect`.
        target: new folder; for T5X it should be called `checkpoint_<step>`.
        to: 'instruct', 't5x' or 'huggingface'.
        step: of a folder with several; None for the newest.
        dtype: of the parameters in the target; 'instruct' keeps float32 only.
        slots: Adafactor's state and the step as well, between 't5x' and 'instruct'; the result is
            a MODEL_DIR that training resumes at that step.
        model: architecture, where the source does not record all of it.
        mapping: for parameters that are called otherwise in the source, see `fit`; none may be
            mapped to None, as there is no fresh value to write.
        allow_left_over: drop arrays that the model has no use for.
        vocab_rows: cut the embedding and the output kernel to so many rows, or continue them with
            zeros. Cutting is refused below the size of the vocabulary.
        tokenizer: folder with tokenizer files, or a specification as in `instruct.data.vocab`, for
            the target; None: what the source brings.
        shard_bytes: largest file of a Hugging Face folder.

    Returns:
        The report; `table()` gives its lines.

    Raises:
        UserError: no such checkpoint, a damaged one, keys that do not fit, or `target` is taken.
        OSError: the disk is full; `target` is not there then.
    """
    _check_request(to, dtype, slots)
    opened = open_checkpoint(source, step, slots)
    shape = _architecture(opened, model, vocab_rows)
    carried, vocabulary = _tokenizer(opened, tokenizer)
    # T5X keeps no vocabulary with its checkpoints, so there it matters only if it is given.
    if vocabulary is not None and (to != t5x.KIND or tokenizer is not None):
        check_embedding_rows(load_vocabulary(vocabulary), shape.vocab_size)
    described = f"{to} checkpoint {os.fspath(target)}"
    arrays, report = fit(opened, model_shapes(shape), described, mapping, vocab_rows)
    report.check(allow_left_over)
    if report.of(FRESH):
        raise UserError(
            f"{report.of(FRESH)[0].ours} is mapped to None, but converting has no fresh values; "
            "leave that to train.initial_mapping."
        )
    path = local_path("--to", target).absolute()
    state = _state(opened, arrays) if slots else {}
    if to == t5x.KIND:
        written = dtype_named(dtype)
        t5x_writing.write_checkpoint(path, arrays, written, slots=state, step=opened.step)
    elif to == native.KIND:
        info: dict[str, Any] = {"converted_from": f"{opened.kind} {opened.place}"}
        info |= {} if vocabulary is None else {"vocabulary": vocabulary}
        extra = {"info": info, "slots": state, "step": opened.step, "carried": carried}
        native.write_checkpoint(path, arrays, shape, **extra)
    else:
        extra = {"carried": carried, "vocabulary": vocabulary, "shard_bytes": shard_bytes}
        huggingface.write_checkpoint(path, arrays, shape, dtype_named(dtype), **extra)
    return report


def _check_request(to: str, dtype: str, slots: bool) -> None:
    if to not in KINDS:
        raise unknown_name("kind of checkpoint", str(to), KINDS)
    dtype_named(dtype)
    if to == native.KIND and dtype != "float32":
        raise UserError(
            f"this program keeps parameters as float32, not {dtype!r}; leave the dtype out. "
            "Activations may be bfloat16 (ModelConfig.dtype)."
        )
    if slots and to == huggingface.KIND:
        raise UserError("a Hugging Face folder has no optimiser's state; leave the slots out.")


def _architecture(
    opened: Checkpoint, model: ModelConfig | None, vocab_rows: int | None
) -> ModelConfig:
    if model is None and opened.model is None:
        raise UserError(
            f"{opened.place} does not say what its model looks like; add the gin file of its size."
        )
    if model is not None and opened.model is not None and vocab_rows is None:
        compare_models(opened, model, "the model given")
    found = model or opened.model
    assert found is not None
    if vocab_rows is None:
        return found
    if type(vocab_rows) is not int or vocab_rows < 1:
        raise UserError(f"vocab_rows is {vocab_rows!r}; use a whole number of at least 1.")
    return dataclasses.replace(found, vocab_size=vocab_rows)


def _tokenizer(
    opened: Checkpoint, tokenizer: str | os.PathLike[str] | None
) -> tuple[dict[str, pathlib.Path], str | None]:
    """(files that go along, specification of the vocabulary)."""
    settings: pathlib.Path | None = None
    if opened.kind == huggingface.KIND:
        settings = pathlib.Path(opened.place)
    elif opened.kind == native.KIND:
        settings = native.carried_folder(pathlib.Path(opened.place))
    if tokenizer is None:
        return huggingface.carried_files(settings, settings), opened.vocabulary
    folder = local_path("--tokenizer", tokenizer, "~/flan-t5-base")
    vocabulary = vocabulary_given(tokenizer)
    if not folder.is_dir():
        load_vocabulary(vocabulary)  # says what is wrong with it
        return huggingface.carried_files(settings, None), vocabulary
    return huggingface.carried_files(settings or folder, folder), vocabulary


def vocabulary_given(tokenizer: str | os.PathLike[str]) -> str:
    """Specification of a folder's vocabulary, or the one given.

    Raises:
        UserError: the folder has none that is read.
    """
    folder = local_path("--tokenizer", tokenizer, "~/flan-t5-base")
    if not folder.is_dir():
        return os.fspath(tokenizer)
    vocabulary = vocabulary_of(folder)
    if vocabulary is None:
        raise UserError(f"tokenizer: {why_unread(folder)}")
    return vocabulary


def _state(opened: Checkpoint, arrays: dict[str, LazyArray]) -> dict[str, LazyArray]:
    """The slots, one set for every parameter."""
    have = {name.rpartition("/")[0] for name in opened.slots}
    lacking = sorted(set(arrays) - have)
    if lacking:
        raise UserError(
            f"{opened.place} has no optimiser's slots for {len(lacking)} of {len(arrays)} "
            f"parameters, such as {lacking[0]}; leave the slots out."
        )
    if any(name.endswith("/m") for name in opened.slots):
        raise UserError(
            f"{opened.place} holds AdamW's state; only Adafactor's is converted. Leave the slots "
            "out."
        )
    for path, array in arrays.items():
        sides = [opened.slots[f"{path}/{s}"].shape for s in _SIDES if f"{path}/{s}" in opened.slots]
        whole = opened.slots.get(f"{path}/v")
        fits = (
            whole.shape == array.shape if whole else sorted(sum(sides, ())) == sorted(array.shape)
        )
        if not fits:
            shapes = [list(shape) for shape in ([whole.shape] if whole else sides)]
            raise UserError(
                f"{opened.place}: Adafactor's slots of {path} have shapes {shapes}, the parameter "
                f"{list(array.shape)}. Leave the slots out, or copy it again."
            )
    return {name: opened.slots[name] for name in opened.slots if name.rpartition("/")[0] in arrays}


@dataclasses.dataclass(frozen=True)
class Description:
    """Facts about a checkpoint whose weights were not read.

    Attributes:
        kind, place, step, vocabulary, notes: see `Checkpoint`.
        model: architecture; None if the checkpoint does not tell.
        num_params: numbers in all parameters.
        num_bytes: of them, uncompressed.
        dtypes: number of arrays by dtype.
        keys: the report against its own architecture; None without one.
        generation: see `generation_settings`.
    """

    kind: str
    place: str
    step: int
    model: ModelConfig | None
    num_params: int
    num_bytes: int
    dtypes: dict[str, int]
    vocabulary: str | None
    notes: tuple[str, ...]
    keys: KeyReport | None
    generation: dict[str, Any]

    def lines(self) -> list[str]:
        """For people."""
        dtypes = ", ".join(f"{count} {name}" for name, count in sorted(self.dtypes.items()))
        texts = [
            f"{KINDS[self.kind]}: {self.place}",
            f"step {self.step:,}" if self.step else "no step",
            f"{self.num_params:,} parameters in {sum(self.dtypes.values())} arrays ({dtypes}), "
            f"{self.num_bytes / 1e9:,.2f} GB",
        ]
        if self.model is not None:
            fields = dataclasses.asdict(self.model)
            shown = [f"{name}={fields[name]!r}" for name in _SHOWN_FIELDS]
            texts.append(f"model: {', '.join(shown)}")
        texts.append(f"vocabulary: {self.vocabulary or 'none with it'}")
        if self.generation:
            texts.append(f"generation: {json.dumps(self.generation, sort_keys=True)}")
        return texts + (self.keys.table() if self.keys else [f"note: {n}" for n in self.notes])


_SHOWN_FIELDS = (
    *SIZES,
    "activations",
    "tied_output",
    "relpos_buckets",
    "relpos_max_distance",
    "norm_epsilon",
)


def describe(path: str | os.PathLike[str], step: int | None = None) -> Description:
    """Describes the checkpoint at a path; reads names, shapes and settings only.

    Raises:
        UserError: see `detect`.
    """
    opened = open_checkpoint(path, step)
    keys = None
    if opened.model is not None:
        _, keys = fit(opened, model_shapes(opened.model), "its own architecture")
    arrays = [*opened.arrays.values()]
    dtypes: dict[str, int] = {}
    for array in arrays:
        dtypes[array.dtype.name] = dtypes.get(array.dtype.name, 0) + 1
    return Description(
        kind=opened.kind,
        place=opened.place,
        step=opened.step,
        model=opened.model,
        num_params=sum(int(np.prod(array.shape, dtype=np.int64)) for array in arrays),
        num_bytes=sum(array.nbytes for array in arrays),
        dtypes=dtypes,
        vocabulary=opened.vocabulary,
        notes=opened.notes,
        keys=keys,
        generation=generation_settings(path, step),
    )


def generation_settings(path: str | os.PathLike[str], step: int | None = None) -> dict[str, Any]:
    """Generation settings of a Hugging Face folder, or of a checkpoint converted from one.

    Read from generation_config.json, else from config.json; {} without any.
    """
    checkpoint = detect(path, step)
    folder: pathlib.Path | None = None
    if checkpoint.kind == huggingface.KIND:
        folder = pathlib.Path(checkpoint.place)
    elif checkpoint.kind == native.KIND:
        folder = native.carried_folder(pathlib.Path(checkpoint.place))
    if folder is None:
        return {}
    if (folder / huggingface.GENERATION).exists():
        return read_json(file_inside(folder, huggingface.GENERATION))
    if (folder / huggingface.CONFIG).exists():
        return settings_of_config(read_json(file_inside(folder, huggingface.CONFIG)))
    return {}
