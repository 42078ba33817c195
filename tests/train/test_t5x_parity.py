"""Five updates from T5X's own initial parameters give T5X's own losses and parameters."""

import dataclasses

import jax
import numpy as np
import pytest

from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import stack_layers, unstack_layers
from instruct.train.loss import LossConfig, make_loss_fn
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import init_state, make_train_step
from tests.float32 import EPSILON, assert_same_float32, near_ties

pytestmark = pytest.mark.slow


def test_five_adafactor_steps(t5x):
    # Stacked layers: the harder case for the optimiser, which T5X ran one layer at a time.
    model = EncoderDecoder(dataclasses.replace(t5x["config"], scan_layers=True))
    loss = LossConfig(z_loss=1e-4, loss_normalizing_factor=1.0)
    loss_fn = make_loss_fn(model, loss)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2))
    step = jax.jit(make_train_step(loss_fn, optimizer, 1, 0, loss.loss_normalizing_factor))
    initial = stack_layers(t5x["initial"])
    state = init_state(jax.tree.map(jax.numpy.asarray, initial), optimizer)
    apply = jax.jit(model.apply)
    # An update divides gradients by their size, so an element that is nothing but roundings moves
    # its parameter like any other: what differs grows with every step.
    tolerances = np.geomspace(1e-5, 1e-4, 5)
    for batch, expected, rtol in zip(t5x["batches"], t5x["metrics"], tolerances):
        counted = batch["decoder_loss_weights"] > 0
        ties = near_ties(apply(state.params, batch)[counted], rtol / EPSILON)
        assert ties <= 0.05 * counted.sum()
        state, metrics = step(state, batch)
        found = metrics.losses
        np.testing.assert_allclose(found.loss.total, expected["loss"], rtol=rtol)
        np.testing.assert_allclose(found.z_loss.total, expected["z_loss"], rtol=rtol)
        correct = expected["accuracy"] * counted.sum()
        np.testing.assert_allclose(found.accuracy.total, correct, rtol=1e-5, atol=ties)
        mean = expected["loss_per_nonpadding_target_token"]
        np.testing.assert_allclose(found.loss.value, mean, rtol=rtol)
    logits = apply(state.params, t5x["batches"][0])
    # Padding sees nothing here and other padding in T5X; no loss hangs on it.
    real = t5x["batches"][0]["decoder_segment_ids"] > 0
    assert_same_float32(logits[real], t5x["logits"][real], 2e-3 / EPSILON)
    assert_same_float32(unstack_layers(state.params), t5x["final"], 1e-2 / EPSILON)
    assert int(state.step) == 5
