import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from instruct.errors import UserError
from instruct.models.decoder_config import DecoderConfig
from instruct.models.stack_blocks import GroupedAttention
from tests.float32 import assert_same_float32

CONFIG = DecoderConfig(
    vocab_size=8, d_model=12, num_layers=1, num_heads=6, num_kv_heads=2, head_dim=4, d_ff=8
)


def run(config, kernels=None):
    module = GroupedAttention(config, config, rngs=nnx.Rngs(0))
    for name, kernel in (kernels or {}).items():
        getattr(module, name).kernel.set_value(kernel)
    x = jax.random.normal(jax.random.key(1), (2, 5, 12))
    mask = jnp.tri(5, dtype=bool)[None, None]
    out = module(x, module.keys_values(x, None), None, mask, None)
    return module, out


@pytest.mark.slow
def test_grouped_heads_are_heads_with_repeated_keys():
    grouped, found = run(CONFIG)
    kernels = {name: getattr(grouped, name).kernel.get_value() for name in ("query", "out")}
    for name in ("key", "value"):
        heads = getattr(grouped, name).kernel.get_value().reshape(12, 2, 4)
        kernels[name] = jnp.repeat(heads, 3, axis=1).reshape(12, 24)
    expected = run(dataclasses.replace(CONFIG, num_kv_heads=6), kernels)[1]
    assert_same_float32(found, expected)


def test_what_has_no_soft_cap_says_so():
    with pytest.raises(UserError, match=r"'xla' has no soft cap.*5.0.*'einsum'"):
        run(dataclasses.replace(CONFIG, attention="xla", attention_cap=5.0))


def test_xla_s_attention_has_grouped_heads():
    assert_same_float32(run(dataclasses.replace(CONFIG, attention="xla"))[1], run(CONFIG)[1])
