"""Adapters are entries of the tree: fresh ones change no bit, merged ones compute the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.mesh import tree_paths
from instruct.models.adapters import (
    AdaptedKernel,
    add_adapters,
    bind_adapters,
    draw_dropout,
    has_dropout,
    is_adapter,
    merge_adapters,
    with_dropout,
    without_adapters,
)
from instruct.models.layout import stack_layers, unstack_layers
from instruct.models.model import make_model
from instruct.models.pair_config import PairConfig
from instruct.models.stack_config import StackConfig
from tests.train.batches import packed_batch, packed_sequences, tiny_config, tiny_decoder

STACK = StackConfig(
    d_model=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4, d_ff=32, post_norms=True
)

MODELS = {
    "encoder_decoder": (tiny_config(), packed_batch),
    "decoder_only": (tiny_decoder(), packed_sequences),
    "pair": (PairConfig(vocab_size=64, encoder=STACK, decoder=STACK), packed_batch),
}


def kernels(params) -> set[str]:
    return {path for path, _ in tree_paths(params) if path.endswith("kernel") and "layers" in path}


def adapted(params, rank=3, scale=0.5):
    return jax.jit(add_adapters, static_argnums=(1, 2))(
        params, frozenset(kernels(params)), rank, scale, jax.random.key(1)
    )


def with_drawn_b(params):
    """B as after training."""
    leaves = tree_paths(params)
    drawn = [
        jax.random.normal(jax.random.key(i), leaf.shape) * 0.3 if path.endswith("lora_b") else leaf
        for i, (path, leaf) in enumerate(leaves)
    ]
    return jax.tree.unflatten(jax.tree.structure(params), drawn)


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    config, batches = MODELS[request.param]
    model = make_model(config)
    params = jax.jit(model.init)(jax.random.key(0))
    return model, params, batches(1), jax.jit(model.apply)


@pytest.mark.slow
def test_fresh_adapters_change_no_bit(case):
    _, params, batch, apply = case
    plain = apply(params, batch)
    assert np.array_equal(plain, apply(adapted(params), batch))
    assert np.isfinite(plain).all()


@pytest.mark.slow
def test_merged_kernels_compute_what_adapters_do(case):
    _, params, batch, apply = case
    trained = with_drawn_b(adapted(params))
    merged = merge_adapters(trained)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    before = dict(tree_paths(trained))
    assert {n for n, x in tree_paths(merged) if x is not before[n]} == kernels(params)
    beside, together = apply(trained, batch), apply(merged, batch)
    assert np.abs(beside - apply(params, batch)).max() > 0.1
    np.testing.assert_allclose(beside, together, atol=1e-5)


@pytest.mark.slow
def test_the_tree_of_the_base_comes_back(case):
    _, params, _, _ = case
    there = adapted(params)
    assert any(is_adapter(path) for path, _ in tree_paths(there))
    assert all(map(np.array_equal, *map(jax.tree.leaves, (without_adapters(there), params))))


@pytest.mark.slow
def test_dropout_acts_on_adapters_alone():
    model = make_model(tiny_decoder())
    params, batch = jax.jit(model.init)(jax.random.key(0)), packed_sequences(1)
    assert model.config.dropout_rate == 0
    trained = with_drawn_b(adapted(params))
    apply = jax.jit(model.apply)
    key, other = jax.random.split(jax.random.key(3))
    assert np.array_equal(apply(trained, batch, key), apply(trained, batch))
    dropped = with_dropout(trained, 0.5)
    assert has_dropout(dropped) and not has_dropout(with_dropout(trained, 0.0))
    assert np.array_equal(apply(dropped, batch, key), apply(dropped, batch, key))
    assert not np.array_equal(apply(dropped, batch, key), apply(dropped, batch, other))
    assert np.array_equal(apply(dropped, batch), apply(trained, batch))


@pytest.mark.slow
def test_both_layouts_start_from_the_same_adapters():
    params = jax.jit(make_model(tiny_config()).init)(jax.random.key(0))
    separate, stacked = adapted(params), adapted(stack_layers(params))
    for (path, a), (name, b) in zip(tree_paths(separate), tree_paths(unstack_layers(stacked))):
        assert path == name and np.array_equal(a, b)
    of_layers = [leaf for path, leaf in tree_paths(separate) if path.endswith("lora_a")]
    assert len({leaf.tobytes() for leaf in map(np.asarray, of_layers)}) == len(of_layers)


def test_a_layer_is_bound_with_its_adapters():
    node = {"kernel": 1, "lora_a": jnp.zeros((4, 2)), "lora_b": 3, "lora_scale": 4, "bias": 5}
    marked = with_dropout({"query": node, "norm": {"scale": 6}}, 0.1)
    drawn = draw_dropout(marked, lambda rate, widths: [(rate, *widths)])
    bound = bind_adapters(drawn)
    kernel = bound["query"].pop("kernel")
    assert isinstance(kernel, AdaptedKernel)
    assert (kernel.kernel, kernel.b, kernel.scale) == (1, 3, 4)
    assert kernel.kept == (0.1, 4)
    assert bound == {"query": {"bias": 5}, "norm": {"scale": 6}}
    assert is_adapter("query/lora_scale") and not is_adapter("query/kernel")
