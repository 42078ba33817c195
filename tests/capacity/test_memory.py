"""Bytes of a compiled program, and of one that its compiler refuses."""

import jax
import jax.numpy as jnp
import pytest

from instruct.capacity.memory import largest_rows, memory_bytes, refused_bytes


def test_a_donated_argument_is_counted_once():
    x = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    doubled = jax.jit(lambda x: x * 2, donate_argnums=0).lower(x).compile()
    memory = memory_bytes(doubled)
    assert memory["arguments"] == 256 * 256 * 4 and memory["outputs"] == 0
    assert memory["total"] == sum(memory.values()) - memory["total"]


def test_the_tpu_compilers_refusal():
    text = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm."
    assert refused_bytes(ValueError(text)) == (20.5 * 2**30, 15.75 * 2**30)
    assert refused_bytes(ValueError("INTERNAL: something else")) is None


def test_rows_that_fit():
    memory = {"temporaries": 100, "total": 150}
    assert largest_rows(memory, 4, 550) == 20  # 500 left, 25 a row
    assert largest_rows(memory, 4, 40) == 0
    assert largest_rows(memory, 0.5, 250) == pytest.approx(1)
