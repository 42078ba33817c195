"""Decoding and scoring lowered as a whole give what the decoder and the scorer give."""

import jax
import numpy as np
import pytest

from instruct.eval.decoding.batching import BatchConfig, Decoder, padded_rows
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.programs import cache_bytes, lower_decode, lower_scoring
from instruct.eval.scoring.score import Scorer
from instruct.mesh import MeshConfig, make_mesh, param_shardings, with_shardings
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.model import make_model
from tests.train.batches import tiny_config, tiny_decoder

pytestmark = pytest.mark.slow

PROMPTS = [[5, 6, 7, 1], [9, 3, 1]]
TARGETS = [[4, 5, 1], [8, 1]]


def test_they_compute_what_evaluation_computes():
    network = EncoderDecoder(tiny_config(num_encoder_layers=1, num_decoder_layers=1))
    mesh = make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])
    params = jax.jit(network.init)(jax.random.key(0))
    shardings = param_shardings(mesh, params)
    abstract = with_shardings(network.abstract_params(), shardings)
    params = jax.device_put(params, shardings)
    config, batching = DecodeConfig(max_decode_steps=5), BatchConfig(batch_size=2)

    numbers = np.arange(2)
    prompts = padded_rows(PROMPTS, numbers, 8)
    program = lower_decode(network, abstract, config, mesh, 2, 8).compile()
    tokens, _ = program(params, prompts, numbers.astype(np.int32))
    decoder = Decoder(network, config, batching, mesh)
    assert np.asarray(tokens).tolist() == decoder.generate(params, PROMPTS).tokens.tolist()

    targets = padded_rows(TARGETS, numbers, 8)
    scores = lower_scoring(network, abstract, mesh, 2, (8, 8)).compile()(params, prompts, targets)
    expected = Scorer(network.target_logits, batching, mesh).score(params, PROMPTS, TARGETS)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_local_layers_cache_their_window_only():
    network = make_model(tiny_decoder())  # 4 key-value heads of width 4, a window of 5
    params, config = network.abstract_params(), DecodeConfig(max_decode_steps=7)
    sizes = cache_bytes(network, params, config, rows=3, source_length=20)
    of_column = 2 * 4 * 4 * 4 * 3  # keys and values, heads, width, bytes, rows
    keys_values = {"prompts": (20 + 5) * of_column, "answers": (7 + 5) * of_column}
    # Beside them only masks, lengths and counters.
    assert {name: size - keys_values[name] for name, size in sizes.items()} == {
        name: pytest.approx(100, abs=100) for name in sizes
    }
