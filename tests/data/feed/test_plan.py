"""Shares over every prefix, no history, no repetition within an epoch."""

import time

import numpy as np
import pytest

from instruct.data.feed.plan import Plan, permute
from instruct.errors import UserError


def worst_deviation(rates, seed=0, num_examples=50_000):
    """Largest |examples of a leaf - its share| over all prefixes (it peaks at its own events)."""
    plan = Plan(rates, [1000] * len(rates), seed)
    leaves, counts, _ = plan.examples(0, num_examples)
    share = plan.rates[leaves]
    numbers = np.arange(num_examples)
    after = np.abs(counts + 1 - (numbers + 1) * share).max()
    before = np.abs(counts - numbers * share).max()
    return max(after, before), plan.max_deviation


def test_worked_example():
    plan = Plan([0.5, 0.25, 0.25], [10, 10, 10], seed=0)
    leaves, counts, _ = plan.examples(0, 8)
    first, second = leaves[1], leaves[3]  # which of the two small ones comes first is drawn
    assert sorted((first, second)) == [1, 2]
    assert leaves.tolist() == [0, first, 0, second, 0, first, 0, second]
    assert counts.tolist() == [0, 0, 1, 0, 2, 1, 3, 1]


@pytest.mark.parametrize("num_leaves", [1, 2, 3, 5, 9, 20, 105])
def test_equal_shares_stay_within_one_over_every_prefix(num_leaves):
    found, bound = worst_deviation([1.0] * num_leaves)
    assert found < 1
    assert found <= bound + 1e-6


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_uneven_shares_stay_within_the_bound(spread):
    for seed in range(3):
        rates = np.exp(np.random.default_rng(seed).normal(0, spread, 300))
        found, bound = worst_deviation(rates.tolist(), seed)
        assert found <= bound + 1e-6
        assert bound < 1.4


def test_one_heavy_leaf_among_many_small_ones():
    found, _ = worst_deviation([0.9] + [0.1 / 1000] * 1000)
    assert found <= 1.001


def test_counts_are_consecutive_and_windows_need_no_history():
    plan = Plan([5, 3, 1, 0.2], [10] * 4, seed=3)
    leaves, counts, _ = plan.examples(0, 5000)
    for leaf in range(4):
        assert counts[leaves == leaf].tolist() == list(range((leaves == leaf).sum()))
    for number in (0, 7, 19):
        again = plan.window(number, 250)
        assert (again[0] == leaves[number * 250 : (number + 1) * 250]).all()
        assert (again[1] == counts[number * 250 : (number + 1) * 250]).all()
    assert plan.examples(4321, 4322) == (leaves[4321], counts[4321], counts[4321])
    far = 3_000_000_000
    leaf, count, _ = plan.examples(far, far + 1)
    assert abs(count - far * plan.rates[leaf]) < 2


def test_independent_draws_have_the_shares_and_need_no_history():
    rates = np.array([0.4, 0.3, 0.2, 0.07, 0.03])
    plan = Plan(rates.tolist(), [100] * 5, seed=1, mode="iid")
    leaves, counts, _ = plan.examples(0, 100_000)
    expected = rates * 100_000
    chi_square = ((np.bincount(leaves, minlength=5) - expected) ** 2 / expected).sum()
    assert chi_square < 18.5  # 0.1 % of chi-square with 4 degrees of freedom
    # Independent: deviations grow as a random walk's, unlike the other mode's.
    assert np.abs(counts[leaves == 0] - np.flatnonzero(leaves == 0) * 0.4).max() > 20
    fresh = Plan(rates.tolist(), [100] * 5, seed=1, mode="iid")
    part = fresh.examples(70_000, 70_500)
    assert (part[0] == leaves[70_000:70_500]).all() and (part[1] == counts[70_000:70_500]).all()


def test_low_discrepancy_draws_pass_chi_square_easily():
    rates = np.random.default_rng(0).dirichlet(np.ones(50))
    leaves, *_ = Plan(rates.tolist(), [9] * 50, seed=0).examples(0, 100_000)
    expected = rates * 100_000
    assert ((np.bincount(leaves, minlength=50) - expected) ** 2 / expected).sum() < 5


@pytest.mark.parametrize("size", [1, 2, 3, 10, 257, 1000])
def test_keyed_permutation_is_one(size):
    images = permute(np.arange(size), size, np.uint64(5))
    assert sorted(images.tolist()) == list(range(size))
    if size > 9:
        assert images.tolist() != list(range(size))
        assert images.tolist() != permute(np.arange(size), size, np.uint64(6)).tolist()


def test_permutation_looks_random():
    firsts = [int(permute(np.array([0]), 10, np.uint64(key))[0]) for key in range(3000)]
    counts = np.bincount(firsts, minlength=10)
    assert ((counts - 300) ** 2 / 300).sum() < 27.9  # 0.1 %, 9 degrees of freedom


