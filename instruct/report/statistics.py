"""Paired bootstrap of differences and rates, Wilson intervals, Holm correction.

Two models that answered the same examples are compared example by example: what makes an example
easy or hard cancels, so the test is much sharper than a comparison of two standard errors.

Where the score is an unweighted mean over tasks (as the papers average BBH and MMLU), pass each
example's task as its group: examples are resampled within their task, and the difference is the
mean over tasks of each task's mean difference.

The paired bootstrap follows Koehn 2004, "Statistical significance tests for machine translation
evaluation"; the p-value is the two-sided one about a centred distribution (Efron and Tibshirani
1993, chapter 16). Training seeds and the wording of prompts are not resampled.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np

from instruct.errors import UserError

RESAMPLES = 10_000
RATE_RESAMPLES = 5000
LEVEL = 0.95  # of the intervals
# Resamples drawn at a time hold at most this many counts (8 bytes each).
_COUNTS_AT_ONCE = 4_000_000


def resampled_sums(
    values: np.ndarray, resamples: int, rng: np.random.Generator, counts: np.ndarray | None = None
) -> np.ndarray:
    """Sums over bootstrap samples of the size of the data, (resamples, ...).

    Args:
        values: (n,) or (n, columns); a row is drawn with all its columns.
        counts: (n,) how often each row occurs in the data; None: once. Distinct values with counts
            give the same distribution as the data, and are nearly free where scores are 0 or 100.
    """
    counts = np.ones(len(values), int) if counts is None else counts
    total = counts.sum()
    size = max(1, _COUNTS_AT_ONCE // len(values))
    parts = [
        rng.multinomial(total, counts / total, min(size, resamples - start)) @ values
        for start in range(0, resamples, size)
    ]
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """Second minus first, in the unit of the scores (metrics: 0-100).

    Attributes:
        n: pairs of examples. groups: number of their tasks.
        first, second: mean scores (unweighted means over groups). difference: second - first.
        stderr: standard deviation of the resampled differences.
        low, high: 95 % percentile interval.
        p: two-sided p-value of "no difference"; at least `sign_test_floor`.
        wins, losses: examples where the second is better, worse.
        resamples, seed: of the bootstrap.
    """

    n: int
    groups: int
    first: float
    second: float
    difference: float
    stderr: float
    low: float
    high: float
    p: float
    wins: int
    losses: int
    resamples: int
    seed: int

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0 and p agrees."""
        return self.p < 1 - LEVEL and not self.low <= 0 <= self.high


def paired_bootstrap(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> PairedTest:
    """Test the mean difference of a per-example metric between two runs.

    Args:
        first, second: (n,) scores of the same examples in the same order, finite.
        groups: (n,) the task of each example; None: one task. A task with a single example cannot
            be resampled, so it adds nothing to the interval.
        seed: the same inputs and seed give the same numbers.

    Raises:
        UserError: scores or groups do not pair up, or are empty or not finite.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    labels = [0] * len(a) if groups is None else list(groups)
    if a.ndim != 1 or not a.size or a.shape != b.shape or len(labels) != len(a):
        raise UserError(
            f"paired scores have shapes {a.shape} and {b.shape}, with {len(labels)} groups; give "
            "two scores and one group for each example, and at least one example."
        )
    if not np.isfinite([a, b]).all():
        raise UserError("paired scores must be finite numbers. Leave such examples out of both.")
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    group = np.array([numbers[label] for label in labels])

    rng = np.random.default_rng(seed)
    change = b - a
    drawn = np.zeros(resamples)
    means = np.zeros((3, len(numbers)))
    for number in range(len(numbers)):
        inside = group == number
        means[:, number] = a[inside].mean(), b[inside].mean(), change[inside].mean()
        distinct, counts = np.unique(change[inside], return_counts=True)
        if len(distinct) == 1:
            drawn += distinct[0]
        else:
            drawn += resampled_sums(distinct, resamples, rng, counts) / counts.sum()
    drawn /= len(numbers)
    first_mean, second_mean, difference = map(float, means.mean(axis=1))

    # The same mean summed in another order must count as reached.
    tolerance = 1e-9 * max(1.0, float(np.abs(change).max()))
    reached = np.abs(drawn - difference) >= abs(difference) - tolerance
    wins, losses = int((change > tolerance).sum()), int((change < -tolerance).sum())
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return PairedTest(
        n=len(a),
        groups=len(numbers),
        first=first_mean,
        second=second_mean,
        difference=difference,
        stderr=float(drawn.std()),
        low=float(low),
        high=float(high),
        p=max((1 + int(reached.sum())) / (1 + resamples), sign_test_floor(wins + losses)),
        wins=wins,
        losses=losses,
        resamples=resamples,
        seed=seed,
    )


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Rates:
    """Two rates in per cent and their difference, each with a 95 % interval.

    A rate without any item is None, and then so is `change`.
    """

    first: float | None
    second: float | None
    change: float | None
    first_interval: tuple[float, float] | None = None
    second_interval: tuple[float, float] | None = None
    change_interval: tuple[float, float] | None = None


def paired_rates(
    first: Sequence[tuple[int, int]],
    second: Sequence[tuple[int, int]],
    seed: int = 0,
    resamples: int = RATE_RESAMPLES,
) -> Rates:
    """Compare rates sum(hits) / sum(items) over the same examples of two runs.

    Examples are resampled with both runs' counts: items of one example are not independent.

    Args:
        first, second: (hits, items) of each example, in the same order.
    """
    counts = np.concatenate(
        [np.asarray(pairs, float).reshape(-1, 2) for pairs in (first, second)], axis=1
    )
    hits, items = counts.sum(axis=0).reshape(2, 2).T
    values = [100.0 * float(h) / float(n) if n else None for h, n in zip(hits, items)]
    change = None if values[0] is None or values[1] is None else values[1] - values[0]
    if len(counts) < 2:
        return Rates(values[0], values[1], change)
    drawn = resampled_sums(counts, resamples, np.random.default_rng(seed))
    rates = 100.0 * drawn[:, ::2] / np.maximum(drawn[:, 1::2], 1.0)
    first_interval, second_interval = (
        # If nothing or everything is a hit, so it is in every resample.
        None if not n else wilson(int(h), int(n)) if h in (0, n) else _interval(rates[:, column])
        for column, (h, n) in enumerate(zip(hits, items))
    )
    of_change = None if change is None else _interval(rates[:, 1] - rates[:, 0])
    return Rates(values[0], values[1], change, first_interval, second_interval, of_change)


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson interval of a share, in per cent; (0, 100) for n = 0."""
    if n == 0:
        return 0.0, 100.0
    share = hits / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 100 / (1 + z * z / n)
    return max(0.0, scale * (middle - spread)), min(100.0, scale * (middle + spread))


def sign_test_floor(changed: int) -> float:
    """The smallest two-sided p-value of a sign test with `changed` examples.

    Without it, a bootstrap calls a single changed example certain.
    """
    return min(1.0, 2.0 ** (1 - changed))


def normal_p(change: float, stderr: float) -> float:
    """Two-sided p-value of "no change"; without a standard error 0, or 1 if nothing changed."""
    return math.erfc(abs(change) / stderr / math.sqrt(2)) if stderr > 0 else float(change == 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple comparisons (Holm 1979), in the order given.

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
