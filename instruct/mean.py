"""`Mean(total, weight)`: the only way a loss or metric is reduced.

A mean stays a pair of sums until everything that contributes has been added: tokens, rows,
microbatches, devices, hosts. Dividing earlier weights the parts wrongly as soon as they hold
different numbers of tokens. `Mean.value` is the project's only division by a token count.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mean(NamedTuple):
    """A weighted sum and its weight, float32 scalars (or equally shaped arrays); a pytree."""

    total: jax.Array
    weight: jax.Array

    def add(self, other: "Mean") -> "Mean":
        """The mean over both parts, as if they had been one."""
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> jax.Array:
        """total / weight, and 0 where nothing contributed (weight 0)."""
        weight = jnp.asarray(self.weight)
        return jnp.where(weight > 0, self.total / jnp.where(weight > 0, weight, 1), 0.0)
