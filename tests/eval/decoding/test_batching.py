"""Buckets, and generation that does not depend on them; on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.eval.decoding.batching import (
    BatchConfig,
    Decoder,
    padded_rows,
    plan_buckets,
    rounded_length,
)
from instruct.eval.decoding.decode import DecodeConfig
from instruct.mesh import make_mesh, param_shardings, parse_mesh
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from tests.float32 import assert_same_float32

pytestmark = pytest.mark.slow

STEPS = 6
MODEL = EncoderDecoder(
    ModelConfig(
        vocab_size=48,
        d_model=16,
        num_heads=2,
        head_dim=8,
        d_ff=24,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
)
STRATEGIES = {
    "greedy": DecodeConfig(max_decode_steps=STEPS),
    "sample": DecodeConfig("sample", STEPS, top_p=0.9, num_samples=2, seed=3),
    "beam": DecodeConfig("beam", STEPS, num_beams=2),
}


@pytest.fixture(scope="module")
def params():
    params = jax.jit(MODEL.init)(jax.random.key(1))
    # A sharper head than a fresh one, with an end that is likely, so that sequences differ.
    kernel = params["decoder"]["logits_dense"]["kernel"] * 4
    params["decoder"]["logits_dense"]["kernel"] = kernel.at[:, 1].multiply(1.5)
    return params


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(2)
    lengths = random.integers(1, 40, size=21)
    return [[*random.integers(2, 48, size=n - 1).tolist(), 1] for n in lengths]


def test_rounded_length():
    assert [rounded_length(n) for n in (1, 8, 9, 12, 13, 17, 24, 25, 33, 100, 512)] == [
        *(8, 8, 12, 12, 16, 24, 24, 32, 48, 128, 512)
    ]


def test_plan_of_the_worked_example():
    plan = plan_buckets([3, 30, 5, 7, 6], batch_size=2, max_shapes=2)
    assert [(bucket.length, bucket.batches.tolist()) for bucket in plan] == [
        (32, [[1, 3]]),
        (8, [[4, 2], [0, -1]]),
    ]


@pytest.mark.parametrize("count,batch_size,max_shapes,multiple", [(57, 8, 3, 1), (5, 64, 4, 8)])
def test_plan_holds_every_example_once_in_few_shapes(count, batch_size, max_shapes, multiple):
    lengths = np.random.default_rng(0).integers(1, 300, size=count).tolist()
    plan = plan_buckets(lengths, batch_size, max_shapes, multiple)
    assert 1 <= len(plan) <= max_shapes
    numbers = np.concatenate([bucket.batches.ravel() for bucket in plan])
    assert sorted(numbers[numbers >= 0]) == list(range(count))
    for bucket in plan:
        assert bucket.batches.shape[1] % multiple == 0
        members = bucket.batches[bucket.batches >= 0]
        assert max(lengths[i] for i in members) <= bucket.length
        assert np.all(bucket.batches[:, 0] >= 0), "no batch of padding only"
    cells = sum(bucket.length * bucket.batches.size for bucket in plan)
    if max_shapes > 1 and count > batch_size:
        one = plan_buckets(lengths, batch_size, 1)[0]
        assert cells < 0.8 * one.length * one.batches.size


def test_one_prompt_is_a_batch_of_one():
    (bucket,) = plan_buckets([10], batch_size=32, max_shapes=4)
    assert bucket.batches.tolist() == [[0]]
    assert plan_buckets([], batch_size=32, max_shapes=4) == []


def test_padded_rows_repeat_the_first_in_padding_rows():
    rows = padded_rows([[5, 1], [7, 8, 1]], np.array([1, 0, -1]), 4)
    assert rows.tolist() == [[7, 8, 1, -1], [5, 1, -1, -1], [7, 8, 1, -1]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_results_do_not_depend_on_the_batching(strategy, params, prompts):
    config = STRATEGIES[strategy]
    found = [
        Decoder(MODEL, config, BatchConfig(*batching)).generate(params, prompts)
        for batching in ((32, 1), (4, 3))
    ]
    np.testing.assert_array_equal(found[0].tokens, found[1].tokens)
    assert_same_float32(found[0].scores, found[1].scores)
    assert len({tuple(row.ravel()) for row in found[0].tokens}) > 5
    ends = np.sum(found[0].tokens != 0, axis=-1)
    assert ends.min() < STEPS <= ends.max(), "some sequences should end early, some not"


@pytest.mark.parametrize(
    "strategy,text", [("sample", "data=2,fsdp=2,tensor=2"), ("beam", "data=8")]
)
def test_eight_devices_give_what_one_gives(strategy, text, params, prompts):
    config, batching = STRATEGIES[strategy], BatchConfig(8, 1)
    one = Decoder(MODEL, config, batching).generate(params, prompts)
    mesh = make_mesh(parse_mesh(text))
    spread = jax.device_put(params, param_shardings(mesh, params))
    eight = Decoder(MODEL, config, batching, mesh).generate(spread, prompts)
    np.testing.assert_array_equal(one.tokens, eight.tokens)
    assert_same_float32(eight.scores, one.scores)


def test_samples_follow_the_example_number(params, prompts):
    decoder = Decoder(MODEL, STRATEGIES["sample"], BatchConfig(32, 1))
    everything = decoder.generate(params, prompts)
    some = decoder.generate(params, [prompts[i] for i in (9, 4, 17)], example_ids=[9, 4, 17])
    np.testing.assert_array_equal(some.tokens, everything.tokens[[9, 4, 17]])


class CountingModel:
    """Returns one-hot logits of EOS and counts how often it is traced."""

    def __init__(self):
        self.shapes = []

    def start_prompts(self, params, tokens):
        self.shapes.append(tokens.shape)
        return ()

    def init_cache(self, prompts, num_sequences, num_columns, reordered=True, by_position=False):
        return ()

    def decode_step(self, params, cache, tokens, positions):
        return params * jax.nn.one_hot(jnp.ones_like(tokens), 8), cache

    def fill_slots(self, cache, prompts, slots, rows, count):
        return cache

    def narrow(self, cache, source_length):
        return cache

    def reorder_cache(self, cache, beams):
        return cache


def test_compiles_once_per_bucket_whatever_the_parameters(prompts):
    model = CountingModel()
    decoder = Decoder(model, STRATEGIES["greedy"], BatchConfig(4, 2))
    done = []
    for scale in (1.0, 2.0):
        decoder.generate(jnp.float32(scale), prompts, progress=done.append)
    # The slots' arrays start with the shapes of as many prompts, which costs no compilation.
    encoded = [shape for shape in model.shapes if shape[0] != 4]
    assert len(encoded) == len(set(encoded)) <= 2
    assert sum(done) == 2 * len(prompts)


def test_an_empty_input_is_refused(params):
    decoder = Decoder(MODEL, STRATEGIES["greedy"])
    with pytest.raises(ValueError, match="sequence 1 is empty"):
        decoder.generate(params, [[5, 1], []])


def test_no_inputs_no_results(params):
    found = Decoder(MODEL, STRATEGIES["greedy"]).generate(params, [])
    assert found.tokens.shape == (0, 1, STEPS)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"max_shapes": 2.5}, {"batch_size": True}])
def test_bad_settings(settings):
    with pytest.raises(UserError, match=f"BatchConfig.{next(iter(settings))}"):
        BatchConfig(**settings)
