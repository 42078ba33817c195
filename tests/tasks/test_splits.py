"""No training mixture touches what is held out, and the check notices when one does."""

import dataclasses

import pytest

from instruct.data.registry import add_mixture, add_task, find_spec
from tasks import mixtures as collection
from tasks import splits
from tasks.gym import mixtures as mixtures
from tasks.gym.table import GENERATORS
from tests.workspaces import workspace


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(mixtures.TRAINING | collection.TRAINING))
def test_training_mixtures_hold_nothing_that_is_held_out(name):
    assert splits.leaks(workspace(), name) == []


def test_every_generator_is_trained_on_held_out_or_set_aside():
    groups = [splits.trainable(), splits.held_out()]
    named = [row.name for group in groups for row in group] + sorted(splits.SET_ASIDE)
    assert sorted(named) == sorted(GENERATORS)
    assert set(splits.SET_ASIDE) <= set(GENERATORS)
    for category in splits.HELD_OUT_CATEGORIES:
        assert any(row.category == category for row in splits.held_out())


def test_a_held_out_task_in_a_mixture_is_found():
    add_mixture("test_splits.bad", {"gym.train": 1.0, "gym.syllogism.zs_opt": 0.01})
    (found,) = splits.leaks(workspace(), "test_splits.bad")
    assert "gym.syllogism.zs_opt" in found and "held out" in found


def test_a_set_aside_task_in_a_mixture_is_found():
    assert splits.leaks(workspace(), "gym.maze")


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(splits.HELD_OUT_GROUPS))
def test_a_copy_of_a_held_out_benchmark_is_found(group):
    spec = dataclasses.replace(
        find_spec(workspace(), "gym.gcd"),
        name=f"copies.{group}",
        family="copies",
        contamination_group=group,
    )
    add_task(dataclasses.replace(spec, dataset="some_set", category="reasoning"))
    add_mixture(f"test_splits.with_{group}", {"flan2022": 1.0, spec.name: 0.01})
    found = splits.leaks(workspace(), f"test_splits.with_{group}")
    assert found and all(group in line and "held-out benchmark" in line for line in found)


def test_a_new_task_of_a_held_out_category_is_found():
    spec = dataclasses.replace(
        find_spec(workspace(), "gym.gcd"),
        name="gym.new_logic",
        dataset="new_logic",
        category="logic",
        held_out="",
    )
    add_task(spec)
    assert any("category" in line for line in splits.leaks(workspace(), "gym.new_logic"))


def test_a_held_out_data_set_under_another_name_is_found():
    spec = dataclasses.replace(
        find_spec(workspace(), "gym.syllogism"), name="other.syllogism", family="other", held_out=""
    )
    add_task(dataclasses.replace(spec, category="reasoning"))
    assert any("data set" in line for line in splits.leaks(workspace(), "other.syllogism"))
