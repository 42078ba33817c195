"""Two examples in one row give the loss and gradients of two rows, and leaks would be noticed."""

import jax
import numpy as np
import pytest

from instruct.batch import check_batch
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.train.loss import LossConfig, make_loss_fn
from tests.float32 import assert_same_float32
from tests.train.batches import packed_batch, tiny_config

pytestmark = pytest.mark.slow

MODEL = EncoderDecoder(tiny_config(num_encoder_layers=1, num_decoder_layers=1))


def unpack(batch):
    """One row an example, in the packed rows' shapes."""
    rows = []
    for row in range(batch["encoder_segment_ids"].shape[0]):
        for segment in (1, 2):
            apart = {}
            for key, values in batch.items():
                side = key.split("_")[0]
                chosen = values[row][batch[f"{side}_segment_ids"][row] == segment]
                apart[key] = np.zeros(values.shape[1], np.int32)
                apart[key][: len(chosen)] = chosen
                if key.endswith("segment_ids"):
                    apart[key] = np.minimum(apart[key], 1)
            rows.append(apart)
    return {key: np.stack([row[key] for row in rows]) for key in batch}


@pytest.fixture(scope="module")
def packed():
    return packed_batch(5, rows=4)


@pytest.fixture(scope="module", params=["token", "example"])
def losses(request):
    config = LossConfig(weighting=request.param)
    loss_fn = make_loss_fn(MODEL, config, (0, 0, 1))
    return jax.jit(jax.value_and_grad(loss_fn, has_aux=True))


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


def test_packed_equals_unpacked(losses, params, packed):
    apart = unpack(packed)
    check_batch(apart)
    found, expected = losses(params, packed), losses(params, apart)
    assert_same_float32(found, expected)


def test_examples_that_see_each_other_would_be_noticed(losses, params, packed):
    """Negative control: with one segment id for both examples loss and gradients differ."""
    leaking = dict(packed)
    for key in ("encoder_segment_ids", "decoder_segment_ids"):
        leaking[key] = np.minimum(packed[key], 1)
    expected, found = losses(params, unpack(packed)), losses(params, leaking)
    with pytest.raises(AssertionError):
        assert_same_float32(found, expected)
    assert abs(float(found[0][0]) / float(expected[0][0]) - 1) > 1e-4
