"""Decoder-only and prefix-LM models generate, score and rank as logits of whole sequences say.

Prompts are longer than the window of local layers, and token 0 is text.
"""

import dataclasses

import jax
import numpy as np
import pytest

from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.beam import EMPTY_SCORE
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.scoring.options import OptionScorer
from instruct.eval.scoring.score import Scorer
from instruct.mesh import make_mesh, param_shardings, parse_mesh
from instruct.models.layout import stack_layers
from instruct.models.model import make_model
from tests.float32 import assert_same_float32
from tests.train.batches import tiny_decoder

pytestmark = pytest.mark.slow

STEPS, WIDTH = 6, 32
LOGITS_SIZE = 5.0  # of the soft cap


@pytest.fixture(scope="module", params=[False, True], ids=["causal", "prefix_lm"])
def model(request):
    return make_model(tiny_decoder(prefix_lm=request.param, num_layers=3))


@pytest.fixture(scope="module")
def params(model):
    # Larger than fresh ones, with an end that is likely: answers differ, in length too.
    params = jax.tree.map(lambda leaf: 3.0 * leaf, jax.jit(model.init)(jax.random.key(2)))
    embedding = params["token_embedder"]["embedding"]
    params["token_embedder"]["embedding"] = embedding.at[1].multiply(2.0)
    return params


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(3)
    return [random.integers(0, 64, n).tolist() for n in [*random.integers(1, 26, 10), 1]]


@pytest.fixture(scope="module")
def by_logits(model, params):
    """sequences, lengths of their prompts -> logits [B, WIDTH, V] without a cache."""
    apply = jax.jit(model.apply)

    def logits(sequences, prefixes):
        tokens, segments, prefix = np.zeros((3, len(sequences), WIDTH), np.int32)
        for row, (sequence, length) in enumerate(zip(sequences, prefixes)):
            tokens[row, : len(sequence)] = sequence
            segments[row, : len(sequence)] = 1
            prefix[row, :length] = 1
        batch = {"decoder_input_tokens": tokens, "decoder_segment_ids": segments}
        return np.asarray(apply(params, batch | {"decoder_causal_attention": prefix}))

    return logits


@pytest.fixture(scope="module")
def greedy(prompts, by_logits):
    """(answers, their log-likelihoods), one token after the other."""
    answers, scores = [[] for _ in prompts], np.zeros(len(prompts))
    for _ in range(STEPS):
        sequences = [prompt + answer for prompt, answer in zip(prompts, answers)]
        logits = by_logits(sequences, map(len, prompts))
        for row, answer in enumerate(answers):
            if 1 not in answer:
                last = jax.nn.log_softmax(logits[row, len(sequences[row]) - 1])
                answer.append(int(np.argmax(last)))
                scores[row] += last[answer[-1]]
    assert len({len(answer) for answer in answers}) > 1
    return answers, scores


@pytest.mark.parametrize("scan", [False, True])
def test_greedy_in_refilled_slots_is_greedy_without_a_cache(model, params, prompts, greedy, scan):
    model = make_model(dataclasses.replace(model.config, scan_layers=scan))
    params = stack_layers(params) if scan else params
    decoder = Decoder(model, DecodeConfig(max_decode_steps=STEPS), BatchConfig(3, 2))
    found = decoder.generate(params, prompts)
    for row, answer in zip(found.tokens[:, 0], greedy[0]):
        assert row.tolist() == answer + [0] * (STEPS - len(answer))
    assert_same_float32(found.scores[:, 0], greedy[1].astype(np.float32), scale=LOGITS_SIZE)


def test_given_answers_score_what_their_tokens_say(model, params, prompts, greedy):
    scores = Scorer(model.target_logits, BatchConfig(4, 2)).score(params, prompts, greedy[0])
    assert_same_float32(scores, greedy[1].astype(np.float32), scale=LOGITS_SIZE)


def test_beams_score_what_their_sequences_do(model, params, prompts):
    config = DecodeConfig("beam", STEPS, num_beams=3, length_penalty=0.0)
    found = Decoder(model, config, BatchConfig(3, 2)).generate(params, prompts)
    mesh = make_mesh(parse_mesh("data=2,fsdp=2,tensor=2"))
    spread = jax.device_put(params, param_shardings(mesh, params))
    eight = Decoder(model, config, BatchConfig(4, 1), mesh).generate(spread, prompts)
    np.testing.assert_array_equal(eight.tokens, found.tokens)
    ended = np.any(found.tokens == 1, axis=-1) & (found.scores > EMPTY_SCORE)
    rows, beams = np.nonzero(ended)
    assert len(set(rows)) > 1
    targets = [[*config.answer_ids(found.tokens[at]), 1] for at in zip(rows, beams)]
    inputs = [prompts[row] for row in rows]
    scores = Scorer(model.target_logits, BatchConfig(64, 1)).score(params, inputs, targets)
    assert_same_float32(scores, found.scores[rows, beams], scale=LOGITS_SIZE)


def test_options_rank_as_they_score_alone(model, params, prompts, greedy):
    options = [[answer, [*answer[:1], 0, 7], [0, 0]] for answer in greedy[0]]
    ranked = OptionScorer(model, BatchConfig(12, 2)).rank(params, prompts, options)
    inputs = [prompt for prompt in prompts for _ in range(3)]
    flat = [option for each in options for option in each]
    alone = Scorer(model.target_logits, BatchConfig(64, 1)).score(params, inputs, flat)
    found = np.concatenate([ranking.log_likelihoods for ranking in ranked])
    assert_same_float32(found, alone, scale=LOGITS_SIZE)
