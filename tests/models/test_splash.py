import functools
import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.models.attention import KeyValue, attend
from instruct.models.masks import SegmentMask, prefix_mask
from instruct.models.splash import splash_attention

pytestmark = pytest.mark.slow

# A packed row with padding, and a row of one example.
SEGMENTS = np.repeat([[1, 2, 0], [1, 1, 1]], [80, 40, 21], axis=1)


@pytest.mark.parametrize(("window", "cap", "kv_heads"), [(None, None, 1), (9, 2.0, 2)])
def test_forward_and_gradients_equal_einsums(window, cap, kv_heads):
    keys = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(keys[0], (2, 4, 141, 8))
    key, value = jax.random.normal(keys[1], (2, 2, kv_heads, 141, 8))
    mask = prefix_mask(jnp.asarray(SEGMENTS), None, window)

    def by_splash(query, key, value):
        return splash_attention(query, key, value, mask, cap, interpret=True)

    def by_einsum(query, key, value):
        return attend(query, KeyValue(key, value), None, mask.dense(), cap=cap)

    def total(attention, *arrays):
        attended = attention(*arrays)
        weights = jnp.cos(jnp.arange(attended.size, dtype=jnp.float32)).reshape(attended.shape)
        # Padding has no loss.
        return jnp.sum(attended * weights * (SEGMENTS != 0)[:, None, :, None]), attended

    found, expected = (
        jax.jit(jax.grad(functools.partial(total, attention), (0, 1, 2), has_aux=True))(
            query, key, value
        )
        for attention in (by_splash, by_einsum)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)
    assert not np.asarray(found[1])[0, :, -21:].any()


def test_prefixes_are_refused():
    array, prefix = jnp.zeros((1, 1, 4, 8)), jnp.ones((1, 4), bool)
    mask = SegmentMask(None, jnp.ones((1, 4), jnp.int32), True, prefix)
    with pytest.raises(UserError, match="prefix-LMs.*'einsum'.*prefix_lm = False"):
        splash_attention(array, array, array, mask, None)


COMPILE = """
import jax, jax.numpy as jnp
from jax.experimental import topologies
from instruct.models.masks import prefix_mask
from instruct.models.splash import splash_attention

def total(query, key, value, segments):
    attended = splash_attention(query, key, value, prefix_mask(segments, None, 512), 50.0)
    return attended.astype(jnp.float32).sum()

device = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices[0]
at = jax.sharding.SingleDeviceSharding(device)
for head_dim in (64, 256):
    shapes = [(2, heads, 1280, head_dim) for heads in (8, 4, 4)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=at) for shape in shapes]
    arrays.append(jax.ShapeDtypeStruct((2, 1280), jnp.int32, sharding=at))
    program = jax.jit(jax.grad(total, (0, 1, 2))).lower(*arrays).compile()
    assert program.as_text().count("tpu_custom_call") >= 2
"""


@pytest.mark.skipif(
    not (importlib.util.find_spec("libtpu") or "TPU_LIBRARY_PATH" in os.environ),
    reason="needs the wheel libtpu",
)
def test_the_kernel_compiles_for_tpus():
    settings = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    subprocess.run([sys.executable, "-c", COMPILE], env=os.environ | settings, check=True)
