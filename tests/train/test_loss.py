"""The loss against formulas written out, chunked against whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.mesh import MeshConfig, make_mesh
from instruct.train.loss import (
    LossConfig,
    cross_entropy,
    example_weights,
    head_cross_entropy,
    make_loss_fn,
)
from tests.float32 import assert_same_float32

ROWS, LENGTH, WIDTH, VOCAB = 4, 6, 5, 12


@pytest.fixture(scope="module")
def arrays():
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        "hidden": jax.random.normal(keys[0], (ROWS, LENGTH, WIDTH)),
        "kernel": jax.random.normal(keys[1], (WIDTH, VOCAB)),
        "targets": jax.random.randint(keys[2], (ROWS, LENGTH), 0, VOCAB),
        "weights": jax.random.uniform(keys[3], (ROWS, LENGTH)) * (np.arange(LENGTH) < 4),
    }


def by_hand(hidden, kernel, targets, weights, config, final_cap=None):
    """Sum of weights * (cross-entropy against soft targets - their entropy + z log(Z)^2)."""
    logits = hidden.astype(jnp.float32) @ kernel
    if final_cap is not None:
        logits = final_cap * jnp.tanh(logits / final_cap)
    log_probabilities = jax.nn.log_softmax(logits)
    smoothing = config.label_smoothing
    soft = jax.nn.one_hot(targets, VOCAB) * (1 - smoothing)
    soft += (1 - jax.nn.one_hot(targets, VOCAB)) * smoothing / (VOCAB - 1)
    entropy = -jnp.sum(jax.scipy.special.xlogy(soft, soft), -1)
    losses = -jnp.sum(soft * log_probabilities, -1) - entropy
    losses += config.z_loss * jax.nn.logsumexp(logits, -1) ** 2
    return jnp.sum(losses * weights)


@pytest.mark.slow
@pytest.mark.parametrize(("smoothing", "final_cap"), [(0.0, None), (0.1, None), (0.1, 0.5)])
@pytest.mark.parametrize("chunk_logits", [2**24, 2 * ROWS * VOCAB])
def test_loss_and_gradient_equal_the_formula(arrays, smoothing, final_cap, chunk_logits):
    config = LossConfig(z_loss=0.01, label_smoothing=smoothing, chunk_logits=chunk_logits)

    def ours(hidden, kernel):
        inputs = (hidden, kernel, arrays["targets"], arrays["weights"], config, final_cap)
        return 3.0 * head_cross_entropy(*inputs)[0]

    def theirs(hidden, kernel):
        return 3.0 * by_hand(
            hidden, kernel, arrays["targets"], arrays["weights"], config, final_cap
        )

    at = (arrays["hidden"], arrays["kernel"])
    found = jax.jit(jax.value_and_grad(ours, argnums=(0, 1)))(*at)
    expected = jax.jit(jax.value_and_grad(theirs, argnums=(0, 1)))(*at)
    assert_same_float32(found, expected)


def test_the_whole_logits_are_never_there(arrays):
    config = LossConfig(chunk_logits=ROWS * VOCAB)

    def loss(hidden, kernel):
        return head_cross_entropy(hidden, kernel, arrays["targets"], arrays["weights"], config)[0]

    program = jax.jit(jax.grad(loss, argnums=(0, 1)))
    text = program.lower(arrays["hidden"], arrays["kernel"]).as_text()
    assert f"{ROWS}x{LENGTH}x{VOCAB}x" not in text
    assert f"1x{ROWS}x1x{VOCAB}x" in text


def test_mesh_changes_neither_loss_nor_gradient(arrays):
    config = LossConfig(chunk_logits=VOCAB)

    def loss(hidden, kernel):
        return head_cross_entropy(hidden, kernel, arrays["targets"], arrays["weights"], config)[0]

    run = jax.value_and_grad(loss, argnums=(0, 1))
    alone = jax.jit(run)(arrays["hidden"], arrays["kernel"])
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        split = jax.jit(run)(arrays["hidden"], arrays["kernel"])
    assert_same_float32(split, alone)


@pytest.mark.slow
def test_token_losses_and_ties():
    logits = jnp.asarray([[0.0, 2.0, -1.0], [1.0, 1.0, 0.0]])
    tokens, gradient = cross_entropy(logits, jnp.asarray([1, 0]), z_loss=0.5)
    log_z = np.log(np.exp(np.asarray(logits)).sum(-1))
    assert_same_float32(tokens.z_loss, 0.5 * log_z**2)
    assert_same_float32(tokens.loss, log_z - [2.0, 1.0] + 0.5 * log_z**2)
    np.testing.assert_array_equal(tokens.correct, [1.0, 1.0])
    assert gradient.shape == (2, 3)


def test_large_logits_stay_finite():
    tokens, gradient = cross_entropy(jnp.asarray([[1e4, -1e4]]), jnp.asarray([0]))
    assert np.isfinite(tokens.loss).all() and np.isfinite(gradient).all()


def test_example_weights_add_up_to_one_each():
    weights = jnp.asarray([[1.0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0]])
    segments = jnp.asarray([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 0, 0]])
    found = example_weights(weights, segments)
    third = 1 / 3
    expected = [[0.5, 0.5, third, third, third, 0], [0, 0, 0.5, 0.5, 0, 0]]
    assert_same_float32(found, np.array(expected))
    assert_same_float32(example_weights(weights, None).sum(1), np.ones(2))


class HeadOnly:
    """What a loss uses of a `Model`: its parameters are its hidden states and its kernel."""

    final_cap = None

    def decoder_hidden(self, params, batch, dropout_key=None):
        return params["hidden"]

    def head_kernel(self, params):
        return params["kernel"]


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["token", "example"])
def test_groups_add_up_to_the_whole(arrays, weighting):
    config = LossConfig(weighting=weighting)
    loss_fn = make_loss_fn(HeadOnly(), config, leaf_groups=[1, 0, 1])
    segments = np.tile([1, 1, 2, 2, 0, 0], (ROWS, 1))
    batch = {
        "decoder_target_tokens": arrays["targets"],
        "decoder_loss_weights": (segments > 0).astype(np.int32),
        "decoder_segment_ids": segments,
        "decoder_task_ids": np.tile([1, 1, 2, 2, 0, 0], (ROWS, 1)),
    }
    loss_sum, totals = loss_fn(arrays, batch)
    assert_same_float32(totals.groups.total.sum(), totals.loss.total)
    each = 2.0 * ROWS if weighting == "token" else 1.0 * ROWS
    assert_same_float32(totals.groups.weight, np.array([each, each]))
    assert_same_float32(loss_sum, totals.loss.total)
    twice = totals.add(totals)
    assert_same_float32(twice.loss.value, totals.loss.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weighting": "tokens"},
        {"z_loss": -1.0},
        {"z_loss": "1e-4"},
        {"label_smoothing": 1.0},
        {"loss_normalizing_factor": 0},
        {"chunk_logits": 0},
    ],
)
def test_bad_values_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        dataclasses.replace(LossConfig(), **wrong)
