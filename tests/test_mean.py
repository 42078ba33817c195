"""Sums until the end, one division."""

import jax
import jax.numpy as jnp
import numpy as np

from instruct.mean import Mean


def mean(values):
    values = jnp.asarray(values, jnp.float32)
    return Mean(values.sum(), jnp.float32(values.size))


def test_unequal_parts_give_the_mean_of_the_whole():
    parts = mean([1.0, 2.0, 3.0]).add(mean([10.0]))
    np.testing.assert_allclose(parts.value, 4.0)
    mean_of_means = (mean([1.0, 2.0, 3.0]).value + mean([10.0]).value) / 2
    assert float(mean_of_means) != 4.0


def test_nothing_contributed_is_zero_also_in_the_gradient():
    empty = Mean(jnp.float32(0.0), jnp.float32(0.0))
    assert float(empty.value) == 0.0
    gradient = jax.grad(lambda total: Mean(total, jnp.float32(0.0)).value)(1.0)
    assert np.isfinite(gradient)


def test_arrays_of_means_and_pytree():
    groups = Mean(jnp.asarray([2.0, 0.0]), jnp.asarray([4.0, 0.0]))
    np.testing.assert_allclose(groups.value, [0.5, 0.0])
    doubled = jax.tree.map(lambda leaf: 2 * leaf, groups)
    assert isinstance(doubled, Mean)
    np.testing.assert_allclose(doubled.value, groups.value)
