"""Majorities by hand, and samples of a model against what its decoder says."""

import collections

import jax
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.scoring.self_consistency import Vote, majority, self_consistent
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder

MODEL = EncoderDecoder(
    ModelConfig(
        vocab_size=12,
        d_model=16,
        num_heads=2,
        head_dim=8,
        d_ff=24,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
)


def test_the_worked_example():
    assert majority([4, 5, None, 5, 4], [-9, -2, -1, -8, -3]) == Vote(5, 1, 2, 4)


@pytest.mark.parametrize(
    "answers,scores,expected",
    [
        (["a", "b", "b"], [-1, -5, -6], Vote("b", 1, 2, 3)),
        (["", None, "  "], [-1, -2, -3], Vote(None, 0, 0, 0)),
        (["", "c", ""], [-1, -9, -1], Vote("c", 1, 1, 1)),
        (["a", "b"], [-2, -2], Vote("a", 0, 1, 2)),  # equal in everything: the first
        ([["x"], ["y"], ["x"]], [-3, -1, -2], Vote(["x"], 2, 2, 3)),
        ([1, True, "1", 1.5, 1], [-5, -1, -1, -1, -4], Vote(1, 4, 2, 5)),
        ([0, 0, 3], [-5, -4, -1], Vote(0, 1, 2, 3)),  # nought is an answer
        ([], [], Vote(None, 0, 0, 0)),
    ],
)
def test_majorities(answers, scores, expected):
    assert majority(answers, scores) == expected


def test_as_many_answers_as_scores():
    with pytest.raises(ValueError, match="2 answers but 1"):
        majority(["a", "b"], [0.0])


@pytest.mark.slow
def test_the_samples_of_a_model_vote():
    params = jax.jit(MODEL.init)(jax.random.key(0))
    inputs = [[5, 6, 1], [7, 1], [3, 4, 8, 9, 1]]
    config = DecodeConfig("sample", 3, num_samples=8, temperature=0.7, seed=5)
    decoder = Decoder(MODEL, config, BatchConfig(2, 1))
    asked = []

    def read(text, number):
        asked.append(number)
        first = text.split()[0]
        return None if first in ("0", "1") else first

    found = self_consistent(
        decoder, params, inputs, lambda ids: " ".join(map(str, ids)), read, [4, 5, 6]
    )
    samples = decoder.generate(params, inputs, [4, 5, 6])
    np.testing.assert_array_equal(found.log_likelihoods, samples.scores)
    assert asked == [0] * 8 + [1] * 8 + [2] * 8
    for vote, rows, texts in zip(found.votes, samples.tokens, found.texts):
        first = [str(token) for token in rows[:, 0] if token > 1]
        counts = collections.Counter(first)
        assert vote.votes == max(counts.values()) == counts[vote.answer]
        assert vote.read == len(first)
        assert texts[vote.sample].split()[0] == vote.answer
    assert any(len(set(texts)) > 2 for texts in found.texts)


def test_answers_that_are_all_the_same_do_not_vote():
    decoder = Decoder(MODEL, DecodeConfig(max_decode_steps=3))
    with pytest.raises(UserError, match="strategy='sample'"):
        self_consistent(decoder, {}, [[1]], str, lambda text, _: text)
