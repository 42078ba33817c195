"""Hugging Face's folders: `config.json` and safetensors, read as our parameters and written.

    config.json                          the architecture, see `model_of_config`
    model.safetensors                    or model-0000n-of-0000m.safetensors and their index
    spiece.model, tokenizer_config.json, ...    carried along, see `carried_files`

Names are those of `T5ForConditionalGeneration`; kernels are stored there as [out, in]. T5 1.0 and
1.1, Flan-T5, LM-adapted T5, mT5, ByT5, UL2 and Flan-UL2 have this one layout.
"""

import math
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from instruct.data.vocab import check_embedding_rows, load_vocabulary
from instruct.errors import UserError
from instruct.interop import safetensors_files
from instruct.interop.arrays import LazyArray, same_values, transposed
from instruct.interop.folders import file_inside, read_json, whole_folder, write_json
from instruct.interop.tokenizers import (
    PIECES,
    SETTINGS,
    TOKENIZER_FILES,
    tokenizer_files,
    vocabulary_of,
)
from instruct.interop.weights import COMPUTED_FIELDS, Checkpoint, Rule, translate
from instruct.models.config import ModelConfig

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
KIND = "huggingface"
# transformers' default; a larger checkpoint is split.
SHARD_BYTES = 5_000_000_000
EMBEDDING, HEAD = "shared.weight", "lm_head.weight"
_EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_UNUSED = {
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": (
        "transformers does not use it either"
    )
}
_MODEL_TYPES = ("t5", "mt5")
_ACTIVATIONS = {
    "relu": "relu",
    "gated-gelu": "gated-gelu",
    "gated-gelu_new": "gated-gelu",
    "gated-silu": "gated-silu",
}
# `dense_act_fn` of transformers' configurations.
_FUNCTIONS = {"relu": "relu", "gated-gelu": "gelu_new", "gated-silu": "silu"}
_FIELDS = {
    "vocab_size": "vocab_size",
    "d_model": "d_model",
    "num_heads": "num_heads",
    "d_kv": "head_dim",
    "d_ff": "d_ff",
    "num_layers": "num_encoder_layers",
    "num_decoder_layers": "num_decoder_layers",
    "relative_attention_num_buckets": "relpos_buckets",
    "relative_attention_max_distance": "relpos_max_distance",
    "layer_norm_epsilon": "norm_epsilon",
}
_OPTIONAL = {
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
}


def _rules() -> list[Rule]:
    rules = [
        Rule("token_embedder/embedding", EMBEDDING),
        Rule("decoder/logits_dense/kernel", HEAD, "transposed"),
    ]
    for stack in ("encoder", "decoder"):
        layer, block = f"{stack}/layers_{{i}}", f"{stack}.block.{{i}}.layer"
        first = "attention" if stack == "encoder" else "self_attention"
        attentions = [(0, first, "SelfAttention", f"pre_{first}_layer_norm")]
        if stack == "decoder":
            cross = ("encoder_decoder_attention", "EncDecAttention")
            attentions.append((1, *cross, "pre_cross_attention_layer_norm"))
        for number, ours, theirs, norm in attentions:
            rules.append(Rule(f"{layer}/{norm}/scale", f"{block}.{number}.layer_norm.weight"))
            for name in ("query", "key", "value", "out"):
                letter = "o" if name == "out" else name[0]
                weight = f"{block}.{number}.{theirs}.{letter}.weight"
                rules.append(Rule(f"{layer}/{ours}/{name}/kernel", weight, "transposed"))
        last = len(attentions)
        norm = f"{block}.{last}.layer_norm.weight"
        rules.append(Rule(f"{layer}/pre_mlp_layer_norm/scale", norm))
        for name in ("wi", "wi_0", "wi_1", "wo"):
            weight = f"{block}.{last}.DenseReluDense.{name}.weight"
            rules.append(Rule(f"{layer}/mlp/{name}/kernel", weight, "transposed"))
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rules.append(Rule(f"{stack}/relpos_bias/rel_embedding", bias, "transposed"))
        rules.append(Rule(f"{stack}/{stack}_norm/scale", f"{stack}.final_layer_norm.weight"))
    return rules


RULES = _rules()


