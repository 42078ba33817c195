"""Reads and writes Hugging Face's folders: `config.json` and safetensors.

    config.json                          the architecture, see `huggingface_config.py`
    model.safetensors                    or model-0000n-of-0000m.safetensors and their index
    spiece.model, tokenizer_config.json, ...    carried along, see `carried_files`

Names and settings are a `Family`'s (`family.py`), chosen by `model_type`.
"""

import collections
import functools
import logging
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from instruct.checkpoints import safetensors_files
from instruct.checkpoints.arrays import LazyArray, same_values, transposed
from instruct.checkpoints.family import Family
from instruct.checkpoints.folders import file_inside, json_bytes, new_folder, read_json
from instruct.checkpoints.generation_settings import settings_of_config
from instruct.checkpoints.huggingface_config import (
    FAMILIES,
    USE_ORIGINAL,
    config_of_model,
    open_config,
)
from instruct.checkpoints.tokenizers import tokenizer_files, vocabulary_of
from instruct.checkpoints.weights import Checkpoint, translate
from instruct.data.huggingface_tokenizer import FAST, MODEL, PIECES, SETTINGS, TOKENIZER_FILES
from instruct.data.vocab import check_embedding_rows, load_vocabulary
from instruct.errors import UserError
from instruct.models.model import AnyConfig

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
CARD = "README.md"
KIND = "huggingface"
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
# transformers' default; a larger checkpoint is split.
SHARD_BYTES = 5_000_000_000
ADAPTER = "adapter_config.json"
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin", ADAPTER)
# Files of AutoGPTQ and AutoAWQ beside config.json; names of arrays that hold scales or codes.
_QUANTISED_FILES = ("quantize_config.json", "quant_config.json")
_QUANTISED_NAME = re.compile(
    r"\.(SCB|absmax|quant_map|nested_absmax|qweight|qzeros|weight_scale\w*|weight_packed|"
    r"quant_state\..*|weight\.(absmax|quant_map|quant_state.*))$"
)
_log = logging.getLogger(__name__)
# Classes of PEFT by the task of an adapter.
_PEFT_CLASSES = {"CAUSAL_LM": "AutoPeftModelForCausalLM"}


def open_checkpoint(folder: pathlib.Path) -> Checkpoint:
    """Opens a folder's checkpoint; reads headers and small files, weights only to compare copies.

    Raises UserError if a file is missing, damaged or malicious, or the model is not computed here.
    """
    adapter = adapter_note(folder)
    config_path = file_inside(folder, CONFIG)
    config = read_json(config_path)
    family, settings = open_config(config, str(config_path))
    model = family.read(settings, str(config_path))
    theirs, wrapper = _without_wrapper(_read_arrays(folder, family), family)
    quantised = [name for name in _QUANTISED_FILES if (folder / name).exists()]
    quantised += [name for name in theirs if _QUANTISED_NAME.search(name)]
    if quantised:
        raise UserError(
            f"{folder} holds quantised weights ({quantised[0]}), which are not read. {USE_ORIGINAL}"
        )
    notes = [adapter] if adapter else []
    if wrapper:
        notes.append(f"the name of every array begins with {wrapper!r}: read without it")
    ignored = {
        name: reason
        for pattern, reason in family.ignored.items()
        for name in theirs
        if re.fullmatch(pattern, name)
    }
    for reason, count in collections.Counter(ignored.values()).items():
        notes.append(f"arrays that are not used: {count:,} {reason}")
    theirs = {name: array for name, array in theirs.items() if name not in ignored}
    copies = _drop_copies(folder, theirs, family, model.tied_output)
    if config.get("task_specific_params") and not (folder / GENERATION).exists():
        notes.append("task_specific_params are not used, as transformers' generate does not")
    headless = family.embedding in theirs and family.head not in theirs
    if family.copies_head and headless and not model.tied_output:
        theirs[family.head] = theirs[family.embedding]
        notes.append("the output kernel is the embedding without T5 1.0's scaling: kept separately")
    arrays, names, unknown = translate(theirs, family.rules)
    vocabulary = vocabulary_of(folder)
    if vocabulary is not None:
        tokenizer = load_vocabulary(vocabulary)
        check_embedding_rows(tokenizer, model.vocab_size)
        if (size := tokenizer.vocab_size) < model.vocab_size:
            notes.append(
                f"the vocabulary has {size:,} ids, the embedding {model.vocab_size:,} rows: rows "
                f"from {size:,} on are padding, which no text uses"
            )
    return Checkpoint(
        kind=KIND,
        place=str(folder),
        arrays=arrays,
        names=names,
        model=model,
        unknown=unknown,
        copies=copies,
        ignored=ignored,
        vocabulary=vocabulary,
        notes=tuple(notes),
    )


