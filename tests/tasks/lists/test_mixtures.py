"""The ladder of the lists family, and its distances."""

import pytest

from instruct.data.registry import add_mixture, resolve
from instruct.prompts.record import Record
from tasks import splits
from tasks.lists import mixtures
from tasks.lists.family import list_task
from tasks.lists.operations import HELD_OUT, TRAINED
from tests.workspaces import workspace


def tasks(name: str) -> set[str]:
    return {leaf.task for leaf in resolve(workspace(), f"lists.{name}").leaves}


def categories(name: str) -> set[str]:
    return {leaf.category for leaf in resolve(workspace(), f"lists.{name}").leaves}


@pytest.mark.parametrize("name", mixtures.TRAINING)
def test_training_mixtures_hold_nothing_that_is_held_out(name):
    assert splits.leaks(workspace(), name) == []


def test_the_ladder_is_nested_and_operations_take_turns():
    larger = tasks("train")
    assert len(larger) == 17 * 9
    for size in reversed(mixtures.SCALES):
        rung = tasks(f"scale_{size}")
        assert len(rung) == size and rung < larger
        assert len(categories(f"scale_{size}")) == min(size, len(TRAINED))
        larger = rung


def test_counting_is_a_ladder_of_its_own():
    assert tasks("counting_1") < tasks("counting_6") < tasks("counting_18") < tasks("counting")
    assert len(categories("counting_6")) == 6 and len(tasks("counting")) == 54
    assert tasks("counting") < tasks("train")
    assert tasks("counting_one_wording") == {f"{task}_one_wording" for task in tasks("counting")}
    assert tasks("counting_unseen_questions") == tasks("counting_6")
    assert tasks("counting_unseen_tasks") < tasks("unseen_tasks")
    assert categories("counting_unseen_tasks") == categories("counting")
    assert categories("counting_unseen_categories") == {"one_less"}


def test_distances():
    trained = tasks("train")
    assert tasks("unseen_questions") <= tasks("scale_24")
    assert {f"{task}_unseen_wordings" for task in tasks("unseen_questions")} == tasks(
        "unseen_wordings"
    )
    assert not tasks("unseen_tasks") & trained
    assert categories("unseen_tasks") == categories("train")
    assert categories("unseen_categories") == {row.name for row in HELD_OUT}
    assert not categories("unseen_categories") & categories("train")


@pytest.mark.parametrize("name", ("unseen_wordings", "unseen_tasks", "unseen_categories"))
def test_training_on_what_is_evaluated_is_found(name):
    add_mixture(f"lists_test.{name}", {"lists.train": 1.0, f"lists.{name}": 0.01})
    assert splits.leaks(workspace(), f"lists_test.{name}")


@pytest.mark.parametrize("name", ["train_opt", "unseen_tasks_opt", "unseen_categories_opt"])
def test_answers_that_are_lists_are_not_asked_for_with_options(name):
    with_options = {
        x.category for x in resolve(workspace(), f"lists.{name}").leaves if x.mode == "zs_opt"
    }
    rows = HELD_OUT if name == "unseen_categories_opt" else TRAINED
    lists = {"reversed", "without"}
    assert with_options == {row.name for row in rows} - lists
    for row in rows:
        spec = list_task(row, "animals")
        record = next(spec.source.records(workspace(), "test"))
        assert isinstance(record, Record)
        assert bool(record.options) == ("zs_opt" in spec.extra_modes) == (row.name not in lists)
