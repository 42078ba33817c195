"""`convert` and `describe`: checkpoints from one format into another, with every key accounted for.

    kind            is                                             written as
    instruct        this program's                                 float32; with slots, a run
    t5x             T5X's, legacy layout (Orbax's is read too)     float32 or bfloat16
    huggingface     transformers' folder with safetensors          float32 or bfloat16
    peft            LoRA adapters for such a folder                float32 or bfloat16

One array is in memory at a time, so the largest checkpoint converts on a small machine.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instruct.checkpoints import huggingface, native, peft_format, t5x, t5x_writing
from instruct.checkpoints.adapter_arrays import adapter_arrays
from instruct.checkpoints.arrays import LazyArray, dtype_named
from instruct.checkpoints.checkpoint_files import step_of
from instruct.checkpoints.detect import KINDS, detect, open_checkpoint
from instruct.checkpoints.folders import file_inside, read_json
from instruct.checkpoints.generation_settings import settings_of_config
from instruct.checkpoints.huggingface_config import open_config
from instruct.checkpoints.model_fields import computed_fields, flat_fields
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
from instruct.files import absolute_path, any_path, expanded, local_path
from instruct.lineage import run_folder
from instruct.models.config import ModelConfig
from instruct.models.model import AnyConfig

# Steps are int32 in every format.
_LARGEST_STEP = 2**31 - 1


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: str,
    *,
    step: int | None = None,
    dtype: str = "float32",
    slots: bool = False,
    model: AnyConfig | None = None,
    mapping: Sequence[tuple[str, str | None]] = (),
    allow_left_over: bool = False,
    vocab_rows: int | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    shard_bytes: int = huggingface.SHARD_BYTES,
    base: str | os.PathLike[str] | None = None,
    merge: bool = False,
    command: str = "",
) -> KeyReport:
    """Converts a checkpoint; nothing is written unless every key is accounted for.

    A Hugging Face or PEFT folder gets a model card, see `instruct.report.pages.model_card`.

    Args:
        source: any kind, see `detect`.
        target: new folder; for T5X it should be called `checkpoint_<step>`, which is the recorded
            step if the source has none.
        to: 'instruct', 't5x', 'huggingface' or 'peft', which is adapters alone.
        step: of a folder with several; None for the newest.
        dtype: of the parameters in the target; 'instruct' keeps float32 only.
        slots: also convert Adafactor's state and the step, between 't5x' and 'instruct'; the result
            is a MODEL_DIR that training resumes at that step.
        model: architecture, where the source does not record all of it.
        mapping: for parameters with other names in the source, see `fit`; none may be mapped to
            None, as there is no fresh value to write.
        allow_left_over: drop arrays that the model does not use.
        vocab_rows: rows of the embedding and the output kernel: cut, or padded with zeros. Fewer
            than the vocabulary's size are refused.
        tokenizer: folder with tokenizer files, or a specification as in `instruct.data.vocab`, for
            the target; None: the source's. T5X keeps none, so there it is only compared with the
            rows of the embedding.
        shard_bytes: largest file of a Hugging Face folder.
        base: of a 'peft' source the model that was adapted, of a 'peft' target the one that it is
            to name; None: as the source records.
        merge: write adapters merged into their kernels as 'instruct' too, which otherwise keeps
            them apart; the other formats hold merged weights only.
        command: the command line, for the model card.

    Raises:
        UserError: no such checkpoint, a damaged one, keys that do not fit, or `target` is taken.
        OSError: the disk is full; `target` does not exist then.
    """
    if to not in KINDS:
        raise unknown_name("kind of checkpoint", str(to), KINDS)
    written = dtype_named(dtype)
    if to == native.KIND and dtype != "float32":
        raise UserError(
            f"this program keeps parameters as float32, not {dtype!r}; leave the dtype out. "
            "Activations may be bfloat16 (the model's dtype)."
        )
    if slots and to == huggingface.KIND:
        raise UserError("a Hugging Face folder has no optimiser's state; leave the slots out.")
    if to == peft_format.KIND:
        of_models = {
            "slots": slots,
            "mapping": mapping,
            "allow_left_over": allow_left_over,
            "vocab_rows": vocab_rows is not None,
            "tokenizer": tokenizer is not None,
        }
        if extra := next((name for name, is_given in of_models.items() if is_given), ""):
            raise UserError(
                f"{to} holds adapters alone, no weights, optimiser's state or tokenizer of a model:"
                f" {extra} has no effect there; leave it out, or write another format."
            )
    opened = open_checkpoint(source, step, slots, base)
    if base is not None and peft_format.KIND not in (opened.kind, to):
        raise UserError(
            f"a base belongs to a PEFT adapter, and neither {os.fspath(source)} nor {to} is one; "
            "leave it out."
        )
    if merge and (to == peft_format.KIND or not opened.adapters):
        why = f"{to} is for adapters alone" if opened.adapters else f"{opened.place} has none"
        raise UserError(f"there are no adapters to merge: {why}; leave merge out.")
    apart = bool(opened.adapters) and to == native.KIND and not merge
    if apart and mapping:
        raise UserError(
            f"{opened.place} has adapters, which are kept apart under the names of their kernels, "
            "and a mapping gives these other ones; merge them (--merge)."
        )
    shape = _architecture(opened, model, vocab_rows)
    if to == t5x.KIND and (not isinstance(shape, ModelConfig) or shape.relpos_per_layer):
        kind = "umT5" if isinstance(shape, ModelConfig) else f"a {type(shape).__name__}"
        raise UserError(
            f"T5X's names are those of T5; {kind} is written as 'huggingface' or 'instruct'."
        )
    path = any_path("--to", target).absolute()
    if to == peft_format.KIND:
        name = _base_of(opened) if base is None else expanded(os.fspath(base))
        card_fn = _card_fn(opened, path, shape, name, is_adapter=True, dtype=dtype, command=command)
        opened = dataclasses.replace(opened, model=shape)
        return peft_format.write_checkpoint(path, opened, written, name, card_fn)
    carried, vocabulary = _tokenizer(opened, tokenizer)
    # T5X keeps no vocabulary with its checkpoints, so there it matters only if it is given.
    if vocabulary is not None and (to != t5x.KIND or tokenizer is not None):
        check_embedding_rows(load_vocabulary(vocabulary), shape.vocab_size)
    described = f"{to} checkpoint {os.fspath(target)}"
    arrays, report = fit(opened, model_shapes(shape), described, mapping, vocab_rows)
    report.check(allow_left_over)
    if fresh := report.of(FRESH):
        raise UserError(
            f"{fresh[0].ours} is mapped to None, but converting has no fresh values; use "
            "train.initial_mapping for that."
        )
    state = _slots_of(opened, arrays) if slots else {}
    written_step = opened.step
    if to == t5x.KIND:
        # T5X counts training steps from the recorded one, which should be that of the name.
        named = step_of(path.name)
        written_step = opened.step or named
        if path.name.startswith("checkpoint_") and named != written_step:
            note = (
                f"T5X resumes from the recorded step, {written_step:,}, not from the {named:,} of "
                "the folder's name"
            )
            report = dataclasses.replace(report, notes=(*report.notes, note))
        if tokenizer is not None:
            note = (
                "T5X keeps no vocabulary with a checkpoint: --tokenizer was compared with the rows "
                "of the embedding and is not written; T5X's gin names the vocabulary"
            )
            report = dataclasses.replace(report, notes=(*report.notes, note))
    if written_step > _LARGEST_STEP and to != huggingface.KIND:
        raise UserError(
            f"step {written_step:,} is too large for a checkpoint; at most {_LARGEST_STEP:,} is "
            "written. Give the folder a smaller number."
        )
    if to == t5x.KIND:
        t5x_writing.write_checkpoint(path, arrays, written, slots=state, step=written_step)
    elif to == native.KIND:
        info: dict[str, Any] = {"converted_from": f"{opened.kind} {opened.place}"}
        info |= {} if vocabulary is None else {"vocabulary": vocabulary}
        if apart:
            arrays |= adapter_arrays(opened.adapters)
            note = "its adapters are kept apart from their kernels; --merge merges them"
            report = dataclasses.replace(report, notes=(*report.notes, note))
            info["base_model"] = _base_of(opened)
        extra = {"info": info, "slots": state, "step": opened.step, "carried": carried}
        native.write_checkpoint(path, arrays, shape, **extra)
    else:
        extra = {"carried": carried, "vocabulary": vocabulary, "shard_bytes": shard_bytes}
        name = _base_of(opened)
        extra["card_fn"] = _card_fn(opened, path, shape, name, dtype=dtype, command=command)
        notes = huggingface.write_checkpoint(path, arrays, shape, written, **extra)
        report = dataclasses.replace(report, notes=(*report.notes, *notes))
    return report


def _card_fn(
    opened: Checkpoint,
    target: pathlib.Path,
    model: AnyConfig,
    base: str,
    *,
    dtype: str,
    command: str,
    is_adapter: bool = False,
) -> Callable[[Sequence[str]], str]:
    """The function from notes on a conversion to the model card of its target."""

    def card(notes: Sequence[str]) -> str:
        from instruct.report.pages.model_card import CardFacts, model_card  # imports Jinja

        is_own = opened.kind == native.KIND
        facts = CardFacts(
            name=target.name,
            is_adapter=is_adapter,
            source=f"{KINDS[opened.kind]}, {opened.place}",
            run=run_folder(opened.place) if is_own else None,
            step=opened.step,
            layout=model.layout,
            num_params=model.num_params(),
            dtype=dtype,
            base=base or (opened.place if opened.kind == huggingface.KIND else ""),
            command=command,
            notes=tuple(notes),
        )
        return model_card(facts)

    return card


def _architecture(opened: Checkpoint, model: AnyConfig | None, vocab_rows: int | None) -> AnyConfig:
    shape = model or opened.model
    if shape is None:
        raise UserError(f"{opened.place} does not record its model; add the gin file of its size.")
    if vocab_rows is None:
        if model is not None:
            compare_models(opened, model, "the model given")
        return shape
    if type(vocab_rows) is not int or vocab_rows < 1:
        raise UserError(f"vocab_rows is {vocab_rows!r}; use a whole number of at least 1.")
    return dataclasses.replace(shape, vocab_size=vocab_rows)


def _base_of(opened: Checkpoint) -> str:
    """The model that adapters belong to, as recorded; "" if it is not."""
    recorded = native.base_of(absolute_path(opened.place)) if opened.kind == native.KIND else ""
    return opened.base or recorded


def _settings_folder(kind: str, place: str, base: str = "") -> pathlib.Path | None:
    """The folder with a checkpoint's tokenizer and generation settings, if it has one.

    `base`: of an adapter, the path of its model.
    """
    if kind == peft_format.KIND:
        with contextlib.suppress(UserError):  # a model that is not on this machine
            return _settings_folder(*detect(base or peft_format.base_of(pathlib.Path(place))))
        return None
    if kind == native.KIND:
        return native.carried_folder(absolute_path(place))
    return pathlib.Path(place) if kind == huggingface.KIND else None


def _tokenizer(
    opened: Checkpoint, tokenizer: str | os.PathLike[str] | None
) -> tuple[dict[str, pathlib.Path], str | None]:
    """(files to copy, specification of the vocabulary)."""
    settings = _settings_folder(opened.kind, opened.place, opened.base)
    if tokenizer is None:
        return huggingface.carried_files(settings, settings), opened.vocabulary
    vocabulary = vocabulary_given(tokenizer)
    folder = local_path("--tokenizer", tokenizer)
    if not folder.is_dir():
        load_vocabulary(vocabulary)  # raises for a wrong one
        return huggingface.carried_files(settings, None), vocabulary
    return huggingface.carried_files(settings or folder, folder), vocabulary


def vocabulary_given(tokenizer: str | os.PathLike[str]) -> str:
    """Specification of a folder's vocabulary, or `tokenizer` itself if it is one."""
    folder = local_path("--tokenizer", tokenizer, "~/flan-t5-base")
    if not folder.is_dir():
        return os.fspath(tokenizer)
    vocabulary = vocabulary_of(folder)
    if vocabulary is None:
        raise UserError(f"tokenizer: {why_unread(folder)}")
    return vocabulary


