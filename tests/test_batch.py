"""The batch contract: the worked example of its docstring, and refused batches."""

import numpy as np
import pytest

from instruct.batch import KEYS, batch_shapes, check_batch

WORKED = {
    "encoder_input_tokens": [7, 8, 1, 9, 1, 0],
    "encoder_segment_ids": [1, 1, 1, 2, 2, 0],
    "encoder_positions": [0, 1, 2, 0, 1, 0],
    "decoder_target_tokens": [3, 1, 4, 5, 1, 0],
    "decoder_input_tokens": [0, 3, 0, 4, 5, 0],
    "decoder_loss_weights": [1, 1, 1, 1, 1, 0],
    "decoder_segment_ids": [1, 1, 2, 2, 2, 0],
    "decoder_positions": [0, 1, 0, 1, 2, 0],
    "decoder_task_ids": [4, 4, 9, 9, 9, 0],
}


def batch():
    return {key: np.asarray([row], np.int32) for key, row in WORKED.items()}


def test_worked_example_is_a_batch():
    check_batch(batch())
    assert set(batch()) == set(KEYS)


def test_shapes():
    shapes = batch_shapes(8, 16, 4)
    assert shapes["encoder_positions"] == (8, 16) and shapes["decoder_task_ids"] == (8, 4)
    assert set(shapes) == set(KEYS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop("decoder_positions"), "missing .'decoder_positions'"),
        (lambda b: b.update(labels=b["decoder_positions"]), "unexpected .'labels'"),
        (
            lambda b: b.update(decoder_positions=np.zeros((1, 5), np.int32)),
            r"int32\(1, 5\), expected int32\(1, 6\)",
        ),
        (
            lambda b: b.update(encoder_positions=np.zeros((1, 6), np.int64)),
            r"int64\(1, 6\), expected",
        ),
    ],
)
def test_what_is_wrong_is_named(change, message):
    wrong = batch()
    change(wrong)
    with pytest.raises(ValueError, match=message):
        check_batch(wrong)
