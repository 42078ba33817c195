"""The kernel in Pallas's interpreter, against einsum; on a TPU it runs compiled."""

import dataclasses
import functools
import importlib.util
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.mesh import MeshConfig, make_mesh
from instruct.models import attention, flash
from instruct.models.attention import KeyValue, attend
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.masks import SegmentMask
from tests.models.test_config import TINY

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def blocks_of_128(monkeypatch):
    """Several blocks at short lengths."""
    monkeypatch.setattr(flash, "BLOCKS", (128,))


class Case(NamedTuple):
    """Shapes of an attention: B rows, N heads, T queries, S keys, H head dim."""

    queries: int
    keys: int
    head_dim: int
    biased: bool
    causal: bool = False
    rows: int = 2
    heads: int = 2


# Encoder, decoder and cross-attention; several blocks, and lengths that are no multiple of one.
CASES = {
    "encoder": Case(300, 300, 64, biased=True),
    "decoder": Case(200, 200, 128, biased=True, causal=True),
    "cross": Case(130, 300, 64, biased=False),
}


def segments(rows, length, skipped, seed):
    """[rows, length]: segments 1 to 4 but those `skipped`, then padding."""
    ids = np.zeros((rows, length), np.int32)
    draw = np.random.default_rng(seed)
    present = [i for i in (1, 2, 3, 4) if i not in skipped]
    for row in range(rows):
        cuts = np.sort(draw.choice(np.arange(1, length - 1), len(present) - 1, replace=False))
        for segment, start, end in zip(present, [0, *cuts], [*cuts, length - 1], strict=True):
            ids[row, start:end] = segment
    return jnp.asarray(ids)


def arrays_of(case):
    """Query, key, value, bias by distance, factors of dropout, and a mask."""
    keys = jax.random.split(jax.random.key(0), 5)
    shape = (case.rows, case.heads)
    query = 0.3 * jax.random.normal(keys[0], (*shape, case.queries, case.head_dim))
    key, value = jax.random.normal(keys[1], (2, *shape, case.keys, case.head_dim))
    reach = flash.padded_length(case.keys)
    bias = jax.random.normal(keys[2], (case.heads, 2 * reach)) if case.biased else None
    kept = jax.random.bernoulli(keys[3], 0.9, (*shape, 1, case.keys)) / 0.9
    # The target's segment 2 has no source: an example with an empty source.
    source = segments(case.rows, case.keys, [] if case.biased else [2], seed=1)
    target = source if case.biased else segments(case.rows, case.queries, [], seed=2)
    return (query, key, value, bias), kept, SegmentMask(target, source, case.causal)


def dense_bias(bias, queries, keys):
    """[N, 2P] by distance -> [1, N, T, S]."""
    if bias is None:
        return None
    distance = jnp.arange(keys) - jnp.arange(queries)[:, None]
    return bias[None, :, distance + bias.shape[1] // 2]


def by_flash(arrays, kept, mask):
    query, key, value, bias = arrays
    value = value * kept.swapaxes(-1, -2)
    return flash.flash_attention(query, key, value, bias, mask, interpret=True)


def by_einsum(arrays, kept, mask):
    query, key, value, bias = arrays
    bias = dense_bias(bias, query.shape[2], key.shape[2])
    return attend(query, KeyValue(key, value), bias, mask.dense(), kept)


@functools.lru_cache
def with_gradients(attention, causal):
    """(arrays, kept, segments) -> gradients of a weighted sum of the result, and the result."""

    def total(arrays, kept, segments):
        attended = attention(arrays, kept, SegmentMask(*segments, causal))
        weights = jnp.cos(jnp.arange(attended.size, dtype=jnp.float32)).reshape(attended.shape)
        return jnp.sum(attended * weights), attended

    return jax.jit(jax.grad(total, has_aux=True))


def difference(one, other):
    return jax.tree.reduce(max, jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one, other))


@pytest.mark.parametrize("name", CASES)
def test_forward_and_all_gradients_equal_einsums(name):
    arrays, kept, mask = arrays_of(CASES[name])
    segments = mask[:2]
    gradients, attended = with_gradients(by_flash, mask.causal)(arrays, kept, segments)
    reference = with_gradients(by_einsum, mask.causal)
    expected_gradients, expected = reference(arrays, kept, segments)
    assert difference(attended, expected) < 1e-5
    assert difference(gradients, expected_gradients) < 1e-4
    empty = ~jnp.any(mask.dense()[:, 0], axis=-1)
    assert empty.any() and not attended.swapaxes(1, 2)[empty].any()
    # One wrong segment id shows in all of them.
    wrong = (mask.queries, mask.keys.at[0, 0].set(3))
    wrong_gradients, wrong_attended = with_gradients(by_flash, mask.causal)(arrays, kept, wrong)
    assert difference(wrong_attended, expected) > 1e-2
    for one, other in zip(wrong_gradients, expected_gradients):
        assert one is None or difference(one, other) > 1e-2


