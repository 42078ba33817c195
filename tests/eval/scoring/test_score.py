"""Log-likelihoods against the model's own steps, T5X's numbers, and rank classification."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.scoring.score import Scorer
from instruct.mesh import MeshConfig, make_mesh, param_shardings
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from tests.float32 import assert_same_float32

FOLDER = pathlib.Path(__file__).parents[2] / "data" / "t5x_t5_1_1"
EXPECTED = dict(np.load(FOLDER / "expected.npz"))


def t5x_model() -> EncoderDecoder:
    config = json.loads((FOLDER / "expected.json").read_text())["config"]
    return EncoderDecoder(
        ModelConfig(
            vocab_size=config["vocab_size"],
            d_model=config["emb_dim"],
            num_heads=config["num_heads"],
            head_dim=config["head_dim"],
            d_ff=config["mlp_dim"],
            num_encoder_layers=config["num_encoder_layers"],
            num_decoder_layers=config["num_decoder_layers"],
        )
    )


MODEL = t5x_model()


@pytest.fixture(scope="module")
def trained():
    """T5X's parameters after its five steps."""
    return unflatten_dict(dict(np.load(FOLDER / "final_parameters.npz")), sep="/")


@pytest.fixture(scope="module")
def fresh():
    """T5X's parameters before them: their decodes are longer."""
    return unflatten_dict(dict(np.load(FOLDER / "initial_parameters.npz")), sep="/")


def sequences(rows):
    return [row[row != 0].tolist() for row in rows]


INPUTS = sequences(EXPECTED["decode_inputs"])
TARGETS = sequences(EXPECTED["score_targets"])
LOGITS_SIZE = float(np.abs(EXPECTED["logits"]).max())
T5X_STEPS = EXPECTED["greedy_tokens"].shape[-1]


@pytest.mark.slow
def test_scores_are_t5x(trained):
    scores = Scorer(MODEL.target_logits, BatchConfig(2, 2)).score(trained, INPUTS, TARGETS)
    assert_same_float32(scores, EXPECTED["score"])


@pytest.mark.slow
def test_greedy_is_t5x(trained):
    config = DecodeConfig(max_decode_steps=T5X_STEPS, rescale_scores=True)
    found = Decoder(MODEL, config).generate(trained, INPUTS)
    np.testing.assert_array_equal(found.tokens, EXPECTED["greedy_tokens"])
    assert_same_float32(found.scores, EXPECTED["greedy_scores"], scale=LOGITS_SIZE)


@pytest.mark.slow
def test_beam_search_is_t5x(trained):
    config = DecodeConfig("beam", T5X_STEPS, num_beams=4, length_penalty=0.6)
    found = Decoder(MODEL, config).generate(trained, INPUTS)
    # T5X's best hypothesis is its last, ours the first.
    np.testing.assert_array_equal(found.tokens[:, ::-1], EXPECTED["beam4_tokens"])
    assert_same_float32(found.scores[:, ::-1], EXPECTED["beam4_scores"])


@pytest.mark.slow
def test_a_decoded_sequence_scores_what_decoding_said(fresh):
    decoder = Decoder(MODEL, DecodeConfig("sample", 12, temperature=0.7))
    found = decoder.generate(fresh, INPUTS)
    targets = sequences(found.tokens[:, 0])
    assert max(np.count_nonzero(found.tokens, axis=-1)) > 4
    scores = Scorer(MODEL.target_logits).score(fresh, INPUTS, targets)
    counted = np.array([np.all(row[0] != 0) or 1 in row[0] for row in found.tokens])
    assert_same_float32(scores[counted], found.scores[counted, 0])


@pytest.mark.slow
def test_greedy_with_the_cache_equals_greedy_without(fresh):
    steps = 8
    found = Decoder(MODEL, DecodeConfig(max_decode_steps=steps)).generate(fresh, INPUTS)
    apply = jax.jit(MODEL.apply)
    fed = np.zeros((len(INPUTS), steps), np.int32)
    tokens = np.zeros((len(INPUTS), steps), np.int32)
    ended = np.zeros(len(INPUTS), bool)
    for step in range(steps):
        batch = {"encoder_input_tokens": EXPECTED["decode_inputs"], "decoder_input_tokens": fed}
        best = np.asarray(jnp.argmax(apply(fresh, batch)[:, step], axis=-1))
        tokens[:, step] = np.where(ended, 0, best)
        ended |= best == 1
        fed[:, 1:] = tokens[:, :-1]
    np.testing.assert_array_equal(found.tokens[:, 0], tokens)


@pytest.mark.slow
def test_scores_do_not_depend_on_batching_or_devices(trained):
    random = np.random.default_rng(0)
    inputs = [[*random.integers(2, 384, n), 1] for n in random.integers(1, 30, 11)]
    targets = [[*random.integers(2, 384, n), 1] for n in random.integers(0, 9, 11)]
    done = []
    alone = Scorer(MODEL.target_logits, BatchConfig(16, 1)).score(
        trained, inputs, targets, done.append
    )
    assert sum(done) == 11
    bucketed = Scorer(MODEL.target_logits, BatchConfig(2, 2)).score(trained, inputs, targets)
    assert_same_float32(bucketed, alone)
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    spread = jax.device_put(trained, param_shardings(mesh, trained))
    eight = Scorer(MODEL.target_logits, BatchConfig(8, 1), mesh).score(spread, inputs, targets)
    assert_same_float32(eight, alone)


def unigram(params, inputs, targets):
    """A "model" whose token probabilities are `params` [V] everywhere."""
    return jnp.broadcast_to(jnp.log(params), (*targets.shape, params.shape[0]))


def test_scores_of_several_targets_of_one_input():
    probabilities = jnp.array([0.0, 0.5, 0.3, 0.15, 0.05])
    options = [[2, 1], [3, 1], [2, 2, 2, 1]]
    found = Scorer(unigram).score(probabilities, [[2, 1]] * 3, options)
    expected = [np.log(0.3 * 0.5), np.log(0.15 * 0.5), np.log(0.3**3 * 0.5)]
    assert_same_float32(found, np.array(expected))


def test_what_cannot_be_scored():
    scorer = Scorer(unigram)
    with pytest.raises(ValueError, match="2 inputs but 1 targets"):
        scorer.score(jnp.ones(5), [[1], [1]], [[1]])
    with pytest.raises(ValueError, match="sequence 0 is empty"):
        scorer.score(jnp.ones(5), [[1]], [[]])
    assert scorer.score(jnp.ones(5), [], []).shape == (0,)
