"""Hierarchical bootstrap of scores over training seeds, tasks and examples.

All runs of a study answer the same examples, so the design is crossed: a resample draws examples
within each task once for all runs, and seeds. Two points of a study are compared by the
differences of their runs seed by seed, on the same examples of a resample, so what makes a seed's
data order or an example easy or hard cancels.

Tasks are fixed (the score is about these tasks) or resampled (about tasks like these), within the
parts of a score: the suites of a normalised average.

Few seeds. Three seeds a point are too few to resample: their mean cannot leave the range from the
worst to the best, an interval that misses the median of a symmetric distribution one time in four.
So a resample draws a point's seeds from the deviations of all points of the quantity, each
from its own point's mean; that takes the spread over seeds to be alike at all points. The
deviations are stretched to have the unbiased variance, with sum of (seeds - 1) degrees of freedom.
Intervals are Student's t times the bootstrap's standard error, and p-values are of the same
distribution, with Satterthwaite's degrees of freedom: that sum where seeds are all that varies,
more where examples are. Where no point has two seeds, nothing is known of the chance in training,
and intervals are over examples only.

Sources: Davison and Hinkley 1997, Bootstrap Methods and their Application, sections 2.4, 3.2 and
3.8; Owen 2007, The pigeonhole bootstrap (crossed factors); Satterthwaite 1946.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from scipy import special

from instruct.report.compare import TaskDraws
from instruct.report.statistics import LEVEL, sign_test_floor, wilson
from instruct.report.wording import counted

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a difference of two, in the unit of the scores.

    Attributes:
        value: mean over seeds.
        stderr: of the hierarchical bootstrap; None where a task's error is unknown, or where all
            examples and seeds score alike.
        low, high: 95 % interval; None where a task's error is unknown, and without a standard error
            where the score has no limits.
        p: two-sided p-value of "the value is 0", at least `sign_test_floor`; None where a task's
            error is unknown.
        seeds: number of runs (of a difference: pairs of runs).
        examples: in each run.
        freedom: Satterthwaite's degrees of freedom; infinite if the spread over seeds is 0 or
            unknown.
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

    def within(self, low: float, high: float) -> bool:
        """Whether all values lie in a range."""
        return bool((self.values >= low).all() and (self.values <= high).all())


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


@dataclasses.dataclass(frozen=True)
class SeedSpread:
    """How values differ between training seeds.

    Attributes:
        deviations: of values from the mean of their point, (n,); their mean square is the unbiased
            variance. (0,) if it is unknown.
        freedom: degrees of freedom, the sum of (seeds - 1) over points.
    """

    deviations: np.ndarray
    freedom: int


NO_SPREAD = SeedSpread(np.zeros(0), 0)


def seed_spread(points: Iterable[np.ndarray]) -> SeedSpread:
    """Pool the deviations of several points; `points` are their values by seed, (seeds,) each."""
    several = [values for values in points if len(values) > 1]
    if not several:
        return NO_SPREAD
    freedom = sum(len(values) - 1 for values in several)
    deviations = np.concatenate([values - values.mean() for values in several])
    return SeedSpread(deviations * math.sqrt(len(deviations) / freedom), freedom)


def estimate(
    values: np.ndarray,
    drawn: np.ndarray,
    spread: SeedSpread,
    examples: int,
    seed: int = 0,
    limits: tuple[float, float] | None = None,
) -> Estimate:
    """Estimate a mean over seeds.

    For two points of a study, pass the differences of their runs seed by seed, and the spread of
    such differences.

    Args:
        values: (seeds,). drawn: (resamples, seeds), their resamples over examples.
        examples: in each run. seed: of the draws of seeds.
        limits: of what is estimated; the interval is cut there. Examples that all score alike prove
            no certainty, so it then reaches as far as Wilson's interval of a share of 0: each
            example that does not score like them moves a score by at most the range of scores.
    """
    seeds = len(values)
    value = float(values.mean())
    if not np.isfinite(drawn).all():
        return Estimate(value, None, None, None, None, seeds, examples)
    draws = drawn.mean(axis=1)
    least = 0.0
    if limits and float(draws.std()) < 1e-9:
        least = wilson(0, examples)[1]
    low, high = limits or (-math.inf, math.inf)
    of_seeds = 0.0
    if spread.freedom:
        rng = np.random.default_rng(seed)
        draws = draws + rng.choice(spread.deviations, (len(drawn), seeds)).mean(axis=1)
        of_seeds = float((spread.deviations**2).mean()) / seeds
    variance = float(draws.var())
    freedom = spread.freedom * (variance / of_seeds) ** 2 if of_seeds > 0 else math.inf
    freedom = max(freedom, spread.freedom)  # the draws' variance may fall short of the seeds' own
    stderr = math.sqrt(variance)
    floor = sign_test_floor(examples)
    alike = stderr < 1e-9
    reach = max(least, 0.0 if alike else student_factor(freedom) * stderr)
    ends = (max(low, value - reach), min(high, value + reach)) if reach else (None, None)
    if alike:
        p = 1.0 if abs(value) < 1e-9 else floor
        return Estimate(value, None, *ends, p, seeds, examples)
    p = max(2 * _student_below(freedom, -abs(value) / stderr), floor)
    return Estimate(value, stderr, *ends, p, seeds, examples, freedom)


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
    """What the seeds mean for intervals, as sentences.

    Args:
        seeds: numbers of runs of the points that are trained.

    >>> seeds_note([1, 1]).partition(":")[0]
    'One seed'
    """
    if not seeds:
        return "No point is trained: intervals are over examples only."
    freedom = sum(count - 1 for count in seeds)
    if not freedom:
        return (
            "One seed: intervals are over examples only. The chance in training is no part of "
            "them, and another seed may give another order of the points."
        )
    degrees, factor = counted(freedom, "degree"), student_factor(freedom)
    text = (
        "Intervals are over seeds and examples; the spread over seeds is pooled over all points, "
        f"as if it were alike ({degrees} of freedom; where seeds are all that varies, an interval "
        f"reaches {factor:.1f} standard errors to each side)."
    )
    alone = sum(count == 1 for count in seeds)
    if alone:
        points = "1 point has" if alone == 1 else f"{alone} points have"
        text += f" {points} one seed and borrow{'s' if alone == 1 else ''} the others' spread."
    return text
