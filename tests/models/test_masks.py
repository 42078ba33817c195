import jax.numpy as jnp
import numpy as np
import pytest

from instruct.models import masks


def test_docstring_examples():
    segments = jnp.array([[1, 1, 2, 0]])
    source = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(masks.source_mask(segments).dense()[0, 0], source)
    target = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(masks.target_mask(4, segments).dense()[0, 0], target)
    cross = masks.cross_mask(segments, jnp.array([[1, 2, 2]])).dense()
    np.testing.assert_array_equal(cross[0, 0], [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]])
    tokens = jnp.array([[7, 8, 1, 0]])
    np.testing.assert_array_equal(masks.source_segments(tokens, None), [[1, 1, 1, 0]])


def test_without_segment_ids_a_row_is_one_example():
    segments = masks.source_segments(jnp.array([[7, 1, 0]]), None)
    np.testing.assert_array_equal(masks.cross_mask(segments, None).dense()[0, 0], [[1, 1, 0]])
    np.testing.assert_array_equal(
        masks.target_mask(3, None).dense()[0, 0], np.tril(np.ones((3, 3)))
    )


@pytest.mark.parametrize("packed", [True, False])
def test_the_segments_of_a_mask_say_what_its_dense_form_says(packed):
    source = jnp.array([[1, 1, 2, 0], [1, 3, 3, 3]])
    target = jnp.array([[1, 2, 2, 0], [1, 2, 3, 0]]) if packed else None
    for mask in (
        masks.source_mask(source),
        masks.target_mask(4, target),
        masks.cross_mask(source, target),
    ):
        queries, keys = mask.segments(2, 4)
        visible = (queries[:, :, None] == keys[:, None, :]) & (keys != 0)[:, None, :]
        visible &= jnp.tri(4, dtype=bool) | (not mask.causal)
        np.testing.assert_array_equal(visible, jnp.broadcast_to(mask.dense()[:, 0], (2, 4, 4)))


def test_segment_ids_win_over_token_values():
    """Id 0 may be a real token of a packed row, and padding may hold anything."""
    tokens = jnp.array([[0, 5, 9]])
    given = jnp.array([[1, 1, 0]])
    np.testing.assert_array_equal(masks.source_segments(tokens, given), given)


def test_cache_mask_shows_a_rows_own_past():
    ages = masks.cache_ages(jnp.int32(1), 4)
    np.testing.assert_array_equal(ages, [1, 0, 3, 2])
    found = masks.cache_mask(ages, jnp.array([0, 2]))[:, 0, 0]
    np.testing.assert_array_equal(found, [[0, 1, 0, 0], [1, 1, 0, 1]])


def test_docstring_examples_of_one_sequence():
    segments, prefix = jnp.array([[1, 1, 1, 2, 0]]), jnp.array([[1, 1, 0, 0, 0]], bool)
    both = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1]], bool)
    found = masks.prefix_mask(segments, prefix, None).dense()[0, 0]
    np.testing.assert_array_equal(found[:3, :3], both)
    np.testing.assert_array_equal(found[3:], [[0, 0, 0, 1, 0], [0] * 5])
    found = masks.prefix_mask(segments, prefix, 2).dense()[0, 0]
    np.testing.assert_array_equal(found[2], [0, 1, 1, 0, 0])
    found = masks.prefix_mask(segments, None, None).dense()[0, 0]
    np.testing.assert_array_equal(found[:3, :3], np.tri(3))


def test_docstring_examples_of_prompts():
    lengths = jnp.array([5])
    np.testing.assert_array_equal(masks.prompt_mask(lengths, 6)[0, 0], [[1, 1, 1, 1, 0, 0]])
    found = masks.prompt_window_mask(lengths, jnp.array([[1]]), 3, 3)
    np.testing.assert_array_equal(found[0, 0], [[0, 1, 0]])
    assert masks.prompt_start(jnp.array([5, 2]), 3).tolist() == [2, 0]