def adapter_note(folder: pathlib.Path) -> str | None:
    """Note about an adapter (LoRA and others of PEFT) beside weights; UserError if it is alone."""
    files = [folder / name for name in _ADAPTER_FILES if (folder / name).exists()]
    if not files:
        return None
    settings = {}
    if (folder / ADAPTER).exists():
        settings = read_json(file_inside(folder, ADAPTER))
    kind = str(settings.get("peft_type") or "PEFT")[:40]
    peft_class = _PEFT_CLASSES.get(str(settings.get("task_type")), "AutoPeftModelForSeq2SeqLM")
    note = (
        f"{files[0]} is an adapter ({kind}), which is not applied. Merged weights are needed, made "
        "where peft is installed:"
    )
    text = (
        f"{note}\n"
        f'  python -c "from peft import {peft_class} as M; '
        f"M.from_pretrained('{folder}').merge_and_unload().save_pretrained('{folder}-merged')\"\n"
        "and the tokenizer's files copied over."
    )
    weights = any((folder / name).exists() for name in (SINGLE, INDEX))
    if not weights and not list(folder.glob("pytorch_model*.bin*")):
        base = settings.get("base_model_name_or_path")
        of = f"; its base model is {str(base)[:200]!r}" if base else ""
        raise UserError(f"{folder} holds no model of its own{of}. {text}")
    _warn_once(text)
    return note


@functools.cache
def _warn_once(text: str) -> None:
    """One command may open a folder several times."""
    _log.warning("%s", text)


def _read_arrays(folder: pathlib.Path, family: Family) -> dict[str, LazyArray]:
    """All arrays of a folder under its names, beginnings as in `family.rules`."""
    found = _read_files(folder, family)
    renamed = {name: family.current_name(name) for name in found}
    if len(set(renamed.values())) < len(found):
        raise UserError(f"{folder} has arrays twice, under names of two versions.")
    return {renamed[name]: array for name, array in found.items()}


def _read_files(folder: pathlib.Path, family: Family) -> dict[str, LazyArray]:
    if (folder / INDEX).exists() or (folder / INDEX).is_symlink():
        return _read_shards(folder)
    if (folder / SINGLE).exists() or (folder / SINGLE).is_symlink():
        return safetensors_files.read_file(file_inside(folder, SINGLE))
    if any(True for pattern in ("*.bin", "*.bin.index.json") for _ in folder.glob(pattern)):
        raise UserError(
            f"{folder} holds its weights as pickle (*.bin), which is not read because it can run "
            "code. Convert it where transformers is installed:\n"
            f'  python -c "from transformers import {family.architecture} as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\"\n"
            "and copy the tokenizer's files over. Many repositories also "
            "offer model.safetensors."
        )
    raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}; download the weights too.")


def _without_wrapper(
    theirs: dict[str, LazyArray], family: Family
) -> tuple[dict[str, LazyArray], str]:
    """(arrays under the model's own names, the prefix of a wrapper that all names had, or "").

    'module.' is DistributedDataParallel's, '_orig_mod.' torch.compile's, 'model.' Lightning's; they
    may be nested.
    """
    known = (family.embedding, *family.embedding_copies)
    wrappers = [n.removesuffix(e) for e in known for n in theirs if n.endswith(f".{e}")]
    if any(name in theirs for name in known) or not wrappers:
        return theirs, ""
    wrapper = wrappers[0]
    if not all(name.startswith(wrapper) for name in theirs):
        return theirs, ""
    return {name.removeprefix(wrapper): array for name, array in theirs.items()}, wrapper


def _read_shards(folder: pathlib.Path) -> dict[str, LazyArray]:
    path = file_inside(folder, INDEX)
    weights = read_json(path).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(n, str) for n in weights.values()):
        raise UserError(f"{path} has no weight_map of names to files. Download it again.")
    files = {name: file_inside(folder, name) for name in sorted(set(weights.values()))}
    absent = ", ".join(name for name, file in files.items() if not file.is_file())
    if absent:
        raise UserError(f"{folder} lacks {absent} of its {len(files)} shards; download them.")
    arrays: dict[str, LazyArray] = {}
    for name, file in files.items():
        shard = safetensors_files.read_file(file)
        lost = [key for key, its_file in weights.items() if its_file == name and key not in shard]
        if lost:
            raise UserError(
                f"{file} lacks {lost[0]!r}, which {INDEX} places there; download both again."
            )
        if twice := sorted(arrays.keys() & shard.keys()):
            raise UserError(f"{folder}: {twice[0]!r} is in two shards; download it again.")
        arrays |= shard
    return arrays


