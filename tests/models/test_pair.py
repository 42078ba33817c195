"""Encoder-decoders of two stacks; logits of transformers are in checkpoints/test_pair_family.py."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.mesh import batch_sharding, make_mesh, param_shardings, parse_mesh, tree_paths
from instruct.models.layout import stack_layers, unstack_layers
from instruct.models.pair import PairModel
from instruct.models.pair_config import PairConfig
from instruct.models.stack_config import StackConfig
from tests.float32 import assert_same_float32
from tests.train.batches import loss_and_gradient

pytestmark = pytest.mark.slow

# Three layers of a period of two: a loop and a rest. Sequences are longer than the window.
STACK = StackConfig(
    d_model=24,
    num_layers=3,
    num_heads=8,
    num_kv_heads=2,
    head_dim=4,
    d_ff=32,
    window=3,
    layer_pattern=("local", "global"),
    norm="rms_plus_one",
    post_norms=True,
    embedding_scale=True,
)
SEPARATE = PairConfig(
    vocab_size=64,
    encoder=dataclasses.replace(STACK, d_model=16, num_layers=2),
    decoder=dataclasses.replace(STACK, attention_cap=5.0),
    final_cap=4.0,
)
# A norm over a head of 4 numbers is often small, and its gradient then amplifies roundings: of two
# programs for one device they differed as much as between meshes.
_QK_NORM = dataclasses.replace(STACK, qk_norm=True, head_dim=8)
MERGED = PairConfig(
    vocab_size=64,
    encoder=_QK_NORM,
    decoder=_QK_NORM,
    cross="merged",
    encoder_window="centred",
    shared_embedding=True,
)
BOTH = pytest.mark.parametrize("config", [SEPARATE, MERGED], ids=["separate", "merged"])
LENGTH = 8
SIDES = ("encoder", "decoder")


@functools.lru_cache
def initial(config):
    """Parameters of key 0, with norms that are not 1."""
    params = jax.jit(PairModel(config).init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(jax.device_get(params))
    random = np.random.default_rng(0)
    return jax.tree.unflatten(
        structure, [leaf + 0.1 * random.normal(size=leaf.shape).astype("f4") for leaf in leaves]
    )


@functools.lru_cache
def applied(config):
    return jax.jit(PairModel(config).apply)


def packed(examples, row_sizes):
    """Rows of consecutive (source, target) examples in the layout of `batch.py`."""
    names = [f"{s}_{n}" for s in SIDES for n in ("input_tokens", "segment_ids")]
    names += ["encoder_positions", "decoder_positions", "decoder_target_tokens"]
    names += ["decoder_loss_weights", "decoder_task_ids"]
    batch = {name: np.zeros((len(row_sizes), 2 * LENGTH), np.int32) for name in names}
    remaining = iter(examples)
    for row, size in enumerate(row_sizes):
        starts = {"encoder": 0, "decoder": 0}
        for segment in range(1, size + 1):
            source, target = next(remaining)
            for side, tokens in (("encoder", source), ("decoder", target)):
                where = (row, slice(starts[side], starts[side] + len(tokens)))
                batch[f"{side}_input_tokens"][where] = tokens
                batch[f"{side}_segment_ids"][where] = segment
                batch[f"{side}_positions"][where] = range(len(tokens))
                starts[side] += len(tokens)
            batch["decoder_target_tokens"][where] = target
            batch["decoder_input_tokens"][where] = [0, *target[:-1]]
            batch["decoder_loss_weights"][where] = 1
    return batch


@pytest.fixture(scope="module")
def examples():
    random = np.random.default_rng(0)
    return [tuple(random.integers(3, 64, n) for n in pair) for pair in [(7, 5), (2, 6), (8, 3)]]


@BOTH
def test_packed_rows_have_the_loss_and_gradients_of_single_ones(config, examples):
    compute = loss_and_gradient(PairModel(config))
    # As many rows as in the test of meshes, which needs the same program.
    alone = compute(initial(config), packed(examples, [1] * 3 + [0] * 5))
    together = packed(examples, [2, 1] + [0] * 6)
    found = compute(initial(config), together)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found, alone)
    for name in ("encoder_segment_ids", "decoder_segment_ids", "decoder_positions"):
        wrong = together | {name: np.minimum(together[name], 1)}
        assert abs(float(compute(initial(config), wrong)[0] - alone[0])) > 1e-4, name


@BOTH
def test_counts_of_parameters_are_those_of_the_model(config):
    for change in ({}, {"tied_output": False}, {"scan_layers": True}):
        model = PairModel(dataclasses.replace(config, **change))
        leaves = tree_paths(model.abstract_params())
        assert sum(leaf.size for _, leaf in leaves) == model.config.num_params()


@BOTH
def test_matrix_products_are_counted(config):
    """XLA's count of the compiled pass, which adds norms, softmax and activations, not products."""
    wide = dataclasses.replace(STACK, d_model=128, d_ff=256, window=None, layer_pattern=("global",))
    wide = dataclasses.replace(wide, num_layers=1)
    config = dataclasses.replace(config, encoder=wide, decoder=wide)
    batch = {f"{side}_input_tokens": jnp.ones((2, 24), jnp.int32) for side in SIDES}
    model = PairModel(config)
    compiled = jax.jit(model.apply).lower(model.abstract_params(), batch).compile()
    found = compiled.cost_analysis()["flops"] / config.forward_flops(2, 24, 24)
    assert 1 <= found < 1.2
    assert config.train_flops(2, 24, 24) == 3 * config.forward_flops(2, 24, 24)


