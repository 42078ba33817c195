"""Adafactor's factoring, layers and options; AdamW against its textbook; schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from instruct.errors import UserError
from instruct.mesh import MeshConfig, make_mesh, optimizer_shardings
from instruct.models.layout import stack_layers, unstack_layers
from instruct.train.optimizer import OptimizerConfig, global_norm, make_optimizer
from tests.float32 import assert_same_float32


def layer(scale: float) -> dict:
    """Kernels of which two are large enough to be factored, two are not; `scale` their size."""
    keys = iter(jax.random.split(jax.random.key(int(scale * 10)), 4))

    def draw(shape):
        return scale * jax.random.normal(next(keys), shape)

    return {
        "mlp": {"wi_0": {"kernel": draw((128, 160))}, "wo": {"kernel": draw((160, 128))}},
        "attention": {"query": {"kernel": draw((128, 48))}},
        "pre_mlp_layer_norm": {"scale": draw((128,))},
    }


@pytest.fixture(scope="module")
def params():
    return {"encoder": {"layers_0": layer(0.1), "layers_1": layer(1.0), "layers_2": layer(3.0)}}


def gradients_like(params, seed):
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    # Gradients of very unlike size, so that a shared clip or scale would show.
    new = [
        10.0 ** (i % 4 - 2) * jax.random.normal(k, x.shape)
        for i, (k, x) in enumerate(zip(keys, leaves))
    ]
    return jax.tree.unflatten(structure, new)


def one_update(optimizer, gradients, state, params):
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def run(config, params, steps=3, stacked=False):
    optimizer = make_optimizer(config)
    step = jax.jit(one_update, static_argnums=0)
    layout = stack_layers if stacked else lambda tree: tree
    now = layout(params)
    state = optimizer.init(now)
    for number in range(steps):
        now, state = step(optimizer, layout(gradients_like(params, number)), state, now)
    if stacked:
        return unstack_layers(now), unstack_layers(state.slots)
    return now, state.slots


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_stacked_layers_learn_as_separate_ones(params, name):
    config = OptimizerConfig(name=name, learning_rate=0.05, weight_decay=0.1)
    assert_same_float32(run(config, params, stacked=True), run(config, params))


@pytest.mark.slow
def test_sharing_the_clip_among_layers_would_be_noticed(params):
    """Negative control of the test above: one clip for all layers gives other updates."""
    config = OptimizerConfig(learning_rate=0.05)
    kernels = [params["encoder"][f"layers_{i}"]["mlp"]["wi_0"]["kernel"] for i in range(3)]
    apart = [run(config, {"wi_0": {"kernel": k}}, 1)[0]["wi_0"]["kernel"] for k in kernels]
    tall = run(config, {"wi_0": {"kernel": jnp.concatenate(kernels)}}, 1)[0]["wi_0"]["kernel"]
    assert float(jnp.abs(tall - jnp.concatenate(apart)).max()) > 1e-2


@pytest.mark.slow
def test_adafactor_equals_optax_layer_by_layer(params):
    ours, _ = run(OptimizerConfig(learning_rate=0.05, weight_decay=0.0), params)
    theirs_optimizer = optax.adafactor(0.05, weight_decay_rate=None)
    theirs, state = params, theirs_optimizer.init(params)
    for step in range(3):
        updates, state = theirs_optimizer.update(gradients_like(params, step), state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    assert_same_float32(ours, theirs)


def test_factored_by_named_axes(params):
    state = make_optimizer(OptimizerConfig()).init(params).slots["encoder"]["layers_0"]
    shapes = jax.tree.map(jnp.shape, state, is_leaf=lambda x: hasattr(x, "shape"))
    assert shapes == {
        "mlp": {
            "wi_0": {"kernel": {"v_row": (128,), "v_col": (160,)}},
            "wo": {"kernel": {"v_row": (128,), "v_col": (160,)}},
        },
        "attention": {"query": {"kernel": {"v": (128, 48)}}},
        "pre_mlp_layer_norm": {"scale": {"v": (128,)}},
    }
    relpos = {"relpos_bias": {"rel_embedding": jnp.zeros((128, 256))}}
    slots = make_optimizer(OptimizerConfig()).init(relpos).slots
    assert set(slots["relpos_bias"]["rel_embedding"]) == {"v"}


@pytest.mark.slow
def test_adamw_equals_optax(params):
    config = OptimizerConfig(name="adamw", learning_rate=0.01, weight_decay=0.1)
    ours, _ = run(config, params)
    reference = optax.adamw(0.01, weight_decay=0.1)
    theirs, state = params, reference.init(params)
    for step in range(3):
        updates, state = reference.update(gradients_like(params, step), state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    assert_same_float32(ours, theirs)


def test_global_norm_clip():
    tree = {"scale": jnp.asarray([3.0, 4.0])}
    assert_same_float32(global_norm(tree), 5.0)
    clipped = make_optimizer(OptimizerConfig(name="adamw", global_norm_clip=1.0, epsilon=1.0))
    plain = make_optimizer(OptimizerConfig(name="adamw", epsilon=1.0))
    zero = {"scale": jnp.zeros(2)}
    fifth = jax.tree.map(lambda x: x / 5, tree)
    assert_same_float32(
        one_update(clipped, tree, clipped.init(zero), zero)[0],
        one_update(plain, fifth, plain.init(zero), zero)[0],
    )


def test_weight_decay_exponents():
    zero, one = {"scale": jnp.zeros(2)}, {"scale": jnp.ones(2)}
    for exponent, kept in ((0.0, 0.5), (1.0, 0.95), (2.0, 0.995)):
        optimizer = make_optimizer(
            OptimizerConfig(
                learning_rate=0.1, weight_decay=0.5, weight_decay_rate_exponent=exponent
            )
        )
        found, _ = one_update(optimizer, zero, optimizer.init(one), one)
        assert_same_float32(found["scale"], np.array([kept, kept]))


def test_schedules():
    constant = OptimizerConfig(learning_rate=0.5)
    warm = OptimizerConfig(learning_rate=0.5, schedule="linear_warmup", warmup_steps=4)
    rsqrt = OptimizerConfig(learning_rate=1.0, schedule="rsqrt", warmup_steps=4)
    found = [[float(c.learning_rate_at(n)) for n in (0, 2, 4, 16)] for c in (constant, warm, rsqrt)]
    expected = [[0.5] * 4, [0.0, 0.25, 0.5, 0.5], [0.5, 0.5, 0.5, 0.25]]
    assert_same_float32(np.array(found), np.array(expected))


def test_slots_are_split_as_their_parameter(params):
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    stacked = stack_layers(params)
    state = make_optimizer(OptimizerConfig()).init(stacked)
    shardings = optimizer_shardings(mesh, stacked, state)
    assert jax.tree.structure(state) == jax.tree.structure(shardings)
    assert shardings.count.spec == PartitionSpec()
    slots = shardings.slots["encoder"]["layers"]
    specs = jax.tree.map(lambda sharding: tuple(sharding.spec), slots)
    assert specs["mlp"]["wi_0"]["kernel"] == {"v_row": (None, "fsdp"), "v_col": (None, "tensor")}
    assert specs["mlp"]["wo"]["kernel"] == {"v_row": (None, "fsdp"), "v_col": (None, "tensor")}
    assert specs["attention"]["query"]["kernel"] == {"v": (None, "fsdp", "tensor")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "adam"},
        {"schedule": "cosine"},
        {"learning_rate": 0.0},
        {"learning_rate": "1e-3"},
        {"beta1": 1.0},
        {"warmup_steps": -1},
        {"schedule": "rsqrt"},
        {"global_norm_clip": 0.0},
        {"weight_decay": -0.1},
    ],
)
def test_bad_values_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        OptimizerConfig(**wrong)
