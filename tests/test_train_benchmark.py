"""The training benchmark: same examples on both sides, and a check that other training fails."""

import collections

import numpy as np
import pytest

from benchmarks import peer, train
from benchmarks.train import LENGTHS, Turn, Work
from benchmarks.train_step import first_state
from instruct.data.feed.packing import pack
from instruct.models.config import ModelConfig
from instruct.workspace import Workspace

INPUTS, TARGETS = LENGTHS.values()
CONFIG = ModelConfig(
    vocab_size=512,
    d_model=128,
    num_heads=2,
    head_dim=64,
    d_ff=128,
    num_encoder_layers=1,
    num_decoder_layers=1,
)


def few_examples(count: int) -> list[train.Example]:
    examples = train.flan_examples(count)
    return [
        ([1 + i % 500 for i in inputs], [1 + i % 500 for i in targets])
        for inputs, targets in examples
    ]


def batches(count: int, rows: int = 2) -> list[dict[str, np.ndarray]]:
    inputs, targets = zip(*few_examples(4 * rows * count))
    packed = pack(inputs, targets, np.ones(len(inputs), int), INPUTS, TARGETS).rows
    return [{k: v[i * rows :][:rows] for k, v in packed.items()} for i in range(count)]


def test_packed_rows_are_taken_apart_into_their_examples():
    examples = few_examples(40)
    inputs, targets = zip(*examples)
    packed = pack(inputs, targets, np.ones(len(inputs), int), INPUTS, TARGETS)
    assert sorted(train.unpacked(packed.rows)) == sorted(examples)


def test_lengths_of_the_made_up_examples():
    examples = list(train.flan_examples(2000))
    assert examples[:100] == list(train.flan_examples(100))
    inputs, targets = (np.array([len(tokens) for tokens in side]) for side in zip(*examples))
    assert (inputs.max(), targets.max()) == (512, 128) and min(inputs.min(), targets.min()) >= 2
    assert 0.1 < np.mean(inputs == 512) < 0.2 and inputs.mean() > 1.2 * np.median(inputs)
    assert 0.55 < np.mean(targets <= 8) < 0.7
    assert all(side[-1] == train.EOS and 0 not in side for pair in examples for side in pair)


def test_a_feed_of_the_made_up_examples_yields_them(tmp_path):
    data = train.open_data("flan", Workspace(store_dir=tmp_path), rows=2)
    batch, info = next(data.feed)
    data.feed.close()
    assert train.unpacked(batch) == data.examples[: info.num_examples]
    known = collections.Counter(map(repr, train.flan_examples(4096)))
    assert not collections.Counter(map(repr, data.examples)) - known
    assert data.per_update == pytest.approx(4.3, abs=0.3)


def test_their_batches_take_every_length():
    examples = few_examples(800)
    whole = {order: train.peer_batches(examples, 4, order, seed=0) for order in train.ORDERS}
    assert {len(own) for own in whole.values()} == {peer.MEGA_BATCHES}
    longest = {
        order: np.mean([max(len(i) for i, _ in batch) for batch in own])
        for order, own in whole.items()
    }
    assert longest["grouped"] < 0.7 * longest["random"]
    lengths = [len(batch[-1][0]) for batch in whole["grouped"]]
    assert lengths[1:] == sorted(lengths[1:], reverse=True)
    rounds = [train.of_round(range(50), number, rounds=5, updates=2) for number in range(5)]
    assert sorted(np.concatenate(rounds)) == [2, 7, 12, 17, 22, 27, 32, 37, 42, 47]
    assert all(second - first == 25 for first, second in rounds)


def test_figures_of_a_side():
    ours = [Turn(1.0, 2.0, Work(10, 1000, 1000, 10**9))] * 3
    theirs = [Turn(wall, 4.0, Work(5, 500, 1000, 10**9)) for wall in (1.0, 1.5, 4.0)]
    found = train.figures(theirs, [2e9] * 3, ours)
    assert found["ratio_wall"] == [3.0, 2.0, 8.0] and found["ratio_cpu"] == [4.0] * 3
    assert found["examples_per_sec"] == round(15 / 6.5, 2) and found["tokens_per_sec"] == 231
    assert found["filled"] == 0.5 and found["tokens_per_example"] == 100
    assert found["peak_share"] == pytest.approx(1 / 3, abs=1e-3)


@pytest.mark.slow
def test_both_programs_train_alike_and_another_rate_or_other_examples_are_found():
    peer.use_threads(1)  # those of a busy machine would wait for each other
    own, rate = batches(3), 1e-3
    ours, params = train.Ours(CONFIG, own[0]), first_state(CONFIG).params

    def differences(learning_rate: float, left_out: int = 0) -> list[float]:
        ours.state = first_state(CONFIG)
        theirs = peer.TrainingPeer(CONFIG, params, learning_rate)
        update = theirs.update
        theirs.update = lambda examples: update(examples[left_out:])
        return train.check(ours, own, theirs)

    assert np.abs(differences(rate)).max() < 1e-4
    with pytest.raises(AssertionError, match="update [12]"):
        differences(3 * rate)
    with pytest.raises(AssertionError, match="update 0"):
        differences(rate, left_out=1)
