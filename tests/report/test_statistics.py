"""The paired bootstrap against closed forms, its own promise of error rates, and by hand."""

import doctest
import math

import numpy as np
import pytest

from instruct.errors import UserError
from instruct.report import statistics
from instruct.report.statistics import paired_bootstrap, paired_rates, wilson


def test_interval_and_error_agree_with_the_normal_approximation():
    rng = np.random.default_rng(3)
    first = rng.normal(40, 20, 400)
    second = first + rng.normal(3, 10, 400)
    test = paired_bootstrap(first, second, seed=1)
    change = second - first
    error = change.std() / math.sqrt(len(change))
    assert test.difference == pytest.approx(change.mean())
    assert test.stderr == pytest.approx(error, rel=0.03)
    assert test.low == pytest.approx(change.mean() - 1.96 * error, abs=0.1 * error + 0.02)
    assert test.high == pytest.approx(change.mean() + 1.96 * error, abs=0.1 * error + 0.02)
    assert test.clear and test.p < 0.001
    assert test.first == pytest.approx(first.mean()) and test.second == pytest.approx(second.mean())


def test_pairing_is_sharper_than_two_standard_errors():
    rng = np.random.default_rng(0)
    first = rng.normal(50, 30, 200)
    second = first + rng.normal(2, 5, 200)
    test = paired_bootstrap(first, second)
    unpaired = math.hypot(first.std(), second.std()) / math.sqrt(200)
    assert test.stderr < unpaired / 4


def test_p_is_right_as_often_as_it_says():
    rng = np.random.default_rng(7)
    values = []
    for trial in range(400):
        first, second = (100.0 * (rng.random(100) < 0.5) for _ in range(2))
        values.append(paired_bootstrap(first, second, seed=trial, resamples=500).p)
    # Without any difference, p < 0.05 in about one of twenty; three standard errors either side.
    assert 0.015 < np.mean(np.array(values) < 0.05) < 0.085
    assert 0.40 < np.mean(np.array(values) < 0.5) < 0.60


def test_same_seed_same_numbers_and_mirrored_runs_mirror():
    first, second = [0, 100, 0, 0, 100, 100.0], [100, 100, 0, 100, 100, 0.0]
    one = paired_bootstrap(first, second, seed=5)
    assert one == paired_bootstrap(first, second, seed=5)
    assert one != paired_bootstrap(first, second, seed=6)
    back = paired_bootstrap(second, first, seed=5)
    assert back.difference == -one.difference == pytest.approx(-100 / 6)
    assert (back.wins, back.losses) == (one.losses, one.wins) == (1, 2)


def test_no_change_is_no_finding():
    test = paired_bootstrap([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (test.difference, test.low, test.high, test.p) == (0, 0, 0, 1)
    assert not test.clear


@pytest.mark.parametrize(("changed", "lowest"), [(1, 1.0), (2, 0.5), (5, 0.0625), (30, 0.0)])
def test_few_changed_examples_prove_little(changed, lowest):
    second = [100.0] * changed + [0.0] * 3
    test = paired_bootstrap([0.0] * (changed + 3), second)
    assert test.p >= lowest
    assert test.clear == (changed == 30)


def test_groups_weigh_the_same_whatever_their_size():
    first = [0.0] * 100 + [0.0] * 10
    second = [0.0] * 100 + [100.0] * 10
    test = paired_bootstrap(first, second, ["large"] * 100 + ["small"] * 10)
    assert test.difference == 50 and test.groups == 2 and test.n == 110
    assert paired_bootstrap(first, second).difference == pytest.approx(1000 / 110)
    # Drawn within groups: nothing varies inside either, so the mean does not.
    assert test.low == test.high == 50


def test_group_errors_add_as_independent_ones():
    rng = np.random.default_rng(2)
    sizes = {"a": 50, "b": 200, "c": 400}
    groups = [name for name, size in sizes.items() for _ in range(size)]
    change = rng.normal(0, 10, len(groups))
    test = paired_bootstrap(np.zeros(len(groups)), change, groups)
    inside = [change[[g == name for g in groups]] for name in sizes]
    expected = math.sqrt(sum(part.var() / len(part) for part in inside)) / 3
    assert test.stderr == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0, 2.0]), "shapes"),
        (([], []), "at least one example"),
        (([1.0], [math.nan]), "finite"),
        (([1.0], [1.0], ["a", "b"]), "2 groups"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(UserError, match=message):
        paired_bootstrap(*arguments)


def test_rates_are_ratios_of_sums():
    rates = paired_rates([(1, 2), (0, 6)], [(2, 2), (2, 2)])
    assert (rates.first, rates.second, rates.change) == (12.5, 100.0, 87.5)
    uncounted = paired_rates([(0, 0)] * 3, [(1, 2)] * 3)
    assert (uncounted.first_interval, uncounted.change, uncounted.change_interval) == (None,) * 3
    assert uncounted.second_interval == (50.0, 50.0)
    alone = paired_rates([(1, 2)], [(0, 2)])
    assert alone.change == -50.0 and alone.change_interval is None


def test_nothing_seen_is_not_certainly_nothing():
    rates = paired_rates([(0, 1)] * 20, [(1, 1)] * 20)
    assert rates.first_interval == wilson(0, 20) and rates.second_interval == wilson(20, 20)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        sizes = rng.integers(1, 6, size=80)
        first = [(int(rng.binomial(n, 0.3)), int(n)) for n in sizes]
        second = [(int(rng.binomial(n, 0.2)), int(n)) for n in sizes]
        interval = paired_rates(first, second, seed, resamples=400).change_interval
        assert interval is not None
        low, high = interval
        inside += low <= -10 <= high
    assert 180 <= inside <= 199


def test_doctests():
    assert doctest.testmod(statistics).failed == 0


def test_wilson_agrees_with_published_values():
    # Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20.
    assert wilson(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)
    assert wilson(15, 148) == pytest.approx((6.24, 16.05), abs=0.01)
    assert wilson(0, 20) == pytest.approx((0.0, 16.11), abs=0.01)
    assert wilson(0, 0) == (0.0, 100.0)


def test_holm_keeps_the_order_and_never_passes_one():
    assert statistics.holm([0.5, 0.001, 0.9]) == pytest.approx([1.0, 0.003, 1.0])
    assert statistics.holm([]) == []