def open_checkpoint(folder: pathlib.Path) -> Checkpoint:
    """A folder's checkpoint; headers and small files are read, no weights but doubled ones.

    Raises:
        UserError: a file is missing, damaged or not to be trusted, or it is no T5 of the kinds
            that this program computes.
    """
    config_path = file_inside(folder, CONFIG)
    config = read_json(config_path)
    theirs = _read_arrays(folder)
    scaled = _is_scaled(config)
    copies = _drop_copies(folder, theirs, scaled)
    ignored = {name: why for name, why in _UNUSED.items() if theirs.pop(name, None) is not None}
    notes = []
    if not scaled and HEAD not in theirs and EMBEDDING in theirs:
        theirs[HEAD] = theirs[EMBEDDING]
        notes.append(
            "the output kernel is the embedding, without T5 1.0's scaling: kept as a kernel of "
            "its own"
        )
    model = model_of_config(config, str(config_path), tied=scaled)
    arrays, names, unknown = translate(theirs, RULES)
    vocabulary = vocabulary_of(folder)
    if vocabulary is not None:
        words = load_vocabulary(vocabulary)
        check_embedding_rows(words, model.vocab_size)
        if words.vocab_size < model.vocab_size:
            notes.append(
                f"the vocabulary has {words.vocab_size:,} ids, the embedding {model.vocab_size:,} "
                f"rows: rows from {words.vocab_size:,} on are padding, which no text uses"
            )
    return Checkpoint(
        kind=KIND,
        place=str(folder),
        arrays=arrays,
        names=names,
        model=model,
        known_fields=frozenset((*COMPUTED_FIELDS, *_FIELDS.values())),
        unknown=unknown,
        copies=copies,
        ignored=ignored,
        vocabulary=vocabulary,
        notes=tuple(notes),
    )


def model_of_config(config: Mapping[str, Any], place: str, tied: bool) -> ModelConfig:
    """The architecture that a `config.json` describes.

    Args:
        config: the file's object.
        place: its name, for messages.
        tied: output kernel is the embedding, scaled (see `_is_scaled`).

    Raises:
        UserError: another kind of model, an activation or a size that is not computed here.
    """
    model_type = config.get("model_type")
    if model_type not in _MODEL_TYPES:
        raise UserError(
            f"{place}: model_type {model_type!r} is not read; the T5 family is "
            f"({', '.join(_MODEL_TYPES)}: T5, Flan-T5, mT5, ByT5, UL2)."
        )
    if config.get("quantization_config"):
        raise UserError(f"{place} is of a quantised checkpoint; use the original weights.")
    _check_settings(config, place)
    activation = config.get("feed_forward_proj", "relu" if model_type == "t5" else "gated-gelu")
    if str(activation) not in _ACTIVATIONS:
        raise UserError(
            f"{place}: feed_forward_proj {activation!r} is not computed here; "
            f"{', '.join(_ACTIVATIONS)} are."
        )
    # transformers lets this name, where it is there, overrule the one above.
    function, expected = config.get("dense_act_fn"), _FUNCTIONS[_ACTIVATIONS[activation]]
    if function not in (None, expected):
        raise UserError(
            f"{place}: dense_act_fn {function!r} is not computed here; with feed_forward_proj "
            f"{activation!r} it must be {expected!r}."
        )
    config = {**_OPTIONAL, **config}
    if config.get("num_decoder_layers") is None:
        config["num_decoder_layers"] = config.get("num_layers")
    missing = [name for name in _FIELDS if config.get(name) is None]
    if missing:
        raise UserError(f"{place} does not say {', '.join(missing)}. Download or copy it again.")
    sizes = {ours: config[theirs] for theirs, ours in _FIELDS.items()}
    rate = config.get("dropout_rate")
    try:
        return ModelConfig(
            **sizes,
            activations=_ACTIVATIONS[activation],
            tied_output=tied,
            dropout_rate=0.0 if rate is None else rate,
        )
    except UserError as error:
        raise UserError(f"{place} describes a model that cannot be: {error}") from error