def test_nothing_repeats_before_a_task_is_used_up():
    plan = Plan([2, 1], [7, 5], seed=0)
    leaves, counts, _ = plan.examples(0, 63)
    records = plan.record_indices(leaves, counts)
    for leaf, size in ((0, 7), (1, 5)):
        mine = records[leaves == leaf].tolist()
        epochs = [mine[i : i + size] for i in range(0, len(mine) - size + 1, size)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert epochs[0] != epochs[1]
    assert plan.record_indices(leaves[40:41], counts[40:41]) == records[40]


def test_a_share_of_the_records_is_one_random_subset_in_every_epoch_and_mode():
    sizes, groups = [200, 200, 3], [0, 0, 1]
    plan = Plan([1, 1, 1], sizes, seed=0, groups=groups, share=0.1)
    leaves, _, turns = plan.examples(0, 300)
    records = plan.record_indices(leaves, turns)
    task, tiny = records[leaves < 2], records[leaves == 2]
    assert len(set(tiny.tolist())) == 1  # never none
    used = set(task.tolist())
    assert len(used) == 20 and used <= set(range(200))
    epochs = [task[start : start + 20].tolist() for start in range(0, task.size, 20)]
    assert all(set(epoch) == used for epoch in epochs) and epochs[0] != epochs[1]
    other = Plan([1, 1, 1], sizes, seed=1, groups=groups, share=0.1)
    assert set(other.record_indices(leaves, turns)[leaves < 2].tolist()) != used
    whole = Plan([1, 1, 1], sizes, seed=0, groups=groups)
    assert set(whole.record_indices(leaves, turns)[leaves < 2].tolist()) > used


@pytest.mark.parametrize("mode", ["low_discrepancy", "iid"])
def test_modes_of_a_task_take_turns_at_its_records(mode):
    # leaves 0, 2 and 4 are modes of one task, 1 and 5 of another
    rates, groups, sizes = [4, 1, 2, 3, 0.5, 2], [0, 1, 0, 3, 0, 1], [40, 25, 40, 9, 40, 25]
    plan = Plan(rates, sizes, seed=2, mode=mode, groups=groups)
    leaves, counts, turns = plan.examples(0, 3000)
    records = plan.record_indices(leaves, turns)
    for group in (0, 1, 3):
        mine = np.isin(leaves, [i for i, g in enumerate(groups) if g == group])
        assert turns[mine].tolist() == list(range(mine.sum()))
        size = sizes[group]
        for start in range(0, mine.sum() - size + 1, size):
            assert sorted(records[mine][start : start + size].tolist()) == list(range(size))
    for leaf in range(6):
        assert counts[leaves == leaf].tolist() == list(range((leaves == leaf).sum()))
    for n in (0, 777, 2999):
        assert plan.examples(n, n + 1) == (leaves[n], counts[n], turns[n])


def test_a_single_task_with_modes_is_one_group():
    plan = Plan([1, 1, 1], [10] * 3, seed=0, groups=[7, 7, 7])
    leaves, counts, turns = plan.examples(0, 30)
    assert turns.tolist() == list(range(30)) and (counts <= turns).all()
    assert np.bincount(leaves).tolist() == [10, 10, 10]


def test_groups_of_unequal_size_are_a_mistake():
    with pytest.raises(ValueError, match="same records"):
        Plan([1, 1], [3, 4], seed=0, groups=[0, 0])


def test_two_leaves_over_different_records_go_through_them_differently():
    plan = Plan([1, 1], [50, 50], seed=0)
    zeros = plan.record_indices(np.zeros(50, dtype=int), np.arange(50))
    ones = plan.record_indices(np.ones(50, dtype=int), np.arange(50))
    assert zeros.tolist() != ones.tolist()


def test_seed_changes_order_and_records():
    one, two = Plan([1] * 20, [99] * 20, 0), Plan([1] * 20, [99] * 20, 1)
    assert one.examples(0, 100)[0].tolist() != two.examples(0, 100)[0].tolist()
    leaves, counts = np.zeros(99, dtype=int), np.arange(99)
    found = [plan.record_indices(leaves, counts).tolist() for plan in (one, two)]
    assert found[0] != found[1]


def test_flans_number_of_leaves_is_fast():
    rates = np.exp(np.random.default_rng(0).normal(0, 2, 4 * 1836)).tolist()
    started = time.process_time()
    plan = Plan(rates, [30_000] * len(rates), seed=0, groups=np.arange(len(rates)) // 4)
    for number in (0, 1000, 1_000_000):
        leaves, _, turns = plan.window(number, 2048)
        plan.record_indices(leaves, turns)
    assert time.process_time() - started < 2  # 0.2 s of the processor


@pytest.mark.parametrize(
    "arguments, part",
    [
        (([], [], 0), "at least one"),
        (([1.0, 0.0], [1, 1], 0), "above 0"),
        (([1.0, -2.0], [1, 1], 0), "above 0"),
        (([1.0, float("nan")], [1, 1], 0), "above 0"),
        (([1.0], [0], 0), "without records"),
        (([1.0], [5], 0, "roulette"), "low_discrepancy"),
    ],
)
def test_bad_plans_are_refused(arguments, part):
    with pytest.raises(UserError, match=part):
        Plan(*arguments)
