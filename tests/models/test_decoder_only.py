import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.mesh import batch_sharding, make_mesh, param_shardings, parse_mesh, tree_paths
from instruct.models.decoder_config import DecoderConfig
from instruct.models.decoder_only import DecoderOnly
from instruct.models.layout import stack_layers, unstack_layers
from tests.float32 import assert_same_float32
from tests.train.batches import loss_and_gradient

pytestmark = pytest.mark.slow

# Three layers of a period of two: a loop and a rest. Sequences are longer than the window.
TINY = DecoderConfig(
    vocab_size=64,
    d_model=32,
    num_layers=3,
    num_heads=8,
    num_kv_heads=4,
    head_dim=4,
    d_ff=48,
    window=4,
    layer_pattern=("local", "global"),
)
PREFIX = dataclasses.replace(TINY, prefix_lm=True)
LENGTH = 16


@functools.lru_cache
def initial(config):
    """Parameters of key 0, with norms and biases that are not 1 and 0."""
    params = jax.jit(DecoderOnly(config).init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(jax.device_get(params))
    random = np.random.default_rng(0)
    return jax.tree.unflatten(
        structure, [leaf + 0.1 * random.normal(size=leaf.shape).astype("f4") for leaf in leaves]
    )


@functools.lru_cache
def applied(config):
    return jax.jit(DecoderOnly(config).apply)


def packed(examples, row_sizes):
    """Rows of consecutive (prompt, answer) examples in the layout of `batch.py`."""
    names = ("input_tokens", "target_tokens", "loss_weights", "causal_attention")
    names = (*names, "segment_ids", "positions", "task_ids")
    batch = {f"decoder_{name}": np.zeros((len(row_sizes), LENGTH), np.int32) for name in names}
    remaining = iter(examples)
    for row, size in enumerate(row_sizes):
        start = 0
        for segment in range(1, size + 1):
            prompt, answer = next(remaining)
            sequence = [0, *prompt, *answer]
            where = (row, slice(start, start + len(sequence) - 1))
            batch["decoder_input_tokens"][where] = sequence[:-1]
            batch["decoder_target_tokens"][where] = sequence[1:]
            batch["decoder_loss_weights"][where] = [0] * len(prompt) + [1] * len(answer)
            prefix = [1] * (1 + len(prompt)) + [0] * (len(answer) - 1)
            batch["decoder_causal_attention"][where] = prefix
            batch["decoder_segment_ids"][where] = segment
            batch["decoder_positions"][where] = range(len(sequence) - 1)
            start += len(sequence) - 1
    return batch


@pytest.fixture(scope="module")
def examples():
    random = np.random.default_rng(0)
    return [tuple(random.integers(2, 64, n) for n in pair) for pair in [(7, 3), (2, 3), (8, 6)]]


# Packing, prefixes


@pytest.mark.parametrize("config", [TINY, PREFIX])
def test_packed_rows_have_the_loss_and_gradients_of_single_ones(config, examples):
    compute = loss_and_gradient(DecoderOnly(config))
    alone = compute(initial(config), packed(examples, [1] * 3))
    together = packed(examples, [2, 1])
    found = compute(initial(config), together)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found, alone)
    for key, value in (("segment_ids", 1), ("positions", None)):
        wrong = dict(together)
        row = wrong[f"decoder_{key}"]
        # One segment for both examples; positions that stretch in each.
        wrong[f"decoder_{key}"] = np.minimum(row, value) if value else 2 * row
        assert abs(float(compute(initial(config), wrong)[0] - alone[0])) > 1e-4


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_who_sees_whom(prefix_lm, examples):
    """Prompts see all of themselves in a prefix-LM, and never the answer or the neighbour."""
    config = dataclasses.replace(TINY, num_layers=1, layer_pattern=("global",), window=None)
    config = dataclasses.replace(config, prefix_lm=prefix_lm)
    batch = packed(examples, [2, 1])
    before = np.asarray(applied(config)(initial(config), batch))

    def changed(column):
        tokens = batch["decoder_input_tokens"].copy()
        tokens[0, column] += 1
        after = applied(config)(initial(config), batch | {"decoder_input_tokens": tokens})
        return np.flatnonzero(np.abs(np.asarray(after) - before)[0].max(-1) > 1e-6).tolist()

    assert changed(5) == list(range(0 if prefix_lm else 5, 10))  # of the prompt of 8
    assert changed(8) == [8, 9]  # of the answer
    assert changed(10) == list(range(10, 15))  # the start of the second example


def test_a_local_layer_sees_its_window():
    config = dataclasses.replace(TINY, num_layers=1, layer_pattern=("local",))
    tokens = np.random.default_rng(0).integers(2, 64, (1, LENGTH))
    before = applied(config)(initial(config), {"decoder_input_tokens": tokens})
    tokens[0, 6] += 1
    after = applied(config)(initial(config), {"decoder_input_tokens": tokens})
    assert np.flatnonzero(np.abs(after - before)[0].max(-1) > 1e-6).tolist() == [6, 7, 8, 9]


