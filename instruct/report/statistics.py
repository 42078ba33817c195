"""Statistics of pages: paired bootstrap of differences and rates, Wilson intervals, Holm.

Two models that answered the same examples are compared example by example: what makes an example
easy or hard cancels, and the test is much sharper than a comparison of two standard errors.

Where the examples belong to several tasks and the score is the unweighted mean over tasks (as the
papers average BBH and MMLU), give each example's task as its group: examples are then drawn within
their task, and the difference is the mean over tasks of the tasks' mean differences.

Koehn 2004, "Statistical significance tests for machine translation evaluation", is the source of
the paired bootstrap; the p-value here is the two-sided one about a centred distribution (Efron and
Tibshirani 1993, chapter 16). Training seeds and the wording of prompts are not resampled.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np

from instruct.errors import UserError

RESAMPLES = 10_000
RATE_RESAMPLES = 5000
# Resamples drawn at a time hold at most this many counts (8 bytes each).
_COUNTS_AT_ONCE = 4_000_000


def resampled_sums(
    values: np.ndarray, resamples: int, rng: np.random.Generator, counts: np.ndarray | None = None
) -> np.ndarray:
    """(resamples, ...) sums over samples with replacement, each as large as the data.

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


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        return np.full(resamples, distinct[0])
    return resampled_sums(distinct, resamples, rng, counts) / len(values)


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """Second minus first, in the unit of the scores (0-100 as metrics are).

    Attributes:
        n: pairs of examples. groups: tasks they came from.
        first, second: mean scores (unweighted means over groups). difference: second - first.
        stderr: standard deviation of the resampled differences.
        low, high: percentile interval of `level`.
        p: two-sided p-value of "no difference"; at least `sign_test_floor`.
        wins, losses: examples where the second is better, worse.
        resamples, seed, level: how it was computed.
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
    level: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0 and p agrees."""
        return self.p < 1 - self.level and not self.low <= 0 <= self.high


def paired_bootstrap(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> PairedTest:
    """Tests the mean difference of a per-example metric between two runs.

    Args:
        first, second: (n,) scores of the same examples in the same order, finite.
        groups: (n,) the task of each example; None: all of one task. With one example a task,
            that task adds nothing to the interval: it cannot be resampled.
        seed: of the resampling; the same inputs and seed give the same numbers.
        resamples: bootstrap samples. level: of the interval, within (0, 1).

    Raises:
        UserError: unequal lengths, no example, scores that are not finite, or arguments outside
            their range.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    _check(a, b, groups, resamples, level)
    labels = [0] * len(a) if groups is None else list(groups)
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    group = np.array([numbers[label] for label in labels])
    count = len(numbers)

    rng = np.random.default_rng(seed)
    change = b - a
    drawn = np.zeros(resamples)
    means = np.zeros((3, count))
    for number in range(count):
        inside = group == number
        means[:, number] = a[inside].mean(), b[inside].mean(), change[inside].mean()
        drawn += _resampled_means(change[inside], resamples, rng)
    drawn /= count
    first_mean, second_mean, difference = (float(value) for value in means.mean(axis=1))

    # The same mean summed in another order must count as reached.
    tolerance = 1e-9 * max(1.0, float(np.abs(change).max()))
    reached = np.abs(drawn - difference) >= abs(difference) - tolerance
    wins, losses = int((change > tolerance).sum()), int((change < -tolerance).sum())
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return PairedTest(
        n=len(a),
        groups=count,
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
        level=level,
    )


def _check(
    a: np.ndarray, b: np.ndarray, groups: Sequence[Hashable] | None, resamples: int, level: float
) -> None:
    if a.ndim != 1 or a.shape != b.shape:
        raise UserError(
            f"paired scores have shapes {a.shape} and {b.shape}; give one score of each example, "
            "in the same order."
        )
    if not len(a):
        raise UserError("no pair of examples to compare. Evaluate both runs on the same suite.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("paired scores must be finite numbers. Leave such examples out of both.")
    if groups is not None and len(groups) != len(a):
        raise UserError(f"{len(groups)} groups for {len(a)} pairs; give one a pair.")
    if resamples < 1:
        raise UserError(f"resamples is {resamples}, expected at least 1, such as {RESAMPLES}.")
    if not 0 < level < 1:
        raise UserError(f"level is {level}, expected a number between 0 and 1, such as 0.95.")


@dataclasses.dataclass(frozen=True)
class Rates:
    """Two rates in per cent, and their difference, each with a 95 % interval.

    `first` or `second` is None where nothing can be counted; so is then `change`.
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
    """Rates sum(hits) / sum(items) over the same examples of two runs.

    Examples are resampled with both runs' counts: several items of one example are not independent.

    Args:
        first, second: (hits, items) of each example, in the same order.
        seed: of the resampling. resamples: percentile bootstrap samples.
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
        # Where nothing or everything is a hit, resampling could only repeat that.
        None if not n else wilson(int(h), int(n)) if h in (0, n) else _interval(rates[:, column])
        for column, (h, n) in enumerate(zip(hits, items))
    )
    of_change = None if change is None else _interval(rates[:, 1] - rates[:, 0])
    return Rates(values[0], values[1], change, first_interval, second_interval, of_change)


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


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
