"""Cross-entropy with z-loss, fused with the output head in chunks of tokens.

The logits of a batch are the largest array of a small model's step, and their memory traffic its
slowest part. Here the logits of one chunk exist at a time and their gradient is computed with them:
three matrix products, no recomputation, no array of size [B, T, V].

B rows, T target tokens, D model, V vocabulary, G groups of tasks.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from instruct import batch as batch_keys
from instruct.collectives import sum_shares
from instruct.fields import bounded, check_fields, one_of
from instruct.head import soft_cap
from instruct.mean import Mean
from instruct.mesh import MESH_AXES, logical_constraint
from instruct.model_interface import Model


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The training loss.

    Attributes:
        z_loss: coefficient of log(Z)^2, which keeps logits from drifting (T5X: 1e-4).
        label_smoothing: share of a target's probability spread over the other V - 1 tokens.
        weighting: 'token': each target token weighs 1. 'example': each packed example weighs 1,
            split evenly over its tokens.
        loss_normalizing_factor: None divides the summed loss by its summed weights. A number
            divides by that number whatever the batch, as T5X does; 1.0 is T5X's None. Reported
            losses are weighted means either way.
        chunk_logits: most logits that a device holds at once. Speed and memory only.
    """

    z_loss: float = bounded(1e-4, least=0, note=", such as 1e-4")
    label_smoothing: float = bounded(0.0, least=0, below=1)
    weighting: str = one_of("token", ("token", "example"))
    loss_normalizing_factor: float | None = bounded(
        None,
        above=0,
        note=": 1.0 (sum), another such as 233472 for MeshTF checkpoints, or None (mean by weight)",
    )
    chunk_logits: int = bounded(2**24, least=1, note=", such as 16777216")

    __post_init__ = check_fields


class TokenLosses(NamedTuple):
    """float32 arrays of one shape: loss with z-loss, z-loss, 1.0 if the prediction is right."""

    loss: jax.Array
    z_loss: jax.Array
    correct: jax.Array


class LossTotals(NamedTuple):
    """Sums of a batch for running means; `groups` holds [G] arrays."""

    loss: Mean
    z_loss: Mean
    accuracy: Mean
    groups: Mean

    def add(self, other: "LossTotals") -> "LossTotals":
        """Sums of both, as if they had been one batch."""
        return LossTotals(*(mine.add(theirs) for mine, theirs in zip(self, other)))


def cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> tuple[TokenLosses, jax.Array]:
    """Losses of tokens, and the gradient of each token's loss with respect to its logits.

    As in T5X (`t5x/losses.py`) the entropy of smoothed targets is subtracted, so that a perfect
    prediction has loss 0.

    Args:
        logits: [..., V] float32.
        targets: [...] int32.
        z_loss, label_smoothing: as in `LossConfig`.

    Returns:
        TokenLosses of [...], and d loss / d logits, [..., V] float32. A tie for the largest logit
        counts as correct.
    """
    vocab_size = logits.shape[-1]
    largest = logits.max(-1)
    target_logit = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    log_z = jnp.log(jnp.exp(logits - largest[..., None]).sum(-1)) + largest
    z_losses = z_loss * jnp.square(log_z)
    is_target = jnp.arange(vocab_size) == targets[..., None]
    if label_smoothing:
        confidence, low = 1.0 - label_smoothing, label_smoothing / (vocab_size - 1)
        expected = low * logits.sum(-1) + (confidence - low) * target_logit
        entropy = -confidence * math.log(confidence) - (1 - confidence) * math.log(low)
        losses = log_z - expected - entropy
        wanted = jnp.where(is_target, confidence, low)
    else:
        losses = log_z - target_logit
        wanted = is_target
    scale = 1.0 + 2.0 * z_loss * log_z
    # A second exp is cheaper than the first one's result, which would be written to memory.
    gradient = jnp.exp(logits - log_z[..., None]) * scale[..., None] - wanted
    correct = (target_logit >= largest).astype(jnp.float32)
    return TokenLosses(losses + z_losses, z_losses, correct), gradient


