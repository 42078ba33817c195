import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.mesh import MeshConfig, make_mesh
from instruct.models import attention
from instruct.models.attention import KeyValue, attend, masked_softmax
from instruct.models.masks import MASKED_LOGIT, SegmentMask, prefix_mask
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


def test_dropout_of_probabilities_scales_values(inputs):
    """Each key's factor, in every implementation."""
    query, memory, bias, mask = inputs
    kept = jnp.array([0.0, 1.25] * 3 + [1.25]) * jnp.ones((2, 3, 1, 1))
    logits = jnp.where(mask, query @ memory.key.swapaxes(-1, -2) + bias, MASKED_LOGIT)
    expected = (masked_softmax(logits) * kept) @ memory.value
    for implementation in ("einsum", "xla"):
        found = attend(query, memory, bias, mask, kept, implementation=implementation)
        assert_same_float32(found, expected)


def test_flash_resolves_by_the_platform_of_the_mesh(monkeypatch):
    assert attention.platform_implementation("flash") == "einsum"
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=4))):
        assert jax.jit(lambda: attention.platform() == "cpu")()
    for platform, implementation in (("gpu", "cudnn"), ("tpu", "flash")):
        monkeypatch.setattr(attention, "platform", lambda platform=platform: platform)
        assert attention.platform_implementation("flash") == implementation
        assert attention.platform_implementation("einsum") == "einsum"


def test_cudnn_is_refused_where_it_cannot_run(inputs):
    with pytest.raises(UserError, match="needs a GPU.*'cpu'.*'float32'"):
        attend(*inputs, implementation="cudnn")


def test_cudnn_is_refused_if_its_bias_gradient_is_wrong(monkeypatch):
    right = attention._dot_product_attention
    monkeypatch.setattr(attention, "platform", lambda: "gpu")

    def without_gradient(query, key, value, bias, mask, implementation):
        return right(query, key, value, jax.lax.stop_gradient(bias), mask, "xla")

    def by_xla(query, key, value, bias, mask, implementation):
        return right(query, key, value, bias, mask, "xla")

    for implementation, wrong in ((without_gradient, True), (by_xla, False)):
        attention.bias_gradient_error.cache_clear()
        monkeypatch.setattr(attention, "_dot_product_attention", implementation)
        # While a program is traced under a mesh, as in a training step.
        with jax.set_mesh(make_mesh(MeshConfig(data=8))):
            check = jax.jit(lambda: attention._check_cudnn(jnp.dtype("bfloat16"), biased=True))
            if wrong:
                with pytest.raises(UserError, match="wrong gradient.*relative error 1.*einsum"):
                    check()
            else:
                check()
    attention.bias_gradient_error.cache_clear()


def test_flash_refuses_a_mesh_that_shards_the_length(inputs):
    query, memory, _, _ = inputs
    axes = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("sequence",), axis_types=axes)
    refused = pytest.raises(UserError, match="sequence = 8.*sequence = 1.*einsum")
    with jax.set_mesh(mesh), refused:
        mask = SegmentMask(None, jnp.ones((1, 7), jnp.int32))
        attend(query, memory, None, mask, implementation="flash")


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("prefix", [None, 4])
def test_blocks_of_queries_attend_as_the_whole_row(monkeypatch, prefix, window):
    """Two packed rows of 11 tokens in blocks of 4, the last of 3; 4 heads share 2 of keys."""
    monkeypatch.setattr(attention, "_SMALLEST_BLOCK", 4)
    draw = functools.partial(np.random.default_rng(0).normal, size=(2, 2, 11, 8))
    query = jnp.array(np.concatenate([draw(), draw()], axis=1), jnp.float32)
    memory = KeyValue(*(jnp.array(draw(), jnp.float32) for _ in range(2)))
    segments = jnp.array([[1] * 5 + [2] * 6, [1] * 9 + [0] * 2], jnp.int32)
    in_prefix = None if prefix is None else jnp.broadcast_to(jnp.arange(11) < prefix, (2, 11))
    mask = prefix_mask(segments, in_prefix, window)
    assert_same_float32(
        attend(query, memory, None, mask), attend(query, memory, None, mask.dense())
    )
