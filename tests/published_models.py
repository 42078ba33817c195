"""Published sizes of models: number of parameters, and the settings of their config.json.

Numbers: of the weights on the models' pages (huggingface.co/meta-llama, google, Qwen; of Gemma 3
from 4B up without the vision tower and its projection); of T5Gemma 2 what its text model has with
the dimensions of Gemma 3; PaLM: arXiv 2204.02311, table 1, as its text describes the architecture
(`palm_params`).
"""

from typing import Any

_LLAMA = {
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
_LLAMA_SMALL = _LLAMA | {
    "rope_scaling": _LLAMA["rope_scaling"] | {"factor": 32.0},
    "tie_word_embeddings": True,
}
_GEMMA_2 = {
    "vocab_size": 256000,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
_GEMMA_3 = {
    "vocab_size": 262208,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "query_pre_attn_scalar": 256,
}
_QWEN = {
    "vocab_size": 151936,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}
_QWEN_2_LARGE = _QWEN | {"vocab_size": 152064, "tie_word_embeddings": False}
_QWEN_3 = _QWEN | {"head_dim": 128, "num_key_value_heads": 8}
_UNTIED = {"tie_word_embeddings": False}


def _sizes(width: int, layers: int, heads: int, hidden: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": hidden,
        **more,
    }


# File of gin/models -> (parameters, model_type, config.json).
HUGGING_FACE: dict[str, tuple[int, str, dict[str, Any]]] = {
    "llama3_2_1b": (1_235_814_400, "llama", _LLAMA_SMALL | _sizes(2048, 16, 32, 8192)),
    "llama3_2_3b": (3_212_749_824, "llama", _LLAMA_SMALL | _sizes(3072, 28, 24, 8192)),
    "llama3_1_8b": (8_030_261_248, "llama", _LLAMA | _sizes(4096, 32, 32, 14336)),
    "llama3_1_70b": (70_553_706_496, "llama", _LLAMA | _sizes(8192, 80, 64, 28672)),
    "gemma2_2b": (
        *(2_614_341_888, "gemma2"),
        _GEMMA_2 | _sizes(2304, 26, 8, 9216, num_key_value_heads=4),
    ),
    "gemma2_9b": (
        *(9_241_705_984, "gemma2"),
        _GEMMA_2 | _sizes(3584, 42, 16, 14336, num_key_value_heads=8),
    ),
    "gemma2_27b": (
        *(27_227_128_320, "gemma2"),
        _GEMMA_2
        | _sizes(4608, 46, 32, 36864, num_key_value_heads=16)
        | {"head_dim": 128, "query_pre_attn_scalar": 144},
    ),
    "gemma3_1b": (
        *(999_885_952, "gemma3_text"),
        _GEMMA_3
        | _sizes(1152, 26, 4, 6912, num_key_value_heads=1)
        | {"vocab_size": 262144, "sliding_window": 512, "rope_scaling": None},
    ),
    "gemma3_4b": (
        *(3_880_263_168, "gemma3_text"),
        _GEMMA_3 | _sizes(2560, 34, 8, 10240, num_key_value_heads=4),
    ),
    "gemma3_12b": (
        *(11_766_034_176, "gemma3_text"),
        _GEMMA_3 | _sizes(3840, 48, 16, 15360, num_key_value_heads=8),
    ),
    "gemma3_27b": (
        *(27_009_346_304, "gemma3_text"),
        _GEMMA_3
        | _sizes(5376, 62, 32, 21504, num_key_value_heads=16)
        | {"head_dim": 128, "query_pre_attn_scalar": 168},
    ),
    "qwen2_5_0_5b": (
        494_032_768,
        "qwen2",
        _QWEN | _sizes(896, 24, 14, 4864, num_key_value_heads=2),
    ),
    "qwen2_5_1_5b": (
        *(1_543_714_304, "qwen2"),
        _QWEN | _sizes(1536, 28, 12, 8960, num_key_value_heads=2),
    ),
    "qwen2_5_3b": (
        *(3_085_938_688, "qwen2"),
        _QWEN | _sizes(2048, 36, 16, 11008, num_key_value_heads=2),
    ),
    "qwen2_5_7b": (
        *(7_615_616_512, "qwen2"),
        _QWEN_2_LARGE | _sizes(3584, 28, 28, 18944, num_key_value_heads=4),
    ),
    "qwen2_5_14b": (
        *(14_770_033_664, "qwen2"),
        _QWEN_2_LARGE | _sizes(5120, 48, 40, 13824, num_key_value_heads=8),
    ),
    "qwen2_5_32b": (
        *(32_763_876_352, "qwen2"),
        _QWEN_2_LARGE | _sizes(5120, 64, 40, 27648, num_key_value_heads=8),
    ),
    "qwen3_0_6b": (596_049_920, "qwen3", _QWEN_3 | _sizes(1024, 28, 16, 3072)),
    "qwen3_1_7b": (1_720_574_976, "qwen3", _QWEN_3 | _sizes(2048, 28, 16, 6144)),
    "qwen3_4b": (4_022_468_096, "qwen3", _QWEN_3 | _sizes(2560, 36, 32, 9728)),
    "qwen3_8b": (8_190_735_360, "qwen3", _QWEN_3 | _sizes(4096, 36, 32, 12288) | _UNTIED),
    "qwen3_14b": (14_768_307_200, "qwen3", _QWEN_3 | _sizes(5120, 40, 40, 17408) | _UNTIED),
    "qwen3_32b": (32_762_123_264, "qwen3", _QWEN_3 | _sizes(5120, 64, 64, 25600) | _UNTIED),
}


def _pair(count: int, kind: str, base: dict[str, Any], *sizes: dict[str, Any]) -> Any:
    """A row of PAIRS; `sizes`: of encoder and decoder, or of both."""
    encoder, decoder = base | sizes[0], base | sizes[-1]
    decoder["cross_attention_hidden_size"] = encoder["hidden_size"]
    inner = encoder if kind == "t5gemma" else {"text_config": encoder}
    return count, kind, {"encoder": inner, "decoder": decoder, "tie_word_embeddings": True}


def _heads(number: int, kv_heads: int, head_dim: int) -> dict[str, int]:
    """`query_pre_attn_scalar` is `head_dim` in Gemma 2's 2B and 9B."""
    return {
        "num_attention_heads": number,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "query_pre_attn_scalar": head_dim,
    }


_2B = _sizes(2304, 26, 8, 9216) | _heads(8, 4, 256)
_9B = _sizes(3584, 42, 16, 14336) | _heads(16, 8, 256)
_GEMMA_3_SHORT = _GEMMA_3 | {"sliding_window": 512, "rope_scaling": None}
_T5 = {
    "s_s": (312_517_632, _sizes(512, 8, 8, 1024) | _heads(8, 8, 64)),
    "b_b": (591_490_560, _sizes(768, 12, 12, 2048) | _heads(12, 12, 64)),
    "l_l": (1_241_761_792, _sizes(1024, 24, 16, 2816) | _heads(16, 16, 64)),
    "ml_ml": (2_200_345_344, _sizes(1152, 26, 4, 6912) | _heads(4, 4, 256)),
    "xl_xl": (3_766_980_608, _sizes(2048, 24, 32, 5120) | _heads(32, 32, 64)),
    "2b_2b": (5_596_853_760, _2B),
    "9b_2b": (12_292_375_296, _9B, _2B),
    "9b_9b": (20_333_401_088, _9B),
}
# File of gin/models -> (parameters, model_type, config.json) of T5Gemma and T5Gemma 2.
PAIRS: dict[str, tuple[int, str, dict[str, Any]]] = {
    **{
        f"t5gemma_{name}": _pair(count, "t5gemma", _GEMMA_2, *sizes)
        for name, (count, *sizes) in _T5.items()
    },
    "t5gemma2_270m_270m": _pair(
        368_465_152, "t5gemma2", _GEMMA_3_SHORT, _sizes(640, 18, 4, 2048, num_key_value_heads=1)
    ),
    "t5gemma2_1b_1b": _pair(
        1_697_855_744, "t5gemma2", _GEMMA_3_SHORT, _sizes(1152, 26, 4, 6912, num_key_value_heads=1)
    ),
    "t5gemma2_4b_4b": _pair(
        7_089_273_856, "t5gemma2", _GEMMA_3, _sizes(2560, 34, 8, 10240, num_key_value_heads=4)
    ),
}


def palm_params(layers: int, width: int, heads: int) -> int:
    """Heads of 256, hidden layers of 4 D, one norm a block, 256,000 rows of a shared embedding."""
    attention = 2 * width * heads * 256 + 2 * width * 256
    return layers * (attention + 3 * width * 4 * width + width) + width + 256_000 * width


PALM = {
    "palm_8b": (palm_params(32, 4096, 16), "8.632e9"),
    "palm_62b": (palm_params(64, 8192, 32), "62.496e9"),
    "palm_540b": (palm_params(118, 18432, 48), "540.356e9"),
}
PARAMETERS = {name: row[0] for name, row in (HUGGING_FACE | PAIRS | PALM).items()}
