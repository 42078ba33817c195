"""T5, mT5, umT5 of Hugging Face: names of weights, and `config.json` as a `ModelConfig` and back.

T5 1.0 and 1.1, Flan-T5, LM-adapted T5, mT5, ByT5, UL2 and Flan-UL2 have the names of
`T5ForConditionalGeneration`; kernels are stored there as [out, in].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from instruct.checkpoints.family import Family, build, check_fixed, check_flags, computed, required
from instruct.checkpoints.weights import Rule
from instruct.errors import UserError
from instruct.models.config import ModelConfig

EMBEDDING, HEAD = "shared.weight", "lm_head.weight"
# Our activations -> `dense_act_fn` of transformers' configurations.
_FUNCTIONS = {"relu": "relu", "gated-gelu": "gelu_new", "gated-silu": "silu"}
# `feed_forward_proj` -> our activations.
_ACTIVATIONS = {name: name for name in _FUNCTIONS} | {"gated-gelu_new": "gated-gelu"}
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


def _rules(relpos_per_layer: bool) -> tuple[Rule, ...]:
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
        ours, block = (f"{stack}/layers_{{i}}", "{i}") if relpos_per_layer else (stack, "0")
        bias = f"{stack}.block.{block}.layer.0.SelfAttention.relative_attention_bias.weight"
        rules.append(Rule(f"{ours}/relpos_bias/rel_embedding", bias, "transposed"))
        rules.append(Rule(f"{stack}/{stack}_norm/scale", f"{stack}.final_layer_norm.weight"))
    return tuple(rules)


RULES = _rules(relpos_per_layer=False)


def _read(config: Mapping[str, Any], place: str) -> ModelConfig:
    check_flags(config, ("tie_word_embeddings", "scale_decoder_outputs"), place)
    check_fixed(config, {"pad_token_id": 0, "decoder_start_token_id": 0}, place)
    default = "relu" if config.get("model_type") == "t5" else "gated-gelu"
    named = config.get("feed_forward_proj", default)
    activations = computed(named, _ACTIVATIONS, f"{place}: feed_forward_proj")
    # In transformers this name, if present, overrides `feed_forward_proj`.
    function, expected = config.get("dense_act_fn"), _FUNCTIONS[activations]
    if function not in (None, expected):
        raise UserError(
            f"{place}: dense_act_fn {function!r} is not computed here; with feed_forward_proj "
            f"{named!r} it must be {expected!r}."
        )
    config = {**_OPTIONAL, **config}
    if config.get("num_decoder_layers") is None:
        config["num_decoder_layers"] = config.get("num_layers")
    fields = required(config, _FIELDS, place) | {
        "activations": activations,
        "tied_output": _is_scaled(config),
        "relpos_per_layer": config.get("model_type") == "umt5",
        "dropout_rate": config.get("dropout_rate") or 0.0,
    }
    return build(ModelConfig, fields, place)


def _is_scaled(config: Mapping[str, Any]) -> bool:
    """Whether hidden states are multiplied by D^-0.5 before the output, as T5 1.0 does.

    transformers 5 writes it as `scale_decoder_outputs` (and `tie_word_embeddings` always true);
    before, `tie_word_embeddings` meant both.
    """
    if config.get("model_type") == "mt5":
        return False
    explicit = config.get("scale_decoder_outputs")
    return config.get("tie_word_embeddings") is not False if explicit is None else bool(explicit)


def _write(model: ModelConfig) -> dict[str, Any]:
    return {theirs: getattr(model, ours) for theirs, ours in _FIELDS.items()} | {
        "dense_act_fn": _FUNCTIONS[model.activations],
        "feed_forward_proj": model.activations,
        "is_gated_act": model.gated,
        # Decides on the scaling in every version of transformers.
        "tie_word_embeddings": model.tied_output,
    }


T5 = Family(
    model_type="t5",
    architecture="T5ForConditionalGeneration",
    config_class=ModelConfig,
    rules=RULES,
    embedding=EMBEDDING,
    head=HEAD,
    read=_read,
    write=_write,
    fixed={
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "dropout_rate": 0.1,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "use_cache": True,
    },
    embedding_copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    copies_head=True,
    ignored={
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight": (
            "transformers does not use it either"
        )
    },
)
MT5 = dataclasses.replace(T5, model_type="mt5", architecture="MT5ForConditionalGeneration")
UMT5 = dataclasses.replace(
    T5,
    model_type="umt5",
    architecture="UMT5ForConditionalGeneration",
    rules=_rules(relpos_per_layer=True),
)
