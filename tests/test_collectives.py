"""Values and gradients of the collectives equal the plain operations; a step's are in train/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from instruct.collectives import gather_params, look_up, sum_shares
from instruct.mesh import make_mesh, param_shardings, parse_mesh, partition_spec

MESHES = ("data=8", "slice=2,fsdp=2,sequence=2", "fsdp=2,tensor=2,sequence=2", "fsdp=8")
# No axis divides over fsdp = 8.
UNEVEN = (7, 6, 12)


@pytest.mark.parametrize("text", MESHES)
@pytest.mark.parametrize("sizes", [(8, 4, 16), UNEVEN])
def test_look_up_and_its_gradient_are_those_of_take(text, sizes):
    rows, length, width = sizes
    random = np.random.default_rng(0)
    table = random.normal(size=(10, width)).astype(np.float32)
    tokens = random.integers(0, 10, (rows, length)).astype(np.int32)
    cotangent = random.integers(-3, 3, (rows, length, width)).astype(np.float32)
    mesh = make_mesh(parse_mesh(text))
    spec = partition_spec(mesh, "token_embedder/embedding", table.shape)
    with jax.set_mesh(mesh):
        table = jax.device_put(table, NamedSharding(mesh, spec))
        found, back = jax.jit(lambda t: jax.vjp(lambda t: look_up(t, tokens, "float32"), t))(table)
        (gradient,) = jax.jit(lambda back, ct: back(ct))(back, cotangent)
    np.testing.assert_array_equal(found, np.asarray(table)[tokens])
    expected = np.zeros_like(table)
    np.add.at(expected, tokens, cotangent)
    np.testing.assert_array_equal(gradient, expected)  # whole numbers: no sum rounds


@pytest.mark.parametrize("text", MESHES)
@pytest.mark.parametrize("width", [16, 12])
def test_sum_shares_is_a_sum_with_the_parameters_sharding(text, width):
    shares = np.arange(8 * width * 4, dtype=np.float32).reshape(8, width, 4)
    mesh = make_mesh(parse_mesh(text))
    if mesh.shape["tensor"] > 1:
        shares = shares[:4]
    spec = partition_spec(mesh, "decoder/logits_dense/kernel", shares.shape[1:])
    with jax.set_mesh(mesh):
        found = jax.jit(lambda x: sum_shares(x, ("embed", "vocab")))(shares)
    np.testing.assert_array_equal(found, shares.sum(0))
    assert found.sharding.is_equivalent_to(NamedSharding(mesh, spec), 2) or text == "data=8"


def test_a_gathered_kernel_is_whole_and_cast_and_its_gradient_split():
    mesh = make_mesh(parse_mesh("fsdp=4,sequence=2"))
    layer = {"mlp": {"wo": {"kernel": jnp.full((4, 16), 1 / 3)}}, "norm": {"scale": jnp.ones(16)}}
    shardings = param_shardings(mesh, layer)

    def loss(params):
        gathered = gather_params(params, jnp.bfloat16)
        return (gathered["mlp"]["wo"]["kernel"].sum() * 2).astype(jnp.float32), gathered

    with jax.set_mesh(mesh):
        run = jax.jit(jax.grad(loss, has_aux=True))
        gradient, gathered = run(jax.device_put(layer, shardings))
    kernel = gathered["mlp"]["wo"]["kernel"]
    assert kernel.dtype == jnp.bfloat16 and kernel.sharding.is_fully_replicated
    assert gathered["norm"]["scale"].dtype == jnp.float32
    split = gradient["mlp"]["wo"]["kernel"]
    assert split.dtype == jnp.float32 and split.sharding.spec == PartitionSpec(
        None, ("fsdp", "sequence")
    )
    np.testing.assert_array_equal(split, np.full((4, 16), 2.0))
