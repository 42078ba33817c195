"""Packing keeps every token, never splits an example, and numbers segments by example order."""

import time

import numpy as np
import pytest
import seqio
import tensorflow as tf

from instruct import batch
from instruct.data.config import PACKINGS
from instruct.data.feed.packing import assign_rows, pack
from instruct.errors import UserError
from tests.test_batch import SEQUENCES, UNSTARTED

# The worked example of instruct/batch.py.
ROW = {
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


def made_up(num_examples, inputs_length, targets_length, seed=0):
    rng = np.random.default_rng(seed)
    lengths = (
        np.clip(rng.lognormal(3, 0.8, num_examples), 1, inputs_length).astype(int),
        np.clip(rng.lognormal(1.5, 0.8, num_examples), 1, targets_length).astype(int),
    )
    return tuple([rng.integers(2, 99, n).tolist() for n in side] for side in lengths)


def test_worked_example():
    packed = pack([[7, 8, 1], [9, 1]], [[3, 1], [4, 5, 1]], [4, 9], 6, 6)
    assert {key: value.tolist() for key, value in packed.rows.items()} == {
        key: [value] for key, value in ROW.items()
    }
    batch.ENCODER_DECODER.check(packed.rows)
    assert packed.example_rows.tolist() == [0, 0]


@pytest.mark.parametrize("method", PACKINGS)
@pytest.mark.parametrize("lengths", [(40, 40), (512, 16), (25, 128)])
def test_every_example_comes_back_whole_and_in_order(method, lengths):
    inputs, targets = made_up(150, *lengths)
    packed = pack(inputs, targets, range(1, 151), *lengths, method)
    batch.ENCODER_DECODER.check(packed.rows)
    found = {}
    for row in range(packed.num_rows):
        one = {key: value[row] for key, value in packed.rows.items()}
        last_task = 0
        for segment in range(1, one[batch.DECODER_SEGMENT_IDS].max() + 1):
            source = one[batch.ENCODER_SEGMENT_IDS] == segment
            target = one[batch.DECODER_SEGMENT_IDS] == segment
            (task,) = set(one[batch.DECODER_TASK_IDS][target].tolist())
            assert task > last_task, "segments follow the order of the examples"
            last_task = task
            found[task] = row
            words = one[batch.DECODER_TARGET_TOKENS][target].tolist()
            assert one[batch.ENCODER_INPUT_TOKENS][source].tolist() == inputs[task - 1]
            assert words == targets[task - 1]
            assert one[batch.DECODER_INPUT_TOKENS][target].tolist() == [0, *words[:-1]]
            for name, side in (("ENCODER", source), ("DECODER", target)):
                positions = one[getattr(batch, f"{name}_POSITIONS")][side].tolist()
                assert positions == list(range(side.sum()))
                assert np.diff(np.flatnonzero(side)).max(initial=1) == 1, "one run of places"
        padding = one[batch.DECODER_SEGMENT_IDS] == 0
        for key in batch.ENCODER_DECODER.decoder_keys:
            assert not one[key][padding].any()
    assert sorted(found) == list(range(1, 151))
    assert [found[task] for task in range(1, 151)] == packed.example_rows.tolist()


def test_an_empty_source_keeps_its_own_number():
    packed = pack([[5, 1], [], [6, 1]], [[2, 1], [3, 1], [4, 1]], [1, 2, 3], 6, 6)
    assert packed.rows["encoder_segment_ids"].tolist() == [[1, 1, 3, 3, 0, 0]]
    assert packed.rows["decoder_segment_ids"].tolist() == [[1, 1, 2, 2, 3, 3]]


def test_a_zero_inside_an_example_is_a_token_like_others():
    packed = pack([[5, 0, 6, 1]], [[0, 1]], [1], 6, 4)
    assert packed.rows["encoder_segment_ids"].tolist() == [[1, 1, 1, 1, 0, 0]]
    assert packed.rows["decoder_loss_weights"].tolist() == [[1, 1, 0, 0]]


@pytest.mark.slow
def test_next_fit_makes_the_rows_of_seqio():
    inputs, targets = made_up(60, 64, 32, seed=2)
    lengths = {"inputs": 64, "targets": 32}

    dataset = tf.data.Dataset.from_generator(
        lambda: ({"inputs": a, "targets": b} for a, b in zip(inputs, targets)),
        output_signature={name: tf.TensorSpec((None,), tf.int32) for name in lengths},
    )
    packed = seqio.trim_and_pack_dataset(dataset, lengths, use_custom_ops=False)
    theirs = list(packed.as_numpy_iterator())
    ours = pack(inputs, targets, [1] * 60, 64, 32, "next_fit").rows
    for our_key, their_key in (
        (batch.ENCODER_INPUT_TOKENS, "inputs"),
        (batch.DECODER_SEGMENT_IDS, "targets_segment_ids"),
        (batch.DECODER_POSITIONS, "targets_positions"),
    ):
        np.testing.assert_array_equal(ours[our_key], np.stack([row[their_key] for row in theirs]))


def test_best_fit_fills_rows_and_is_fast():
    inputs, targets = made_up(2048, 80, 32)
    started = time.process_time()
    packed = pack(inputs, targets, [1] * 2048, 80, 32)
    assert time.process_time() - started < 1  # 0.05 s of the processor
    assert (packed.rows[batch.ENCODER_SEGMENT_IDS] > 0).mean() > 0.95
    next_fit = pack(inputs, targets, [1] * 2048, 80, 32, "next_fit")
    assert packed.num_rows < 0.85 * next_fit.num_rows


@pytest.mark.parametrize("method", PACKINGS)
def test_no_example_no_row(method):
    packed = pack([], [], [], 8, 4, method)
    assert packed.num_rows == 0
    assert packed.rows[batch.ENCODER_INPUT_TOKENS].shape == (0, 8)


def test_bad_arguments():
    with pytest.raises(ValueError, match="longest example 9/1"):
        assign_rows(np.array([9]), np.array([1]), 8, 4, "best_fit")
    with pytest.raises(UserError, match="'best_fit'"):
        assign_rows(np.array([9]), np.array([1]), 8, 4, "best_fitt")


def packed_sequences(prompts, answers, tasks, lengths, method="best_fit", **more):
    packed = pack(prompts, answers, tasks, *lengths, method, batch.DECODER_ONLY, **more)
    batch.DECODER_ONLY.check(packed.rows)
    assert tuple(packed.rows) == batch.DECODER_ONLY.keys
    return packed


def test_worked_examples_of_one_sequence():
    packed = packed_sequences([[0, 7, 8, 1], [0, 9, 1]], [[3, 1], [4, 5, 1]], [4, 9], (6, 6))
    assert {key: value[0].tolist() for key, value in packed.rows.items()} == SEQUENCES
    packed = packed_sequences([[7, 8], [9]], [[3, 1], [4, 5, 1]], [4, 9], (4, 4))
    assert {key: value[0].tolist() for key, value in packed.rows.items()} == UNSTARTED


@pytest.mark.parametrize("method", PACKINGS)
@pytest.mark.parametrize("lengths", [(40, 40), (25, 128)])
def test_every_sequence_comes_back_whole(method, lengths):
    prompts, answers = made_up(150, *lengths)
    prompts = [[2, *prompt] for prompt in prompts]
    packed = packed_sequences(prompts, answers, range(1, 151), lengths, method)
    found = {}
    for row in range(packed.num_rows):
        one = {key: value[row] for key, value in packed.rows.items()}
        for segment in range(1, one[batch.DECODER_SEGMENT_IDS].max() + 1):
            own = one[batch.DECODER_SEGMENT_IDS] == segment
            (task,) = set(one[batch.DECODER_TASK_IDS][own].tolist())
            prompt, answer = prompts[task - 1], answers[task - 1]
            found[task] = row
            assert one[batch.DECODER_INPUT_TOKENS][own].tolist() == [*prompt, *answer[:-1]]
            assert one[batch.DECODER_TARGET_TOKENS][own].tolist() == [*prompt[1:], *answer]
            weights = one[batch.DECODER_LOSS_WEIGHTS][own]
            assert one[batch.DECODER_TARGET_TOKENS][own][weights > 0].tolist() == answer
            prefix = one[batch.DECODER_CAUSAL_ATTENTION][own] > 0
            assert one[batch.DECODER_INPUT_TOKENS][own][prefix].tolist() == prompt
            assert one[batch.DECODER_POSITIONS][own].tolist() == list(range(own.sum()))
        padding = one[batch.DECODER_SEGMENT_IDS] == 0
        assert not any(values[padding].any() for values in one.values())
    assert [found[task] for task in range(1, 151)] == packed.example_rows.tolist()
    if method == "best_fit":
        assert (packed.rows[batch.DECODER_SEGMENT_IDS] > 0).mean() > 0.9


def test_loss_weights_of_one_sequence():
    sides = [[0, 7, 8]], [[3, 1, 9, 4, 1]], [4], (4, 6)
    chosen = packed_sequences(*sides, target_weights=[[1, 1, 0, 1, 1]]).rows
    assert chosen[batch.DECODER_LOSS_WEIGHTS].tolist() == [[0, 0, 1, 1, 0, 1, 1, 0, 0, 0]]
    assert chosen[batch.DECODER_CAUSAL_ATTENTION].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]
    every = packed_sequences(*sides, loss_on="all").rows
    assert every[batch.DECODER_LOSS_WEIGHTS].tolist() == [[1, 1, 1, 1, 1, 1, 1, 0, 0, 0]]
    assert not every[batch.DECODER_CAUSAL_ATTENTION].any()


