"""The named mixtures of the gym family."""

import collections

from instruct.data.registry import find_spec, resolve
from tasks.gym import mixtures as mixtures
from tasks.gym.table import GENERATORS, MAIN
from tasks.splits import HELD_OUT_CATEGORIES, SET_ASIDE
from tests.workspaces import workspace


def datasets(name: str) -> set[str]:
    return {leaf.task for leaf in resolve(workspace(), name).leaves}


def test_sizes_and_shares():
    assert resolve(workspace(), "gym.all").num_datasets == len(MAIN)
    assert len(datasets("gym.train")) + len(datasets("gym.held_out")) + len(SET_ASIDE) == len(MAIN)
    for name in mixtures.TRAINING | mixtures.EVALUATION:
        leaves = resolve(workspace(), name).leaves
        assert abs(sum(leaf.rate for leaf in leaves) - 1) < 1e-9
        shares = collections.Counter()
        for leaf in leaves:
            shares[leaf.task] += leaf.rate
        assert max(shares.values()) - min(shares.values()) < 1e-9


def test_scale_subsets_are_nested_and_balanced():
    larger = datasets("gym.train")
    for size in reversed(mixtures.SCALES):
        tasks = datasets(f"gym.scale_{size}")
        assert len(tasks) == size
        assert tasks < larger
        larger = tasks
        counts = collections.Counter(find_spec(workspace(), task).category for task in tasks)
        available = collections.Counter(
            find_spec(workspace(), task).category for task in datasets("gym.train")
        )
        # A category has fewer than the largest one only if it has no more tasks, up to one.
        most = max(counts.values())
        for category, number in available.items():
            assert counts[category] >= min(number, most - 1) or size == 64


def test_held_in_tasks_are_trained_on_and_held_out_tasks_are_not():
    assert datasets("gym.held_in") == datasets("gym.train") == datasets("gym.held_in_fs")
    assert datasets("gym.held_out") == datasets("gym.held_out_fs")
    assert not datasets("gym.held_out") & datasets("gym.train")
    categories = {leaf.category for leaf in resolve(workspace(), "gym.held_out").leaves}
    assert categories == set(HELD_OUT_CATEGORIES)
    for name in ("gym.held_in", "gym.held_out"):
        assert {leaf.mode for leaf in resolve(workspace(), name).leaves} == {"zs_noopt"}


def test_the_demonstration_is_small_and_varied():
    demo = resolve(workspace(), "gym.demo")
    assert 8 <= demo.num_datasets <= 12
    assert demo.num_categories >= 4
    assert datasets("gym.demo_held_out") <= datasets("gym.held_out")
    held_in = {GENERATORS[leaf.task.removeprefix("gym.")].category for leaf in demo.leaves}
    assert not held_in & set(HELD_OUT_CATEGORIES)
