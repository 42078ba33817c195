import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from instruct.models import layers
from instruct.models.decoder_config import DecoderConfig
from instruct.models.layers import (
    MLP,
    Norm,
    RelativePositionBias,
    apply_kept,
    draw_kept,
    relative_position_bucket,
)
from tests.float32 import assert_same_float32
from tests.models.test_config import TINY


@pytest.mark.parametrize(
    ("bidirectional", "expected"),
    [(True, [15, 8, 1, 0, 17, 24, 31]), (False, [31, 9, 1, 0, 0, 0, 0])],
)
def test_buckets_of_the_docstring(bidirectional, expected):
    distance = jnp.array([-200, -9, -1, 0, 1, 9, 200])
    found = relative_position_bucket(distance, bidirectional, 32, 128)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("bidirectional", [True, False])
def test_skewed_bias_equals_a_lookup_of_every_pair(bidirectional):
    bias = RelativePositionBias(TINY, bidirectional=bidirectional, rngs=nnx.Rngs(0))
    order = np.arange(9)
    direct = bias.of_distance(jnp.asarray(order[None, :] - order[:, None]))
    np.testing.assert_array_equal(bias(9)[0], direct)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_both_forms_of_a_skew_place_every_distance_and_sum_its_gradients(monkeypatch, platform):
    monkeypatch.setattr(layers, "platform", lambda: platform)
    values = np.arange(20, dtype=np.float32).reshape(2, 10)  # T = 5
    distance = np.arange(5)[None, :] - np.arange(5)[:, None]
    weights = np.arange(50, dtype=np.float32).reshape(2, 5, 5)
    skewed, gradient = jax.jit(
        lambda values: (
            layers.skew(values),
            jax.grad(lambda v: (layers.skew(v) * weights).sum())(values),
        )
    )(values)
    np.testing.assert_array_equal(skewed, values[:, distance])
    expected = np.zeros_like(values)
    np.add.at(expected, (slice(None), distance), weights)
    np.testing.assert_array_equal(gradient, expected)


def test_rms_norm_takes_statistics_in_float32():
    norm = Norm(TINY, "bfloat16")
    x = jax.random.normal(jax.random.key(0), (3, TINY.d_model)) * 300
    found = norm(x.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float32)
    expected = wide / np.sqrt(np.mean(wide**2, -1, keepdims=True) + TINY.norm_epsilon)
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rms", np.array([3.0, 4.0]) / 12.5**0.5 * 2),
        ("rms_plus_one", np.array([3.0, 4.0]) / 12.5**0.5 * 3),
        ("layer", np.array([-1.0, 1.0]) * 2 + 5),
    ],
)
def test_norms_of_3_and_4_with_weight_2(kind, expected):
    sizes = dict.fromkeys(("vocab_size", "num_layers", "num_heads", "num_kv_heads", "d_ff"), 1)
    kinds = {"norm": kind, "norm_bias": kind == "layer", "norm_epsilon": 1e-9}
    norm = Norm(DecoderConfig(d_model=2, head_dim=2, **sizes, **kinds), "float32")
    first = norm(jnp.array([3.0, 4.0]))
    norm.scale.set_value(jnp.full(2, 2.0))
    if kind == "layer":
        norm.bias.set_value(jnp.full(2, 5.0))
    assert_same_float32(norm(jnp.array([3.0, 4.0])), expected)
    assert float(jnp.abs(first).max()) < 1.2  # fresh norms scale by 1


def test_dropout_keeps_the_expected_share_and_scale():
    shapes = [(64, 1, 500), (64, 4, 1, 200)]
    for kept, shape in zip(draw_kept(jax.random.key(0), 0.25, shapes, "float32"), shapes):
        assert kept is not None and kept.shape == shape
        assert_same_float32(np.unique(kept), np.array([0, 1 / 0.75]))
        assert np.mean(kept == 0) == pytest.approx(0.25, abs=0.01)


def test_dropout_factors_are_shared_over_axes_of_length_one():
    (kept,) = draw_kept(jax.random.key(0), 0.5, [(2, 1, 8)], "float32")
    dropped = np.asarray(apply_kept(jnp.ones((2, 5, 8)), kept))
    assert (dropped == dropped[:, :1]).all() and (dropped == 0).any() and (dropped != 0).any()


def test_no_dropout_without_a_key_or_at_rate_zero():
    assert draw_kept(None, 0.5, [(2, 3)], "float32") == [None]
    assert draw_kept(jax.random.key(0), 0.0, [(2, 3), (2, 4)], "float32") == [None, None]
    x = jnp.ones((2, 3))
    assert apply_kept(x, None) is x


@pytest.mark.parametrize("activations", ["gated-gelu", "gated-silu", "relu"])
def test_mlp_by_its_formula(activations):
    config = dataclasses.replace(TINY, activations=activations)
    mlp = MLP(config, dtype="float32", rngs=nnx.Rngs(params=jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (3, config.d_model))
    if activations == "relu":
        hidden = jnp.maximum(mlp.wi(x), 0)
    else:
        gate = mlp.wi_0(x)
        inner = np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)
        gelu, silu = 0.5 * gate * (1 + jnp.tanh(inner)), gate / (1 + jnp.exp(-gate))
        hidden = (gelu if activations == "gated-gelu" else silu) * mlp.wi_1(x)
    assert_same_float32(mlp(x), mlp.wo(hidden))
