"""Intervals over seeds and examples, against plain loops, known answers and simulated studies."""

import math

import numpy as np
import pytest

from instruct.report.compare import TaskDraws
from instruct.report.statistics import resampled_sums, wilson
from instruct.report.study_statistics import (
    NO_SPREAD,
    estimate,
    resampling_weights,
    score_draws,
    seed_spread,
    seeds_note,
    student_factor,
)


def draws_of(scores, rng, resamples=2000):
    """A task's draws from scores (examples, runs)."""
    n = len(scores)
    return TaskDraws(scores.mean(axis=0), resampled_sums(scores, resamples, rng) / n, n)


def made_up(rng, tasks=3, examples=40, runs=6):
    return [
        100.0 * (rng.random((examples, runs)) < rng.random((examples, 1))) for _ in range(tasks)
    ]


def test_the_standard_error_is_that_of_plain_loops():
    rng = np.random.default_rng(0)
    tasks = made_up(rng)
    scores = score_draws([draws_of(t, rng) for t in tasks], [1 / 3] * 3, [0] * 3, 120)
    points = [scores.values[:3], scores.values[3:]]
    spread = seed_spread(points)
    ours = estimate(points[0], scores.drawn[:, :3], spread, 120)
    deviations = [value - point.mean() for point in points for value in point]
    scale = math.sqrt(6 / 4)
    plain = []
    for _ in range(1500):
        total = 0.0
        for task in tasks:
            chosen = rng.integers(len(task), size=len(task))
            total += np.mean([task[index, :3].mean() for index in chosen]) / 3
        seeds = [scale * deviations[rng.integers(6)] for _ in range(3)]
        plain.append(total + sum(seeds) / 3)
    assert ours.value == pytest.approx(np.mean([task[:, :3].mean() for task in tasks]))
    assert ours.stderr == pytest.approx(np.std(plain), rel=0.1)
    assert ours.low is not None and ours.high is not None and ours.seeds == 3
    assert ours.high - ours.value == pytest.approx(student_factor(ours.freedom) * ours.stderr)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_weights_have_the_unbiased_variance(seeds):
    rng = np.random.default_rng(0)
    values = rng.normal(size=seeds)
    weights = resampling_weights(seeds, 50_000, rng)
    assert weights.sum(axis=1) == pytest.approx(np.ones(50_000))
    expected = 0.0 if seeds == 1 else values.var(ddof=1) / seeds
    assert (weights @ values).var() == pytest.approx(expected, rel=0.05, abs=1e-12)


def test_one_seed_has_the_interval_of_the_examples_and_says_so():
    rng = np.random.default_rng(1)
    (task,) = made_up(rng, tasks=1, examples=400, runs=1)
    scores = score_draws([draws_of(task, rng)], [1.0], [0.0], 400)
    assert seed_spread([scores.values]).freedom == 0
    ours = estimate(scores.values, scores.drawn, NO_SPREAD, 400)
    assert ours.stderr == pytest.approx(task.std() / 20, rel=0.06)
    assert ours.freedom == math.inf and student_factor(math.inf) == pytest.approx(1.96, abs=0.001)
    assert "over examples only" in seeds_note([1, 1, 1])
    assert "1 point has one seed and borrows" in seeds_note([1, 3, 3])
    assert "No point is trained" in seeds_note([])
    assert "4 degrees of freedom" in seeds_note([3, 3])


def test_pairing_takes_out_what_seeds_and_examples_share():
    rng = np.random.default_rng(2)
    examples, seeds = 200, 3
    hard, luck = rng.normal(0, 20, (examples, 1)), rng.normal(0, 8, seeds)
    first = 50 + hard + luck + rng.normal(0, 3, (examples, seeds))
    second = 52 + hard + luck + rng.normal(0, 3, (examples, seeds))
    scores = score_draws([draws_of(np.hstack([first, second]), rng)], [1.0], [0.0], examples)
    one, other = scores.values[:3], scores.values[3:]
    alone = estimate(one, scores.drawn[:, :3], seed_spread([one, other]), examples)
    change = other - one
    drawn = scores.drawn[:, 3:] - scores.drawn[:, :3]
    paired = estimate(change, drawn, seed_spread([change]), examples)
    assert paired.value == pytest.approx(2.0, abs=0.5) and paired.p is not None
    assert paired.low is not None and paired.low > 0 and paired.p < 0.05
    assert paired.stderr is not None and alone.stderr is not None
    assert paired.stderr < alone.stderr / 5


