"""Greedy and sampled decoding against NumPy, the loop's early stop, and the configuration."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.eval.decoding.decode import DecodeConfig, sampling_logits, token_logprobs
from tests.eval import toy_decoder as toy
from tests.eval.toy_decoder import decode
from tests.float32 import assert_same_float32


def run(config, example_ids, step_fn=toy.toy_step):
    """Decodes the toy prompts whose numbers are `example_ids` (padding rows: prompt 0)."""
    prompts = np.maximum(example_ids, 0)

    @jax.jit
    def decoded(prompts, ids):
        cache = toy.toy_cache(prompts, config.num_sequences)
        return decode(step_fn, toy.toy_reorder, cache, ids, config)

    result = decoded(jnp.asarray(prompts), jnp.asarray(example_ids, jnp.int32))
    return jax.tree.map(np.asarray, result)


def greedy_reference(prompt, max_steps, ends=(toy.EOS,)):
    tokens, score = [], 0.0
    while len(tokens) < max_steps and not set(ends) & set(tokens):
        logprobs = toy.prefix_logprobs(prompt, tokens)
        tokens.append(int(np.argmax(logprobs)))
        score += logprobs[tokens[-1]]
    return tokens + [0] * (max_steps - len(tokens)), score


GREEDY = DecodeConfig(max_decode_steps=toy.MAX_STEPS)


def test_greedy_equals_decoding_without_a_cache():
    ids = np.arange(12)
    result = run(GREEDY, ids)
    lengths = set()
    for row in ids:
        tokens, score = greedy_reference(row, toy.MAX_STEPS)
        np.testing.assert_array_equal(result.tokens[row, 0], tokens)
        assert_same_float32(result.scores[row, 0], score, scale=toy.LOGITS_SIZE)
        lengths.add(np.count_nonzero(tokens))
    assert len(lengths) > 1, "the toy should end at different steps"


def test_an_end_of_sequence_of_ones_own_is_not_replaced_in_silence():
    """A set `eos_id` that the vocabulary does not have would end no answer."""
    with pytest.raises(UserError, match=r"eos_id is 9, but .* is 2, .*set stop_ids=\(9,\)"):
        DecodeConfig(eos_id=9).ending_with((2, 5))
    assert DecodeConfig(eos_id=9, stop_ids=(9,)).ending_with((2, 5)).end_ids == (2, 5, 9)
    for known in (1, 2, 5):  # 1 is the default
        assert DecodeConfig(eos_id=known).ending_with((2, 5)).end_ids == (2, 5)


def test_every_stop_token_ends_an_answer():
    greedy = run(GREEDY, np.arange(12)).tokens[:, 0]
    stops = tuple(np.unique(greedy[greedy > toy.EOS]).tolist()[:2])
    ends = (toy.EOS, *stops)
    config = DecodeConfig(max_decode_steps=toy.MAX_STEPS).ending_with(ends)
    assert config.end_ids == ends and config.ending_with(ends) == config
    assert f" stop={','.join(map(str, stops))}" in config.describe()
    assert config.settings()["stop_ids"] == list(stops)
    beam = DecodeConfig("beam", toy.MAX_STEPS, num_beams=1, length_penalty=0.0, stop_ids=stops)
    result, beams, last = run(config, np.arange(12)), run(beam, np.arange(12)), set()
    for row in range(12):
        tokens, _ = greedy_reference(row, toy.MAX_STEPS, ends)
        np.testing.assert_array_equal(result.tokens[row, 0], tokens)
        if set(ends) & set(tokens):
            answer = config.answer_ids(tokens)
            last.add(tokens[len(answer)])
            assert tokens[: len(answer)] == answer and not set(answer) & set(ends)
            np.testing.assert_array_equal(beams.tokens[row, 0], tokens)
    assert len(last) > 1, "answers should end with several tokens"


def test_beam_of_one_is_greedy_up_to_the_length_penalty():
    ids = np.arange(12)
    greedy = run(GREEDY, ids)
    config = DecodeConfig("beam", toy.MAX_STEPS, num_beams=1, length_penalty=0.0)
    beam = run(config, ids)
    ended = np.any(greedy.tokens[:, 0] == toy.EOS, axis=-1)
    assert ended.mean() > 0.5
    # While following greedy, a beam of one keeps the best prefix that ends here as well, so it
    # may return an earlier end that is likelier than all of greedy's sequence; never a less likely.
    same = np.all(beam.tokens[:, 0] == greedy.tokens[:, 0], axis=-1)
    assert np.all(beam.scores[ended & ~same] > greedy.scores[ended & ~same])
    assert same[ended].mean() > 0.5
    assert_same_float32(beam.scores[same], greedy.scores[same])


def test_cold_samples_are_greedy():
    ids = np.arange(12)
    config = DecodeConfig("sample", toy.MAX_STEPS, temperature=1e-6, num_samples=2)
    samples, greedy = run(config, ids), run(GREEDY, ids)
    for n in range(2):
        np.testing.assert_array_equal(samples.tokens[:, n], greedy.tokens[:, 0])
        assert_same_float32(samples.scores[:, n], greedy.scores[:, 0])


@pytest.mark.slow
def test_samples_depend_on_seed_example_and_sample_only():
    config = DecodeConfig("sample", toy.MAX_STEPS, temperature=2.0, num_samples=3, seed=7)
    together = run(config, np.arange(8))
    apart = run(config, np.array([5, -1, 2]))
    np.testing.assert_array_equal(together.tokens[5], apart.tokens[0])
    np.testing.assert_array_equal(together.tokens[2], apart.tokens[2])
    fewer = run(dataclasses.replace(config, num_samples=2), np.arange(8))
    np.testing.assert_array_equal(together.tokens[:, :2], fewer.tokens)
    other = run(dataclasses.replace(config, seed=8), np.arange(8))
    assert np.any(other.tokens != together.tokens)
    assert len({tuple(row) for row in together.tokens.reshape(-1, toy.MAX_STEPS)}) > 8


def test_a_score_is_the_log_likelihood_of_its_tokens():
    config = DecodeConfig("sample", toy.MAX_STEPS, temperature=2.0, top_k=5, num_samples=2)
    result = run(config, np.arange(4))
    for row in range(4):
        for n in range(2):
            sequence = list(result.tokens[row, n])
            length = sequence.index(toy.EOS) + 1 if toy.EOS in sequence else toy.MAX_STEPS
            expected = sum(
                toy.prefix_logprobs(row, sequence[:i])[sequence[i]] for i in range(length)
            )
            assert_same_float32(result.scores[row, n], expected, scale=toy.LOGITS_SIZE)
            assert not any(sequence[length:])


def test_rescaled_scores_are_those_of_the_distribution_drawn_from():
    logits = toy.prefix_logits(3, [])
    config = DecodeConfig("sample", 1, temperature=0.5, top_k=3, rescale_scores=True)
    result = run(config, np.array([3]))
    token = result.tokens[0, 0, 0]
    best = np.sort(logits)[-3:] / 0.5
    expected = logits[token] / 0.5 - np.log(np.sum(np.exp(best)))
    assert_same_float32(result.scores[0, 0], expected, scale=toy.LOGITS_SIZE)
    rescaled_greedy = run(DecodeConfig(max_decode_steps=3, rescale_scores=True), np.arange(2))
    assert not rescaled_greedy.scores.any()


def reference_distribution(logits, temperature, top_k, top_p):
    """Probabilities [V] by sorting, in float64."""
    scaled = logits.astype(np.float64) / temperature
    probabilities = np.exp(scaled - scaled.max())
    if top_k:
        probabilities[np.argsort(-probabilities)[top_k:]] = 0
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)
    before = np.cumsum(probabilities[order]) - probabilities[order]
    probabilities[order[before >= top_p]] = 0
    return probabilities / probabilities.sum()


@pytest.mark.parametrize(
    "temperature,top_k,top_p", [(1.0, 0, 1.0), (0.7, 4, 1.0), (1.3, 0, 0.8), (0.9, 6, 0.5)]
)
def test_sampling_distribution(temperature, top_k, top_p):
    logits = np.random.default_rng(0).normal(size=(9, 50)).astype(np.float32) * 2
    found = jax.nn.softmax(sampling_logits(jnp.asarray(logits), temperature, top_k, top_p))
    for row in range(9):
        expected = reference_distribution(logits[row], temperature, top_k, top_p)
        assert_same_float32(found[row], expected)
        assert np.count_nonzero(found[row]) == np.count_nonzero(expected)


def test_worked_example_of_sampling_logits():
    logits = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.1]]))
    first_two = jax.nn.softmax(sampling_logits(logits, 1.0, top_k=2))
    assert_same_float32(first_two[0], np.array([4 / 7, 3 / 7, 0, 0]))
    first_three = sampling_logits(logits, 1.0, top_p=0.75)
    np.testing.assert_array_equal(np.isfinite(first_three[0]), [True, True, True, False])


def test_drawn_frequencies_follow_the_distribution():
    config = DecodeConfig("sample", 1, temperature=0.8, top_k=6, top_p=0.9, num_samples=4000)
    drawn = run(config, np.array([2])).tokens[0, :, 0]
    expected = reference_distribution(toy.prefix_logits(2, []), 0.8, 6, 0.9)
    found = np.bincount(drawn, minlength=toy.VOCABULARY) / 4000
    assert np.all(found[expected == 0] == 0)
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(4000))


@pytest.mark.slow
def test_stops_when_all_rows_have_ended():
    calls = []

    def step(cache, tokens, position):
        jax.debug.callback(lambda p: calls.append(p), position)
        ends = jnp.array([2, 4, 90])[cache] == position
        return jnp.where(ends[:, None], jnp.eye(5)[1], jnp.eye(5)[3]) * 50, cache

    config = DecodeConfig(max_decode_steps=60)

    def steps(ids):
        cache = jnp.arange(3)
        result = decode(step, toy.toy_reorder, cache, jnp.array(ids, jnp.int32), config)
        jax.effects_barrier()
        return int(result.steps), result

    assert steps([0, 1, -1])[0] == 5
    assert len(calls) == 5
    assert steps([0, 1, 2])[0] == 60
    assert steps([-1, -1, -1])[0] == 0
    np.testing.assert_array_equal(steps([0, -1, -1])[1].tokens[0, 0, :5], [3, 3, 1, 0, 0])


def test_one_trace_per_shape():
    traces = []

    def step(cache, tokens, position):
        traces.append(tokens.shape)
        return toy.toy_step(cache, tokens, position)

    @jax.jit
    def decoded(prompts):
        return decode(step, toy.toy_reorder, toy.toy_cache(prompts, 1), prompts, GREEDY)

    for _ in range(3):
        decoded(jnp.arange(4))
    assert traces == [(4,)]
    decoded(jnp.arange(5))
    assert traces == [(4,), (5,)]


def test_token_logprobs():
    logits = np.random.default_rng(1).normal(size=(3, 4, 9)).astype(np.float32)
    tokens = np.array([[1, 2, 3, 4], [0, 8, 7, 6], [5, 5, 5, 5]])
    expected = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), tokens[..., None], axis=-1
    )
    found = token_logprobs(jnp.asarray(logits), jnp.asarray(tokens))
    assert_same_float32(found, expected[..., 0])


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"strategy": "gredy"}, "unknown DecodeConfig.strategy 'gredy'. Did you mean 'greedy'"),
        ({"strategy": None}, "unknown DecodeConfig.strategy None"),
        ({"max_decode_steps": 0}, "max_decode_steps is 0; use a whole number of at least 1"),
        ({"max_decode_steps": "8"}, "max_decode_steps is '8'"),
        ({"max_decode_steps": 8.0}, "max_decode_steps is 8.0"),
        ({"max_decode_steps": True}, "max_decode_steps is True"),
        ({"strategy": "sample", "temperature": 0.0}, "strategy='greedy'"),
        ({"strategy": "sample", "temperature": float("nan")}, "temperature is nan"),
        ({"strategy": "sample", "top_p": 1.5}, "top_p is 1.5"),
        ({"strategy": "sample", "top_k": -1}, "top_k is -1"),
        ({"strategy": "beam", "num_beams": 0}, "num_beams is 0"),
        ({"strategy": "beam", "length_penalty": float("inf")}, "length_penalty is inf"),
        ({"temperature": 0.7}, "temperature = 0.7 has no effect with strategy='greedy'"),
        ({"num_beams": 8}, "num_beams = 8 has no effect with strategy='greedy'"),
        ({"strategy": "beam", "rescale_scores": True}, "rescale_scores"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(UserError) as error:
        DecodeConfig(**settings)
    assert message in str(error.value)


def test_rescaled_scores_are_other_results():
    """Results files compare the description to tell settings apart."""
    assert DecodeConfig(rescale_scores=True).describe() == "greedy steps=128 rescaled scores"


def test_describe():
    assert DecodeConfig(max_decode_steps=8).describe() == "greedy steps=8"
    assert DecodeConfig("beam", 8).describe() == "beam-4 alpha=0.6 steps=8"
    sampled = DecodeConfig("sample", 8, temperature=0.7, top_k=40, top_p=0.9, num_samples=3)
    expected = "sample temperature=0.7 top_k=40 top_p=0.9 samples=3 seed=0 steps=8"
    assert sampled.describe() == expected
