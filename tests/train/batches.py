"""Tiny models and packed batches of unequal rows, for the training tests."""

import functools
from typing import Any

import jax
import numpy as np

from instruct.batch import DECODER_ONLY, ENCODER_DECODER
from instruct.data.feed.packing import pack
from instruct.models.config import ModelConfig
from instruct.models.decoder_config import DecoderConfig
from instruct.train.loss import LossConfig, make_loss_fn


def tiny_config(**changes: Any) -> ModelConfig:
    """A model that compiles in a second; 8 heads so that it splits over 8 devices."""
    sizes = {
        "vocab_size": 64,
        "d_model": 16,
        "num_heads": 8,
        "head_dim": 4,
        "d_ff": 32,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
    }
    return ModelConfig(**(sizes | changes))


def tiny_decoder(**changes: Any) -> DecoderConfig:
    """A prefix-LM of the same size, with grouped heads, a local and a global layer, and a cap."""
    fields = {
        "vocab_size": 64,
        "d_model": 16,
        "num_layers": 2,
        "num_heads": 8,
        "num_kv_heads": 4,
        "head_dim": 4,
        "d_ff": 32,
        "window": 5,
        "layer_pattern": ("local", "global"),
        "final_cap": 5.0,
        "prefix_lm": True,
    }
    return DecoderConfig(**(fields | changes))


def packed_batch(
    seed: int, rows: int = 8, inputs: int = 12, targets: int = 10
) -> dict[str, np.ndarray]:
    """Two examples a row, lengths and so weights differing from row to row."""
    draw = np.random.default_rng(seed)
    names = ("input_tokens", "segment_ids", "positions")
    batch = {f"encoder_{name}": np.zeros((rows, inputs), np.int32) for name in names}
    names = ("target_tokens", "input_tokens", "loss_weights", "segment_ids", "positions")
    names += ("task_ids",)
    batch |= {f"decoder_{name}": np.zeros((rows, targets), np.int32) for name in names}
    for row in range(rows):
        source_at = target_at = 0
        for segment in (1, 2):
            source = draw.integers(3, 64, draw.integers(2, inputs // 2 + 1))
            target = draw.integers(3, 64, draw.integers(1, targets // 2 + 1))
            span = slice(source_at, source_at + len(source))
            batch["encoder_input_tokens"][row, span] = source
            batch["encoder_segment_ids"][row, span] = segment
            batch["encoder_positions"][row, span] = np.arange(len(source))
            span = slice(target_at, target_at + len(target))
            batch["decoder_target_tokens"][row, span] = target
            batch["decoder_input_tokens"][row, span] = [0, *target[:-1]]
            batch["decoder_loss_weights"][row, span] = 1
            batch["decoder_segment_ids"][row, span] = segment
            batch["decoder_positions"][row, span] = np.arange(len(target))
            batch["decoder_task_ids"][row, span] = 1 + (row + segment) % 3
            source_at, target_at = source_at + len(source), target_at + len(target)
    ENCODER_DECODER.check(batch)
    return batch


def packed_sequences(seed: int, rows: int = 8) -> dict[str, np.ndarray]:
    """The examples of `packed_batch` as sequences: each row's two in one row of 12 + 10 tokens."""
    batch, packed = packed_batch(seed, rows), []
    sides = [("encoder_segment_ids", "encoder_input_tokens")]
    sides += [
        ("decoder_segment_ids", name) for name in ("decoder_target_tokens", "decoder_task_ids")
    ]
    for row in range(rows):
        sources, targets, tasks = (
            [batch[name][row, batch[ids][row] == segment].tolist() for segment in (1, 2)]
            for ids, name in sides
        )
        starts = [[0, *source] for source in sources]
        task_ids = [task[0] for task in tasks]
        packed.append(pack(starts, targets, task_ids, 12, 10, layout=DECODER_ONLY).rows)
    batch = {key: np.concatenate([part[key] for part in packed]) for key in DECODER_ONLY.keys}
    DECODER_ONLY.check(batch)
    assert batch["decoder_segment_ids"].shape[0] == rows
    return batch


@functools.lru_cache
def loss_and_gradient(model):
    """Compiled (params, batch) -> (mean loss, its gradient), without dropout."""
    loss_fn = make_loss_fn(model, LossConfig())

    def mean(params, batch):
        loss, totals = loss_fn(params, batch, None)
        return loss / totals.loss.weight

    return jax.jit(jax.value_and_grad(mean))
