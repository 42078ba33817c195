"""One layer of each stack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from instruct.models.blocks import EncoderLayer
from tests.models.test_config import TINY

pytestmark = pytest.mark.slow


def test_a_layer_whose_outputs_are_zero_passes_its_input_on():
    layer = EncoderLayer(TINY, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 5, TINY.d_model))
    bias = jnp.zeros((1, TINY.num_heads, 5, 5))
    mask = jnp.ones((2, 1, 5, 5), bool)
    changed = layer(x, bias, mask, None)
    assert changed.shape == x.shape and float(jnp.abs(changed - x).max()) > 1e-2
    for part in (layer.attention.out, layer.mlp.wo):
        part.kernel[...] = jnp.zeros_like(part.kernel[...])
    np.testing.assert_array_equal(layer(x, bias, mask, None), x)
