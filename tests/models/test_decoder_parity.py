"""Decoder-only models against transformers' classes, on random weights of odd sizes."""

import functools
import re

import jax
import numpy as np
import pytest

from instruct.mesh import tree_paths
from instruct.models.decoder_config import DecoderConfig
from instruct.models.decoder_only import DecoderOnly
from instruct.models.stack_config import RopeScaling
from tests.transformers_decoding import tokens_of_both

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow

VOCABULARY, LENGTH = 97, 13
SIZES = {"d_model": 20, "num_heads": 4, "num_kv_heads": 2, "head_dim": 6, "d_ff": 28}
THEIR_SIZES = {
    **{"vocab_size": VOCABULARY, "hidden_size": 20, "intermediate_size": 28},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6},
    **{"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "max_position_embeddings": 64},
    "attn_implementation": "eager",
}
GEMMA = {
    **{"activations": "gated-gelu", "norm": "rms_plus_one", "post_norms": True},
    **{"embedding_scale": True, "query_scale": 7**-0.5, "window": 5},
}
LLAMA3 = {
    **{"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 16,
}
# transformers' class, its settings, ours.
FAMILIES = {
    "llama": (
        "Llama",
        {
            **{"num_hidden_layers": 2, "tie_word_embeddings": False, "rms_norm_eps": 1e-5},
            "rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, **LLAMA3},
        },
        {
            **{"num_layers": 2, "tied_output": False, "norm_epsilon": 1e-5, "rope_theta": 500.0},
            "rope_scaling": RopeScaling("llama3", 4.0, 1.0, 4.0, 16),
        },
    ),
    "gemma2": (
        "Gemma2",
        {
            **{"num_hidden_layers": 3, "sliding_window": 5, "query_pre_attn_scalar": 7},
            **{"attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0},
        },
        {
            **GEMMA,
            **{"num_layers": 3, "layer_pattern": ("local", "global")},
            **{"attention_cap": 3.0, "final_cap": 2.0},
        },
    ),
    "gemma3": (
        "Gemma3",
        {
            **{"num_hidden_layers": 4, "sliding_window": 5, "query_pre_attn_scalar": 7},
            "layer_types": [*["sliding_attention"] * 2, "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
        {
            **GEMMA,
            **{"num_layers": 4, "layer_pattern": ("local", "local", "global"), "qk_norm": True},
            **{"rope_scaling": RopeScaling("linear", 8.0), "local_rope_theta": 100.0},
        },
    ),
    "qwen2": (
        "Qwen2",
        {"num_hidden_layers": 2, "tie_word_embeddings": True, "rms_norm_eps": 1e-6},
        {"num_layers": 2, "attention_bias": "qkv"},
    ),
    "qwen3": (
        "Qwen3",
        {"num_hidden_layers": 2, "tie_word_embeddings": True, "rms_norm_eps": 1e-6},
        {"num_layers": 2, "qk_norm": True},
    ),
}
# transformers' names -> ours; kernels are transposed.
NAMES = (
    (r"model\.layers\.(\d+)\.", r"decoder/layers_\1/"),
    (r"model\.embed_tokens\.weight", "token_embedder/embedding"),
    (r"model\.norm\.weight", "decoder/decoder_norm/scale"),
    (r"lm_head", "decoder/logits_dense"),
    (r"self_attn\.(q|k)_norm\.weight", r"attention/\1_norm/scale"),
    (r"self_attn\.(q|k|v|o)_proj", r"attention/\1"),
    (r"attention/q", "attention/query"),
    (r"attention/k", "attention/key"),
    (r"attention/v", "attention/value"),
    (r"attention/o", "attention/out"),
    (r"mlp\.gate_proj", "mlp/wi_0"),
    (r"mlp\.up_proj", "mlp/wi_1"),
    (r"mlp\.down_proj", "mlp/wo"),
    (r"input_layernorm\.weight", "pre_attention_norm/scale"),
    (r"pre_feedforward_layernorm\.weight", "pre_mlp_norm/scale"),
    (r"post_feedforward_layernorm\.weight", "post_mlp_norm/scale"),
    (r"\.weight", "/kernel"),
    (r"\.bias", "/bias"),
)


@functools.lru_cache
def pair(family):
    """(our model, parameters, transformers' model) with the same random weights."""
    kind, theirs, ours = FAMILIES[family]
    config_type = "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config"
    settings = getattr(transformers, config_type)(**THEIR_SIZES | theirs)
    torch.manual_seed(0)
    reference = getattr(transformers, f"{kind}ForCausalLM")(settings).eval()
    for parameter in reference.parameters():
        parameter.data = parameter.data + 0.25 * torch.randn_like(parameter)
    model = DecoderOnly(DecoderConfig(vocab_size=VOCABULARY, **SIZES | ours))
    shapes = {path: leaf.shape for path, leaf in tree_paths(model.abstract_params())}
    after = "post_attention_norm" if "post_norms" in ours else "pre_mlp_norm"
    named = {}
    for name, weight in reference.named_parameters():
        for pattern, path in (*NAMES, (r"post_attention_layernorm/kernel", f"{after}/scale")):
            name = re.sub(pattern, path, name)
        named[name] = weight.detach().numpy()
        if name.endswith("kernel"):
            named[name] = named[name].T
    assert {name: weight.shape for name, weight in named.items()} == shapes
    leaves = [named[path] for path, _ in tree_paths(model.abstract_params())]
    params = jax.tree.unflatten(jax.tree.structure(model.abstract_params()), leaves)
    return model, params, reference


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family):
    model, params, reference = pair(family)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (3, LENGTH))
    with torch.no_grad():
        expected = reference(torch.tensor(tokens)).logits.numpy()
    logits = jax.jit(model.apply)(params, {"decoder_input_tokens": tokens})
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.3
    assert model.config.num_params() == reference.num_parameters()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 4])
def test_decoding_is_that_of_transformers(family, beams):
    """Token for token, prompts shorter and longer than the window in slots that are refilled."""
    model, params, reference = pair(family)
    random = np.random.default_rng(1)
    prompts = [random.integers(2, VOCABULARY, n).tolist() for n in (2, 11, 1, 7, 9)]
    found, expected = tokens_of_both(model, params, reference, prompts, beams, max_shapes=1)
    np.testing.assert_array_equal(found, expected)
    assert len({tuple(row) for row in found}) == len(prompts)
