"""`reasoning_gym`'s data sets as the table configures them, the same in every process.

Some generators draw from a set of strings, whose order changes with Python's hash seed from one
process to the next. `load_generator` fixes the order of these sets.
"""

import functools
from collections.abc import Callable, Iterator, Set
from typing import Any

from tasks.gym.table import GENERATORS


@functools.lru_cache(maxsize=128)
def load_generator(name: str, size: int, seed: int) -> Any:
    """The data set of a row of the table, with `size` items from `seed` on."""
    # Imported late: the library takes two seconds to import, and listing tasks does not need it.
    import reasoning_gym

    row = GENERATORS[name]
    dataset = reasoning_gym.create_dataset(row.generator, size=size, seed=seed, **row.config)
    if row.generator in _ORDERS:
        _ORDERS[row.generator](dataset)
    return dataset


class _SortedSet(set):
    """A set that iterates in sorted order, as do its differences."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(super().__iter__()))

    def __sub__(self, other: Set[Any]) -> "_SortedSet":
        return _SortedSet(super().__sub__(other))


def _order_letters(dataset: Any) -> None:
    dataset.letters = _SortedSet(dataset.letters)


def _order_neighbours(dataset: Any) -> None:
    dataset.word_graphs = {
        length: {word: tuple(sorted(near)) for word, near in graph.items()}
        for length, graph in dataset.word_graphs.items()
    }


def _order_monomials(dataset: Any) -> None:
    original = dataset._get_monomials
    dataset._get_monomials = lambda rng: sorted(original(rng), key=str)


_ORDERS: dict[str, Callable[[Any], None]] = {
    "isomorphic_strings": _order_letters,
    "polynomial_multiplication": _order_monomials,
    "ransom_note": _order_letters,
    "word_ladder": _order_neighbours,
}