@pytest.mark.slow
@pytest.mark.parametrize("start_id", [0, 2])
@pytest.mark.parametrize("on_targets", [True, False])
@pytest.mark.parametrize("packing", ["next_fit", "none"])
def test_one_sequence_as_seqio_converts_it(packing, on_targets, start_id):
    inputs, targets = made_up(40, 24, 12, seed=3)
    lengths = {"inputs": 24, "targets": 12}
    dataset = tf.data.Dataset.from_generator(
        lambda: ({"inputs": a, "targets": b} for a, b in zip(inputs, targets)),
        output_signature={name: tf.TensorSpec((None,), tf.int32) for name in lengths},
    )
    pack_, loss_on = packing != "none", "targets" if on_targets else "all"
    prompts = [[start_id, *ids] for ids in inputs]
    ours = packed_sequences(prompts, targets, [1] * 40, (24, 12), packing, loss_on=loss_on).rows
    for kind in (seqio.PrefixLMFeatureConverter, seqio.DecoderFeatureConverter):
        converter = kind(loss_on_targets_only=on_targets, pack=pack_, bos_id=start_id)
        theirs = list(converter(dataset, lengths).as_numpy_iterator())
        inside = ours[batch.DECODER_SEGMENT_IDS] > 0
        for key in theirs[0]:
            expected = np.stack([row[key] for row in theirs])
            if key == batch.DECODER_INPUT_TOKENS:
                expected = expected * inside  # SeqIO shifts the last token into the padding
            if key == batch.DECODER_CAUSAL_ATTENTION and not on_targets:
                expected = 0 * expected  # positions that see their target have nothing to predict
            np.testing.assert_array_equal(ours[key], expected, key)
