"""Comparing numbers of float32 programs, on any processor and any number of devices.

One float32 operation rounds its result by up to 2^-24, 6e-8, of the result. Vector width (SSE,
AVX2, AVX-512), fused multiply-adds and the number of devices decide the order of a sum and so which
roundings happen; both orders are right. A sum is off by roundings of its *terms*: where large terms
cancel, a small element carries the error of large ones. So an element may be off in proportion to
the largest element of its array: an absolute tolerance holds for one magnitude only, one relative
to the element for sums without cancellation. A choice, such as the largest logit, may differ where
two are equal up to that error: such ties are counted.
"""

from typing import Any

import jax
import numpy as np

EPSILON = float(np.finfo(np.float32).eps)
# Layers of a small model after one another, each of sums of up to some hundred terms, differ by 5
# to 20 roundings between processors; a wrong mask, scale or position by 10^4 and more.
ROUNDINGS = 128


def assert_same_float32(
    found: Any, expected: Any, roundings: float = ROUNDINGS, scale: float = 0.0
) -> None:
    """Same structure; each leaf equal up to so many roundings of its largest element.

    Args:
        found, expected: trees of arrays, `expected`'s may have been computed in float64.
        roundings: allowed error, in float32's epsilon.
        scale: least magnitude of what was summed, where all results may be smaller than that
            (log-probabilities near 0 come from logits).
    """
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        size = max(float(np.abs(other).max(initial=0.0, where=np.isfinite(other))), scale)
        np.testing.assert_allclose(one, other, rtol=0, atol=roundings * EPSILON * size)


def near_ties(logits: Any, roundings: float = ROUNDINGS) -> int:
    """Rows of logits [..., V] whose two largest are equal up to so many roundings."""
    logits = np.asarray(logits, np.float64)
    second, first = np.moveaxis(np.partition(logits, -2, axis=-1)[..., -2:], -1, 0)
    return int(np.sum(first - second <= roundings * EPSILON * np.abs(logits).max()))
