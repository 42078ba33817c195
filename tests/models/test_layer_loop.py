import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.models.layer_loop import layer_zeros, run_layers, update_layers
from instruct.models.layout import stack_layers

# Five layers in periods of two: the loop runs twice, one layer is left.
LAYERS = {f"layers_{i}": {"w": jnp.float32(i + 2)} for i in range(5)}
PERIOD = [
    lambda params, x, key: x * params["w"] + (0 if key is None else jax.random.uniform(key)),
    lambda params, x, key: x - params["w"],
]


def config(scan):
    return types.SimpleNamespace(scan_layers=scan, remat="none", dtype="float32")


@pytest.mark.parametrize("key", [None, jax.random.key(0)])
def test_layers_take_turns_in_both_layouts(key):
    found = [
        run_layers(PERIOD, params, 5, jnp.float32(1.0), key, config(scan))
        for params, scan in ((LAYERS, False), (stack_layers(LAYERS), True))
    ]
    assert float(found[0]) == pytest.approx(float(found[1]), rel=1e-6)
    if key is None:
        assert float(found[0]) == ((1.0 * 2 - 3) * 4 - 5) * 6


def test_what_layers_write_is_grouped_by_their_place_in_the_period():
    def step(number):
        def apply(params, x, written, read):
            return x * params["w"], written + x + number * read

        return apply

    period, x = [step(0), step(1)], jnp.float32(1.0)
    shapes = [jax.ShapeDtypeStruct((), jnp.float32)] * 2
    read = tuple(jnp.float32(10 * i) for i in range(5))
    alone = update_layers(period, LAYERS, 5, x, layer_zeros(shapes, 5, False), read)
    assert [float(w) for w in alone[1]] == [1, 2 + 10, 6, 24 + 30, 120]
    grouped = (jnp.array([0.0, 20.0, 40.0]), jnp.array([10.0, 30.0]))
    zeros = layer_zeros(shapes, 5, True)
    assert [z.shape for z in zeros] == [(3,), (2,)]
    stacked = update_layers(period, stack_layers(LAYERS), 5, x, zeros, grouped)
    np.testing.assert_array_equal(stacked[1][0], [1, 6, 120])
    np.testing.assert_array_equal(stacked[1][1], [12, 54])
    assert float(alone[0]) == float(stacked[0]) == 720
