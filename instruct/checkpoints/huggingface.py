"""Reads and writes Hugging Face's folders: `config.json` and safetensors.

    config.json                          the architecture, see `huggingface_config.py`
    model.safetensors                    or model-0000n-of-0000m.safetensors and their index
    spiece.model, tokenizer_config.json, ...    carried along, see `carried_files`

Names are those of `T5ForConditionalGeneration`; kernels are stored there as [out, in]. T5 1.0 and
1.1, Flan-T5, LM-adapted T5, mT5, ByT5, UL2 and Flan-UL2 have this one layout.
"""

import functools
import logging
import pathlib
import re
import shutil
from collections.abc import Mapping

import numpy as np

from instruct.checkpoints import huggingface_config, safetensors_files
from instruct.checkpoints.arrays import LazyArray, same_values, transposed
from instruct.checkpoints.folders import file_inside, json_bytes, new_folder, read_json
from instruct.checkpoints.generation_settings import settings_of_config
from instruct.checkpoints.tokenizers import tokenizer_files, vocabulary_of
from instruct.checkpoints.weights import COMPUTED_FIELDS, Checkpoint, Rule, translate
from instruct.data.huggingface_tokenizer import FAST, PIECES, SETTINGS, TOKENIZER_FILES
from instruct.data.vocab import check_embedding_rows, load_vocabulary, why_unread
from instruct.errors import UserError
from instruct.models.config import ModelConfig

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
KIND = "huggingface"
# transformers' default; a larger checkpoint is split.
SHARD_BYTES = 5_000_000_000
EMBEDDING, HEAD = "shared.weight", "lm_head.weight"
_EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
ADAPTER = "adapter_config.json"
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin", ADAPTER)
# Files of AutoGPTQ and AutoAWQ beside config.json; names of arrays that hold scales or codes.
_QUANTISED_FILES = ("quantize_config.json", "quant_config.json")
_QUANTISED_NAME = re.compile(
    r"\.(SCB|absmax|quant_map|nested_absmax|qweight|qzeros|weight_scale\w*|weight_packed|"
    r"quant_state\..*|weight\.(absmax|quant_map|quant_state.*))$"
)
_log = logging.getLogger(__name__)
# transformers has it, and does not use it either.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

# Parts of a layer in order: (our module, our norm before it, their module).
_MLP = ("mlp", "pre_mlp_layer_norm", "DenseReluDense")
_PARTS = {
    "encoder": [("attention", "pre_attention_layer_norm", "SelfAttention"), _MLP],
    "decoder": [
        ("self_attention", "pre_self_attention_layer_norm", "SelfAttention"),
        ("encoder_decoder_attention", "pre_cross_attention_layer_norm", "EncDecAttention"),
        _MLP,
    ],
}
_ATTENTION_KERNELS = {"query": "q", "key": "k", "value": "v", "out": "o"}
_MLP_KERNELS = {name: name for name in ("wi", "wi_0", "wi_1", "wo")}


def _rules() -> list[Rule]:
    rules = [
        Rule("token_embedder/embedding", EMBEDDING),
        Rule("decoder/logits_dense/kernel", HEAD, "transposed"),
    ]
    for stack, parts in _PARTS.items():
        for number, (ours, norm, theirs) in enumerate(parts):
            layer, block = f"{stack}/layers_{{i}}", f"{stack}.block.{{i}}.layer.{number}"
            rules.append(Rule(f"{layer}/{norm}/scale", f"{block}.layer_norm.weight"))
            kernels = _MLP_KERNELS if ours == "mlp" else _ATTENTION_KERNELS
            for name, their_name in kernels.items():
                weight = f"{block}.{theirs}.{their_name}.weight"
                rules.append(Rule(f"{layer}/{ours}/{name}/kernel", weight, "transposed"))
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rules.append(Rule(f"{stack}/relpos_bias/rel_embedding", bias, "transposed"))
        rules.append(Rule(f"{stack}/{stack}_norm/scale", f"{stack}.final_layer_norm.weight"))
    return rules


RULES = _rules()


def open_checkpoint(folder: pathlib.Path) -> Checkpoint:
    """Opens a folder's checkpoint; reads headers and small files, weights only to compare copies.

    Raises UserError if a file is missing, damaged or malicious, or the model is not computed here.
    """
    adapter = _adapter(folder)
    config_path = file_inside(folder, CONFIG)
    config = read_json(config_path)
    huggingface_config.check_config(config, str(config_path))
    theirs, wrapper = _without_wrapper(_read_arrays(folder))
    quantised = [name for name in _QUANTISED_FILES if (folder / name).exists()]
    quantised += [name for name in theirs if _QUANTISED_NAME.search(name)]
    if quantised:
        raise UserError(
            f"{folder} holds quantised weights ({quantised[0]}), which are not read. "
            f"{huggingface_config.USE_ORIGINAL}"
        )
    scaled = huggingface_config.is_scaled(config)
    copies = _drop_copies(folder, theirs, scaled)
    unused = theirs.pop(_UNUSED, None)
    notes = [adapter] if adapter else []
    if wrapper:
        notes.append(f"the name of every array begins with {wrapper!r}: read without it")
    if config.get("task_specific_params") and not (folder / GENERATION).exists():
        notes.append("task_specific_params are not used, as transformers' generate does not")
    if not scaled and HEAD not in theirs and EMBEDDING in theirs:
        theirs[HEAD] = theirs[EMBEDDING]
        notes.append("the output kernel is the embedding without T5 1.0's scaling: kept separately")
    model = huggingface_config.model_of_config(config, str(config_path), tied=scaled)
    arrays, names, unknown = translate(theirs, RULES)
    vocabulary = vocabulary_of(folder)
    if vocabulary is not None:
        tokenizer = load_vocabulary(vocabulary)
        check_embedding_rows(tokenizer, model.vocab_size)
        if (size := tokenizer.vocab_size) < model.vocab_size:
            notes.append(
                f"the vocabulary has {size:,} ids, the embedding {model.vocab_size:,} rows: rows "
                f"from {size:,} on are padding, which no text uses"
            )
    elif (folder / FAST).exists():
        notes.append(f"without a vocabulary: {why_unread(folder)}")
    return Checkpoint(
        kind=KIND,
        place=str(folder),
        arrays=arrays,
        names=names,
        model=model,
        known_fields=frozenset((*COMPUTED_FIELDS, *huggingface_config.FIELDS.values())),
        unknown=unknown,
        copies=copies,
        ignored={} if unused is None else {_UNUSED: "transformers does not use it either"},
        vocabulary=vocabulary,
        notes=tuple(notes),
    )


