"""Slots that are refilled as answers end give what one batch gives, in whatever order they end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.eval.decoding.batching import BatchConfig, Decoder, padded_rows
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.search import PADDING_EXAMPLE, largest
from instruct.eval.decoding.slots import slot_programs
from instruct.mesh import make_mesh, param_shardings, parse_mesh
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import stack_layers
from tests.eval.toy_decoder import decode
from tests.float32 import assert_same_float32

pytestmark = pytest.mark.slow

STEPS = 9
CONFIG = ModelConfig(
    vocab_size=48,
    d_model=16,
    num_heads=2,
    head_dim=8,
    d_ff=24,
    num_encoder_layers=1,
    num_decoder_layers=2,
)
MODEL = EncoderDecoder(CONFIG)
STRATEGIES = {
    "greedy": DecodeConfig(max_decode_steps=STEPS),
    "sample": DecodeConfig("sample", STEPS, top_p=0.9, num_samples=3, seed=3),
    "beam": DecodeConfig("beam", STEPS, num_beams=3),
    "beam with rules": DecodeConfig(
        "beam",
        STEPS,
        num_beams=2,
        no_repeat_ngram_size=2,
        repetition_penalty=1.2,
        bad_words_ids=((5, 6), (7,)),
        min_decode_steps=2,
        forced_eos_token_id=1,
    ),
}


@pytest.fixture(scope="module")
def params():
    params = jax.jit(MODEL.init)(jax.random.key(1))
    # A sharper head than a fresh one, with an end that is likely, so that lengths differ.
    kernel = params["decoder"]["logits_dense"]["kernel"] * 4
    params["decoder"]["logits_dense"]["kernel"] = kernel.at[:, 1].multiply(2.5)
    return params


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(2)
    lengths = random.integers(1, 60, size=27)
    return [[*random.integers(2, 48, size=n - 1).tolist(), 1] for n in lengths]


@pytest.fixture(scope="module")
def in_one_batch(params, prompts):
    """strategy -> tokens and scores of all prompts side by side, without slots."""

    @functools.cache
    def computed(strategy):
        config = STRATEGIES[strategy]

        @jax.jit
        def run(params, tokens):
            cache = MODEL.init_cache(
                MODEL.start_prompts(params, tokens),
                config.num_sequences,
                STEPS,
                reordered=config.strategy == "beam",
            )
            step_fn = lambda *a: MODEL.decode_step(params, *a)  # noqa: E731
            return decode(step_fn, MODEL.reorder_cache, cache, jnp.arange(len(prompts)), config)

        found = run(params, padded_rows(prompts, np.arange(len(prompts)), 64))
        return np.asarray(found.tokens), np.asarray(found.scores)

    return computed


def same(found, expected):
    np.testing.assert_array_equal(found.tokens, expected[0])
    assert_same_float32(found.scores, expected[1])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("batching", [(1, 1), (3, 4), (16, 3)])
def test_refilled_slots_give_what_one_batch_gives(
    strategy, batching, params, prompts, in_one_batch
):
    config = STRATEGIES[strategy]
    expected = in_one_batch(strategy)
    lengths = np.count_nonzero(expected[0], axis=-1).max(axis=-1)
    assert len(set(lengths)) > 2, "answers should end at different steps"
    decoder = Decoder(MODEL, config, BatchConfig(*batching))
    same(decoder.generate(params, prompts), expected)


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_stacked_layers_are_refilled_too(strategy, params, prompts, in_one_batch):
    config = STRATEGIES[strategy]
    stacked = EncoderDecoder(dataclasses.replace(CONFIG, scan_layers=True))
    decoder = Decoder(stacked, config, BatchConfig(4, 3))
    same(decoder.generate(stack_layers(params), prompts), in_one_batch(strategy))


@pytest.mark.parametrize(
    "strategy,text",
    [
        ("sample", "data=4,fsdp=2"),
        ("beam", "data=2,fsdp=2,tensor=2"),
        ("sample", "fsdp=4,sequence=2"),
    ],
)
def test_eight_devices_refill_as_one_does(strategy, text, params, prompts, in_one_batch):
    config = STRATEGIES[strategy]
    mesh = make_mesh(parse_mesh(text))
    spread = jax.device_put(params, param_shardings(mesh, params))
    decoder = Decoder(MODEL, config, BatchConfig(8, 2), mesh)
    same(decoder.generate(spread, prompts), in_one_batch(strategy))


def test_answers_that_end_one_after_another_share_few_slots(params, prompts):
    """The loop's steps are what the answers' lengths say, not what the slowest of a batch needs."""
    lengths = np.array([1 + 7 * (number % 4 == 0) for number in range(24)])
    table = jnp.asarray(lengths)
    taken = []

    def end_there(logits, example_ids, positions):
        jax.debug.callback(lambda ids: taken.append(ids), example_ids)
        ends = (positions + 1 >= table[example_ids])[:, None]
        return jnp.where(ends == (jnp.arange(48) == 1), logits, -jnp.inf)

    config = STRATEGIES["greedy"]
    decoder = Decoder(MODEL, config, BatchConfig(4, 1), adjust_fn=end_there)
    found = decoder.generate(params, prompts[:24])
    jax.effects_barrier()
    assert np.count_nonzero(found.tokens[:, 0], axis=-1).tolist() == lengths.tolist()
    assert {int(number) for ids in taken for number in ids} >= set(range(24))
    # 66 tokens in 4 slots: 17 steps at the least, 48 if batches of four waited for their last.
    assert len(taken) < 26
    assert PADDING_EXAMPLE not in found.tokens


def test_largest_is_top_k():
    random = np.random.default_rng(0)
    for width, count in ((5, 2), (128 * 5, 2), (128 * 9 + 17, 4), (3000, 8), (3000, 1)):
        values = random.integers(0, 40, (6, width)).astype(np.float32)  # many equals
        values[1] = -np.inf
        values[2, : width - 3] = -np.inf
        found, expected = largest(jnp.asarray(values), count), jax.lax.top_k(values, count)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_decoders_of_equal_models_and_strategies_compile_once():
    greedy, beam = STRATEGIES["greedy"], STRATEGIES["beam"]
    programs = slot_programs(MODEL, greedy, None, None)
    equal = EncoderDecoder(dataclasses.replace(CONFIG)), dataclasses.replace(greedy)
    assert slot_programs(*equal, None, None) is programs
    other = slot_programs(MODEL, beam, None, None)
    assert other.run.__wrapped__ is not programs.run.__wrapped__
    assert other.encode.__wrapped__ is programs.encode.__wrapped__

    def adjust(logits, example_ids, positions):
        return logits

    own = [slot_programs(MODEL, greedy, adjust, None) for _ in range(2)]
    assert own[0] is not own[1]