def example_weights(weights: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Weights that sum to 1 for every example of a row.

        weights       1 1 1 1 1 0        segment_ids   1 1 2 2 2 0
        result        .5 .5 .33 .33 .33 0

    `weights` [B, T] float32; `segment_ids` [B, T] int32, 0 is padding; None: a row is one example.
    """
    if segment_ids is None:
        totals = weights.sum(1, keepdims=True)
    else:
        # All pairs of tokens instead of a scatter: they are few, and shard over rows.
        same = segment_ids[:, :, None] == segment_ids[:, None, :]
        totals = jnp.einsum("bts,bs->bt", same.astype(weights.dtype), weights)
    return jnp.where(weights > 0, weights / jnp.where(totals > 0, totals, 1.0), 0.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def head_cross_entropy(
    hidden: jax.Array,
    kernel: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    config: LossConfig,
    final_cap: float | None = None,
) -> tuple[jax.Array, TokenLosses]:
    """Weighted sum of the losses of `head_logits(hidden, kernel, final_cap)`, and the tokens'.

    Differentiable in `hidden` and `kernel` through the sum only; `TokenLosses` are for reports.

    Args:
        hidden: [B, T, D], any float type; the logits are float32.
        kernel: [D, V] float32.
        targets: [B, T] int32.
        weights: [B, T] float32.
        config, final_cap: static.
    """
    return _scan_chunks(hidden, kernel, targets, weights, config, final_cap, False)[0]


def _forward(hidden, kernel, targets, weights, config, final_cap):
    return _scan_chunks(hidden, kernel, targets, weights, config, final_cap, True)


def _backward(config, final_cap, gradients, cotangents):
    by_hidden, by_kernel = gradients
    scale = cotangents[0]
    return (by_hidden * scale).astype(by_hidden.dtype), by_kernel * scale, None, None


head_cross_entropy.defvjp(_forward, _backward)


def _scan_chunks(hidden, kernel, targets, weights, config, final_cap, with_gradient):
    """((loss sum, TokenLosses), (gradient by hidden, by kernel)); chunks are slices of T.

    Tokens stay on their devices: a share is the part of [B, T] that one device holds. The kernel is
    gathered once, before the first chunk; its gradient is summed separately for each share, and
    over devices once, after the last chunk.
    """
    rows, length, width = hidden.shape
    vocab_size = kernel.shape[1]
    row_ways, length_ways, vocab_ways = _ways(rows, length)
    shares = row_ways * length_ways
    of_share = (rows // row_ways, length // length_ways)
    count = _num_chunks(of_share[0] * (vocab_size // vocab_ways), of_share[1], config.chunk_logits)
    kernel = logical_constraint(kernel, (None, "vocab"))

    def split(x):  # [B, T, ...] -> [chunks, shares, rows of a share, tokens of a chunk, ...]
        x = x.reshape(row_ways, of_share[0], length_ways, count, of_share[1] // count, *x.shape[2:])
        x = jnp.moveaxis(x, (3, 2), (0, 2))
        return x.reshape(count, shares, *x.shape[3:])

    def join(x):
        x = x.reshape(count, row_ways, length_ways, *x.shape[2:])
        x = jnp.moveaxis(x, (0, 2), (3, 2))
        return x.reshape(rows, length, *x.shape[5:])

    def chunk(by_kernel, part):
        hidden, targets, weights = part
        wide = hidden.astype(jnp.float32)
        logits = jnp.einsum("srtd,dv->srtv", wide, kernel)
        logits = logical_constraint(logits, ("share", None, None, "vocab"))
        logits, uncap = jax.vjp(lambda x: soft_cap(x, final_cap), logits)
        losses, gradient = cross_entropy(logits, targets, config.z_loss, config.label_smoothing)
        if not with_gradient:
            return by_kernel, (losses, None)
        (gradient,) = uncap(gradient * weights[..., None])
        by_hidden = jnp.einsum("srtv,dv->srtd", gradient, kernel).astype(hidden.dtype)
        added = jnp.einsum("srtd,srtv->sdv", wide, gradient)
        added = logical_constraint(added, ("share", None, "vocab"))
        return added if by_kernel is None else by_kernel + added, (losses, by_hidden)

    parts = (split(hidden), split(targets), split(weights))
    if count == 1:
        by_kernel, outputs = chunk(None, jax.tree.map(lambda x: x[0], parts))
        losses, by_hidden = jax.tree.map(lambda x: join(x[None]), outputs)
    else:
        start = jnp.zeros((shares, width, vocab_size), jnp.float32) if with_gradient else None
        by_kernel, outputs = jax.lax.scan(chunk, start, parts)
        losses, by_hidden = jax.tree.map(join, outputs)
    if by_kernel is not None:
        by_kernel = sum_shares(by_kernel, ("embed", "vocab"))
    return (jnp.sum(losses.loss * weights), losses), (by_hidden, by_kernel)


def _ways(rows: int, length: int) -> tuple[int, int, int]:
    """Number of parts of rows, length and vocabulary; 1 for the first two unless both divide."""
    mesh = jax.sharding.get_abstract_mesh()

    def ways(name: str) -> int:
        return math.prod(mesh.shape.get(axis, 1) for axis in MESH_AXES[name])

    if mesh.empty or rows % ways("batch") or length % ways("length"):
        return 1, 1, 1 if mesh.empty else ways("vocab")
    return ways("batch"), ways("length"), ways("vocab")


def _num_chunks(logits_per_position: int, length: int, chunk_logits: int) -> int:
    """Smallest divisor of `length` that keeps a chunk within `chunk_logits`."""
    for count in range(1, length + 1):
        if length % count == 0 and length // count * logits_per_position <= chunk_logits:
            return count
    return length


def make_loss_fn(
    model: Model,
    config: LossConfig,
    leaf_groups: Sequence[int] = (),
) -> Callable[..., tuple[jax.Array, LossTotals]]:
    """loss_fn(params, batch, dropout_key=None) -> (summed loss to differentiate, totals).

    Args:
        model: computes [B, T, D] decoder output, and the [D, V] output kernel.
        config: the loss.
        leaf_groups: group (0..G-1) of each leaf of the mixture, for losses by group.
    """
    num_groups = max(leaf_groups, default=-1) + 1
    # Task id 0 is padding, in a group of its own that is dropped.
    group_of_task = np.asarray([num_groups, *leaf_groups], np.int32)

    def loss_fn(
        params: Any, batch: Mapping[str, jax.Array], dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, LossTotals]:
        weights = batch[batch_keys.DECODER_LOSS_WEIGHTS].astype(jnp.float32)
        if config.weighting == "example":
            weights = example_weights(weights, batch.get(batch_keys.DECODER_SEGMENT_IDS))
        hidden, kernel = model.decoder_hidden(params, batch, dropout_key), model.head_kernel(params)
        targets = batch[batch_keys.DECODER_TARGET_TOKENS]
        summed = head_cross_entropy(hidden, kernel, targets, weights, config, model.final_cap)
        loss_sum, tokens = summed  # pyright: ignore[reportGeneralTypeIssues]
        weight = weights.sum()

        def mean(values):
            return Mean(jnp.sum(values * weights), weight)

        by_group = jnp.zeros((2, num_groups), jnp.float32)
        if num_groups:
            group = jnp.asarray(group_of_task)[batch[batch_keys.DECODER_TASK_IDS]]
            member = (group[..., None] == jnp.arange(num_groups)).astype(jnp.float32)
            sums = jnp.stack([tokens.loss * weights, weights])
            # highest: an accelerator would round the products, which are plain sums here.
            by_group = jnp.einsum("kbt,btg->kg", sums, member, precision="highest")
        groups = Mean(by_group[0], by_group[1])
        totals = LossTotals(mean(tokens.loss), mean(tokens.z_loss), mean(tokens.correct), groups)
        return loss_sum, jax.lax.stop_gradient(totals)

    return loss_fn