def _check_settings(config: Mapping[str, Any], place: str) -> None:
    """Raises UserError for settings of another type than transformers', or not computed here."""
    for name in ("tie_word_embeddings", "scale_decoder_outputs"):
        if config.get(name) not in (None, True, False):
            raise UserError(f"{place}: {name} is {config[name]!r}; it must be true or false.")
    for name in ("pad_token_id", "decoder_start_token_id"):
        if config.get(name) not in (None, 0):
            raise UserError(
                f"{place}: {name} is {config[name]!r}; this program pads and starts with 0, as "
                "T5's family does. Set it to 0 if the model was trained so."
            )
    if config.get("layer_norm_epsilon") in (math.inf, -math.inf):
        raise UserError(f"{place}: layer_norm_epsilon is not finite; T5's is 1e-6.")


def _is_scaled(config: Mapping[str, Any]) -> bool:
    """Whether hidden states are multiplied by D^-0.5 before the output, as T5 1.0 does.

    transformers 5 writes it as `scale_decoder_outputs` (and `tie_word_embeddings` always true);
    before, `tie_word_embeddings` meant both.
    """
    if config.get("model_type") == "mt5":
        return False
    explicit = config.get("scale_decoder_outputs")
    return config.get("tie_word_embeddings") is not False if explicit is None else bool(explicit)


def _read_arrays(folder: pathlib.Path) -> dict[str, LazyArray]:
    """All arrays of a folder by their name."""
    if (folder / INDEX).exists() or (folder / INDEX).is_symlink():
        return _read_shards(folder)
    if (folder / SINGLE).exists() or (folder / SINGLE).is_symlink():
        return safetensors_files.read_file(file_inside(folder, SINGLE))
    if sorted(folder.glob("*.bin")) or sorted(folder.glob("*.bin.index.json")):
        raise UserError(
            f"{folder} holds its weights as pickle (*.bin), which can run code when it is read, "
            "so it is not. Convert it where transformers is installed:\n"
            f'  python -c "from transformers import T5ForConditionalGeneration as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\"\n"
            "and copy spiece.model and the tokenizer's JSON files over. Many repositories also "
            "offer model.safetensors."
        )
    raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}; download the weights too.")


def _read_shards(folder: pathlib.Path) -> dict[str, LazyArray]:
    path = file_inside(folder, INDEX)
    weights = read_json(path).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(n, str) for n in weights.values()):
        raise UserError(f"{path} has no weight_map of names to files. Download it again.")
    files = {name: file_inside(folder, name) for name in sorted(set(weights.values()))}
    absent = [name for name, file in files.items() if not file.is_file()]
    if absent:
        raise UserError(
            f"{folder} lacks {', '.join(absent)} of its {len(files)} shards; download what is "
            "missing."
        )
    found: dict[str, LazyArray] = {}
    for name, file in files.items():
        arrays = safetensors_files.read_file(file)
        lost = [key for key, place in weights.items() if place == name and key not in arrays]
        if lost:
            raise UserError(
                f"{file} lacks {lost[0]!r}, which {INDEX} places there; download both again."
            )
        twice = sorted(set(found) & set(arrays))
        if twice:
            raise UserError(f"{folder}: {twice[0]!r} is in two shards; download it again.")
        found |= arrays
    return found