def test_intervals_of_three_seeds_hold_what_they_promise():
    """95 % of intervals of three seeds at five points cover the truth; examples add little."""
    rng = np.random.default_rng(3)
    hits = total = 0
    for _ in range(300):
        noise = rng.normal(0, 0.3, (300, 1)) * np.ones(15)
        values = 40 + rng.normal(0, 2, 15) + rng.normal(0, 0.3)
        spread = seed_spread(np.split(values, 5))
        for point in range(5):
            at = slice(3 * point, 3 * point + 3)
            ours = estimate(values[at], values[at] + noise[:, at], spread, 100)
            assert ours.low is not None and ours.high is not None
            hits += ours.low <= 40 <= ours.high
            total += 1
    assert 0.92 < hits / total < 0.98


def test_tasks_are_fixed_or_resampled_within_their_parts():
    rng = np.random.default_rng(4)
    tasks = made_up(rng, tasks=6, examples=60, runs=2)
    draws = [draws_of(task, rng) for task in tasks]
    weights, bounds = [1 / 6] * 6, [0.0] * 6
    fixed = score_draws(draws, weights, bounds, 360)
    resampled = score_draws(draws, weights, bounds, 360, parts=[0] * 6)
    alone = score_draws(draws, weights, bounds, 360, parts=range(6))
    assert resampled.values == pytest.approx(fixed.values)
    assert (resampled.drawn.std(axis=0) > fixed.drawn.std(axis=0)).all()
    assert alone.drawn == pytest.approx(fixed.drawn)  # nothing to draw from


def test_weights_and_bounds_make_a_normalised_score():
    rng = np.random.default_rng(5)
    draws = [draws_of(task, rng) for task in made_up(rng, tasks=2, runs=1)]
    scores = score_draws(draws, [100 / 75 / 2, 100 / 100 / 2], [25.0, 0.0], 80)
    first, second = (float(task.values[0]) for task in draws)
    assert scores.values[0] == pytest.approx((100 * (first - 25) / 75 + second) / 2)


def test_examples_that_are_all_alike_do_not_narrow_an_interval():
    """All of three seeds' 150 examples are wrong: as wide as Wilson's interval of 0 of 150."""
    spread = seed_spread([np.array([49.0, 50.0, 51.0])] * 4)
    none, drawn = np.zeros(3), np.zeros((2000, 3))
    ours = estimate(none, drawn, spread, 150, limits=(0, 100))
    assert ours.stderr is not None and ours.low == 0 and ours.high == wilson(0, 150)[1]
    every = estimate(none + 100, drawn + 100, spread, 150, limits=(0, 100))
    assert every.low == pytest.approx(wilson(150, 150)[0]) and every.high == 100
    change = estimate(none, drawn, spread, 150, limits=(-100, 100))
    assert change.low == -ours.high and change.high == ours.high and change.p == 1
    far = estimate(none, drawn, seed_spread([np.array([0.0, 50.0, 100.0])]), 150, limits=(0, 100))
    assert far.high == 100


def test_unknown_errors_and_identical_examples():
    unknown = estimate(np.array([40.0]), np.full((10, 1), np.nan), NO_SPREAD, 5)
    assert unknown.value == 40 and unknown.stderr is None and unknown.p is None
    alike = estimate(np.array([5.0, 5.0]), np.full((10, 2), 5.0), seed_spread([np.ones(2)]), 3)
    assert alike.stderr is None and alike.p == 0.25  # the sign test of three examples
    nothing = estimate(np.zeros(1), np.zeros((10, 1)), NO_SPREAD, 3)
    assert nothing.low is None and nothing.p == 1
    cut = estimate(np.array([99.0]), 99 + rng_normal(), NO_SPREAD, 50, limits=(0, 100))
    assert cut.high == 100 and cut.low is not None and cut.low < 99


def rng_normal():
    return np.random.default_rng(0).normal(0, 3, (500, 1))
