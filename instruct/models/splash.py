"""Flash attention of causal stacks on TPUs: JAX's splash kernel, with windows and soft caps.

Blocks of keys that a mask hides from all queries of a block are skipped, so a window saves time.
Masks of the kernel are static: it takes no prefix-LM, whose prefixes differ between rows.
B rows, T tokens, N heads, K key-value heads, H head dim.
"""

from typing import cast

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)

from instruct.errors import UserError
from instruct.models.masks import SegmentMask

LANES = 128
# Tokens of a block, the largest first that divides the padded length.
BLOCKS = (512, 256, LANES)
# Of queries and keys, in the forward pass and the two of the backward pass.
_BLOCK_SIZES = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")


def splash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: SegmentMask,
    cap: float | None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Weighted sums of `value`, [B, N, T, H]; zeros where the segment is 0.

    Args:
        query: [B, N, T, H], scaled.
        key, value: [B, K, T, H]; N / K consecutive heads read the same.
        mask: causal, with segments and perhaps a window.
        cap: soft cap of the logits, or None.
        interpret: runs on a CPU, for tests.

    Raises:
        UserError: the mask has a prefix.
    """
    if mask.prefix is not None:
        raise UserError(
            "attention = 'flash' has no kernel for prefix-LMs on a TPU. Set attention = 'einsum', "
            "or prefix_lm = False."
        )
    rows, heads, length, _ = query.shape
    padded = -(-length // LANES) * LANES
    block = next(size for size in BLOCKS if padded % size == 0)
    segments = jnp.pad(mask.segments(rows, length)[0], [(0, 0), (0, padded - length)])
    if mask.window is None or mask.window >= length:
        of_head = splash_attention_mask.CausalMask((padded, padded))
    else:
        of_head = splash_attention_mask.LocalMask((padded, padded), (mask.window - 1, 0), 0)
    kernel = splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([of_head] * heads),
        block_sizes=splash_attention_kernel.BlockSizes(**dict.fromkeys(_BLOCK_SIZES, block)),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=cap,
        interpret=interpret,
    )
    padding = [(0, 0), (0, 0), (0, padded - length), (0, 0)]
    arrays = (jnp.pad(a, padding) for a in (query, key, value))
    ids = splash_attention_kernel.SegmentIds(segments, segments)
    attended = cast(jax.Array, jax.vmap(kernel)(*arrays, ids))
    return (attended * (segments != 0)[:, None, :, None].astype(query.dtype))[:, :, :length]