def _slots_of(opened: Checkpoint, arrays: Mapping[str, LazyArray]) -> dict[str, LazyArray]:
    """The slots of every parameter; raises UserError unless they are Adafactor's and fit."""
    slots: dict[str, dict[str, LazyArray]] = {path: {} for path in arrays}
    for name, array in opened.slots.items():
        path, _, slot = name.rpartition("/")
        slots.setdefault(path, {})[slot] = array
    for path, array in arrays.items():
        shapes = {slot: list(its.shape) for slot, its in slots[path].items()}
        if "v" in shapes:
            fits = shapes["v"] == list(array.shape)
        else:  # `v_row` and `v_col` have the parameter's axes between them
            fits = sorted(itertools.chain(*shapes.values())) == sorted(array.shape)
        if not fits or "m" in shapes:
            raise UserError(
                f"{opened.place}: the optimiser's slots of {path} {list(array.shape)} are "
                f"{shapes or 'missing'}, not Adafactor's. Leave the slots out."
            )
    return {name: slot for name, slot in opened.slots.items() if name.rpartition("/")[0] in arrays}


@dataclasses.dataclass(frozen=True)
class Description:
    """Facts about a checkpoint whose weights were not read, see `Checkpoint`."""

    kind: str
    place: str
    step: int
    model: AnyConfig | None
    num_params: int
    num_bytes: int  # uncompressed
    dtypes: dict[str, int]  # number of arrays by dtype
    vocabulary: str | None
    notes: tuple[str, ...]
    keys: KeyReport | None  # against its own architecture, if that is recorded
    generation: dict[str, Any]  # see `generation_settings`

    def lines(self) -> list[str]:
        """The description as text."""
        dtypes = ", ".join(f"{count} {name}" for name, count in sorted(self.dtypes.items()))
        texts = [
            f"{KINDS[self.kind]}: {self.place}",
            f"step {self.step:,}" if self.step else "no step",
            f"{self.num_params:,} parameters in {sum(self.dtypes.values())} arrays ({dtypes}), "
            f"{self.num_bytes / 1e9:,.2f} GB",
        ]
        if self.model is not None:
            fields, shown = flat_fields(self.model), computed_fields(self.model)
            values = [f"{name}={value!r}" for name, value in fields.items() if name in shown]
            texts.append(f"model: {type(self.model).__name__}({', '.join(values)})")
        texts.append(f"vocabulary: {self.vocabulary or 'none with it'}")
        if self.generation:
            texts.append(f"generation: {json.dumps(self.generation, sort_keys=True)}")
        return texts + (self.keys.table() if self.keys else [f"note: {n}" for n in self.notes])


