"""Packed rows give the loss and gradients of one example a row; leaks and wrong masks do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct import batch
from instruct.data.feed.packing import pack
from instruct.models.decoder_config import DecoderConfig
from instruct.models.model import make_model
from instruct.train.loss import LossConfig, make_loss_fn
from tests.float32 import assert_same_float32
from tests.train.batches import tiny_config

pytestmark = pytest.mark.slow

DECODER = {
    "vocab_size": 64,
    "d_model": 16,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 4,
    "d_ff": 32,
    "activations": "gated-silu",
    "dtype": "float32",
}
CONFIGS = {
    "encoder_decoder": tiny_config(num_encoder_layers=1, num_decoder_layers=1),
    "causal": DecoderConfig(**DECODER, window=4, layer_pattern=("local", "global")),
    "prefix": DecoderConfig(**DECODER, prefix_lm=True),
}


@pytest.fixture(scope="module")
def examples():
    """(inputs, targets, weights of targets): the third example is a conversation of two turns."""
    draw = np.random.default_rng(5)
    sides = [
        [draw.integers(3, 64, draw.integers(2, longest + 1)).tolist() for _ in range(8)]
        for longest in (6, 5)
    ]
    weights = [None] * 8
    sides[1][2], weights[2] = [9, 8, 7, 6, 5], [1, 1, 0, 0, 1]
    return *sides, weights


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return make_model(CONFIGS[request.param])


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(0))


@pytest.fixture(scope="module", params=["token", "example"])
def losses(request, model):
    loss_fn = make_loss_fn(model, LossConfig(weighting=request.param), (0, 0, 1))
    return jax.jit(jax.value_and_grad(loss_fn, has_aux=True))


def rows_of(model, examples, method):
    """The examples as the feed packs them, rows of 12 and 10, or of 22."""
    inputs, targets, weights = examples
    layout = batch.LAYOUTS[model.config.layout]
    if layout is batch.DECODER_ONLY:
        inputs = [[0, *ids] for ids in inputs]
    tasks = [1 + number % 3 for number in range(8)]
    packed = pack(inputs, targets, tasks, 12, 10, method, layout, target_weights=weights)
    layout.check(packed.rows)
    return packed.rows


def test_packed_equals_unpacked(model, losses, params, examples):
    packed, apart = (rows_of(model, examples, method) for method in ("best_fit", "none"))
    assert len(packed["decoder_positions"]) < 5 < 8 == len(apart["decoder_positions"])
    assert_same_float32(losses(params, packed), losses(params, apart))


def assert_noticed(losses, params, wrong, right):
    found, expected = losses(params, wrong), losses(params, right)
    with pytest.raises(AssertionError):
        assert_same_float32(found, expected)
    assert abs(float(found[0][0]) / float(expected[0][0]) - 1) > 1e-4


def test_examples_that_see_each_other_would_be_noticed(model, losses, params, examples):
    """Negative control: with one segment id for all examples loss and gradients differ."""
    packed = rows_of(model, examples, "best_fit")
    segments = {key: np.minimum(packed[key], 1) for key in packed if key.endswith("segment_ids")}
    assert_noticed(losses, params, packed | segments, packed)


def test_the_loss_is_that_of_the_answers(model, params, examples):
    """Log-likelihoods of the answers' tokens, each example alone; wrong masks give other losses."""
    packed = rows_of(model, examples, "best_fit")
    loss_fn = jax.jit(make_loss_fn(model, LossConfig(z_loss=0.0), (0, 0, 1)))
    loss = float(loss_fn(params, packed)[0])
    logits = jax.jit(model.apply)(params, rows_of(model, examples, "none"))
    log_probs, expected = np.asarray(jax.nn.log_softmax(logits)), []
    for row, (inputs, targets, weights) in enumerate(zip(*examples)):
        if model.config.layout == "encoder_decoder":
            first, weights = 0, None
        else:
            first = len(inputs)  # after the start and the inputs but the last
        for at, (token, weight) in enumerate(zip(targets, weights or [1] * len(targets))):
            expected += [-log_probs[row, first + at, token]] if weight else []
    assert loss == pytest.approx(np.sum(expected), rel=1e-5)
    weights = packed["decoder_loss_weights"]
    one_early = np.roll(weights, -1, axis=1)
    without_last = weights * np.roll(weights, -1, axis=1)
    everywhere = (packed["decoder_segment_ids"] > 0).astype(np.int32)
    for wrong in (one_early, without_last, everywhere):
        if (wrong == weights).all():
            continue  # all tokens are targets of an encoder-decoder
        other = float(loss_fn(params, packed | {"decoder_loss_weights": jnp.asarray(wrong)})[0])
        assert abs(other / loss - 1) > 1e-4
