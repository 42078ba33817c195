"""Options scored as a tree against options scored one by one."""

import dataclasses

import jax
import numpy as np
import pytest

from instruct.eval.decoding.batching import BatchConfig
from instruct.eval.scoring.options import OptionScorer, Ranking, prefix_tree
from instruct.eval.scoring.score import Scorer
from instruct.mesh import MeshConfig, make_mesh, param_shardings
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import stack_layers
from tests.float32 import assert_same_float32

CONFIG = ModelConfig(
    vocab_size=40,
    d_model=16,
    num_heads=2,
    head_dim=8,
    d_ff=24,
    num_encoder_layers=1,
    num_decoder_layers=2,
)
MODEL = EncoderDecoder(CONFIG)


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def questions():
    random = np.random.default_rng(1)
    inputs = [[*random.integers(2, 40, n).tolist(), 1] for n in random.integers(1, 30, 11)]
    options = []
    for _ in inputs:
        shared = random.integers(2, 40, random.integers(0, 6)).tolist()
        lengths = random.integers(0, 12, random.integers(1, 6))
        options.append([[*shared, *random.integers(2, 40, n).tolist(), 1] for n in lengths])
    options[3].append(list(options[3][0]))  # the same option twice
    options[4].append(options[4][0][:-1])  # one that ends without EOS, inside another
    options[4] = [option for option in options[4] if option]
    return inputs, options


def test_tree_of_the_worked_example():
    tree = prefix_tree([[3, 5, 1], [3, 6, 1], [4, 1]])
    assert tree.tokens == [0, 3, 5, 6, 4]
    assert tree.parents == [-1, 0, 1, 1, 0]
    assert tree.paths == [[0, 1, 2], [0, 1, 3], [0, 4]]


def ranked_by_pairs(params, inputs, options):
    """Every option of every question as a target of its own."""
    score = Scorer(MODEL.target_logits).score
    return [
        Ranking(score(params, [ids] * len(each), each), np.array([len(one) for one in each]))
        for ids, each in zip(inputs, options)
    ]


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert_same_float32(one.log_likelihoods, other.log_likelihoods)
        assert one.lengths.tolist() == other.lengths.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("batching", [(16, 1), (3, 3)])
def test_a_tree_scores_as_its_options_do_alone(params, questions, batching, scan):
    expected = ranked_by_pairs(params, *questions)
    model = EncoderDecoder(dataclasses.replace(CONFIG, scan_layers=scan))
    scorer = OptionScorer(model, BatchConfig(*batching))
    inputs, options = questions
    layers = stack_layers(params) if scan else params
    found = scorer.rank(layers, inputs, options)
    same(found, expected)
    assert len({int(np.argmax(ranking.log_likelihoods)) for ranking in found}) > 1


@pytest.mark.slow
def test_eight_devices_rank_as_one(params, questions):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    spread = jax.device_put(params, param_shardings(mesh, params))
    found = OptionScorer(MODEL, BatchConfig(8, 1), mesh).rank(spread, *questions)
    same(found, OptionScorer(MODEL, BatchConfig(4, 2)).rank(params, *questions))


def test_what_cannot_be_ranked(params):
    scorer = OptionScorer(MODEL)
    with pytest.raises(ValueError, match="1 inputs but 0 lists of options"):
        scorer.rank(params, [[1]], [])
    with pytest.raises(ValueError, match="is empty"):
        scorer.rank(params, [[1]], [[]])
    with pytest.raises(ValueError, match="is empty"):
        scorer.rank(params, [[1]], [[[2, 1], []]])
    assert scorer.rank(params, [], []) == []