# Forms of blocks


def test_palm_is_its_formula():
    """y = x + MLP(norm(x)) + attention(norm(x)); multi-query, layer norm, tied scaled output."""
    config = dataclasses.replace(
        TINY,
        num_layers=1,
        num_kv_heads=1,
        window=None,
        layer_pattern=("global",),
        parallel=True,
        norm="layer",
        output_scale=True,
        position="none",
    )
    params = jax.tree.map(np.asarray, initial(config))
    tokens = np.random.default_rng(0).integers(0, 64, (1, 5))
    logits = applied(config)(params, {"decoder_input_tokens": tokens})

    def norm(x, scale):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6) * scale

    embedding, layer = params["token_embedder"]["embedding"], params["decoder"]["layers_0"]
    kernel = {path.split("/")[-2]: leaf for path, leaf in tree_paths(layer)}
    x = embedding[tokens[0]]
    y = norm(x, kernel["pre_attention_norm"])
    key, value = y @ kernel["key"], y @ kernel["value"]
    heads = []
    for query in np.split(y @ kernel["query"], 8, axis=1):
        scores = np.where(np.tri(5, dtype=bool), query @ key.T / 4**0.5, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ value)
    gate = y @ kernel["wi_0"]
    hidden = gate / (1 + np.exp(-gate)) * (y @ kernel["wi_1"])
    x = x + hidden @ kernel["wo"] + np.concatenate(heads, axis=1) @ kernel["out"]
    expected = norm(x, params["decoder"]["decoder_norm"]["scale"]) @ embedding.T / 32**0.5
    assert_same_float32(logits[0], expected)


@pytest.mark.parametrize(
    "change",
    [
        {"parallel": True, "norm": "layer", "norm_bias": True, "num_kv_heads": 1},
        {"attention_bias": "all", "mlp_bias": True, "activations": "relu", "tied_output": False},
        {"attention_bias": "qkv", "qk_norm": True, "post_norms": True, "num_kv_heads": 8},
        {"scan_layers": True, "norm": "rms_plus_one", "activations": "gated-gelu-exact"},
    ],
)
def test_counts_of_parameters_are_those_of_the_model(change):
    model = DecoderOnly(dataclasses.replace(TINY, **change))
    leaves = tree_paths(model.abstract_params())
    assert sum(leaf.size for _, leaf in leaves) == model.config.num_params()


@functools.lru_cache
def gradient_with_dropout(**changes):
    config = dataclasses.replace(PREFIX, dropout_rate=0.1, **changes)
    model, random = DecoderOnly(config), np.random.default_rng(0)
    tokens = random.integers(2, 64, (2, LENGTH))
    prefix = np.arange(LENGTH)[None] < [[9], [3]]
    batch = {"decoder_input_tokens": tokens, "decoder_causal_attention": prefix.astype("i4")}

    def loss(params):
        return jnp.square(model.apply(params, batch, jax.random.key(1))).mean()

    params = stack_layers(initial(TINY)) if config.scan_layers else initial(TINY)
    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(loss))(params))
    return value, unstack_layers(gradient)


def test_scan_and_remat_change_neither_loss_nor_gradients():
    found = gradient_with_dropout(scan_layers=True, remat="minimal")
    assert_same_float32(found, gradient_with_dropout())


# Decoding


@pytest.mark.parametrize(
    ("config", "sequences", "reordered", "scan"),
    [(TINY, 3, True, True), (PREFIX, 2, True, False), (PREFIX, 2, False, True)],
)
def test_decoding_with_a_cache_equals_teacher_forcing(config, sequences, reordered, scan):
    """Prompts shorter and longer than the window; with beams that change places."""
    model = DecoderOnly(dataclasses.replace(config, scan_layers=scan))
    params = stack_layers(initial(TINY)) if scan else initial(TINY)
    random, steps, lengths = np.random.default_rng(0), 6, (9, 3, 1)
    prompts = np.full((3, 10), -1)
    for row, length in enumerate(lengths):
        prompts[row, :length] = random.integers(2, 64, length)
    tokens = random.integers(2, 64, (3, sequences, steps))
    expected = np.zeros((3, sequences, steps, 64), np.float32)
    for row, length in enumerate(lengths):
        prompt = np.tile(prompts[row, :length], (sequences, 1))
        whole = np.concatenate([prompt, tokens[row, :, 1:]], axis=1)
        whole = np.pad(whole, [(0, 0), (0, LENGTH - whole.shape[1])])
        prefix = np.tile(np.arange(LENGTH) < length, (sequences, 1)).astype("i4")
        batch = {"decoder_input_tokens": whole, "decoder_causal_attention": prefix}
        logits = applied(config)(initial(TINY), batch)
        expected[row] = logits[:, length - 1 : length - 1 + steps]

    @jax.jit
    def start(params, prompts):
        return model.init_cache(model.start_prompts(params, prompts), sequences, steps, reordered)

    cache = start(params, prompts)
    step, reorder = jax.jit(model.decode_step), jax.jit(model.reorder_cache)
    order, turn = np.arange(sequences), np.roll(np.arange(sequences), 1)
    for position in range(steps):
        fed = tokens[:, order, position].reshape(-1)
        logits, cache = step(params, cache, fed, np.full(3, position))
        found = np.asarray(logits).reshape(3, sequences, -1)
        assert_same_float32(found, expected[:, order, position])
        if reordered:
            cache, order = reorder(cache, np.tile(turn, (3, 1))), order[turn]


