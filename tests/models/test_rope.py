import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.models.rope import frequencies, rotate, rotation
from instruct.models.stack_config import RopeScaling
from tests.float32 import assert_same_float32


def test_products_depend_on_distance_only():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    by_token = frequencies(8, 100.0, None)

    def product(first, second):
        turned = [
            rotate(x, rotation(jnp.array([[at]]), by_token))
            for x, at in ((query, first), (key, second))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-5)
    assert abs(product(7, 3) - product(7, 4)) > 1e-3
    assert_same_float32(rotate(query, rotation(jnp.array([[0]]), by_token)), query)


def test_planes_are_channels_of_both_halves():
    x = jnp.arange(1.0, 5.0).reshape(1, 1, 1, 4)
    quarter = rotation(jnp.array([[1]]), np.array([np.pi / 2, 0], np.float32))
    assert_same_float32(rotate(x, quarter)[0, 0, 0], np.array([-3.0, 2.0, 1.0, 4.0]))


def test_frequencies_and_their_stretching():
    plain = frequencies(4, 100.0, None)
    np.testing.assert_allclose(plain, [1.0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(frequencies(4, 100.0, RopeScaling("linear", 8.0)), plain / 8)
    # 1,000 tokens are 159 turns of the first and 15.9 of the second channel.
    scaling = RopeScaling("llama3", 8.0, 10.0, 20.0, 1000)
    share = (1000 * 0.1 / (2 * np.pi) - 10) / 10
    expected = [1.0, 0.1 * (share + (1 - share) / 8)]
    np.testing.assert_allclose(frequencies(4, 100.0, scaling), expected, rtol=1e-5)
