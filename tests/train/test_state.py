"""The state's shapes, and that every part is laid out over the mesh."""

import jax
import jax.numpy as jnp

from instruct.mesh import MeshConfig, abstract_mesh
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.state import abstract_state, init_state, state_shardings
from tests.train.batches import tiny_config


def test_init_counts_no_update_and_abstract_is_its_shape():
    optimizer = make_optimizer(OptimizerConfig())
    params = {"scale": jnp.ones(4)}
    state = init_state(params, optimizer)
    assert int(state.step) == 0 and state.step.dtype == jnp.int32
    abstract = abstract_state({"scale": jax.ShapeDtypeStruct((4,), jnp.float32)}, optimizer)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(lambda leaf: leaf.shape, abstract)


def test_state_of_eleven_billion_parameters_is_laid_out_without_allocating():
    config = OptimizerConfig()
    model = EncoderDecoder(
        tiny_config(vocab_size=32128, d_model=4096, num_heads=64, head_dim=64, d_ff=10240)
    )
    shapes = model.abstract_params()
    mesh = abstract_mesh(MeshConfig(data=4, tensor=64))
    shardings = state_shardings(mesh, config, shapes)
    assert jax.tree.structure(shardings) == jax.tree.structure(
        abstract_state(shapes, make_optimizer(config))
    )
    slots = shardings.opt_state["encoder"]["layers_0"]["mlp"]["wo"]["kernel"]
    assert tuple(slots["v_col"].spec) == ("tensor",) and tuple(slots["v_row"].spec) == (None,)
