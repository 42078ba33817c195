"""A tiny model and packed batches of unequal rows, for the training tests."""

from typing import Any

import numpy as np

from instruct.batch import check_batch
from instruct.models.config import ModelConfig


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
    check_batch(batch)
    return batch