def test_local_layers_keep_their_window():
    """Keys of the prompt, in both layouts; what is narrower than the window stays narrow."""
    for scan in (False, True):
        model = DecoderOnly(dataclasses.replace(TINY, scan_layers=scan))
        prompts = jax.eval_shape(
            model.start_prompts, model.abstract_params(), jnp.zeros((2, 10), jnp.int32)
        )
        widths = [kv.value.shape for kv in prompts.cross]
        if scan:
            assert widths == [(2, 2, 4, 4, 4), (1, 2, 4, 10, 4)]
        else:
            assert widths == [(2, 4, 4, 4), (2, 4, 10, 4), (2, 4, 4, 4)]
        start = functools.partial(model.init_cache, num_sequences=1, num_columns=5)
        cache = jax.eval_shape(start, prompts)
        narrow = jax.eval_shape(functools.partial(model.narrow, source_length=3), cache)
        assert {kv.value.shape[-2] for kv in narrow.prompts.cross} == {3}
        assert [kv.value.shape[-2] for kv in cache.memory] == ([4, 5] if scan else [4, 5, 4])


@pytest.mark.parametrize(
    "change",
    [
        {"norm": "rms_plus_one", "embedding_scale": True, "qk_norm": True, "post_norms": True},
        {"norm": "layer", "parallel": True, "attention_bias": "all", "attention_cap": 5.0},
        {"float32_attention_logits": True, "mlp_bias": True, "final_cap": 5.0},
    ],
)
def test_activations_are_bfloat16_and_logits_float32(change):
    """In training and through a loop of decoding steps, whose types must not change."""
    model = DecoderOnly(dataclasses.replace(TINY, dtype="bfloat16", scan_layers=True, **change))
    params, tokens = model.abstract_params(), jnp.zeros((2, 10), jnp.int32)
    batch = {"decoder_input_tokens": tokens}
    assert jax.eval_shape(model.decoder_hidden, params, batch).dtype == jnp.bfloat16

    def decode(params):
        cache = model.init_cache(model.start_prompts(params, tokens), 2, 5)
        return model.decode_step(params, cache, jnp.zeros(4, jnp.int32), jnp.zeros(2, jnp.int32))

    logits, cache = jax.eval_shape(decode, params)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(cache.memory)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("config", [TINY, PREFIX])
def test_logits_of_a_tree_are_those_of_its_branches(config):
    """Nodes 0 -> 1 -> 2 and 0 -> 3, after prompts longer and shorter than the window."""
    model, random = DecoderOnly(config), np.random.default_rng(0)
    prompts = np.full((2, 8), -1)
    prompts[0, :7], prompts[1, :2] = random.integers(2, 64, 7), random.integers(2, 64, 2)
    tokens = np.array([[0, 11, 12, 13], [0, 21, 22, 23]])
    depths = np.array([[0, 1, 2, 1]] * 2)
    seen = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]], bool)
    found = jax.jit(model.tree_logits)(initial(TINY), prompts, tokens, depths, np.stack([seen] * 2))
    for row, length in enumerate((7, 2)):
        for branch in ([0, 1, 2], [0, 3]):
            whole = np.zeros((1, LENGTH), np.int32)
            whole[0, :length] = prompts[row, :length]
            whole[0, length : length + len(branch) - 1] = tokens[row, branch[1:]]
            prefix = (np.arange(LENGTH) < length)[None].astype("i4")
            batch = {"decoder_input_tokens": whole, "decoder_causal_attention": prefix}
            logits = applied(config)(initial(TINY), batch)[0]
            assert_same_float32(found[row, branch], logits[length - 1 : length - 1 + len(branch)])


# Devices


def test_a_mesh_of_more_devices_than_key_heads_changes_neither_loss_nor_gradients(examples):
    """Other meshes, microbatches and updates: `tests/train/test_step.py`."""
    config = dataclasses.replace(TINY, num_kv_heads=1, scan_layers=True, parallel=True)
    params, batch = initial(config), packed(examples * 3, [2, 1] * 3 + [0, 0])
    expected = loss_and_gradient(DecoderOnly(config))(params, batch)
    mesh = make_mesh(parse_mesh("fsdp=2,tensor=4"))
    shardings = param_shardings(mesh, DecoderOnly(config).abstract_params())
    with jax.set_mesh(mesh):
        batch = jax.device_put(batch, batch_sharding(mesh))
        found = loss_and_gradient.__wrapped__(DecoderOnly(config))(
            jax.device_put(params, shardings), batch
        )
    assert_same_float32(jax.device_get(found), expected)