def _drop_copies(
    folder: pathlib.Path, theirs: dict[str, LazyArray], scaled: bool
) -> dict[str, str]:
    """Removes names under which the embedding occurs again; (name -> why)."""
    others = [name for name in _EMBEDDING_COPIES if name in theirs]
    if EMBEDDING not in theirs and others:
        theirs[EMBEDDING] = theirs.pop(others.pop(0))
    if scaled and HEAD in theirs:
        others.append(HEAD)
    copies = {}
    for name in others:
        if EMBEDDING not in theirs:
            continue
        if not same_values(theirs[name], theirs[EMBEDDING]):
            raise UserError(
                f"{folder}: {name} differs from {EMBEDDING}, but the configuration says that they "
                "are one (tie_word_embeddings); it may belong to another checkpoint."
            )
        del theirs[name]
        copies[name] = f"equal to {EMBEDDING}"
    return copies


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
    """Writes a folder that `transformers` loads, whole or not at all.

    Args:
        target: new folder.
        arrays: the model's parameters under our names, layers separate.
        model: architecture.
        dtype: of the weights.
        carried: tokenizer files and further settings by name, see `carried_files`.
        vocabulary: specification to make tokenizer files from, if `carried` has none.
        shard_bytes: a larger checkpoint is split into files of at most this size (an array that
            is larger has a file of its own).

    Raises:
        UserError: `target` is taken.
        OSError: the disk is full.
    """
    views = {rule.ours: rule for rule in RULES}
    theirs: dict[str, LazyArray] = {}
    for path, array in arrays.items():
        number = next((part[7:] for part in path.split("/") if part.startswith("layers_")), "")
        rule = views[path.replace(f"layers_{number}", "layers_{i}") if number else path]
        name = rule.theirs.replace("{i}", number)
        theirs[name] = transposed(array) if rule.view else array
    theirs = dict(sorted(theirs.items()))
    size = sum(_written_bytes(array, dtype) for array in theirs.values())
    with whole_folder(target, size) as folder:
        _write_arrays(folder, theirs, dtype, shard_bytes, size)
        kept = dict(carried or {})
        place = kept.pop(CONFIG, None)
        copy_files(kept, folder)
        if not kept.keys() & {PIECES, SETTINGS}:
            for name, content in tokenizer_files(vocabulary).items():
                (folder / name).write_bytes(content)
        config = config_of_model(model, dtype, None if place is None else read_json(place))
        write_json(folder / CONFIG, config)
        if GENERATION not in kept:
            ids = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
            settings = {name: config[name] for name in ids}
            write_json(folder / GENERATION, {"_from_model_config": True} | settings)


def _written_bytes(array: LazyArray, dtype: np.dtype) -> int:
    return array.nbytes // array.dtype.itemsize * dtype.itemsize


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
        if shards[-1] and filled + _written_bytes(array, dtype) > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = array
        filled += _written_bytes(array, dtype)
    if len(shards) == 1:
        safetensors_files.write_file(folder / SINGLE, shards[0], dtype, {"format": "pt"})
        return
    places = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        safetensors_files.write_file(folder / name, shard, dtype, {"format": "pt"})
        places |= dict.fromkeys(shard, name)
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def config_of_model(
    model: ModelConfig, dtype: np.dtype, earlier: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The `config.json` of a model; what it does not say is kept from an `earlier` one."""
    found: dict[str, Any] = {
        "architectures": ["T5ForConditionalGeneration"],
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "dropout_rate": 0.1,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "model_type": "t5",
        "use_cache": True,
    }
    # Another model's settings may come with a tokenizer; they are not this one's.
    if earlier and earlier.get("model_type") in _MODEL_TYPES:
        found |= earlier
    # mT5's class never scales its output.
    if model.tied_output and found["model_type"] != "t5":
        found |= {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
    # In transformers 5 `tie_word_embeddings` decides on the scaling alone; before, on both.
    found.pop("scale_decoder_outputs", None)
    # transformers 5 reads both spellings, version 4 only this one.
    found.pop("dtype", None)
    found |= {theirs: getattr(model, ours) for theirs, ours in _FIELDS.items()}
    return found | {
        "dense_act_fn": _FUNCTIONS[model.activations],
        "feed_forward_proj": model.activations,
        "is_gated_act": model.gated,
        "tie_word_embeddings": model.tied_output,
        "torch_dtype": dtype.name,
    }


def carried_files(
    settings: pathlib.Path | None, tokenizer: pathlib.Path | None
) -> dict[str, pathlib.Path]:
    """What goes along with weights: name -> file, checked.

    Args:
        settings: folder of config.json and generation_config.json.
        tokenizer: folder of the tokenizer's files.

    Raises:
        UserError: one is damaged or leads out of its folder.
    """
    found = {}
    for folder, names in ((settings, (CONFIG, GENERATION)), (tokenizer, TOKENIZER_FILES)):
        for name in names if folder is not None else ():
            path = file_inside(folder, name)
            if path.is_file():
                if path.suffix == ".json":
                    read_json(path)
                found[name] = path
    return found


def copy_files(files: Mapping[str, pathlib.Path], target: pathlib.Path) -> None:
    """Copies files into an existing folder under the given names."""
    for name, path in files.items():
        shutil.copyfile(path, target / name)
