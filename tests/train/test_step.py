"""Microbatches and meshes change nothing but time; packed rows learn what unpacked ones do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.mean import Mean
from instruct.mesh import MeshConfig, abstract_mesh, batch_sharding, make_mesh, parse_mesh
from instruct.models.model import make_model
from instruct.train.loss import LossConfig, LossTotals, make_loss_fn
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import (
    abstract_state,
    count_filled,
    init_state,
    make_eval_step,
    make_train_step,
    state_shardings,
)
from tests.float32 import assert_same_float32, near_ties
from tests.train.batches import packed_batch, packed_sequences, tiny_config, tiny_decoder

pytestmark = pytest.mark.slow

CONFIG = OptimizerConfig(learning_rate=0.01, min_factored_size=16)
# Compiling is what these tests take time for: one layer each.
ONE_LAYER = {"num_encoder_layers": 1, "num_decoder_layers": 1}
MODELS = {
    "encoder_decoder": (make_model(tiny_config(**ONE_LAYER)), packed_batch),
    "decoder_only": (make_model(tiny_decoder()), packed_sequences),
}
LEAF_GROUPS = (0, 1, 0)


@pytest.fixture
def layout(request):
    return getattr(request, "param", "encoder_decoder")


@pytest.fixture
def model(layout):
    return MODELS[layout][0]


# Cached, not fixtures of the module: pytest would compute those of a layout once for each mesh.
@functools.cache
def initial(layout):
    return jax.jit(MODELS[layout][0].init)(jax.random.key(0))


@functools.cache
def packed(layout):
    found = MODELS[layout][1](3)
    tokens = found["decoder_loss_weights"].sum(1)
    assert len(set(tokens.tolist())) > 3, "rows must weigh unlike, or the tests prove nothing"
    return found


@functools.cache
def updated(layout):
    model, params, batch = MODELS[layout][0], initial(layout), packed(layout)
    logits = jax.jit(model.apply)(params, batch)[batch["decoder_loss_weights"] > 0]
    assert near_ties(logits) == 0, "the accuracy would not be the same in every order of sums"
    return one_update(model, params, batch)


@pytest.fixture
def params(layout):
    return initial(layout)


@pytest.fixture
def batch(layout):
    return packed(layout)


@pytest.fixture
def expected(layout):
    return updated(layout)


def one_update(model, params, batch, num_microbatches=1, mesh_config=None):
    loss_fn = make_loss_fn(model, LossConfig(), LEAF_GROUPS)
    optimizer = make_optimizer(CONFIG)
    step = make_train_step(loss_fn, optimizer, num_microbatches, 0)
    mesh = make_mesh(mesh_config or MeshConfig(data=1), None if mesh_config else jax.devices()[:1])
    shardings = state_shardings(mesh, abstract_state(params, optimizer))
    with jax.set_mesh(mesh):
        state = jax.device_put(init_state(params, optimizer), shardings)
        batch = jax.device_put(batch, batch_sharding(mesh))
        state, metrics = jax.jit(step, out_shardings=(shardings, None))(state, batch)
    return jax.device_get((state.params, metrics))


def assert_same_update(found, expected, before):
    """Losses, norm, and each parameter's change."""
    changes = [jax.tree.map(np.subtract, new, before) for new in (found[0], expected[0])]
    # A change is the difference of two parameters, each rounded to its own size.
    assert_same_float32(*changes, roundings=2048)
    assert_same_float32(found[0], expected[0])
    assert_same_float32(found[1], expected[1])


@pytest.mark.parametrize("num_microbatches", [2, 4])
def test_microbatches_change_nothing(model, params, batch, expected, num_microbatches):
    assert_same_update(one_update(model, params, batch, num_microbatches), expected, params)


def test_mean_of_microbatch_means_would_be_noticed(model, params, batch, expected):
    """Negative control: dividing in each microbatch weights short rows too much."""
    loss_fn = make_loss_fn(model, LossConfig())
    evaluate = jax.jit(make_eval_step(loss_fn))
    halves = [{k: v[i::2] for k, v in batch.items()} for i in range(2)]
    losses = [evaluate(params, half).loss.value for half in halves]
    assert abs(np.mean(losses) - float(expected[1].losses.loss.value)) > 1e-4


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("encoder_decoder", "data=8"),
        ("encoder_decoder", "data=2,fsdp=2,tensor=2"),
        ("encoder_decoder", "data=2,tensor=4"),
        ("encoder_decoder", "tensor=8"),
        ("encoder_decoder", "slice=2,fsdp=2,sequence=2"),
        ("encoder_decoder", "tensor=2,sequence=2,data=2"),
        ("decoder_only", "data=2,tensor=4"),
        ("decoder_only", "tensor=8"),  # more than there are key-value heads
        ("decoder_only", "slice=2,fsdp=2,sequence=2"),
    ],
    indirect=["layout"],
)
def test_meshes_change_nothing(model, params, batch, expected, text):
    microbatches = 2 if text == "data=2,tensor=4" else 1
    found = one_update(model, params, batch, microbatches, parse_mesh(text))
    assert_same_update(found, expected, params)


