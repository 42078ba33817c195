"""Prompts that arrive at any time get the answers that `Decoder` gives to a list of them."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from instruct.eval.decoding.batching import BatchConfig, Decoder, Generated
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.online import OnlineDecoder, Partial
from instruct.models.config import ModelConfig
from instruct.models.decoder_config import DecoderConfig
from instruct.models.decoder_only import DecoderOnly
from instruct.models.encoder_decoder import EncoderDecoder

STEPS, LONGEST = 9, 40
SIZES = {"vocab_size": 48, "d_model": 16, "num_heads": 2, "head_dim": 8, "d_ff": 24}
MODELS = {
    "encoder_decoder": EncoderDecoder(
        ModelConfig(**SIZES, num_encoder_layers=1, num_decoder_layers=1)
    ),
    "decoder_only": DecoderOnly(
        DecoderConfig(**SIZES, num_layers=1, num_kv_heads=1, tied_output=False)
    ),
}
GREEDY = DecodeConfig(max_decode_steps=STEPS)
SAMPLE = DecodeConfig("sample", STEPS, top_p=0.9, num_samples=2, seed=3)


class Case(NamedTuple):
    """What a list of prompts gives, and a decoder for prompts that come one by one."""

    prompts: list[list[int]]
    expected: Generated
    decoder: OnlineDecoder


@pytest.fixture(scope="module")
def case_of():
    """Function: the case of a model and a strategy, made once."""

    @functools.cache
    def make(model_name: str, config: DecodeConfig) -> Case:
        model = MODELS[model_name]
        params = jax.jit(model.init)(jax.random.key(1))
        # A sharper head than a fresh one, with an end that is likely, so that lengths differ.
        head = params["decoder"]["logits_dense"]
        head["kernel"] = (head["kernel"] * 4).at[:, 1].multiply(1.9)
        random = np.random.default_rng(2)
        lengths = random.integers(1, LONGEST, size=13)
        prompts = [[*random.integers(2, 48, size=n - 1).tolist(), 1] for n in lengths]
        expected = Decoder(model, config, BatchConfig(16, 1)).generate(params, prompts)
        decoder = OnlineDecoder(model, config, params, LONGEST, BatchConfig(3, 2), chunk_steps=2)
        return Case(prompts, expected, decoder)

    return make


def run(decoder: OnlineDecoder, arrivals: dict[int, list]) -> dict[int, list[Partial]]:
    """All partials by key; `arrivals`: turn -> prompts (with their example ids) that come then."""
    seen: dict[int, list[Partial]] = {}
    keys = []
    for turn in range(1000):
        keys += [decoder.add(*one) for one in arrivals.get(turn, ())]
        partials = decoder.advance()
        for partial in partials:
            seen.setdefault(partial.key, []).append(partial)
        if not partials and turn > max(arrivals):
            assert sorted(seen) == keys
            return seen
    raise AssertionError("it never ends")


def longest_answer(case: Case) -> list[int]:
    """The prompt with the longest answer."""
    lengths = np.count_nonzero(case.expected.tokens[:, 0], axis=-1)
    return case.prompts[int(np.argmax(lengths))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("encoder_decoder", GREEDY),
        pytest.param("decoder_only", SAMPLE, marks=pytest.mark.slow),
    ],
)
def test_answers_do_not_depend_on_what_else_is_decoded(model, config, case_of):
    prompts, expected, decoder = case_of(model, config)
    numbered = [(prompt, number) for number, prompt in enumerate(prompts)]
    seen = run(decoder, {0: numbered[:1], 1: numbered[1:9], 3: numbered[9:10], 30: numbered[10:]})
    chunks = set()
    for number, partials in enumerate(seen.values()):
        assert [partial.ended for partial in partials] == [False] * (len(partials) - 1) + [True]
        whole = expected.tokens[number]
        for partial in partials:  # an answer only grows
            np.testing.assert_array_equal(partial.tokens, whole[:, : partial.tokens.shape[1]])
        assert not whole[:, partials[-1].tokens.shape[1] :].any()
        chunks.add(len(partials))
    assert len(chunks) > 1, "some answers should be longer than others"


def test_removed_examples_leave_their_slots_to_others(case_of):
    prompts, expected, decoder = case = case_of("encoder_decoder", GREEDY)
    removed = [decoder.add(longest_answer(case), 0, 7) for _ in range(4)]
    assert len(decoder.advance()) == 3  # the fourth waits
    for key in removed:
        decoder.remove(key)
    assert decoder.advance() == []
    seen = run(decoder, {0: [(prompt, 0) for prompt in prompts[:4]]})
    for partials, tokens in zip(seen.values(), expected.tokens):
        np.testing.assert_array_equal(partials[-1].tokens[0], np.trim_zeros(tokens[0], "b"))


def test_an_answer_may_be_shorter_than_the_strategy_allows(case_of):
    decoder = (case := case_of("encoder_decoder", GREEDY)).decoder
    whole = case.expected.tokens[case.prompts.index(longest_answer(case))]
    whole = whole[:, : np.count_nonzero(whole)]
    keys = [decoder.add(longest_answer(case), 0, count) for count in (1, 2, 1000)]
    seen = {}
    while partials := decoder.advance():
        seen |= {partial.key: partial for partial in partials}
    for key, count in zip(keys, (1, 2, STEPS)):
        assert seen[key].ended
        np.testing.assert_array_equal(seen[key].tokens, whole[:, :count])


def test_after_a_reset_what_waited_is_decoded(case_of):
    case = case_of("encoder_decoder", GREEDY)
    decoder = case.decoder
    assert decoder.compile_all() == 6
    keys = [decoder.add(longest_answer(case)) for _ in range(4)]
    decoder.advance()
    assert decoder.reset() == keys[:3]
    assert [partial.key for partial in decoder.advance()] == keys[3:]
    decoder.reset()


def test_prompts_of_no_slot_are_refused(case_of):
    decoder = case_of("encoder_decoder", GREEDY).decoder
    for prompt in ([], [2] * (LONGEST + 1)):
        with pytest.raises(ValueError, match="1 to 40"):
            decoder.add(prompt)
