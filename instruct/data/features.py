"""Packed tokens to the features of an encoder-decoder (seqio.EncDecFeatureConverter).

decoder_target_tokens    3 1 4 5 1 0
decoder_segment_ids      1 1 2 2 2 0
decoder_input_tokens     0 3 0 4 5 0     shifted right inside each segment
decoder_loss_weights     1 1 1 1 1 0
"""

import numpy as np

from instruct import batch


def shift_right(tokens: np.ndarray, segment_ids: np.ndarray) -> np.ndarray:
    """Shifts tokens right by one; 0 at the start of every segment. int32 [R, T]."""
    shifted = np.zeros_like(tokens)
    shifted[:, 1:] = np.where(segment_ids[:, 1:] == segment_ids[:, :-1], tokens[:, :-1], 0)
    return shifted


def decoder_features(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds `decoder_input_tokens` and `decoder_loss_weights` to packed rows, keys in order.

    Every target token weighs 1, EOS included; padding weighs 0.
    """
    segments = rows[batch.DECODER_SEGMENT_IDS]
    features = rows | {
        batch.DECODER_INPUT_TOKENS: shift_right(rows[batch.DECODER_TARGET_TOKENS], segments),
        batch.DECODER_LOSS_WEIGHTS: (segments > 0).astype(np.int32),
    }
    return {key: features[key] for key in batch.ENCODER_DECODER.keys}


def pad_rows(rows: dict[str, np.ndarray], num_rows: int) -> dict[str, np.ndarray]:
    """Appends rows of padding up to `num_rows`."""
    missing = num_rows - next(iter(rows.values())).shape[0]
    return {key: np.pad(value, ((0, missing), (0, 0))) for key, value in rows.items()}
