import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.head import head_logits, soft_cap


def test_logits_are_capped_products_in_float32():
    hidden = jnp.array([[1.0, 2.0]], jnp.bfloat16)
    kernel = jnp.array([[3.0, 0.0], [10.0, -100.0]])
    logits = head_logits(hidden, kernel, None)
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, [[23.0, -200.0]])
    np.testing.assert_allclose(
        head_logits(hidden, kernel, 30.0), 30 * np.tanh([[23 / 30, -200 / 30]]), rtol=1e-6
    )


def test_a_cap_keeps_small_logits_and_their_gradient():
    assert float(soft_cap(jnp.float32(0.01), 50.0)) == pytest.approx(0.01, rel=1e-6)
    assert float(jax.grad(soft_cap)(0.0, 50.0)) == 1.0
