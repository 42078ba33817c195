"""T5Gemma and T5Gemma 2 of Hugging Face: names of weights, `config.json` both ways.

Their stacks are described as Gemma 2's and Gemma 3's are (`decoder_family.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any

from instruct.checkpoints.decoder_family import (
    ATTENTION,
    GEMMA2_STACK,
    GEMMA3_STACK,
    GEMMA_NORMS,
    VISION,
    StackSettings,
    kernel_rules,
    stack_rules,
)
from instruct.checkpoints.family import Family, build, check_fixed, check_flags
from instruct.checkpoints.weights import Rule
from instruct.errors import UserError
from instruct.models.pair_config import PairConfig
from instruct.models.stack_config import StackConfig

_HEAD = "lm_head.out_proj.weight"
_NORMS = GEMMA_NORMS | {
    "pre_attention_norm": "pre_self_attn_layernorm",
    "post_attention_norm": "post_self_attn_layernorm",
}
_CROSS_NORMS = {
    "pre_cross_norm": "pre_cross_attn_layernorm",
    "post_cross_norm": "post_cross_attn_layernorm",
}
_FIXED = {
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "is_encoder_decoder": True,
    "dropout_rate": 0.0,
}


def _reader(
    settings: StackSettings, encoder_path: tuple[str, ...], fields: Mapping[str, Any]
) -> Callable[[Mapping[str, Any], str], PairConfig]:
    def read(config: Mapping[str, Any], place: str) -> PairConfig:
        check_flags(config, ("tie_word_embeddings",), place)
        stacks = {}
        for name, path in (("encoder", encoder_path), ("decoder", ("decoder",))):
            part: Any = config
            for key in path:
                part = part.get(key) if isinstance(part, Mapping) else None
            if not isinstance(part, Mapping):
                raise UserError(f"{place} lacks {'.'.join(path)}. Download or copy it again.")
            stacks[name] = {**settings.defaults, **part}
        encoder, decoder = stacks["encoder"], stacks["decoder"]
        width, rows = encoder["hidden_size"], encoder["vocab_size"]
        check_fixed(decoder, {"cross_attention_hidden_size": width, "vocab_size": rows}, place)
        for part in (config, decoder):
            check_fixed(part, {"pad_token_id": 0}, place)
        tied = config.get("tie_word_embeddings") is not False
        return build(
            PairConfig,
            {
                name: build(StackConfig, settings.read(part, f"{place}: {name}"), place)
                for name, part in stacks.items()
            }
            | {
                "vocab_size": rows,
                "tied_output": tied,
                "final_cap": decoder["final_logit_softcapping"],
                "dropout_rate": config.get("dropout_rate") or 0.0,
                "start_id": 2 if decoder.get("bos_token_id") is None else decoder["bos_token_id"],
            }
            | dict(fields),
            place,
        )

    return read


def _writer(
    settings: StackSettings, encoder_path: tuple[str, ...]
) -> Callable[[PairConfig], dict[str, Any]]:
    def write(model: PairConfig) -> dict[str, Any]:
        shared = {"vocab_size": model.vocab_size, "bos_token_id": model.start_id}
        encoder: dict[str, Any] = settings.write(model.encoder) | shared
        for key in reversed(encoder_path):
            encoder = {key: encoder}
        decoder = settings.write(model.decoder) | shared
        decoder["final_logit_softcapping"] = model.final_cap
        if model.cross == "separate":
            decoder["cross_attention_hidden_size"] = model.encoder.d_model
        return encoder | shared | {"decoder": decoder, "tie_word_embeddings": model.tied_output}

    return write


def _rules(embedding: str, *rules: Rule, decoder_norms: Mapping[str, str]) -> tuple[Rule, ...]:
    return (
        Rule("token_embedder/embedding", embedding),
        Rule("decoder/logits_dense/kernel", _HEAD, "transposed"),
        *stack_rules("encoder", "model.encoder", _NORMS),
        *stack_rules("decoder", "model.decoder", decoder_norms),
        *rules,
    )


_T5GEMMA = Family(
    model_type="t5gemma",
    architecture="T5GemmaForConditionalGeneration",
    config_class=PairConfig,
    rules=_rules(
        "model.decoder.embed_tokens.weight",
        Rule("encoder/token_embedder/embedding", "model.encoder.embed_tokens.weight"),
        *kernel_rules(
            "decoder/layers_{i}/cross_attention", "model.decoder.layers.{i}.cross_attn", ATTENTION
        ),
        decoder_norms=_NORMS | _CROSS_NORMS,
    ),
    embedding="model.decoder.embed_tokens.weight",
    head=_HEAD,
    read=_reader(GEMMA2_STACK, ("encoder",), {}),
    write=_writer(GEMMA2_STACK, ("encoder",)),
    fixed=_FIXED,
)
_IMAGE_END = "of the end of an image: the model reads text only"
_T5GEMMA2 = Family(
    model_type="t5gemma2",
    architecture="T5Gemma2ForConditionalGeneration",
    config_class=PairConfig,
    rules=_rules("model.encoder.embed_tokens.weight", decoder_norms=_NORMS),
    embedding="model.encoder.embed_tokens.weight",
    head=_HEAD,
    read=_reader(
        GEMMA3_STACK,
        ("encoder", "text_config"),
        {"cross": "merged", "encoder_window": "centred", "shared_embedding": True},
    ),
    write=_writer(GEMMA3_STACK, ("encoder", "text_config")),
    fixed=_FIXED,
    embedding_copies=("model.decoder.embed_tokens.weight",),
    # In memory transformers has one more word in the names.
    renamed={"model.encoder.text_model.": "model.encoder."},
    ignored={
        r"model\.encoder\.(vision_tower|multi_modal_projector)\..*": VISION,
        r"model\.(encoder|decoder)\.embed_tokens\.eoi_embedding": _IMAGE_END,
    },
    lacks=(
        "T5Gemma2ForConditionalGeneration has a vision tower, which is not written: transformers "
        "initialises it anew, and text needs none of it"
    ),
)
PAIRS = {family.model_type: family for family in (_T5GEMMA, _T5GEMMA2)}
