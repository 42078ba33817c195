"""Generators whose order would change with Python's hash seed."""

from tasks.gym.library import _SortedSet, load_generator


def test_sets_are_walked_in_sorted_order_after_a_difference_too():
    letters = _SortedSet("gym")
    assert list(letters) == ["g", "m", "y"]
    assert list(letters - {"m"}) == ["g", "y"] and isinstance(letters - {"m"}, _SortedSet)


def test_a_row_is_configured_as_the_table_says():
    dataset = load_generator("easy_sums", 3, 5)
    assert len(dataset) == 3 and dataset.config.max_terms == 2
    assert dataset[0]["question"] == load_generator("easy_sums", 3, 5)[0]["question"]
