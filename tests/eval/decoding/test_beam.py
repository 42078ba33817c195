"""Beam search against an independent NumPy search, an exhaustive one, and the worked example."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.eval.decoding.beam import EMPTY_SCORE, BeamSearch
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.search import PADDING_EXAMPLE, advance
from tests.eval import toy_decoder as toy
from tests.float32 import assert_same_float32

PROMPTS = np.arange(6)


def beam_search(step_fn, reorder_fn, cache, padding, **settings):
    """(tokens, scores, steps) of rows that all start at once."""
    strategy = BeamSearch(**settings)
    state = strategy.start(jnp.where(padding, PADDING_EXAMPLE, jnp.arange(padding.shape[0])))
    state, _, steps = advance(step_fn, reorder_fn, strategy, state, cache, padding.shape[0])
    return *strategy.sequences(state), steps


def search(prompts, num_beams, alpha, max_steps=toy.MAX_STEPS, padding=None):
    if padding is None:
        padding = np.zeros(len(prompts), bool)

    def run(prompts, padding):
        return beam_search(
            toy.toy_step,
            toy.toy_reorder,
            toy.toy_cache(prompts, num_beams),
            padding,
            num_beams=num_beams,
            max_steps=max_steps,
            alpha=alpha,
            end_ids=(toy.EOS,),
        )

    return jax.tree.map(np.asarray, jax.jit(run)(jnp.asarray(prompts), jnp.asarray(padding)))


def penalty(length, alpha):
    return ((5 + length) / 6) ** alpha


def reference_search(prompt, num_beams, alpha, max_steps):
    """T5X's algorithm in plain Python, without early stop: [(score, tokens)], best first."""
    live, finished = [(0.0, [])], []
    for step in range(max_steps):
        candidates = [
            (logprob + extra, prefix + [token])
            for logprob, prefix in live
            for token, extra in enumerate(toy.prefix_logprobs(prompt, prefix))
        ]
        candidates = sorted(candidates, key=lambda c: -c[0])[: 2 * num_beams]
        live = [c for c in candidates if c[1][-1] != toy.EOS][:num_beams]
        ended = [(s / penalty(step + 1, alpha), t) for s, t in candidates if t[-1] == toy.EOS]
        finished = sorted(finished + ended, key=lambda c: -c[0])[:num_beams]
    return finished or live


@pytest.mark.slow
@pytest.mark.parametrize("num_beams,alpha", [(1, 0.0), (3, 0.6), (4, 1.5)])
def test_agrees_with_an_independent_search(num_beams, alpha):
    tokens, scores, _ = search(PROMPTS, num_beams, alpha)
    for row, prompt in enumerate(PROMPTS):
        expected = reference_search(prompt, num_beams, alpha, toy.MAX_STEPS)
        for n, (score, sequence) in enumerate(expected):
            padded = sequence + [0] * (toy.MAX_STEPS - len(sequence))
            np.testing.assert_array_equal(tokens[row, n], padded)
            assert_same_float32(scores[row, n], score, scale=toy.LOGITS_SIZE)
        assert np.all(scores[row, len(expected) :] <= EMPTY_SCORE)


def test_a_beam_as_wide_as_all_prefixes_finds_the_best_of_all_sequences():
    steps, alpha = 2, 0.6
    tokens, scores, _ = search(PROMPTS[:3], 5, alpha, max_steps=steps)
    for row in range(3):
        every = [[toy.EOS]] + [[t, toy.EOS] for t in range(toy.VOCABULARY) if t != toy.EOS]
        best = max(
            (
                sum(
                    toy.prefix_logprobs(row, sequence[:i])[token]
                    for i, token in enumerate(sequence)
                )
                / penalty(len(sequence), alpha),
                sequence,
            )
            for sequence in every
        )
        assert_same_float32(scores[row, 0], best[0], scale=toy.LOGITS_SIZE)
        assert [t for t in tokens[row, 0] if t] == [t for t in best[1] if t]


@pytest.mark.slow
def test_worked_example_of_the_docstring():
    logprobs = jnp.array([-np.inf, -1.0, -2.0, -3.0])  # tokens 0, EOS, 2, 3

    def step(cache, tokens, position):
        return jnp.broadcast_to(logprobs, (tokens.shape[0], 4)), cache

    tokens, scores, steps = beam_search(
        step,
        lambda c, _: c,
        (),
        jnp.array([False]),
        num_beams=2,
        max_steps=5,
        alpha=0.0,
        end_ids=(1,),
    )
    shift = float(jax.nn.logsumexp(logprobs))  # the example's numbers are unnormalised
    np.testing.assert_array_equal(tokens[0, :, :3], [[1, 0, 0], [2, 1, 0]])
    assert_same_float32(scores[0], np.array([-1 - shift, -3 - 2 * shift]))
    assert steps == 2


