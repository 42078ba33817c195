"""Hugging Face's `config.json` as a `ModelConfig`, and back; refuses what is not computed here."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from instruct.errors import UserError
from instruct.models.config import ModelConfig

USE_ORIGINAL = (
    "Use the original weights in bfloat16, float16 or float32, or load it with transformers, call "
    "model.dequantize() and model.save_pretrained(FOLDER)."
)
_MODEL_TYPES = ("t5", "mt5")
# Our activations -> `dense_act_fn` of transformers' configurations.
_FUNCTIONS = {"relu": "relu", "gated-gelu": "gelu_new", "gated-silu": "silu"}
# `feed_forward_proj` -> our activations.
_ACTIVATIONS = {name: name for name in _FUNCTIONS} | {"gated-gelu_new": "gated-gelu"}
FIELDS = {
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


def model_of_config(config: Mapping[str, Any], place: str, tied: bool) -> ModelConfig:
    """The architecture that a `config.json` at `place` describes, after `check_config`.

    `tied`: the output kernel is the embedding, scaled (see `is_scaled`).
    """
    default = "relu" if config.get("model_type") == "t5" else "gated-gelu"
    activation = config.get("feed_forward_proj", default)
    if str(activation) not in _ACTIVATIONS:
        raise UserError(
            f"{place}: feed_forward_proj {activation!r} is not computed here; use one of "
            f"{', '.join(_ACTIVATIONS)}."
        )
    # In transformers this name, if present, overrides `feed_forward_proj`.
    function, expected = config.get("dense_act_fn"), _FUNCTIONS[_ACTIVATIONS[activation]]
    if function not in (None, expected):
        raise UserError(
            f"{place}: dense_act_fn {function!r} is not computed here; with feed_forward_proj "
            f"{activation!r} it must be {expected!r}."
        )
    config = {**_OPTIONAL, **config}
    if config.get("num_decoder_layers") is None:
        config["num_decoder_layers"] = config.get("num_layers")
    missing = [name for name in FIELDS if config.get(name) is None]
    if missing:
        raise UserError(f"{place} lacks {', '.join(missing)}. Download or copy it again.")
    sizes = {ours: config[theirs] for theirs, ours in FIELDS.items()}
    rate = config.get("dropout_rate")
    try:
        return ModelConfig(
            **sizes,
            activations=_ACTIVATIONS[activation],
            tied_output=tied,
            dropout_rate=0.0 if rate is None else rate,
        )
    except UserError as error:
        raise UserError(f"{place} describes an impossible model: {error}") from error


def check_config(config: Mapping[str, Any], place: str) -> None:
    """Raises UserError for other kinds of models, and for settings that are not computed."""
    model_type = config.get("model_type")
    if model_type not in _MODEL_TYPES:
        raise UserError(
            f"{place}: model_type {model_type!r} is not read; use a model of the T5 family "
            f"({', '.join(_MODEL_TYPES)}: T5, Flan-T5, mT5, ByT5, UL2)."
        )
    if config.get("quantization_config"):
        settings = config["quantization_config"]
        method = settings.get("quant_method") if isinstance(settings, Mapping) else settings
        by = f" by {method!r:.60}" if method else ""
        raise UserError(
            f"{place} belongs to weights that are quantised{by} (quantization_config), which are "
            f"not read. {USE_ORIGINAL}"
        )
    for name in ("tie_word_embeddings", "scale_decoder_outputs"):
        if not isinstance(config.get(name), bool | None):
            raise UserError(f"{place}: {name} is {config[name]!r}; it must be true or false.")
    for name in ("pad_token_id", "decoder_start_token_id"):
        if config.get(name) not in (None, 0):
            raise UserError(
                f"{place}: {name} is {config[name]!r}; this program pads and starts with 0, as "
                "the T5 family does. Set it to 0 if the model was trained so."
            )
    if config.get("layer_norm_epsilon") in (math.inf, -math.inf):
        raise UserError(f"{place}: layer_norm_epsilon is not finite; T5's is 1e-6.")


def is_scaled(config: Mapping[str, Any]) -> bool:
    """Whether hidden states are multiplied by D^-0.5 before the output, as T5 1.0 does.

    transformers 5 writes it as `scale_decoder_outputs` (and `tie_word_embeddings` always true);
    before, `tie_word_embeddings` meant both.
    """
    if config.get("model_type") == "mt5":
        return False
    explicit = config.get("scale_decoder_outputs")
    return config.get("tie_word_embeddings") is not False if explicit is None else bool(explicit)


def config_of_model(
    model: ModelConfig, dtype: np.dtype, earlier: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The `config.json` of a model; keeps further settings of an `earlier` one."""
    t5 = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
    config: dict[str, Any] = t5 | {
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "dropout_rate": 0.1,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "use_cache": True,
    }
    # A tokenizer may come with the settings of another kind of model.
    if earlier and earlier.get("model_type") in _MODEL_TYPES:
        config |= earlier
    # mT5's class never scales its output.
    if model.tied_output and config["model_type"] != "t5":
        config |= t5
    # `tie_word_embeddings` decides on the scaling in every version of transformers.
    config.pop("scale_decoder_outputs", None)
    # transformers 5 also reads `torch_dtype`, version 4 reads nothing else.
    config.pop("dtype", None)
    config |= {theirs: getattr(model, ours) for theirs, ours in FIELDS.items()}
    return config | {
        "dense_act_fn": _FUNCTIONS[model.activations],
        "feed_forward_proj": model.activations,
        "is_gated_act": model.gated,
        "tie_word_embeddings": model.tied_output,
        "torch_dtype": dtype.name,
    }
