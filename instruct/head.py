"""The output head, shared by models and losses: logits of hidden states, and the soft cap."""

import jax
import jax.numpy as jnp

from instruct.quantized import Int8Kernel, int8_product


def soft_cap(logits: jax.Array, cap: float | None) -> jax.Array:
    """cap * tanh(logits / cap), between -cap and cap (Gemma 2); None: the logits."""
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def head_logits(hidden: jax.Array, kernel: jax.Array | Int8Kernel, cap: float | None) -> jax.Array:
    """float32 logits [..., V] of hidden [..., D] in any type and kernel [D, V] float32 or int8."""
    if isinstance(kernel, Int8Kernel):
        return soft_cap(int8_product(hidden, kernel), cap)
    return soft_cap(hidden.astype(jnp.float32) @ kernel, cap)
