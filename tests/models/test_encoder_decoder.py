import dataclasses
import functools
import gzip
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from instruct.mesh import MeshConfig, batch_sharding, make_mesh, param_shardings, tree_paths
from instruct.models.config import ModelConfig
from instruct.models.decode_cache import reorder_cache
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import stack_layers, unstack_layers
from tests.float32 import assert_same_float32
from tests.models.test_config import TINY
from tests.waiting import LIMIT_SECS

pytestmark = pytest.mark.slow

SIZES = {
    "small": (512, 6, 1024, 8, 76_961_152),
    "base": (768, 12, 2048, 12, 247_577_856),
    "large": (1024, 16, 2816, 24, 783_150_080),
    "xl": (2048, 32, 5120, 24, 2_849_757_184),
    "xxl": (4096, 64, 10240, 24, 11_135_332_352),
}


def sized(name, **changes):
    d_model, heads, d_ff, layers, _ = SIZES[name]
    return ModelConfig(
        vocab_size=32128,
        d_model=d_model,
        num_heads=heads,
        head_dim=64,
        d_ff=d_ff,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        **changes,
    )


def abstract_size(model):
    return sum(leaf.size for _, leaf in tree_paths(model.abstract_params()))


@functools.lru_cache
def applied(config):
    """`apply` compiled once for all tests of a config."""
    return jax.jit(EncoderDecoder(config).apply)


@functools.lru_cache
def initial(config):
    """Parameters of key 0, drawn once for all tests of a config."""
    return jax.device_get(jax.jit(EncoderDecoder(config).init)(jax.random.key(0)))


def pack(examples, row_sizes, inputs, targets):
    """Rows of consecutive (source, target) examples; the documented layout of `batch.py`."""
    batch = {
        name: np.zeros(
            (len(row_sizes), inputs if name.startswith("encoder") else targets), np.int32
        )
        for name in (
            "encoder_input_tokens",
            "encoder_segment_ids",
            "decoder_input_tokens",
            "decoder_segment_ids",
        )
    }
    places, remaining = [], iter(examples)
    for row, size in enumerate(row_sizes):
        start = stop = 0
        for segment in range(1, size + 1):
            source, target = next(remaining)
            batch["encoder_input_tokens"][row, start : start + len(source)] = source
            batch["encoder_segment_ids"][row, start : start + len(source)] = segment
            batch["decoder_input_tokens"][row, stop + 1 : stop + len(target)] = target[:-1]
            batch["decoder_segment_ids"][row, stop : stop + len(target)] = segment
            places.append((row, slice(stop, stop + len(target))))
            start, stop = start + len(source), stop + len(target)
    return batch, places


@pytest.fixture(scope="module")
def examples():
    """Four examples of unequal lengths; the third has an empty source."""
    random = np.random.default_rng(0)
    lengths = [(9, 4), (5, 6), (0, 3), (12, 5)]
    return [tuple(random.integers(2, 380, n) for n in pair) for pair in lengths]


@pytest.fixture(scope="module")
def tiny_params():
    return initial(TINY)


def packed_logits(params, examples, **replaced):
    batch, places = pack(examples, [2, 2], 16, 12)
    logits = applied(TINY)(params, batch | replaced)
    logits = np.asarray(logits)
    return [logits[row, where] for row, where in places], batch


# Parity with T5X


def test_logits_are_those_of_t5x(reference):
    assert reference.model.config.num_params() == 604_224
    logits = np.asarray(applied(reference.model.config)(reference.params, reference.batch))
    real = reference.batch["decoder_loss_weights"] > 0
    assert_same_float32(logits[real], reference.outputs["logits"][real])


def test_final_parameters_are_those_of_the_checkpoint(shared_data, reference):
    """The committed copy is what the legacy checkpoint holds: zarr arrays of one gzip chunk."""
    found = {}
    for folder in (shared_data / "t5x_checkpoint" / "t5_1_1" / "checkpoint_5").glob("target.*"):
        about = json.loads((folder / ".zarray").read_text())
        raw = gzip.decompress((folder / ".".join("0" * len(about["shape"]))).read_bytes())
        path = folder.name.removeprefix("target.").replace(".", "/")
        found[path] = np.frombuffer(raw, about["dtype"]).reshape(about["shape"])
    jax.tree.map(np.testing.assert_array_equal, unflatten_dict(found, sep="/"), reference.params)


def test_initial_parameters_have_the_names_shapes_and_scales_of_t5x(reference, initial_parameters):
    ours = dict(tree_paths(jax.jit(reference.model.init)(jax.random.key(0))))
    theirs = dict(tree_paths(initial_parameters))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    for path, value in theirs.items():
        if not path.endswith("scale"):
            assert np.std(ours[path]) / np.std(value) == pytest.approx(1, abs=0.15), path