def describe(
    path: str | os.PathLike[str],
    step: int | None = None,
    base: str | os.PathLike[str] | None = None,
) -> Description:
    """Describes what `open_checkpoint` opens; reads names, shapes and settings only."""
    opened = open_checkpoint(path, step, base=base)
    keys = None
    if opened.model is not None:
        _, keys = fit(opened, model_shapes(opened.model), "its own architecture")
    arrays = opened.arrays.values()
    return Description(
        kind=opened.kind,
        place=opened.place,
        step=opened.step,
        model=opened.model,
        num_params=sum(array.size for array in arrays),
        num_bytes=sum(array.nbytes for array in arrays),
        dtypes=dict(collections.Counter(array.dtype.name for array in arrays)),
        vocabulary=opened.vocabulary,
        notes=opened.notes,
        keys=keys,
        generation=_generation(_settings_folder(opened.kind, opened.place, opened.base)),
    )


def generation_settings(path: str | os.PathLike[str], step: int | None = None) -> dict[str, Any]:
    """Generation settings of a Hugging Face folder, or of a checkpoint converted from one.

    Read from generation_config.json, else from config.json; {} without any. Without a start token
    that the model's configuration has too.
    """
    return _generation(_settings_folder(*detect(path, step)))


def _generation(folder: pathlib.Path | None) -> dict[str, Any]:
    """`generation_settings` of the folder that holds them."""
    names = (huggingface.GENERATION, huggingface.CONFIG)
    files = {} if folder is None else {n: file_inside(folder, n) for n in names}
    contents = {name: read_json(file) for name, file in files.items() if file.exists()}
    config = contents.get(huggingface.CONFIG)
    settings = contents.get(huggingface.GENERATION, settings_of_config(config or {}))
    if config and settings.get("decoder_start_token_id"):
        family, text = open_config(config, str(files[huggingface.CONFIG]))
        start = getattr(family.read(text, str(files[huggingface.CONFIG])), "start_id", None)
        if settings["decoder_start_token_id"] == start:
            settings = {n: v for n, v in settings.items() if n != "decoder_start_token_id"}
    return settings