def test_blocks_without_a_common_segment_are_skipped():
    ids = jnp.repeat(jnp.array([[1, 2, 2, 0]]), 128, axis=1)
    kernel = flash.Kernel(128, 128, causal=False, interpret=True)
    met = flash._meeting_blocks(kernel, ids, ids)[0]
    np.testing.assert_array_equal(met, [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    met = flash._meeting_blocks(kernel._replace(causal=True), ids, ids)[0]
    np.testing.assert_array_equal(met, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])


def test_block_sizes(monkeypatch):
    monkeypatch.undo()
    assert [flash.block_size(n, biased=True) for n in (5, 128, 250, 512, 640, 1000, 2048)] == [
        *(128, 128, 256, 512, 128, 512, 512)
    ]
    assert flash.block_size(4096, biased=True) == 256 < flash.block_size(4096, biased=False)
    assert flash.padded_length(1000) == 1024
    with pytest.raises(UserError, match="65536 tokens.*einsum"):
        flash.block_size(65536, biased=True)


@pytest.fixture
def on_tpu(monkeypatch):
    """`attention = 'flash'` as on a TPU, in the interpreter."""
    interpreted = functools.partial(flash.flash_attention, interpret=True)
    monkeypatch.setattr(attention, "flash_attention", interpreted)
    monkeypatch.setattr(attention, "platform", lambda: "tpu")


@pytest.fixture(scope="module")
def batch():
    draw = np.random.default_rng(0)
    source = np.array([[1] * 60 + [2] * 40 + [4] * 36 + [0] * 4] * 4)
    target = np.array([[1] * 20 + [2] * 10 + [3] * 5 + [4] * 3 + [0] * 2] * 4)
    return {
        "encoder_input_tokens": draw.integers(2, 300, source.shape) * (source > 0),
        "decoder_input_tokens": draw.integers(2, 300, target.shape) * (target > 0),
        "encoder_segment_ids": source,
        "decoder_segment_ids": target,
    }


def loss_and_gradients(config, params, batch):
    model = EncoderDecoder(config)

    def loss(params, batch):
        hidden = model.decoder_hidden(params, batch, jax.random.key(1))
        return jnp.sum(jnp.square(hidden) * jnp.cos(jnp.arange(hidden.shape[-1])))

    return jax.jit(jax.value_and_grad(loss))(params, batch)


def test_a_model_with_dropout_on_a_mesh(batch, on_tpu):
    config = dataclasses.replace(TINY, dropout_rate=0.2, scan_layers=True)
    params = jax.jit(EncoderDecoder(config).init)(jax.random.key(0))
    expected, expected_gradients = loss_and_gradients(config, params, batch)
    config = dataclasses.replace(config, attention="flash")
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        loss, gradients = loss_and_gradients(config, params, batch)
    # Terms of both signs cancel: their magnitudes add up to some 100 times the sum.
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    errors = jax.tree.map(
        lambda one, other: float(jnp.abs(one - other).max() / jnp.abs(other).max()),
        gradients,
        expected_gradients,
    )
    assert max(jax.tree.leaves(errors)) < 1e-4


COMPILE = """
import jax, jax.numpy as jnp
from jax.experimental import topologies
from instruct.models import flash, masks

def gradients(query, key, value, bias, segments):
    def total(*arrays):
        mask = masks.SegmentMask(segments, segments, causal=True)
        return flash.flash_attention(*arrays, mask).astype(jnp.float32).sum()
    return jax.grad(total, (0, 1, 2, 3))(query, key, value, bias)

for topology in ("v5p:2x2x1", "v6e:2x2"):
    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    place = jax.sharding.SingleDeviceSharding(device)
    array = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
    heads = array(1, 2, 600, 64)
    bias = array(2, 2 * flash.padded_length(600))
    program = jax.jit(gradients).lower(heads, heads, heads, bias, array(1, 600, dtype=jnp.int32))
    assert program.compile().as_text().count("tpu_custom_call") >= 2
"""


@pytest.mark.skipif(
    not (importlib.util.find_spec("libtpu") or "TPU_LIBRARY_PATH" in os.environ),
    reason="needs the wheel libtpu",
)
def test_the_kernels_compile_for_tpus():
    settings = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    subprocess.run([sys.executable, "-c", COMPILE], env=os.environ | settings, check=True)