# Packing


def test_packed_equals_unpacked_and_wrong_segments_do_not(tiny_params, examples):
    packed, batch = packed_logits(tiny_params, examples)
    alone, places = pack(examples, [1] * 4, 16, 12)
    unpacked = {k: v for k, v in alone.items() if "segment" not in k}
    logits = np.asarray(applied(TINY)(tiny_params, unpacked))
    for found, (row, where) in zip(packed, places):
        assert_same_float32(found, logits[row, where])
    wrong = np.minimum(batch["encoder_segment_ids"], 1)
    found, _ = packed_logits(tiny_params, examples, encoder_segment_ids=wrong)
    assert np.abs(found[0] - packed[0]).max() > 1e-3
    assert np.abs(found[1] - packed[1]).max() > 1e-3


def test_a_packed_example_does_not_reach_its_neighbours(tiny_params, examples):
    before, _ = packed_logits(tiny_params, examples)
    changed = [*examples]
    changed[3] = (examples[3][0][::-1].copy(), examples[3][1][::-1].copy())
    after, _ = packed_logits(tiny_params, changed)
    for i in range(3):
        np.testing.assert_array_equal(before[i], after[i])
    assert np.abs(before[3] - after[3]).max() > 1e-3


def test_an_empty_source_gives_finite_values_and_gradients(tiny_params, examples):
    batch, _ = pack(examples[2:3], [1], 16, 12)
    total = jax.jit(jax.value_and_grad(lambda p: EncoderDecoder(TINY).apply(p, batch).sum()))
    for leaf in jax.tree.leaves(total(tiny_params)):
        assert np.isfinite(leaf).all()


def test_segment_ids_of_one_side_only_are_refused(tiny_params, examples):
    batch, _ = pack(examples, [2, 2], 16, 12)
    del batch["decoder_segment_ids"]
    with pytest.raises(ValueError, match="segment ids"):
        EncoderDecoder(TINY).apply(tiny_params, batch)


# Layouts, remat, dropout, dtypes


@functools.lru_cache
def loss_and_gradient(**changes):
    """With dropout, so that the layers' keys are compared as well; the gradient unstacked."""
    model = EncoderDecoder(dataclasses.replace(TINY, dropout_rate=0.1, **changes))
    random = np.random.default_rng(0)
    batch = {
        "encoder_input_tokens": random.integers(2, 380, (2, 12)),
        "decoder_input_tokens": random.integers(2, 380, (2, 6)),
    }

    def loss(params):
        return jnp.square(model.apply(params, batch, jax.random.key(1))).mean()

    params = stack_layers(initial(TINY)) if model.config.scan_layers else initial(TINY)
    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(loss))(params))
    return value, unstack_layers(gradient)


@pytest.mark.parametrize(("scan", "remat"), [(True, "minimal"), (False, "full")])
def test_scan_and_remat_change_neither_loss_nor_gradients(scan, remat):
    found = loss_and_gradient(scan_layers=scan, remat=remat)
    assert_same_float32(found, loss_and_gradient())


def test_both_layouts_start_from_the_same_values(tiny_params):
    scanned = initial(dataclasses.replace(TINY, scan_layers=True))
    # Two programs: their compilers may order the last rounding of a scale differently.
    assert_same_float32(unstack_layers(scanned), tiny_params, roundings=8)