def test_a_local_layer_of_the_encoder_sees_both_sides():
    sources = np.random.default_rng(0).integers(3, 64, (1, LENGTH))
    for window, expected in (("each_side", [1, 2, 3, 4, 5, 6, 7]), ("centred", [3, 4, 5])):
        local = dataclasses.replace(STACK, num_layers=1, layer_pattern=("local",))
        config = dataclasses.replace(SEPARATE, encoder=local, encoder_window=window)
        model = PairModel(config)

        start, params = jax.jit(model.start_prompts), initial(config)
        changed = sources.copy()
        changed[0, 4] += 1
        before, after = (np.asarray(start(params, x).cross[0].key) for x in (sources, changed))
        moved = np.abs(after - before)[0].max((0, 1))
        assert np.flatnonzero(moved > 1e-6).tolist() == expected
        assert config.encoder_reach == ((3, 3) if window == "each_side" else (1, 1))


@functools.lru_cache
def gradient_with_dropout(config, **changes):
    model = PairModel(dataclasses.replace(config, dropout_rate=0.1, **changes))
    random = np.random.default_rng(0)
    batch = {f"{side}_input_tokens": random.integers(2, 64, (2, 9)) for side in SIDES}

    def loss(params):
        return jnp.square(model.apply(params, batch, jax.random.key(1))).mean()

    scan = model.config.scan_layers
    params = stack_layers(initial(config)) if scan else initial(config)
    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(loss))(params))
    return value, unstack_layers(gradient)


@BOTH
def test_scan_and_remat_change_neither_loss_nor_gradients(config):
    found = gradient_with_dropout(config, scan_layers=True, remat="minimal")
    assert_same_float32(found, gradient_with_dropout(config))


@BOTH
@pytest.mark.parametrize(("reordered", "scan"), [(True, True), (False, False)])
def test_decoding_with_a_cache_equals_teacher_forcing(config, reordered, scan):
    """Beyond the window, with beams that change places."""
    model = PairModel(dataclasses.replace(config, scan_layers=scan))
    params = stack_layers(initial(config)) if scan else initial(config)
    random, steps, sequences = np.random.default_rng(0), 6, 3
    prompts = random.integers(3, 64, (2, 7))
    prompts[1, 4:] = -1
    tokens = random.integers(3, 64, (2, sequences, steps))
    fed = np.pad(tokens[..., 1:], [(0, 0), (0, 0), (1, 0)])
    sources = np.repeat(np.maximum(prompts, 0), sequences, axis=0)
    batch = {"encoder_input_tokens": sources, "decoder_input_tokens": fed.reshape(6, steps)}
    expected = np.asarray(applied(config)(initial(config), batch)).reshape(2, sequences, steps, -1)

    @jax.jit
    def start(params, prompts):
        return model.init_cache(model.start_prompts(params, prompts), sequences, steps, reordered)

    cache = start(params, prompts)
    step, reorder = jax.jit(model.decode_step), jax.jit(model.reorder_cache)
    order, turn = np.arange(sequences), np.roll(np.arange(sequences), 1)
    for position in range(steps):
        now = tokens[:, order, position].reshape(-1)
        logits, cache = step(params, cache, now, np.full(2, position))
        found = np.asarray(logits).reshape(2, sequences, -1)
        assert_same_float32(found, expected[:, order, position])
        if reordered:
            cache, order = reorder(cache, np.tile(turn, (2, 1))), order[turn]


@BOTH
def test_logits_of_a_tree_are_those_of_its_branches(config):
    """Nodes 0 -> 1 -> 2 -> 3 and 0 -> 4: one branch is longer than the window."""
    model, random = PairModel(config), np.random.default_rng(0)
    prompts = random.integers(3, 64, (2, 7))
    prompts[1, 2:] = -1
    tokens = np.array([[0, 11, 12, 13, 14], [0, 21, 22, 23, 24]])
    depths = np.array([[0, 1, 2, 3, 1]] * 2)
    seen = np.tri(5, dtype=bool)
    seen[4, 1:4] = False
    found = jax.jit(model.tree_logits)(
        initial(config), prompts, tokens, depths, np.stack([seen] * 2)
    )
    for branch in ([0, 1, 2, 3], [0, 4]):
        targets = np.pad(tokens[:, branch[1:]], [(0, 0), (0, 1)])
        expected = jax.jit(model.target_logits)(initial(config), prompts, targets)
        assert_same_float32(found[:, branch], expected)


@pytest.mark.parametrize(
    ("config", "text"),
    [(SEPARATE, "data=2,fsdp=2,tensor=2"), (MERGED, "fsdp=2,sequence=2,tensor=2")],
)
def test_meshes_change_neither_loss_nor_gradients(config, text, examples):
    params, batch = initial(config), packed(examples * 3, [2, 1] * 3 + [0, 0])
    expected = loss_and_gradient(PairModel(config))(params, batch)
    mesh = make_mesh(parse_mesh(text))
    shardings = param_shardings(mesh, PairModel(config).abstract_params())
    with jax.set_mesh(mesh):
        batch = jax.device_put(batch, batch_sharding(mesh))
        found = loss_and_gradient.__wrapped__(PairModel(config))(
            jax.device_put(params, shardings), batch
        )
    assert_same_float32(jax.device_get(found), expected)
