"""int8 kernels: exact products of rounded numbers, and decoding with them in every model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.online import OnlineDecoder
from instruct.eval.programs import lower_decode
from instruct.mesh import make_mesh, param_shardings, parse_mesh, with_shardings
from instruct.models.adapters import add_adapters, merge_adapters
from instruct.models.config import ModelConfig
from instruct.models.decoder_config import DecoderConfig
from instruct.models.model import make_model
from instruct.models.pair_config import PairConfig
from instruct.models.stack_config import StackConfig
from instruct.quantized import Int8Kernel, int8_kernel, int8_product

SIZES = {"vocab_size": 512, "d_model": 64, "num_heads": 2, "head_dim": 32, "d_ff": 96}
STACK = StackConfig(
    d_model=64, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=32, d_ff=96, window=None
)
T5 = ModelConfig(**SIZES, num_encoder_layers=1, num_decoder_layers=1)
MODELS = {
    "t5": T5,
    "tied t5": dataclasses.replace(T5, tied_output=True),
    "scanned t5": dataclasses.replace(T5, scan_layers=True),
    "bfloat16 t5": dataclasses.replace(T5, dtype="bfloat16"),
    "decoder": DecoderConfig(**SIZES, num_layers=1, num_kv_heads=1, tied_output=False),
    "tied decoder": DecoderConfig(**SIZES, num_layers=1, num_kv_heads=1, tied_output=True),
    "pair": PairConfig(vocab_size=512, encoder=STACK, decoder=STACK),
}
PROMPTS = [[5, 9, 300, 1], [7, 8, 1], [400, 40, 4, 44, 1], [3, 1]]
GREEDY = DecodeConfig(max_decode_steps=6)


def test_worked_example():
    kernel = int8_kernel(jnp.array([[1.0, 0.0, -2.0], [-0.5, 0.0, 4.0]]))
    assert (kernel.values.dtype, kernel.scale.dtype) == (jnp.int8, jnp.float32)
    np.testing.assert_array_equal(kernel.values, [[127, 0, -64], [-64, 0, 127]])
    np.testing.assert_allclose(kernel.scale[0], [1 / 127, 1e-30, 4 / 127], rtol=1e-6)
    product = int8_product(jnp.array([[2.0, 1.0], [0.0, 0.0]]), kernel)
    # [2, 1] is [127, 64] in units of 2 / 127.
    sums = np.array([127 * 127 - 64 * 64, 0, -127 * 64 + 64 * 127])
    expected = [sums * 2 / 127 * np.array([1, 0, 4]) / 127, [0, 0, 0]]
    np.testing.assert_allclose(product, expected, rtol=1e-6, atol=1e-25)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_are_those_of_numpy_in_whole_numbers(dtype):
    random = np.random.default_rng(0)
    # Units of exactly 1 / 16, so that both round the same halves.
    x = jnp.asarray(random.normal(size=(3, 5, 300)), dtype).at[..., 7].set(127 / 16)
    kernel = int8_kernel(jnp.asarray(random.normal(size=(300, 40)), jnp.float32))
    wide = np.asarray(x.astype(jnp.float32))
    scale = np.abs(wide).max(-1, keepdims=True) / np.float32(127)
    sums = np.round(wide / scale).astype(np.int64) @ np.asarray(kernel.values, np.int64)
    expected = sums * scale * np.asarray(kernel.scale[0])
    np.testing.assert_allclose(int8_product(x, kernel), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models_decode_with_rounded_kernels(name):
    model = make_model(MODELS[name])
    params = jax.jit(model.init)(jax.random.key(0))
    rounded = model.int8_params(params)
    kernels = [
        leaf
        for leaf in jax.tree.leaves(rounded, is_leaf=lambda x: isinstance(x, Int8Kernel))
        if isinstance(leaf, Int8Kernel)
    ]
    heads = [kernel for kernel in kernels if kernel.values.shape == (64, 512)]
    assert len(heads) == 1 and len(kernels) > 7
    inputs = jnp.array([[5, 9, 300, 2], [7, 8, 6, 3]])
    targets = jnp.array([[30, 4, 99], [44, 2, 7]])
    target_logits = jax.jit(model.target_logits)
    logits = target_logits(params, inputs, targets)
    difference = target_logits(rounded, inputs, targets) - logits
    error = float(jnp.linalg.norm(difference) / jnp.linalg.norm(logits))
    assert 1e-4 < error < 0.05
    int8 = dataclasses.replace(GREEDY, weights="int8")
    answers = Decoder(model, int8, BatchConfig(4, 1)).generate(params, PROMPTS)
    same = Decoder(model, GREEDY, BatchConfig(4, 1)).generate(rounded, PROMPTS)
    np.testing.assert_array_equal(answers.tokens, same.tokens)
    np.testing.assert_allclose(answers.scores, same.scores, rtol=1e-5)


@pytest.mark.slow
def test_adapters_are_merged_before_they_are_rounded():
    model = make_model(T5)
    params = jax.jit(model.init)(jax.random.key(0))
    path = "decoder/layers_0/mlp/wo/kernel"
    params = add_adapters(params, {path}, 4, 2.0, jax.random.key(1))
    adapted = params["decoder"]["layers_0"]["mlp"]["wo"]
    adapted["lora_b"] = jax.random.normal(jax.random.key(2), adapted["lora_b"].shape)
    decoder = Decoder(model, dataclasses.replace(GREEDY, weights="int8"), BatchConfig(4, 1))
    answers = decoder.generate(params, PROMPTS)
    merged = decoder.generate(merge_adapters(params), PROMPTS)
    np.testing.assert_array_equal(answers.scores, merged.scores)


@pytest.mark.slow
def test_beams_prompts_that_come_and_go_and_meshes_round_the_same_kernels():
    model = make_model(T5)
    params = jax.jit(model.init)(jax.random.key(0))
    config = DecodeConfig("beam", 6, num_beams=2, weights="int8")
    answers = Decoder(model, config, BatchConfig(8)).generate(params, PROMPTS)
    online = OnlineDecoder(model, config, params, 8, BatchConfig(2, 1))
    keys = [online.add(prompt) for prompt in PROMPTS]
    found = {}
    while len(found) < len(keys):
        found |= {partial.key: partial.tokens for partial in online.advance() if partial.ended}
    for key, tokens in zip(keys, answers.tokens):
        np.testing.assert_array_equal(found[key], tokens[:, : found[key].shape[1]])
    mesh = make_mesh(parse_mesh("data=4,tensor=2"))
    spread = jax.device_put(params, param_shardings(mesh, params))
    split = Decoder(model, config, BatchConfig(8), mesh).generate(spread, PROMPTS)
    np.testing.assert_array_equal(split.tokens, answers.tokens)


@pytest.mark.slow
def test_the_program_of_a_check_has_int8_products():
    model, mesh = make_model(T5), make_mesh(parse_mesh("data=4,tensor=2"))
    abstract = model.abstract_params()
    placed = with_shardings(abstract, param_shardings(mesh, abstract))
    for weights in ("float32", "int8"):
        config = dataclasses.replace(GREEDY, weights=weights)
        text = lower_decode(model, placed, config, mesh, 4, 8).as_text()
        assert ("xi8>" in text) == (weights == "int8")


def test_results_say_that_weights_are_rounded():
    config = dataclasses.replace(GREEDY, weights="int8")
    assert config.describe() == "greedy steps=6 weights=int8"
    assert (config.settings()["weights"], "weights" in GREEDY.settings()) == ("int8", False)
    with pytest.raises(UserError, match="weights"):
        DecodeConfig(weights="int4")
