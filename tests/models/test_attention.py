import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.models.attention import MASKED_LOGIT, KeyValue, attend, masked_softmax
from tests.float32 import assert_same_float32

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(0), 5)
    query = jax.random.normal(keys[0], (2, 3, 5, 4))
    memory = KeyValue(*(jax.random.normal(k, (2, 3, 7, 4)) for k in keys[1:3]))
    bias = jax.random.normal(keys[3], (1, 3, 5, 7))
    mask = jax.random.bernoulli(keys[4], 0.6, (2, 1, 5, 7))
    # One query that may see nothing.
    return query, memory, bias, mask.at[0, 0, 2].set(False)


def by_hand(query, memory, bias, mask):
    out = np.zeros(query.shape)
    for b, n, t in np.ndindex(*query.shape[:3]):
        seen = np.flatnonzero(mask[b, 0, t])
        if seen.size:
            logits = np.asarray(memory.key)[b, n, seen] @ query[b, n, t] + bias[0, n, t, seen]
            weights = np.exp(logits - logits.max())
            out[b, n, t] = weights / weights.sum() @ np.asarray(memory.value)[b, n, seen]
    return out


@pytest.mark.parametrize("implementation", ["einsum", "xla"])
def test_attention_is_what_the_formula_says(inputs, implementation):
    found = attend(*inputs, implementation=implementation)
    assert_same_float32(found, by_hand(*map_numpy(inputs)))
    assert not found[0, :, 2].any()


def map_numpy(inputs):
    query, memory, bias, mask = inputs
    return np.asarray(query), memory, np.asarray(bias), np.asarray(mask)


def test_float32_logits_in_bfloat16_are_closer_to_the_truth(inputs):
    query, memory, bias, mask = inputs
    narrow = jax.tree.map(lambda a: (4 * a).astype(jnp.bfloat16), (query, memory))
    truth = attend(*jax.tree.map(lambda a: a.astype(jnp.float32), narrow), bias, mask)
    errors = []
    for float32_logits in (False, True):
        found = attend(*narrow, bias, mask, float32_logits=float32_logits)
        assert found.dtype == jnp.bfloat16
        errors.append(float(jnp.abs(found - truth).mean()))
    assert errors[1] < errors[0]


def test_gradient_of_the_softmax_and_of_an_empty_row():
    logits = jax.random.normal(jax.random.key(0), (3, 6)).at[1].set(MASKED_LOGIT)
    toward = jnp.arange(6.0)
    ours = jax.grad(lambda x: (masked_softmax(x) * toward).sum())(logits)
    theirs = jax.grad(lambda x: (jax.nn.softmax(x) * toward).sum())(logits)
    assert_same_float32(ours[::2], theirs[::2])
    assert not ours[1].any()
