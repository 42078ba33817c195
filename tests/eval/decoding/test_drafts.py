"""Drafts change how many steps an answer takes, not the answer."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig, Decoder, padded_rows
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.drafts import ngram_drafts
from instruct.eval.decoding.online import OnlineDecoder
from instruct.eval.programs import decode_batch
from instruct.mesh import make_mesh, param_shardings, parse_mesh
from instruct.models.config import ModelConfig
from instruct.models.model import make_model
from tests.float32 import assert_same_float32
from tests.models.test_decoder_only import PREFIX
from tests.models.test_decoder_only import TINY as DECODER
from tests.models.test_pair import MERGED, SEPARATE

STEPS, VOCABULARY, EOS = 14, 64, 1
T5 = ModelConfig(
    vocab_size=VOCABULARY,
    d_model=16,
    num_heads=2,
    head_dim=8,
    d_ff=24,
    num_encoder_layers=1,
    num_decoder_layers=2,
)
CONFIGS = {
    "t5": T5,
    "stacked": dataclasses.replace(T5, scan_layers=True),
    "umt5": dataclasses.replace(T5, relpos_per_layer=True),
    "decoder": DECODER,  # layers with windows, rotary positions
    "prefix_lm": dataclasses.replace(PREFIX, scan_layers=True),
    "pair": SEPARATE,
    "merged pair": MERGED,
}
STRATEGIES = {
    "greedy": DecodeConfig(max_decode_steps=STEPS),
    "sample": DecodeConfig("sample", STEPS, top_p=0.9, seed=3),
    "rules": DecodeConfig(
        max_decode_steps=STEPS,
        no_repeat_ngram_size=3,
        repetition_penalty=1.1,
        min_decode_steps=3,
        forced_eos_token_id=EOS,
    ),
}


def followed(text: list[int], answer: list[int], count: int) -> list[int]:
    """`ngram_drafts` of one row, in its plainest form."""
    for matched, whole in itertools.product((3, 2, 1), (True, False)):
        for end in range(len(text) + len(answer) - 2, -1, -1):
            of_answer = end >= len(text)
            part = answer if of_answer else text
            last = end - len(text) if of_answer else end
            if matched > min(last + 1, len(answer)):
                continue
            if part[last + 1 - matched : last + 1] == answer[-matched:]:
                after = part[last + 1 : last + 1 + count]
                if whole and len(after) < count:
                    continue
                return after + [0] * (count - len(after))
    return [0] * count


def test_the_worked_example():
    answers = jnp.array([[6, 8, 9, 0, 0]])
    found = ngram_drafts(jnp.array([[7, 8, 9, 4, 8, 5, -1]]), answers, jnp.array([3]), 2)
    assert found.tolist() == [[4, 8]]


def test_a_loop_is_drafted_as_far_as_it_goes():
    answers = jnp.array([[5, 6, 5, 6, 5, 6, 0]])
    found = ngram_drafts(jnp.array([[7]]), answers, jnp.array([6]), 3)
    assert found.tolist() == [[5, 6, 0]]
    assert ngram_drafts(jnp.array([[7]]), answers, jnp.array([5]), 2).tolist() == [[6, 5]]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_drafts_are_what_followed_the_longest_and_then_latest_match(count):
    random = np.random.default_rng(count)
    rows, width, length = 300, 12, 9
    lengths, positions = random.integers(1, width + 1, rows), random.integers(0, length, rows)
    texts = [random.integers(0, 4, n).tolist() for n in lengths]  # 0 is a token as others
    answers = random.integers(0, 4, (rows, length)).astype(np.int32)
    prompts = padded_rows(texts, np.arange(rows), width)
    found = ngram_drafts(*map(jnp.asarray, (prompts, answers, positions)), count)
    expected = [
        followed(text, answer[:position].tolist(), count)
        for text, answer, position in zip(texts, answers, positions)
    ]
    assert found.tolist() == expected


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(2)
    lengths = random.integers(4, 30, size=11)
    return [[*random.integers(2, VOCABULARY, size=n - 1).tolist(), EOS] for n in lengths]


@pytest.fixture(scope="module")
def copies(prompts):
    """An `adjust_fn`: two of three tokens are those of the prompt, the model says the others."""
    wanted = np.full((len(prompts), STEPS), -1)
    random = np.random.default_rng(0)
    for row, prompt in enumerate(prompts):
        copied = prompt[: STEPS - 1]
        wanted[row, : len(copied)] = np.where(random.random(len(copied)) < 0.7, copied, -1)
    table = jnp.asarray(wanted)

    def adjust(logits, example_ids, positions):
        return logits + 30.0 * jax.nn.one_hot(table[example_ids, positions], VOCABULARY)

    return adjust


@functools.cache
def model_and_params(name):
    model = make_model(CONFIGS[name])
    params = jax.jit(model.init)(jax.random.key(1))
    random = np.random.default_rng(0)  # biases of positions differ, and norms are not 1
    return model, jax.tree.map(lambda a: a + 0.1 * random.normal(size=a.shape).astype("f4"), params)


def same(found, expected):
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    assert_same_float32(found.scores, expected.scores)


def with_drafts(config, count=4):
    return dataclasses.replace(config, draft_tokens=count)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_answers_are_those_of_one_token_a_step(name, strategy, prompts, copies):
    model, params = model_and_params(name)
    config, batching = STRATEGIES[strategy], BatchConfig(4, 3)  # slots are refilled
    expected = Decoder(model, config, batching, adjust_fn=copies).generate(params, prompts)
    assert len({*np.count_nonzero(expected.tokens[:, 0], axis=-1)}) > 1 or strategy != "greedy"
    for count in (1, 4) if strategy == "greedy" else (4,):
        drafted = Decoder(model, with_drafts(config, count), batching, adjust_fn=copies)
        same(drafted.generate(params, prompts), expected)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
def test_drafts_may_be_longer_than_answers_and_prompts(steps):
    """Also where token 0 ends an answer: it is what a draft is filled up with."""
    model, params = model_and_params("decoder")
    prompts = [[0], [1], [5], [7, 7, 7, 7, 7], [0, 9] * 6]
    config, batching = DecodeConfig(max_decode_steps=steps, stop_ids=(0,)), BatchConfig(2, 2)
    wanted = jnp.array([[7, 7, 7], [5, 0, 5], [0, 5, 5], [7, 7, 7], [9, 0, 9]])

    def adjust(logits, example_ids, positions):
        return logits + 30.0 * jax.nn.one_hot(wanted[example_ids, positions], VOCABULARY)

    expected = Decoder(model, config, batching, adjust_fn=adjust).generate(params, prompts)
    assert expected.tokens[0, 0].tolist() == [7] * steps
    drafted = Decoder(model, with_drafts(config, 8), batching, adjust_fn=adjust)
    same(drafted.generate(params, prompts), expected)


def test_a_copied_answer_takes_fewer_steps(prompts, copies):
    model, params = model_and_params("t5")

    @functools.partial(jax.jit, static_argnums=0)
    def steps_of(config, tokens):
        ids = jnp.arange(tokens.shape[0])
        found, _, steps = decode_batch(model, params, config, tokens, ids, copies)
        return found, steps

    tokens = jnp.asarray(padded_rows(prompts, np.arange(len(prompts)), 32))
    expected, most = steps_of(STRATEGIES["greedy"], tokens)
    found, fewer = steps_of(with_drafts(STRATEGIES["greedy"]), tokens)
    np.testing.assert_array_equal(found, expected)
    assert int(most) == STEPS and int(fewer) < STEPS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "decoder"])
def test_prompts_that_arrive_one_by_one(name, prompts):
    model, params = model_and_params(name)
    config = with_drafts(STRATEGIES["greedy"])
    expected = Decoder(model, STRATEGIES["greedy"], BatchConfig(4, 3)).generate(params, prompts)
    online = OnlineDecoder(model, config, params, 30, BatchConfig(3, 2), chunk_steps=2)
    keys, answers = {online.add(prompt): row for row, prompt in enumerate(prompts)}, {}
    while partials := online.advance():
        for partial in partials:
            answers[keys[partial.key]] = partial.tokens[0]
            wanted = expected.tokens[keys[partial.key], 0]
            np.testing.assert_array_equal(partial.tokens[0], wanted[: partial.tokens.shape[1]])
    assert sorted(answers) == list(range(len(prompts)))


@pytest.mark.slow
def test_eight_devices_draft_as_one_does(prompts, copies):
    model, params = model_and_params("t5")
    config, batching = with_drafts(STRATEGIES["greedy"]), BatchConfig(8, 2)
    expected = Decoder(model, config, batching, adjust_fn=copies).generate(params, prompts)
    mesh = make_mesh(parse_mesh("data=2,fsdp=2,tensor=2"))
    spread = jax.device_put(params, param_shardings(mesh, params))
    same(
        Decoder(model, config, batching, mesh, copies).generate(spread, prompts),
        expected,
    )


def test_int8_weights_draft_too(prompts):
    model, params = model_and_params("t5")
    config = dataclasses.replace(STRATEGIES["greedy"], weights="int8")
    expected = Decoder(model, config).generate(params, prompts)
    same(Decoder(model, with_drafts(config)).generate(params, prompts), expected)


@pytest.mark.parametrize(
    "settings",
    [{"strategy": "beam"}, {"strategy": "sample", "num_samples": 2}],
)
def test_drafts_are_for_one_answer_a_prompt(settings):
    with pytest.raises(UserError, match="draft_tokens = 3 is for one answer a prompt; set strate"):
        DecodeConfig(draft_tokens=3, **settings)


def test_results_name_the_draft():
    config = with_drafts(DecodeConfig())
    assert config.describe() == "greedy steps=128 draft=4"
    assert config.settings()["draft_tokens"] == 4
    assert "draft_tokens" not in DecodeConfig().settings()
