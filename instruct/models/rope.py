"""Rotary position embedding: queries and keys turn by angles that grow with their position.

Channel i of the first half of a head and channel i of the second are a plane, as in Llama and
Gemma; their dot product then depends on the distance of positions only. B rows, T tokens, N heads,
H head dim.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from instruct.models.stack_config import RopeScaling


class Rotation(NamedTuple):
    """Cosines and sines [B, 1, T, H / 2] float32 of positions; B and T may be 1."""

    cos: jax.Array
    sin: jax.Array


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> np.ndarray:
    """[H / 2] float32 radians a token: theta^(-2 i / H), stretched by `scaling`."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    plain = np.float32(1.0) / np.float32(theta) ** exponents
    if scaling is None:
        return plain
    stretched = plain / np.float32(scaling.factor)
    if scaling.kind == "linear":
        return stretched
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    # Share of the plain frequency: 0 for wavelengths above length / low, 1 below length / high.
    turns = scaling.original_length * plain / (2 * math.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    return ((1 - share) * stretched + share * plain).astype(np.float32)


def rotation(positions: jax.Array, by_token: np.ndarray) -> Rotation:
    """The rotation of positions [B, T] by `frequencies`."""
    angles = positions[:, None, :, None].astype(jnp.float32) * by_token
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: jax.Array, by: Rotation | None) -> jax.Array:
    """x [B, N, T, H] float32 rotated; None: x."""
    if by is None:
        return x
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate(
        [first * by.cos - second * by.sin, second * by.cos + first * by.sin], axis=-1
    )
