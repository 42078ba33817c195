"""Random draws for one prompt: a counter-based stream, equal on every machine and Python version.

Seeding `random.Random` takes longer than a whole render, and its `choice` and `shuffle` may change
between Python versions.
"""

import bisect
from collections.abc import Sequence
from typing import TypeVar

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, the increment of SplitMix64
T = TypeVar("T")


def mix(value: int) -> int:
    """SplitMix64's output function (Steele, Lea, Flood 2014): uint64 -> uint64, a bijection."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Draws:
    """A stream of draws fixed by (`key`, `purpose`).

    Streams of different purposes are independent: a new option style does not change the template
    of an example.

    Args:
        key: any integer; its low 64 bits count.
        purpose: a small number for each kind of draw.
    """

    __slots__ = ("_state",)

    def __init__(self, key: int, purpose: int = 0) -> None:
        self._state = mix((key + _GOLDEN * (purpose + 1)) & _MASK)

    def uint64(self) -> int:
        """The next 64 bits."""
        self._state = (self._state + _GOLDEN) & _MASK
        return mix(self._state)

    def unit(self) -> float:
        """The next float in [0, 1)."""
        return (self.uint64() >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        """The next integer in [0, bound); the bias is under bound / 2**64."""
        return (self.uint64() * bound) >> 64

    def choice(self, items: Sequence[T]) -> T:
        """One item, all equally likely."""
        return items[self.below(len(items))]

    def weighted(self, cumulative: Sequence[float]) -> int:
        """Index drawn by cumulative weights (ascending, the last one is the total)."""
        index = bisect.bisect_right(cumulative, self.unit() * cumulative[-1])
        return min(index, len(cumulative) - 1)

    def permutation(self, size: int) -> list[int]:
        """A uniform permutation of range(size) (Fisher-Yates)."""
        order = list(range(size))
        for last in range(size - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def subset(self, size: int, count: int) -> list[int]:
        """A uniform subset of range(size) with `count` members, ascending (Floyd's algorithm)."""
        chosen: set[int] = set()
        for last in range(size - count, size):
            number = self.below(last + 1)
            chosen.add(last if number in chosen else number)
        return sorted(chosen)