def test_dropout_follows_its_key(tiny_params, examples):
    batch, _ = pack(examples, [2, 2], 16, 12)
    dropping = applied(dataclasses.replace(TINY, dropout_rate=0.1))
    plain = applied(TINY)(tiny_params, batch)
    first, again, other = (dropping(tiny_params, batch, jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3 and np.abs(first - plain).max() > 1e-3


def test_bfloat16_activations_stay_near_float32(tiny_params, examples):
    batch, _ = pack(examples, [2, 2], 16, 12)
    config = dataclasses.replace(TINY, dtype="bfloat16")
    assert (
        jax.eval_shape(EncoderDecoder(config).decoder_hidden, tiny_params, batch).dtype
        == "bfloat16"
    )
    logits = applied(config)(tiny_params, batch)
    assert logits.dtype == jnp.float32
    real = batch["decoder_segment_ids"] > 0
    difference = np.abs(np.asarray(logits) - np.asarray(applied(TINY)(tiny_params, batch)))[real]
    assert 0 < difference.mean() < 0.05


def test_t5_1_0_has_one_input_kernel_and_a_scaled_tied_output(tiny_params, examples):
    config = dataclasses.replace(TINY, activations="relu", tied_output=True)
    model = EncoderDecoder(config)
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: random.normal(0, 0.2, leaf.shape).astype(np.float32), model.abstract_params()
    )
    assert set(params["encoder"]["layers_0"]["mlp"]) == {"wi", "wo"}
    assert "logits_dense" not in params["decoder"]
    assert abstract_size(model) == config.num_params()
    batch, _ = pack(examples, [2, 2], 16, 12)
    hidden, logits = jax.jit(lambda p: (model.decoder_hidden(p, batch), model.apply(p, batch)))(
        params
    )
    expected = np.asarray(hidden) @ np.asarray(params["token_embedder"]["embedding"]).T / 32**0.5
    assert_same_float32(logits, expected)


@pytest.mark.parametrize("name", SIZES)
def test_parameter_counts_of_the_published_sizes(name):
    config = sized(name, scan_layers=True, dtype="bfloat16")
    assert abstract_size(EncoderDecoder(config)) == config.num_params() == SIZES[name][-1]


# Decoding


@pytest.mark.parametrize(("beams", "scan"), [(1, False), (3, False), (3, True)])
def test_decoding_with_a_cache_equals_teacher_forcing(reference, beams, scan):
    model = EncoderDecoder(dataclasses.replace(reference.model.config, scan_layers=scan))
    params = stack_layers(reference.params) if scan else reference.params
    prompts = reference.outputs["decode_inputs"]
    steps = 5
    # Every beam its own tokens; after each step the beams of a prompt change places.
    tokens = np.random.default_rng(0).integers(2, 380, (len(prompts), beams, steps))
    tokens[:, :, 0] = 0
    expected = applied(model.config)(
        params,
        {
            "encoder_input_tokens": np.repeat(prompts, beams, axis=0),
            "decoder_input_tokens": tokens.reshape(-1, steps),
        },
    )
    expected = np.asarray(expected).reshape(len(prompts), beams, steps, -1)

    @jax.jit
    def start(params, prompts):
        return model.init_cache(model.start_prompts(params, prompts), beams, steps + 2)

    cache = start(params, prompts)
    step, reorder = jax.jit(model.decode_step), jax.jit(reorder_cache)
    order = np.arange(beams)
    for position in range(steps):
        here = tokens[:, order, position].reshape(-1)
        logits, cache = step(params, cache, here, np.full(len(prompts), position))
        assert logits.dtype == jnp.float32
        found = np.asarray(logits).reshape(len(prompts), beams, -1)
        assert_same_float32(found, expected[:, order, position])
        turn = np.roll(np.arange(beams), 1)
        cache = reorder(cache, np.tile(turn, (len(prompts), 1)))
        order = order[turn]


def test_beams_share_the_keys_and_values_of_their_prompt(tiny_params):
    model = EncoderDecoder(TINY)
    cache = jax.eval_shape(
        lambda p, t: model.init_cache(model.start_prompts(p, t), 4, 5),
        tiny_params,
        jax.ShapeDtypeStruct((2, 7), jnp.int32),
    )
    assert cache.prompts.cross[0].value.shape == (2, 8, 7, 8)
    assert cache.memory[0].value.shape == (2, 8, 4 * 5, 8)


# Devices, imports


@pytest.mark.parametrize(
    "shape", [(8, 1, 1, 1), (4, 1, 2, 1), (2, 1, 4, 1), (1, 1, 8, 1), (1, 2, 2, 2)]
)
def test_sharded_logits_equal_those_of_one_device(tiny_params, shape):
    random = np.random.default_rng(1)
    batch = {
        "encoder_input_tokens": random.integers(2, 380, (8, 12)).astype(np.int32),
        "decoder_input_tokens": random.integers(2, 380, (8, 6)).astype(np.int32),
    }
    expected = applied(TINY)(tiny_params, batch)
    mesh = make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor", "sequence"), shape))))
    model = EncoderDecoder(TINY)
    shardings = param_shardings(mesh, model.abstract_params())
    with jax.set_mesh(mesh):
        apply = jax.jit(
            lambda p, b: model.apply(p, b), in_shardings=(shardings, batch_sharding(mesh))
        )
        found = apply(jax.device_put(tiny_params, shardings), batch)
    assert_same_float32(found, expected)


def test_the_model_imports_without_tensorflow():
    code = (
        "import sys; import instruct.models.encoder_decoder; "
        "print([m for m in ('tensorflow', 'seqio', 'gin') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LIMIT_SECS
    )
    assert found.stdout.strip() == "[]"
