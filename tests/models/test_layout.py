import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import stack_layers, unstack_layers
from tests.models.test_config import TINY


def test_there_and_back_changes_nothing(reference):
    stacked = stack_layers(reference.params)
    kernel = stacked["decoder"]["layers"]["mlp"]["wo"]["kernel"]
    assert isinstance(kernel, np.ndarray) and kernel.shape == (3, 160, 128)
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(stacked), reference.params)


def test_shapes_without_arrays():
    abstract = EncoderDecoder(TINY).abstract_params()
    assert unstack_layers(stack_layers(abstract)) == abstract


def test_trees_inside_tuples_as_optimisers_have_them():
    slots = ({"layers_0": {"v": jnp.zeros(3)}, "layers_1": {"v": jnp.ones(3)}}, jnp.int32(4))
    stacked, count = stack_layers(slots)
    np.testing.assert_array_equal(stacked["layers"]["v"], [[0, 0, 0], [1, 1, 1]])
    assert count == 4


def test_more_than_ten_layers_keep_their_order():
    tree = {f"layers_{i}": np.array([i]) for i in reversed(range(12))}
    assert stack_layers(tree)["layers"].ravel().tolist() == list(range(12))


def test_a_missing_layer_is_refused():
    with pytest.raises(ValueError, match="numbered"):
        stack_layers({"layers_0": np.zeros(1), "layers_2": np.zeros(1)})