def stub_loss(params, batch, key):
    """A loss of one parameter, one random number and the rows' weights; compiles in no time."""
    weight = batch["decoder_loss_weights"].sum().astype(jnp.float32)
    loss = params["scale"].sum() * weight
    drawn = Mean(jax.random.uniform(key), jnp.float32(1.0))
    return loss, LossTotals(Mean(loss, weight), drawn, drawn, Mean(jnp.zeros(0), jnp.zeros(0)))


STUB_PARAMS = {"scale": np.full(3, 2.0, np.float32)}


def test_dropout_key_follows_seed_step_and_microbatch(batch):
    optimizer = make_optimizer(CONFIG)
    state = init_state(jax.tree.map(jnp.asarray, STUB_PARAMS), optimizer)
    for seed, parts in ((0, 2), (5, 1)):
        step = jax.jit(make_train_step(stub_loss, optimizer, parts, seed))
        now = state
        for number in range(2):
            now, metrics = step(now, batch)
            key = jax.random.fold_in(jax.random.key(seed), number)
            drawn = [jax.random.uniform(jax.random.fold_in(key, part)) for part in range(parts)]
            np.testing.assert_allclose(metrics.losses.z_loss.total, sum(drawn), rtol=1e-6)
            assert len(set(map(float, drawn))) == parts


def test_traced_once_over_five_steps(batch):
    optimizer = make_optimizer(CONFIG)
    train_step, traces = make_train_step(stub_loss, optimizer, 2, 0), []

    def counted(state, batch):
        traces.append(1)
        return train_step(state, batch)

    step = jax.jit(counted, donate_argnums=0)
    state = init_state(jax.tree.map(jnp.array, STUB_PARAMS), optimizer)
    for _ in range(5):
        state, _ = step(state, batch)
    assert len(traces) == 1 and int(state.step) == 5


def test_constant_normalizer_scales_the_gradient_not_the_reported_loss(batch):
    optimizer = make_optimizer(CONFIG)
    state = init_state(jax.tree.map(jnp.asarray, STUB_PARAMS), optimizer)
    by_weight = make_train_step(stub_loss, optimizer, 2, 0)(state, batch)[1]
    summed = make_train_step(stub_loss, optimizer, 2, 0, 1.0)(state, batch)[1]
    tokens = batch["decoder_loss_weights"].sum()
    np.testing.assert_allclose(by_weight.gradient_norm, 3**0.5, rtol=1e-6)
    np.testing.assert_allclose(summed.gradient_norm, 3**0.5 * tokens, rtol=1e-6)
    np.testing.assert_allclose(summed.losses.loss.value, by_weight.losses.loss.value, rtol=1e-6)


def test_eval_step_and_filled(model, params, batch, expected):
    loss_fn = make_loss_fn(model, LossConfig(), LEAF_GROUPS)
    totals = jax.jit(make_eval_step(loss_fn))(params, batch)
    assert_same_float32(totals.loss.total, expected[1].losses.loss.total)
    filled = count_filled(batch)
    real = (batch["encoder_segment_ids"] > 0).sum() + (batch["decoder_segment_ids"] > 0).sum()
    assert float(filled.total) == real and float(filled.weight) == 8 * (12 + 10)
    unpacked = {k: v for k, v in batch.items() if not k.endswith("segment_ids")}
    assert float(count_filled(unpacked).weight) == 8 * (12 + 10)


def test_rows_must_divide(params, batch):
    loss_fn = make_loss_fn(MODELS["encoder_decoder"][0], LossConfig())
    optimizer = make_optimizer(CONFIG)
    with pytest.raises(ValueError, match="8 rows do not divide into 3"):
        make_train_step(loss_fn, optimizer, 3, 0)(init_state(params, optimizer), batch)


def test_init_counts_no_update_and_abstract_is_its_shape():
    optimizer = make_optimizer(OptimizerConfig())
    params = {"scale": jnp.ones(4)}
    state = init_state(params, optimizer)
    assert int(state.step) == 0 and state.step.dtype == jnp.int32
    abstract = abstract_state({"scale": jax.ShapeDtypeStruct((4,), jnp.float32)}, optimizer)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(lambda leaf: leaf.shape, abstract)


def test_state_of_eleven_billion_parameters_is_laid_out_without_allocating():
    model = make_model(
        tiny_config(vocab_size=32128, d_model=4096, num_heads=64, head_dim=64, d_ff=10240)
    )
    abstract = abstract_state(model.abstract_params(), make_optimizer(OptimizerConfig()))
    shardings = state_shardings(abstract_mesh(MeshConfig(data=4, tensor=64)), abstract)
    assert jax.tree.structure(shardings) == jax.tree.structure(abstract)
    slots = shardings.opt_state.slots["encoder"]["layers_0"]["mlp"]["wo"]["kernel"]
    assert tuple(slots["v_col"].spec) == ("tensor",) and tuple(slots["v_row"].spec) == (None,)