@pytest.mark.slow
def test_stops_early_and_padding_rows_do_not_keep_it_running():
    far = jnp.zeros((3, 8)).at[0, 1].set(30.0).at[1, 1].set(30.0)  # the third row never ends

    def step(cache, tokens, position):
        later = jnp.where(position > 0, 30.0, 0.0) * jnp.array([1.0, 1.0, 0.0])
        logits = far.at[:, 1].add(later)
        return jnp.repeat(logits, 2, axis=0), cache

    def steps(padding):
        return int(
            beam_search(
                step,
                lambda cache, _: cache,
                (),
                jnp.array(padding),
                num_beams=2,
                max_steps=50,
                alpha=0.0,
                end_ids=(1,),
            )[2]
        )

    assert steps([False, False, True]) == 2
    assert steps([True, True, True]) == 0
    assert steps([False, False, False]) > 2


def test_no_finished_hypothesis_returns_the_live_ones():
    def step(cache, tokens, position):
        logits = jnp.broadcast_to(jnp.arange(8.0), (tokens.shape[0], 8))
        return logits.at[:, 1].set(-jnp.inf), cache

    tokens, scores, steps = beam_search(
        step,
        lambda c, _: c,
        (),
        jnp.array([False]),
        num_beams=2,
        max_steps=3,
        alpha=0.6,
        end_ids=(1,),
    )
    assert steps == 3
    assert list(tokens[0, 0]) == [7, 7, 7]
    first = 3 * float(jax.nn.log_softmax(jnp.arange(8.0).at[1].set(-jnp.inf))[7])
    assert_same_float32(scores[0, 0], first, scale=7.0)


@pytest.mark.slow
def test_results_of_a_row_do_not_depend_on_the_others():
    together, scores, _ = search(PROMPTS, 3, 0.6)
    for prompt in PROMPTS[::-2]:
        alone, alone_scores, _ = search(np.array([prompt]), 3, 0.6)
        np.testing.assert_array_equal(together[prompt], alone[0])
        assert_same_float32(scores[prompt], alone_scores[0])


def test_every_returned_score_is_that_of_its_tokens():
    alpha = 0.6
    tokens, scores, _ = search(PROMPTS, 3, alpha)
    for row, n in itertools.product(range(len(PROMPTS)), range(3)):
        if scores[row, n] <= EMPTY_SCORE:
            continue
        sequence = list(tokens[row, n])
        ended = toy.EOS in sequence
        length = sequence.index(toy.EOS) + 1 if ended else toy.MAX_STEPS
        total = sum(toy.prefix_logprobs(row, sequence[:i])[sequence[i]] for i in range(length))
        expected = total / penalty(length, alpha) if ended else total
        assert_same_float32(scores[row, n], expected, scale=toy.LOGITS_SIZE)


def test_too_many_beams_for_the_vocabulary():
    with pytest.raises(UserError, match="at least 12 tokens, this one has 11"):
        search(PROMPTS[:1], 6, 0.6)


def test_slots_without_a_hypothesis_are_empty_answers():
    """One hypothesis ends at the last step; in some vocabularies token 0 of the others is text."""

    def step(cache, tokens, position):
        logits = jnp.broadcast_to(-jnp.arange(16.0), (tokens.shape[0], 16)).at[:, 1].set(-jnp.inf)
        likely = jnp.where(jnp.repeat(position, 3) == 2, 0.5, -jnp.inf)
        first = jnp.arange(tokens.shape[0]) % 3 == 0
        return logits.at[:, 1].set(jnp.where(first, likely, -jnp.inf)), cache

    settings = {"num_beams": 3, "max_steps": 3, "alpha": 0.6, "end_ids": (1,)}
    tokens, scores, _ = beam_search(step, lambda c, _: c, (), jnp.array([False]), **settings)
    assert (scores[0] > EMPTY_SCORE).tolist() == [True, False, False]
    answer_ids = DecodeConfig("beam", 3).answer_ids
    assert [answer_ids(row) for row in tokens[0]] == [tokens[0, 0, :2].tolist(), [], []]
