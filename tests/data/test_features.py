"""Decoder features of placed rows."""

import numpy as np

from instruct import batch
from instruct.data.features import decoder_features, pad_rows, shift_right
from tests.data.feed.test_packing import ROW


def placed():
    made = ("decoder_input_tokens", "decoder_loss_weights")
    return {key: np.array([row], np.int32) for key, row in ROW.items() if key not in made}


def test_shift_right_worked_example():
    targets = np.array([[3, 1, 4, 5, 1, 0]], np.int32)
    segments = np.array([[1, 1, 2, 2, 2, 0]], np.int32)
    assert shift_right(targets, segments).tolist() == [[0, 3, 0, 4, 5, 0]]


def test_decoder_features_complete_the_batch():
    rows = decoder_features(placed())
    assert tuple(rows) == batch.ENCODER_DECODER.keys
    batch.ENCODER_DECODER.check(rows)
    assert {key: value[0].tolist() for key, value in rows.items()} == ROW


def test_padding_rows_weigh_nothing():
    rows = pad_rows(decoder_features(placed()), 3)
    batch.ENCODER_DECODER.check(rows)
    assert rows[batch.DECODER_LOSS_WEIGHTS].sum(axis=1).tolist() == [5, 0, 0]
