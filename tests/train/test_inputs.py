"""A mixture by name becomes a feed, evaluation batches and groups; missing stores are built."""

import io
import re

import pytest
from rich.console import Console

from instruct.batch import ENCODER_DECODER
from instruct.data import registry
from instruct.errors import UserError
from instruct.train.inputs import gather_states, open_inputs, task_groups
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.train.stand_in import ToyLeaf, toy_leaves
from tests.workspaces import workspace


@pytest.fixture(scope="module")
def mixture():
    tasks = [toy_spec(ToySource(tag), category=tag) for tag in ("x", "y")]
    for spec in tasks:
        registry.add_task(spec)
    name = fresh_name("mixture")
    registry.add_mixture(name, {tasks[0].name: 3.0, tasks[1].name: 1.0})
    return name


def quiet():
    return Console(file=io.StringIO())


def test_opens_what_a_name_stands_for(mixture):
    inputs = open_inputs(toy_config(mixture), 384, 8, quiet(), workspace())
    batch, info = next(inputs.feed)
    ENCODER_DECODER.check(batch)
    assert info.num_examples >= 4 and set(info.task_counts) <= {lf.name for lf in inputs.leaves}
    assert inputs.eval_batches and task_groups(inputs.leaves) == (["x", "y"], [0, 1])
    for held in inputs.eval_batches:
        ENCODER_DECODER.check(held)
    assert {leaf["name"] for leaf in inputs.feed.statistics()["leaves"]} == {
        leaf.name for leaf in inputs.leaves
    }
    inputs.feed.close()


def test_no_evaluation_when_not_wanted_or_without_a_validation_split(mixture):
    assert open_inputs(toy_config(mixture), 384, 0, quiet(), workspace()).eval_batches == []
    source = ToySource("z", splits=("train",))
    spec = registry.add_task(toy_spec(source, splits={"train": "train"}))
    told = io.StringIO()
    assert (
        open_inputs(toy_config(spec.name), 384, 8, Console(file=told), workspace()).eval_batches
        == []
    )
    assert "no split 'validation'" in told.getvalue()


@pytest.mark.parametrize(
    ("of_task", "changes", "said"),
    [
        ({"modes": {"zs_inv": 1}}, {}, "no record of split 'validation' with a prompt that is not"),
        ({}, {"feature_lengths": {"inputs": 5, "targets": 16}}, "no example .* that fits"),
    ],
)
def test_no_evaluation_without_an_example_of_the_validation_split(of_task, changes, said):
    spec, told = registry.add_task(toy_spec(**of_task)), io.StringIO()
    config = toy_config(spec.name, **changes)
    inputs = open_inputs(config, 384, 8, Console(file=told, width=999), workspace())
    assert inputs.eval_batches == [] and re.search(f"{said}.*no eval/loss", told.getvalue())
    assert ("warning: 8 of 8 examples of split 'validation'" in told.getvalue()) == bool(changes)
    inputs.feed.close()


def test_mistakes_are_named(mixture):
    with pytest.raises(UserError, match="unknown task or mixture 'toyy"):
        open_inputs(toy_config("toyy"), 384, 8, quiet(), workspace())
    with pytest.raises(UserError, match="384"):
        open_inputs(toy_config(mixture), 100, 8, quiet(), workspace())


def test_groups_are_families_or_the_categories_of_one():
    assert task_groups(toy_leaves()) == (["bench", "toy"], [1, 1, 0])
    same = [ToyLeaf("a.b", "a", "logic"), ToyLeaf("a.c", "a", "algebra")]
    assert task_groups(same) == (["algebra", "logic"], [1, 0])


def test_one_state_for_each_share_of_the_rows(monkeypatch):
    assert gather_states({"row": 1}, {0: [0, 1]}) == [{"row": 1}]
    states = [{"process": number} for number in range(4)]
    monkeypatch.setattr("instruct.train.inputs.gather_json", lambda state: states)
    rows = {0: [0, 1], 1: [0, 1], 2: [2, 3], 3: [2, 3]}
    assert gather_states(states[3], rows) == [states[0], states[2]]