def _adapter(folder: pathlib.Path) -> str | None:
    """Note about an adapter (LoRA and others of PEFT) beside weights; UserError if it is alone."""
    files = [folder / name for name in _ADAPTER_FILES if (folder / name).exists()]
    if not files:
        return None
    settings = {}
    if (folder / ADAPTER).exists():
        settings = read_json(file_inside(folder, ADAPTER))
    kind = str(settings.get("peft_type") or "PEFT")[:40]
    note = (
        f"{files[0]} is an adapter ({kind}), which is not applied. Merged weights are needed, made "
        "where peft is installed:"
    )
    text = (
        f"{note}\n"
        f'  python -c "from peft import AutoPeftModelForSeq2SeqLM as M; '
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


def _read_arrays(folder: pathlib.Path) -> dict[str, LazyArray]:
    """All arrays of a folder under its names."""
    if (folder / INDEX).exists() or (folder / INDEX).is_symlink():
        return _read_shards(folder)
    if (folder / SINGLE).exists() or (folder / SINGLE).is_symlink():
        return safetensors_files.read_file(file_inside(folder, SINGLE))
    if any(True for pattern in ("*.bin", "*.bin.index.json") for _ in folder.glob(pattern)):
        raise UserError(
            f"{folder} holds its weights as pickle (*.bin), which is not read because it can run "
            "code. Convert it where transformers is installed:\n"
            f'  python -c "from transformers import T5ForConditionalGeneration as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\"\n"
            "and copy spiece.model and the tokenizer's JSON files over. Many repositories also "
            "offer model.safetensors."
        )
    raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}; download the weights too.")


def _without_wrapper(theirs: dict[str, LazyArray]) -> tuple[dict[str, LazyArray], str]:
    """(arrays under the model's own names, the prefix of a wrapper that all names had, or "").

    'module.' is DistributedDataParallel's, '_orig_mod.' torch.compile's, 'model.' Lightning's; they
    may be nested.
    """
    known = (EMBEDDING, *_EMBEDDING_COPIES)
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
    folder: pathlib.Path, theirs: dict[str, LazyArray], scaled: bool
) -> dict[str, str]:
    """Removes further names of the embedding from `theirs`; returns name -> reason."""
    copies = [name for name in _EMBEDDING_COPIES if name in theirs]
    if EMBEDDING not in theirs and copies:
        theirs[EMBEDDING] = theirs.pop(copies.pop(0))
    if EMBEDDING not in theirs:
        return {}
    if scaled and HEAD in theirs:
        copies.append(HEAD)
    for name in copies:
        if not same_values(theirs.pop(name), theirs[EMBEDDING]):
            raise UserError(
                f"{folder}: {name} differs from {EMBEDDING}, but the configuration says that they "
                "are one (tie_word_embeddings); it may belong to another checkpoint."
            )
    return dict.fromkeys(copies, f"equal to {EMBEDDING}")


def write_checkpoint(
    target: pathlib.Path,
    arrays: Mapping[str, LazyArray],
    model: ModelConfig,
    dtype: np.dtype,
    *,
    carried: Mapping[str, pathlib.Path] | None = None,
    vocabulary: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a folder that `transformers` loads, atomically; `arrays` are under our names.

    `carried` are tokenizer and settings files, see `carried_files`; if it has no tokenizer, the
    `vocabulary` gives one. No file exceeds `shard_bytes`, except for a single larger array.
    """
    rules = {rule.ours: rule for rule in RULES}
    theirs: dict[str, LazyArray] = {}
    for path, array in arrays.items():
        layer = re.search(r"layers_(\d+)", path)
        rule = rules[path.replace(layer[0], "layers_{i}") if layer else path]
        name = rule.theirs.replace("{i}", layer[1]) if layer else rule.theirs
        theirs[name] = transposed(array) if rule.view else array
    theirs = dict(sorted(theirs.items()))
    size = sum(array.size for array in theirs.values()) * dtype.itemsize
    with new_folder(target, size) as folder:
        _write_arrays(folder, theirs, dtype, shard_bytes, size)
        files = dict(carried or {})
        earlier = files.pop(CONFIG, None)
        copy_files(files, folder)
        if not files.keys() & {PIECES, SETTINGS, FAST}:
            for name, content in tokenizer_files(vocabulary).items():
                (folder / name).write_bytes(content)
        old_config = None if earlier is None else read_json(earlier)
        config = huggingface_config.config_of_model(model, dtype, old_config)
        (folder / CONFIG).write_bytes(json_bytes(config))
        if GENERATION not in files:
            ids = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
            settings = {name: config[name] for name in ids} | settings_of_config(config)
            (folder / GENERATION).write_bytes(json_bytes({"_from_model_config": True} | settings))


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
