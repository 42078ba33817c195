"""Intervals and p-values with a closed form: Wilson, the sign test's smallest p, normal p, Holm."""

import math
from collections.abc import Sequence


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share, in per cent; (0, 100) where n is 0."""
    if n == 0:
        return 0.0, 100.0
    share = hits / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 100 / (1 + z * z / n)
    return max(0.0, scale * (middle - spread)), min(100.0, scale * (middle + spread))


def sign_test_floor(changed: int) -> float:
    """The smallest two-sided p-value of a sign test: all of `changed` examples went one way.

    A bootstrap alone would call a single changed example certain.
    """
    return min(1.0, 2.0 ** (1 - changed))


def normal_p(change: float, stderr: float) -> float:
    """Two-sided p-value of "no change"; without a standard error 0, or 1 where nothing changed."""
    return math.erfc(abs(change) / stderr / math.sqrt(2)) if stderr > 0 else float(change == 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being looked at together (Holm 1979), in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
