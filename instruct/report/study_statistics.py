"""Hierarchical bootstrap of scores over training seeds, tasks and examples.

All runs of a study answer the same examples, so the design is crossed: a resample draws seeds, and
within each task it draws examples once for all runs. Two points of a study are compared by the
differences of their runs seed by seed, on the same examples of a resample, so what makes a seed's
data order or an example easy or hard cancels.

Tasks are fixed (the score is about these tasks) or resampled (about tasks like these), within the
parts of a score: the suites of a normalised average.

Few seeds. The bootstrap of a mean of S values underestimates its variance by (S - 1) / S, so the
draws are stretched about their mean by sqrt(S / (S - 1)). Quantiles of so few values are too narrow
as well: at three seeds they cannot reach beyond the best and the worst seed, an interval that
misses the median of a symmetric distribution one time in four. So intervals are Student's t times
the bootstrap's standard error, and p-values are of the same distribution, with Satterthwaite's
degrees of freedom: S - 1 where seeds are all that varies, more where examples are. With one seed
nothing is known of the chance in training, and the interval is over examples only.

Sources: Davison and Hinkley 1997, Bootstrap Methods and their Application, sections 2.4 and 3.8;
Owen 2007, The pigeonhole bootstrap (crossed factors; its variance is slightly too large);
Satterthwaite 1946.
"""

import dataclasses
import math
from collections.abc import Collection, Sequence

import numpy as np
from scipy import special

from instruct.report.compare import TaskDraws
from instruct.report.statistics import LEVEL, sign_test_floor

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a difference of two, in the unit of the scores.

    Attributes:
        value: mean over seeds.
        stderr: of the hierarchical bootstrap; None where a task's error is unknown.
        low, high: 95 % interval; None without a standard error.
        p: two-sided p-value of "the value is 0"; None without a standard error.
        seeds: number of runs (of a difference: pairs of runs).
        examples: in each run.
        freedom: Satterthwaite's degrees of freedom; infinite if seeds do not vary or there is one.
    """

    value: float
    stderr: float | None
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    examples: int
    freedom: float = math.inf


def resampling_weights(size: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Weights of the values in bootstrapped means, (resamples, size); each row adds up to 1.

    Corrected for small samples: the variance of `weights @ values` is, on average over draws, the
    unbiased one of their mean. One value has the weight 1.
    """
    if size == 1:
        return np.ones((resamples, 1))
    even = 1 / size
    counts = rng.multinomial(size, np.full(size, even), resamples)
    return even + (counts / size - even) * math.sqrt(size / (size - 1))


@dataclasses.dataclass(frozen=True)
class ScoreDraws:
    """Every run's score of one quantity, and its resamples.

    Attributes:
        values: (runs,). drawn: (resamples, runs), examples (and tasks) drawn alike for all runs.
        examples: in each run.
    """

    values: np.ndarray
    drawn: np.ndarray
    examples: int


def score_draws(
    tasks: Sequence[TaskDraws],
    weights: Sequence[float],
    bounds: Sequence[float],
    examples: int,
    parts: Sequence[int] | None = None,
    seed: int = 0,
) -> ScoreDraws:
    """Combine tasks to a score, sum of weight * (task's score - bound).

    Args:
        tasks: resampled scores of all runs on each task.
        weights, bounds: of each task; 1 / tasks and 0 for a mean.
        examples: in each run.
        parts: of each task, the part that it is drawn in; None: tasks are fixed.
        seed: of the draws of tasks.
    """
    resamples = len(tasks[0].drawn)
    factors = np.ones((resamples, len(tasks)))
    rng = np.random.default_rng(seed)
    for part in dict.fromkeys(parts or ()):
        inside = np.flatnonzero(np.array(parts) == part)
        factors[:, inside] = resampling_weights(len(inside), resamples, rng) * len(inside)
    values = np.zeros_like(tasks[0].values)
    drawn = np.zeros_like(tasks[0].drawn)
    for task, weight, bound, factor in zip(tasks, weights, bounds, factors.T):
        values += weight * (task.values - bound)
        drawn += weight * factor[:, None] * (task.drawn - bound)
    return ScoreDraws(values, drawn, examples)


def mean_over_seeds(scores: ScoreDraws, runs: Sequence[int], seed: int = 0) -> Estimate:
    """The mean score of some runs that differ in their seed only."""
    columns = list(runs)
    return _estimate(scores.values[columns], scores.drawn[:, columns], scores.examples, seed)


def paired_change(
    scores: ScoreDraws, first: Sequence[int], second: Sequence[int], seed: int = 0
) -> Estimate:
    """The mean of second - first over pairs of runs, in the order given.

    A run may stand in several pairs: a checkpoint that was only evaluated has no training seed.
    """
    before, after = list(first), list(second)
    return _estimate(
        scores.values[after] - scores.values[before],
        scores.drawn[:, after] - scores.drawn[:, before],
        scores.examples,
        seed,
    )


def _estimate(values: np.ndarray, drawn: np.ndarray, examples: int, seed: int) -> Estimate:
    """Estimate from values (seeds,) and their draws (resamples, seeds)."""
    seeds = len(values)
    value = float(values.mean())
    if not np.isfinite(drawn).all():
        return Estimate(value, None, None, None, None, seeds, examples)
    weights = resampling_weights(seeds, len(drawn), np.random.default_rng(seed))
    variance = float((weights * drawn).sum(axis=1).var())
    of_seeds = max(0.0, variance - float(drawn.mean(axis=1).var()))
    freedom = (seeds - 1) * (variance / of_seeds) ** 2 if seeds > 1 and of_seeds > 0 else math.inf
    stderr = math.sqrt(variance)
    reach = student_factor(freedom) * stderr
    p = 2 * _student_below(freedom, -abs(value) / stderr) if stderr > 1e-9 else float(value == 0)
    # Examples that all change alike have no standard error, so the sign test bounds p.
    p = max(p, sign_test_floor(examples))
    return Estimate(value, stderr, value - reach, value + reach, p, seeds, examples, freedom)


def student_factor(freedom: float) -> float:
    """Standard errors from the middle to the ends of a 95 % interval: 1.96, or 4.30 for 2 degrees.

    >>> round(student_factor(2), 2)
    4.3
    """
    upper = (1 + LEVEL) / 2
    return float(special.ndtri(upper) if freedom == math.inf else special.stdtrit(freedom, upper))


def _student_below(freedom: float, value: float) -> float:
    return float(special.ndtr(value) if freedom == math.inf else special.stdtr(freedom, value))


def seeds_note(seeds: Collection[int]) -> str:
    """What the number of seeds means for intervals, as sentences; `seeds`: numbers of runs a point.

    >>> seeds_note({1}).partition(":")[0]
    'One seed'
    """
    several = sorted({count for count in seeds if count > 1})
    texts = []
    if several:
        least = several[0]
        factor = student_factor(least - 1)
        texts.append(
            f"Intervals are over seeds and examples: with {least} seeds, where seeds are all that "
            f"varies, they reach {factor:.1f} standard errors to each side (Student's t, "
            f"{least - 1} degrees of freedom), towards 2.0 as the share of examples in the error "
            "grows."
        )
    if 1 in seeds:
        whose = "One seed" if not several else "Points with one seed"
        texts.append(
            f"{whose}: the interval is over examples only. The chance in training is no part of "
            "it, and another seed may give another order of the points."
        )
    return " ".join(texts)
