"""Small random models of transformers' decoder-only classes, windows and soft caps included."""

from typing import Any

import pytest

_SIZES: dict[str, Any] = {
    **{"vocab_size": 37, "hidden_size": 24, "intermediate_size": 29, "num_hidden_layers": 3},
    **{"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10},
    **{"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0},
}
_LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 16},
}
_LINEAR = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}
_VISION = {
    **{"hidden_size": 8, "intermediate_size": 9, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "image_size": 28, "patch_size": 14},
}
# Name -> (transformers' class, its configuration class, settings).
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {"rope_parameters": _LLAMA3, "attention_bias": True, "mlp_bias": True},
    ),
    "llama_tied": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {"tie_word_embeddings": True, "num_key_value_heads": 1, "rms_norm_eps": 1e-3},
    ),
    "gemma2": (
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {
            **{"sliding_window": 3, "query_pre_attn_scalar": 7},
            **{"attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0},
        },
    ),
    "gemma3": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {
            **{"num_hidden_layers": 4, "sliding_window": 3, "query_pre_attn_scalar": 168},
            "layer_types": [*["sliding_attention"] * 2, "full_attention", "sliding_attention"],
            "rope_parameters": _LINEAR,
        },
    ),
    "gemma3_vision": (
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        {
            "text_config": _SIZES | {"sliding_window": 3, "num_hidden_layers": 7},
            **{"vision_config": _VISION, "mm_tokens_per_image": 4},
        },
    ),
    "qwen2": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {"tie_word_embeddings": True}),
}


def random_decoder(name: str) -> Any:
    """transformers' model of one of `MODELS`, every weight drawn anew."""
    torch = pytest.importorskip("torch", reason="logits are compared with torch's")
    transformers = pytest.importorskip("transformers")
    architecture, config, settings = MODELS[name]
    sizes = {} if "text_config" in settings else _SIZES
    config = getattr(transformers, config)(**(sizes | settings))
    config._attn_implementation = "eager"
    model = getattr(transformers, architecture)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            # Norms and biases have one axis; norms start at 0 or 1.
            weight.copy_(weight + 0.2 * noise if weight.ndim == 1 else 1.5 * noise / 24**0.5)
    return model
