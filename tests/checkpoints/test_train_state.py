"""Any optax state goes into a checkpoint's tree and comes back, in either layout of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from instruct.checkpoints.checkpoint import CheckpointStore
from instruct.checkpoints.train_state import TrainState, state_from_tree, training_tree
from instruct.mesh import MeshConfig, make_mesh, parameter_in, tree_paths, with_shardings
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import abstract_state, state_shardings
from tests.train.batches import tiny_config


def masked(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: "embedder" not in str(path), params)


CHAINS = {
    "slots": make_optimizer(OptimizerConfig(min_factored_size=16)),
    "adamw": optax.chain(optax.clip(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 5))),
    "masked": optax.masked(make_optimizer(OptimizerConfig(name="adamw")), masked),
    "accumulated": optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "finite": optax.apply_if_finite(optax.inject_hyperparams(optax.lion)(0.1), 3),
    "placeholders": optax.adafactor(0.1, min_dim_size_to_factor=16),
    "empty": optax.sgd(0.1),
}


def state_of(chain, scan_layers: bool):
    """(a state of random numbers over eight devices, its abstract twin)."""
    model = EncoderDecoder(tiny_config(scan_layers=scan_layers))
    abstract = abstract_state(model.abstract_params(), chain)
    shardings = state_shardings(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), abstract)
    abstract = with_shardings(abstract, shardings)
    draw = np.random.default_rng(1)
    numbers = jax.tree.map(lambda leaf: (draw.random(leaf.shape) * 50).astype(leaf.dtype), abstract)
    state = jax.device_put(numbers._replace(step=np.int32(7)), shardings)
    return state, abstract


def comparable(state):
    """`count` of slots is the step, and their rate only logged."""
    slots = state.opt_state
    return state._replace(opt_state=slots.slots) if hasattr(slots, "slots") else state


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_every_state_is_saved_and_restored(name, scan_layers, tmp_path):
    state, abstract = state_of(CHAINS[name], scan_layers)
    store = CheckpointStore(tmp_path)
    store.save(7, state, {})
    store.wait()
    found, _ = store.resume(abstract)
    store.check_saved(7, abstract)
    store.close()
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert [leaf.sharding for leaf in jax.tree.leaves(found)] == [
        leaf.sharding for leaf in jax.tree.leaves(abstract)
    ]
    jax.tree.map(np.testing.assert_array_equal, comparable(found), comparable(state))
    if name == "slots":
        assert int(found.opt_state.count) == 7


@pytest.mark.slow
def test_either_layout_resumes_what_the_other_saved(tmp_path):
    state, _ = state_of(CHAINS["adamw"], True)
    store = CheckpointStore(tmp_path)
    store.save(7, state, {})
    store.wait()
    found, _ = store.resume(state_of(CHAINS["adamw"], False)[1])
    store.close()
    mu, stacked = found.opt_state[1][0].mu["encoder"], state.opt_state[1][0].mu["encoder"]
    for layer in (0, 1):
        one = mu[f"layers_{layer}"]["mlp"]["wi_0"]["kernel"]
        np.testing.assert_array_equal(one, stacked["layers"]["mlp"]["wi_0"]["kernel"][layer])


def test_slots_are_stored_under_the_parameters_names():
    params = {"scale": jnp.ones(4)}
    chain = CHAINS["slots"]
    state = TrainState(jnp.int32(3), params, chain.init(params))
    tree = training_tree(state)
    assert [path for path, _ in tree_paths(tree)] == ["opt_state/scale/v", "step"]
    restored = state_from_tree(tree, params, jax.eval_shape(lambda: state))
    assert int(restored.opt_state.count) == 3


def test_moments_are_split_like_their_parameter():
    abstract = state_of(CHAINS["adamw"], True)[1]
    params = {path: leaf.sharding.spec for path, leaf in tree_paths(abstract.params)}
    moments = 0
    for path, leaf in tree_paths(abstract.opt_state):
        name = parameter_in(path, params)
        assert leaf.sharding.spec == (params[name] if name else jax.sharding.PartitionSpec())
        moments += name is not None
    assert moments == 2 * len(params)
