"""`show --overlap`: what is prepared is compared, the rest is named."""

import dataclasses
import json

import pytest

from instruct.cli import arguments, show
from instruct.data import registry
from instruct.data.overlap.scan import stored_tasks
from instruct.data.stores.prepare import prepare
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace

pytestmark = pytest.mark.slow


def output(capsys, *flags):
    assert show.run(arguments.parse(["show", "--overlap", "--workers=1", *flags])) == 0
    return capsys.readouterr().out


@pytest.fixture
def mixture():
    """Two tasks over the same records, one over others, one that is not prepared."""
    source = ToySource("same", words=20)
    one = registry.add_task(toy_spec(source, contamination_group="sums"))
    two = registry.add_task(toy_spec(source, contamination_group="sums"))
    other = registry.add_task(toy_spec(ToySource("other", words=20)))
    missing = registry.add_task(toy_spec(ToySource("missing")))
    prepared, whole = fresh_name("prepared"), fresh_name("whole")
    registry.add_mixture(prepared, {spec.name: 1.0 for spec in (one, two, other)})
    registry.add_mixture(whole, {prepared: 1.0, missing.name: 1.0})
    prepare(workspace(), registry.resolve(workspace(), prepared), toy_config(prepared))
    return whole, one, two, other, missing


def test_duplicates_of_a_mixture(capsys, mixture):
    whole, one, two, other, missing = mixture
    found = json.loads(output(capsys, f"--mixture={whole}", "--json"))
    assert found["missing"] == {missing.name: "split train is not prepared"}
    assert found["tasks"] == [one.name, two.name, other.name]
    pair = next(p for p in found["pairs"] if (p["task_a"], p["task_b"]) == (one.name, two.name))
    assert pair["same_group"] and pair["exact_a"] == pair["exact_b"] == pair["records_a"] == 40
    assert pair["near_share_a"] == 1
    assert pair["examples"][0]["first_id"] == pair["examples"][0]["second_id"]
    assert not any(p["exact_a"] for p in found["pairs"] if other.name in p.values())
    table = output(capsys, f"--mixture={whole}")
    assert f"{missing.name}: split train is not prepared" in table and "run.py prepare" in table
    assert "40 (100.0%)" in table and "same" in table


def test_training_against_test(capsys, mixture):
    whole, one, two, *_ = mixture
    flags = [f"--mixture={whole}", f"--against={two.name}", f"--dataset={one.dataset}", "--n=4"]
    found = json.loads(output(capsys, *flags, "--json"))
    assert found["tasks"] == [one.name] and found["missing"] == {}
    # Its validation split: the numbers differ, and so do all questions.
    assert found["against_splits"] == {two.name: "validation"}
    [total] = found["totals"]
    assert total["test_examples"] == 40
    train = json.loads(output(capsys, *flags, "--against_split=train", "--json"))
    [pair] = train["pairs"]
    assert pair["test_touched_share"] == pair["test_covered_share"] == 1 and pair["same_group"]
    assert len(pair["examples"]) == 3
    table = output(capsys, *flags, "--against_split=train")
    assert "share 4 words in a row" in table and "40 (100.0%)" in table


def test_what_cannot_be_compared_is_named():
    spec = registry.add_task(toy_spec())
    [leaf] = registry.resolve(workspace(), spec.name).leaves
    plain = dataclasses.replace(leaf, task="plain", spec=None)
    side = stored_tasks(workspace(), [leaf, plain], ("test",))
    assert not side.tasks and side.missing[spec.name] == "has no split test"
    assert "tokens, not text" in side.missing["plain"]
    prepare(workspace(), registry.resolve(workspace(), spec.name), toy_config(spec.name))
    [task] = stored_tasks(workspace(), [leaf, leaf], ("test", "validation")).tasks
    assert (task.name, task.size, task.path.name) == (spec.name, 40, "validation")
    (task.path / "manifest.json").write_text("{}")
    side = stored_tasks(workspace(), [leaf], ("validation",))
    assert not side.tasks and "damaged" in side.missing[spec.name]


def test_nothing_prepared(capsys, mixture):
    missing = mixture[-1]
    out = output(capsys, f"--mixture={missing.name}", f"--against={missing.name}")
    assert "0 prepared tasks" in out and "nothing is prepared" in out
    assert "nothing is prepared" in output(capsys, f"--mixture={missing.name}")
    found = json.loads(output(capsys, f"--mixture={missing.name}", "--json"))
    assert found["pairs"] == [] and found["missing"]


def test_nothing_shared(capsys, mixture):
    *_, other, _ = mixture
    flags = [f"--mixture={other.name}", "--n=60"]
    assert "no two tasks share records" in output(capsys, *flags)
    assert "no two tasks share any" in output(capsys, *flags, f"--against={other.name}")