def _drop_copies(
    folder: pathlib.Path, theirs: dict[str, LazyArray], family: Family, tied: bool
) -> dict[str, str]:
    """Removes further names of the embedding from `theirs`; returns name -> reason."""
    embedding = family.embedding
    copies = [name for name in family.embedding_copies if name in theirs]
    if embedding not in theirs and copies:
        theirs[embedding] = theirs.pop(copies.pop(0))
    if embedding not in theirs:
        return {}
    if tied and family.head in theirs:
        copies.append(family.head)
    for name in copies:
        if not same_values(theirs.pop(name), theirs[embedding]):
            raise UserError(
                f"{folder}: {name} differs from {embedding}, but the configuration says that they "
                "are one (tie_word_embeddings); it may belong to another checkpoint."
            )
    return dict.fromkeys(copies, f"equal to {embedding}")


def write_checkpoint(
    target: pathlib.Path,
    arrays: Mapping[str, LazyArray],
    model: AnyConfig,
    dtype: np.dtype,
    *,
    carried: Mapping[str, pathlib.Path] | None = None,
    vocabulary: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    card_fn: Callable[[Sequence[str]], str] = lambda notes: "",
) -> tuple[str, ...]:
    """Writes a folder that `transformers` loads, atomically; `arrays` are under our names.

    Returns notes for the user on what the folder lacks or computes otherwise.

    `carried` are tokenizer and settings files, see `carried_files`; if it has no tokenizer, the
    `vocabulary` gives one. No file exceeds `shard_bytes`, except for a single larger array.
    `card_fn` maps the notes to the text of README.md; "" for none.
    """
    files = dict(carried or {})
    earlier = files.pop(CONFIG, None)
    config = config_of_model(model, dtype, None if earlier is None else read_json(earlier))
    family = FAMILIES[config["model_type"]]
    theirs: dict[str, LazyArray] = {}
    for path, (name, rule) in family.their_names(arrays).items():
        theirs[name] = transposed(arrays[path]) if rule.view else arrays[path]
    theirs = dict(sorted(theirs.items()))
    if vocabulary is not None:
        ids = _token_ids(vocabulary)
        config |= {name: value for name, value in ids.items() if config.get(name, 0) is None}
    is_prefix_lm = getattr(model, "prefix_lm", False)
    prefix_note = "the model is a prefix-LM; transformers computes causal attention, other logits"
    notes = tuple(filter(None, (family.lacks, prefix_note if is_prefix_lm else "")))
    card = card_fn(notes)
    size = sum(array.size for array in theirs.values()) * dtype.itemsize
    with new_folder(target, size) as folder:
        _write_arrays(folder, theirs, dtype, shard_bytes, size)
        copy_files(files, folder)
        if not files.keys() & {PIECES, MODEL, SETTINGS, FAST}:
            for name, content in tokenizer_files(vocabulary).items():
                (folder / name).write_bytes(content)
        (folder / CONFIG).write_bytes(json_bytes(config))
        if GENERATION not in files:
            known = {name: config[name] for name in _IDS if config.get(name) is not None}
            settings = known | settings_of_config(config)
            (folder / GENERATION).write_bytes(json_bytes({"_from_model_config": True} | settings))
        if card:
            (folder / CARD).write_text(card, "utf-8")
    return notes


def _token_ids(vocabulary: str) -> dict[str, int | None]:
    """Special tokens of a vocabulary's specification, as config.json names them."""
    loaded = load_vocabulary(vocabulary)
    start = next(iter(loaded.start_ids), None)
    return dict(zip(_IDS, (start, loaded.eos_id, loaded.pad_id)))


def _write_arrays(
    folder: pathlib.Path,
    theirs: Mapping[str, LazyArray],
    dtype: np.dtype,
    shard_bytes: int,
    size: int,
) -> None:
    shards: list[dict[str, LazyArray]] = [{}]
    filled = 0
    for name, array in theirs.items():
        num_bytes = array.size * dtype.itemsize
        if shards[-1] and filled + num_bytes > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = array
        filled += num_bytes
    if len(shards) == 1:
        safetensors_files.write_file(folder / SINGLE, shards[0], dtype, {"format": "pt"})
        return
    files = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        safetensors_files.write_file(folder / name, shard, dtype, {"format": "pt"})
        files |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": size}, "weight_map": files}
    (folder / INDEX).write_bytes(json_bytes(index))


def carried_files(
    settings: pathlib.Path | None, tokenizer: pathlib.Path | None
) -> dict[str, pathlib.Path]:
    """Name -> path of config.json and generation_config.json, and of the tokenizer's files.

    Raises UserError if a JSON file is damaged or a file is a link out of its folder.
    """
    files = {}
    for folder, names in ((settings, (CONFIG, GENERATION)), (tokenizer, TOKENIZER_FILES)):
        if folder is None:
            continue
        for name in names:
            path = file_inside(folder, name)
            if path.is_file():
                if path.suffix == ".json":
                    read_json(path)
                files[name] = path
    return files


def copy_files(files: Mapping[str, pathlib.Path], target: pathlib.Path) -> None:
    """Copies files into a folder under the given names."""
    for name, path in files.items():
        shutil.copyfile(path, target / name)
