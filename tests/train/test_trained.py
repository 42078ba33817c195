"""A set of paths is trained: which, how it splits a tree, and that an update knows nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.mesh import tree_paths
from instruct.models.layout import stack_layers
from instruct.models.model import make_model
from instruct.train.lora import LoraConfig
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import abstract_state
from instruct.train.trained import (
    join_params,
    matching_paths,
    sizes_of,
    split_params,
    trained_line,
    trained_paths,
)
from tests.train.batches import tiny_config

PARAMS = {"a": {"kernel": jnp.ones(2), "scale": jnp.ones(3)}, "b": {"kernel": jnp.ones(4)}}


@pytest.fixture(scope="module")
def abstract():
    return make_model(tiny_config()).abstract_params()


def test_a_tree_is_split_and_joined():
    trained, frozen = split_params(PARAMS, frozenset({"a/kernel", "b/kernel"}))
    assert frozen == {"a": {"kernel": None, "scale": PARAMS["a"]["scale"]}, "b": {"kernel": None}}
    assert [path for path, _ in tree_paths(trained)] == ["a/kernel", "b/kernel"]
    joined = join_params(trained, frozen)
    assert jax.tree.structure(joined) == jax.tree.structure(PARAMS)
    assert all(map(np.array_equal, jax.tree.leaves(joined), jax.tree.leaves(PARAMS)))
    assert split_params(PARAMS, None) == (PARAMS, None) and join_params(PARAMS, None) is PARAMS


def test_adapters_or_all_but_the_frozen_are_trained(abstract):
    assert trained_paths(abstract, None) is None
    every = {path for path, _ in tree_paths(abstract)}
    kept = trained_paths(abstract, "encoder/.*")
    assert kept == {path for path in every if not path.startswith("encoder/")}
    adapted = LoraConfig(rank=2).add(abstract, 0)
    adapters = trained_paths(adapted, None)
    assert adapters is not None and not adapters & every
    assert {path.rpartition("/")[2] for path in adapters} == {"lora_a", "lora_b"}
    some = trained_paths(adapted, "encoder/.*")
    assert some == {path for path in adapters if path.startswith("decoder/")}


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("encoder", "matches no parameter. It must match a whole name, such as 'decoder/layers_0/"),
        ("(", "is no regular expression"),
        (".*", "nothing is left to train"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything(abstract, pattern, problem):
    with pytest.raises(UserError) as error:
        trained_paths(abstract, pattern)
    assert problem in str(error.value) and f"FREEZE = {pattern!r}" in str(error.value)


def test_stacked_layers_match_all_or_none(abstract):
    stacked = stack_layers(abstract)
    matched = matching_paths(stacked, r"encoder/layers_\d+/mlp/.*", "FREEZE")
    assert {path.partition("/mlp")[0] for path in matched} == {"encoder/layers"}
    assert len(matching_paths(abstract, "encoder/layers_0/.*", "FREEZE")) == 9
    with pytest.raises(UserError, match=r"matches 1 of the 2 layers of (.|\n)*scan_layers = False"):
        matching_paths(stacked, "encoder/layers_0/.*", "FREEZE")


def test_only_what_is_trained_has_optimiser_state(abstract):
    optimizer = make_optimizer(OptimizerConfig(name="adamw"))
    lora = LoraConfig(rank=3, targets=r".*/(query|value)/kernel")
    params = lora.add(abstract, 0)
    trained = trained_paths(params, None)
    sizes = sizes_of(abstract_state(params, optimizer, trained), trained)
    # 2 encoder and 2 * 2 decoder attentions, 2 kernels of 16 x 32 each; a scale for every kernel.
    count = 6 * 2 * 3 * (16 + 32)
    assert sizes["num_params_trained"] == count
    assert sizes["num_params_held"] == tiny_config().num_params() + count + 6 * 2
    assert sizes["optimizer_bytes"] == 2 * 4 * count + 8  # two moments, the count and the rate
    assert f"trains {count:,} of" in trained_line(sizes)
