"""The batch contract: the worked example of its docstring, and refused batches."""

import numpy as np
import pytest

from instruct.batch import DECODER_ONLY, ENCODER_DECODER, LAYOUTS

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
# One sequence an example, with the start token 0.
SEQUENCES = {
    "decoder_target_tokens": [7, 8, 1, 3, 1, 9, 1, 4, 5, 1, 0, 0],
    "decoder_input_tokens": [0, 7, 8, 1, 3, 0, 9, 1, 4, 5, 0, 0],
    "decoder_loss_weights": [0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0],
    "decoder_causal_attention": [1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0],
    "decoder_segment_ids": [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0],
    "decoder_positions": [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 0],
    "decoder_task_ids": [4, 4, 4, 4, 4, 9, 9, 9, 9, 9, 0, 0],
}
# Without a start token, inputs without EOS.
UNSTARTED = {
    "decoder_target_tokens": [8, 3, 1, 4, 5, 1, 0, 0],
    "decoder_input_tokens": [7, 8, 3, 9, 4, 5, 0, 0],
    "decoder_loss_weights": [0, 1, 1, 1, 1, 1, 0, 0],
    "decoder_causal_attention": [1, 1, 0, 1, 0, 0, 0, 0],
    "decoder_segment_ids": [1, 1, 1, 2, 2, 2, 0, 0],
    "decoder_positions": [0, 1, 2, 0, 1, 2, 0, 0],
    "decoder_task_ids": [4, 4, 4, 9, 9, 9, 0, 0],
}


def batch(worked=WORKED):
    return {key: np.asarray([row], np.int32) for key, row in worked.items()}


@pytest.mark.parametrize(
    ("layout", "worked"),
    [("encoder_decoder", WORKED), ("decoder_only", SEQUENCES), ("decoder_only", UNSTARTED)],
)
def test_worked_example_is_a_batch(layout, worked):
    LAYOUTS[layout].check(batch(worked))
    assert set(worked) == set(LAYOUTS[layout].keys)


def test_shapes():
    shapes = ENCODER_DECODER.shapes(8, 16, 4)
    assert shapes["encoder_positions"] == (8, 16) and shapes["decoder_task_ids"] == (8, 4)
    assert set(shapes) == set(ENCODER_DECODER.keys)
    one = DECODER_ONLY.shapes(8, 16, 4)
    assert set(one) == set(DECODER_ONLY.keys) and set(one.values()) == {(8, 20)}


def test_a_batch_of_the_other_layout_is_refused():
    with pytest.raises(ValueError, match=r"missing \['decoder_causal_attention'\], unexpected"):
        DECODER_ONLY.check(batch())


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
        ENCODER_DECODER.check(wrong)
