"""Slots: where a step writes, who reads which column, and how a new prompt comes in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.models.attention import KeyValue
from instruct.models.decode_cache import (
    Prompts,
    fill_slots,
    local_place,
    narrow,
    new_cache,
    next_place,
    reorder_cache,
)

SLOTS, SOURCE, HEADS, WIDTH, SEQUENCES, COLUMNS = 2, 5, 2, 3, 3, 2


def prompts(value: float, slots: int = SLOTS, source: int = SOURCE) -> Prompts:
    """One layer; every key and value is `value`, every source token is there."""
    key = jnp.full((slots, HEADS, WIDTH, source), value)
    cross = (KeyValue(key, key.swapaxes(-1, -2)),)
    return Prompts(cross, jnp.ones((slots, 1, 1, source), bool))


def cache(reordered: bool = True):
    return new_cache(prompts(1.0), SEQUENCES, COLUMNS, reordered)


def test_columns_are_used_in_turn_without_end():
    state, written = cache(reordered=False), []
    tokens = jnp.zeros(SLOTS * SEQUENCES, jnp.int32)
    for step in range(5):
        state, place = next_place(state, tokens, jnp.array([step, step]))
        written.append(int(place.column))
    assert written == [0, 1, 0, 1, 0]


def test_worked_example_of_beams_that_change_places():
    state = cache()._replace(
        ancestors=jnp.broadcast_to(jnp.array([[0, 0, 1], [0, 1, 2]]), (SLOTS, COLUMNS, SEQUENCES))
    )
    moved = reorder_cache(state, jnp.array([[2, 2, 0], [0, 1, 2]]))
    assert moved.ancestors[0].tolist() == [[1, 1, 0], [2, 2, 0]]
    assert moved.ancestors[1].tolist() == [[0, 0, 1], [0, 1, 2]]
    same = jax.tree.map(lambda a, b: a is b, state.memory, moved.memory)
    assert all(jax.tree.leaves(same))  # keys and values stay where they are
    with pytest.raises(ValueError, match="reordered=True"):
        reorder_cache(cache(reordered=False), jnp.zeros((SLOTS, SEQUENCES), jnp.int32))


def test_a_shorter_prompt_fills_a_slot_and_masks_the_rest():
    filled = fill_slots(
        cache(), prompts(7.0, 2, 3), jnp.array([1, 0]), jnp.array([0, 1]), jnp.int32(1)
    )
    (layer,) = filled.prompts.cross
    assert np.unique(layer.value[0]).tolist() == [1.0]  # only the first `count` slots are filled
    assert np.unique(layer.value[1, :, :3]).tolist() == [7.0]
    assert filled.prompts.mask[:, 0, 0].tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    short = narrow(filled, 3)
    assert short.prompts.cross[0].key.shape == (SLOTS, HEADS, WIDTH, 3)
    assert short.prompts.mask.shape[-1] == 3


def test_worked_example_of_a_layer_that_keeps_a_window():
    """Step 6: the last two steps of 5 columns, and the sequence that each was written by."""
    state = new_cache(prompts(1.0), SEQUENCES, 5, True, windows=(3,))
    assert state.memory[0].value.shape[-2] == 3 * SEQUENCES
    tokens = jnp.zeros(SLOTS * SEQUENCES, jnp.int32)
    for step in range(7):
        number = state.step
        state, place = next_place(state, tokens, jnp.array([step, 1]))
        state = reorder_cache(state, jnp.full((SLOTS, SEQUENCES), step % SEQUENCES))
    local = local_place(place, number, 3)
    assert int(place.column) == 1 and int(local.column) == 0
    assert local.visible[:, 0, 0].tolist() == [[True] * 3, [True, False, True]]
    # Steps 4 and 5 were written by the sequences that later ones descend from.
    written_by = jnp.argmax(local.line[0, 0], axis=-1)
    assert written_by.tolist() == [[0, 1, 2], [1, 1, 2], [2, 1, 2]]


def test_a_cache_by_position_has_the_columns_of_each_row():
    """Rows at positions 1 and 0 take two tokens: their columns, and what a window of 2 leaves."""
    state = new_cache(prompts(1.0), 1, 4, False, windows=(None,))
    same, place = next_place(state, jnp.zeros((SLOTS, 2), jnp.int32), jnp.array([1, 0]))
    assert same is state and place.column.tolist() == [1, 0]
    assert place.ages[0].tolist() == [[1, 0, -1, -2], [2, 1, 0, -1]]
    first, second = [[1, 1, 0, 0], [1, 1, 1, 0]], [[1, 0, 0, 0], [1, 1, 0, 0]]
    np.testing.assert_array_equal(place.visible[:, 0], [first, second])
    local = local_place(place, state.step, 2)
    np.testing.assert_array_equal(local.visible[0, 0], [[1, 1, 0, 0], [0, 1, 1, 0]])
