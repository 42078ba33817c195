"""The batch contract: keys, shapes and dtypes of a training batch.

Keys are SeqIO's (`seqio.feature_converters`, EncDecFeatureConverter). B rows, S source tokens,
T target tokens; all arrays int32, all padded with 0 on the right.

Two examples, inputs [7, 8, 1] and [9, 1], targets [3, 1] and [4, 5, 1], packed into one row of
S = 6 and T = 6:

    encoder_input_tokens    7 8 1 9 1 0
    encoder_segment_ids     1 1 1 2 2 0
    encoder_positions       0 1 2 0 1 0
    decoder_target_tokens   3 1 4 5 1 0
    decoder_input_tokens    0 3 0 4 5 0     targets shifted right inside each segment
    decoder_loss_weights    1 1 1 1 1 0
    decoder_segment_ids     1 1 2 2 2 0
    decoder_positions       0 1 0 1 2 0
    decoder_task_ids        4 4 9 9 9 0     1 + the leaf's number in the mixture (ours, not SeqIO's)

Segment k of the encoder belongs to segment k of the decoder: ids number the examples, so an example
with an empty source has its own.
"""

from collections.abc import Mapping
from typing import Any

ENCODER_INPUT_TOKENS = "encoder_input_tokens"
ENCODER_SEGMENT_IDS = "encoder_segment_ids"
ENCODER_POSITIONS = "encoder_positions"
DECODER_TARGET_TOKENS = "decoder_target_tokens"
DECODER_INPUT_TOKENS = "decoder_input_tokens"
DECODER_LOSS_WEIGHTS = "decoder_loss_weights"
DECODER_SEGMENT_IDS = "decoder_segment_ids"
DECODER_POSITIONS = "decoder_positions"
DECODER_TASK_IDS = "decoder_task_ids"

ENCODER_KEYS = (ENCODER_INPUT_TOKENS, ENCODER_SEGMENT_IDS, ENCODER_POSITIONS)
DECODER_KEYS = (
    DECODER_TARGET_TOKENS,
    DECODER_INPUT_TOKENS,
    DECODER_LOSS_WEIGHTS,
    DECODER_SEGMENT_IDS,
    DECODER_POSITIONS,
    DECODER_TASK_IDS,
)
KEYS = ENCODER_KEYS + DECODER_KEYS


def batch_shapes(batch_size: int, inputs: int, targets: int) -> dict[str, tuple[int, int]]:
    """Shape of every array of a batch: [B, S] for the encoder's keys, [B, T] for the decoder's."""
    encoder, decoder = (batch_size, inputs), (batch_size, targets)
    return {key: encoder if key in ENCODER_KEYS else decoder for key in KEYS}


def check_batch(batch: Mapping[str, Any]) -> None:
    """Raises ValueError unless all keys are there, int32, and agree on B, S and T."""
    missing = sorted(set(KEYS) - set(batch))
    extra = sorted(set(batch) - set(KEYS))
    if missing or extra:
        raise ValueError(f"batch keys: missing {missing}, unexpected {extra}")
    rows, inputs = batch[ENCODER_INPUT_TOKENS].shape
    targets = batch[DECODER_TARGET_TOKENS].shape[1]
    for key, shape in batch_shapes(rows, inputs, targets).items():
        if tuple(batch[key].shape) != shape or str(batch[key].dtype) != "int32":
            actual = f"{batch[key].dtype}{tuple(batch[key].shape)}"
            raise ValueError(f"batch[{key!r}] is {actual}, expected int32{shape}")
