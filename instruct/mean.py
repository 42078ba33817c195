"""`Mean(total, weight)`: weighted means of losses and metrics.

A mean stays a pair of sums over tokens, rows, microbatches, devices and hosts until it is reported:
dividing earlier would weight parts with different numbers of tokens wrongly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mean(NamedTuple):
    """A weighted sum and its weight, float32 scalars (or equally shaped arrays); a pytree."""

    total: jax.Array
    weight: jax.Array

    def add(self, other: "Mean") -> "Mean":
        """The mean over both parts."""
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> jax.Array:
        """total / weight; 0 where the weight is 0."""
        weight = jnp.asarray(self.weight)
        return jnp.where(weight > 0, self.total / jnp.where(weight > 0, weight, 1), 0.0)
