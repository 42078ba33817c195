"""A mixture's numbers: asked, planned and realised shares, caps, epochs, sub-mixtures."""

import pytest

from instruct.data import mixture_shares, registry
from instruct.data.mixture_shares import MixtureView
from instruct.data.stores.prepare import prepare
from instruct.data.task_lists import TaskFilter
from instruct.errors import UserError
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


@pytest.fixture
def nested():
    """outer = 3 parts inner (two tasks by records, at most 60) + 1 part of a task with its cap."""
    one = registry.add_task(
        toy_spec(
            cap=30,
            num_examples={"train": 100},
            modes={"zs_noopt": 3, "fs_noopt": 1},
            contamination_group="shared",
            license="MIT",
        )
    )
    two = registry.add_task(toy_spec(ToySource("two", size=20), num_examples={"train": 60}))
    three = registry.add_task(toy_spec(cap=10, category="tables"))
    inner, outer = fresh_name("inner"), fresh_name("outer")
    registry.add_mixture(inner, {one.name: None, two.name: None}, cap=60)
    registry.add_mixture(outer, {inner: 3.0, three.name: 1.0})
    return outer, inner, one, two, three


def test_asked_planned_and_realised(nested):
    outer, inner, one, _, three = nested
    view = MixtureView(workspace(), registry.resolve(workspace(), outer), draws=1000)
    rows = {row.leaf.name: row for row in view.rows}
    first = rows[f"{one.name}.zs_noopt"]
    assert (first.leaf.records, first.cap, first.capped) == (100, 60, 60)
    assert first.asked == first.planned == pytest.approx(0.75 * 0.5 * 0.75)
    assert rows[f"{three.name}.zs_noopt"].cap is None  # its rate is a number
    assert sum(row.realised for row in view.rows) == 1000
    for row in view.rows:
        assert row.realised_share == pytest.approx(row.planned, abs=2e-3)
    assert first.epochs == pytest.approx(first.planned * 1000 / 100)
    assert len(view.unprepared) == 4
    # The stores hold 40 and 20 records.
    prepare(workspace(), registry.resolve(workspace(), inner), toy_config(inner))
    view = MixtureView(workspace(), registry.resolve(workspace(), outer), draws=1000)
    rows = {row.leaf.name: row for row in view.rows}
    first = rows[f"{one.name}.zs_noopt"]
    assert first.asked == pytest.approx(0.75 * 0.5 * 0.75)
    assert first.planned == pytest.approx(0.75 * 40 / 60 * 0.75)
    assert first.realised_share == pytest.approx(first.planned, abs=2e-3)
    assert len(view.unprepared) == 1 and "1 unprepared" in view.counts_line()
    assert (
        first.to_json()
        | {
            "contamination_group": "shared",
            "license": "MIT",
            "records": 40,
            "cap": 60,
            "capped_records": 40,
        }
        == first.to_json()
    )


def test_many_draws_are_counted_in_pieces(nested, monkeypatch):
    resolved = registry.resolve(workspace(), nested[0])
    whole = [row.realised for row in MixtureView(workspace(), resolved, draws=1000).rows]
    monkeypatch.setattr(mixture_shares, "_CHUNK", 64)
    assert [row.realised for row in MixtureView(workspace(), resolved, draws=1000).rows] == whole


def test_sub_mixtures(nested):
    outer, inner, one, two, three = nested
    view = MixtureView(workspace(), registry.resolve(workspace(), outer))
    groups = view.groups()
    assert [(g.name, g.depth) for g in groups] == [
        (inner, 0),
        (one.name, 1),
        (two.name, 1),
        (three.name, 0),
    ]
    assert [g.planned for g in groups] == pytest.approx([0.75, 0.375, 0.375, 0.25])
    assert [g.asked for g in groups] == pytest.approx([0.75, 0.375, 0.375, 0.25])
    assert (groups[0].num_tasks, groups[0].num_leaves) == (2, 3)
    assert (groups[0].records, groups[0].capped) == (160, 120)
    assert groups[3].records is None and groups[3].epochs is None
    # A filter leaves shares as they are.
    part = MixtureView(
        workspace(), registry.resolve(workspace(), outer), TaskFilter(category=("tab*",))
    )
    assert [(g.name, g.planned) for g in part.groups()] == [(three.name, 0.25)]
    with pytest.raises(UserError, match=r"--category \(of 4 tasks\) 'none'.*sums, tables"):
        MixtureView(
            workspace(), registry.resolve(workspace(), outer), TaskFilter(category=("none",))
        )


def test_many_tasks_are_told_by_category(nested):
    name = fresh_name("many")
    specs = [registry.add_task(toy_spec(category=f"kind {k % 2}")) for k in range(14)]
    registry.add_mixture(name, {spec.name: 1.0 for spec in specs})
    top = fresh_name("top")
    registry.add_mixture(top, {name: 1.0, nested[0]: 1.0})
    groups = MixtureView(workspace(), registry.resolve(workspace(), top)).groups()
    found = {g.name: (g.depth, g.num_tasks) for g in groups}
    assert found[name] == (0, 14)
    assert found["category: kind 0"] == found["category: kind 1"] == (1, 7)
    assert sum(g.planned for g in groups if g.depth == 0) == pytest.approx(1)
    assert sum(g.planned for g in groups if g.depth == 1) == pytest.approx(1)


def test_a_leaf_below_two_children_counts_by_each():
    spec = registry.add_task(toy_spec())
    one, two, both = (fresh_name("mix") for _ in range(3))
    registry.add_mixture(one, {spec.name: 1.0})
    registry.add_mixture(two, {spec.name: 1.0})
    registry.add_mixture(both, {one: 3.0, two: 1.0})
    groups = [
        g
        for g in MixtureView(workspace(), registry.resolve(workspace(), both)).groups()
        if g.depth == 0
    ]
    assert [(g.name, g.planned) for g in groups] == [(one, 0.75), (two, 0.25)]
    assert [g.realised for g in groups] == pytest.approx([0.75, 0.25])


def test_an_empty_task_is_shown_without_a_share():
    declared = {"train": 5}
    full = registry.add_task(toy_spec(ToySource("full", size=5), num_examples=declared))
    empty = registry.add_task(toy_spec(ToySource("empty", size=0), num_examples=declared))
    name = fresh_name("mix")
    registry.add_mixture(name, {full.name: None, empty.name: None})
    prepare(workspace(), registry.resolve(workspace(), name), toy_config(name)).check()
    view = MixtureView(workspace(), registry.resolve(workspace(), name), draws=100)
    assert [(row.asked, row.planned, row.realised) for row in view.rows] == [
        (0.5, 1.0, 100),
        (0.5, 0.0, 0),
    ]
    groups = {group.name: group for group in view.groups()}
    assert groups[empty.name].planned == groups[empty.name].realised == 0
    assert groups[full.name].planned == groups[full.name].realised == 1
