"""Five updates from T5X's own initial parameters give T5X's own losses and parameters."""

import dataclasses

import jax
import numpy as np

from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import stack_layers, unstack_layers
from instruct.train.loss import LossConfig, make_loss_fn
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.state import init_state
from instruct.train.step import make_train_step
from tests.train.conftest import assert_trees_close


def test_five_adafactor_steps(t5x):
    # Stacked layers: the harder case for the optimiser, which T5X ran one layer at a time.
    model = EncoderDecoder(dataclasses.replace(t5x["config"], scan_layers=True))
    loss = LossConfig(z_loss=1e-4, loss_normalizing_factor=1.0)
    loss_fn = make_loss_fn(model.decoder_hidden, model.head_kernel, loss)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2))
    step = jax.jit(make_train_step(loss_fn, optimizer, 1, 0, loss.loss_normalizing_factor))
    initial = stack_layers(t5x["initial"])
    state = init_state(jax.tree.map(jax.numpy.asarray, initial), optimizer)
    tolerances = np.geomspace(1e-5, 1e-4, 5)
    for batch, expected, rtol in zip(t5x["batches"], t5x["metrics"], tolerances):
        state, metrics = step(state, batch)
        found = metrics.losses
        np.testing.assert_allclose(found.loss.total, expected["loss"], rtol=rtol)
        np.testing.assert_allclose(found.z_loss.total, expected["z_loss"], rtol=rtol)
        np.testing.assert_allclose(found.accuracy.value, expected["accuracy"], atol=1e-6)
        mean = expected["loss_per_nonpadding_target_token"]
        np.testing.assert_allclose(found.loss.value, mean, rtol=rtol)
    logits = model.apply(state.params, t5x["batches"][0])
    # Padding sees nothing here and other padding in T5X; no loss hangs on it.
    real = t5x["batches"][0]["decoder_segment_ids"] > 0
    np.testing.assert_allclose(logits[real], t5x["logits"][real], atol=1e-3, rtol=1e-3)
    assert_trees_close(unstack_layers(state.params), t5x["final"], rtol=1e-2, atol=1e-3)
    assert int(state.step) == 5
