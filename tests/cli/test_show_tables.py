"""Tables of `show --mixture`: leaves, or sub-mixtures where there are many leaves."""

from instruct.cli import show_tables
from instruct.data import registry
from instruct.data.mixture_shares import MixtureView
from instruct.data.stores.prepare import prepare
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


def printed(view, **options):
    console = show_tables.wide_console(240)
    with console.capture() as capture:
        console.print(show_tables.mixture_table(view, **options))
    return capture.get()


def test_tables(monkeypatch):
    modes = {"zs_noopt": 3, "fs_noopt": 1}
    one = registry.add_task(toy_spec(modes=modes, contamination_group="shared"))
    two, three = (registry.add_task(toy_spec()) for _ in range(2))
    inner, outer = fresh_name("inner"), fresh_name("outer")
    registry.add_mixture(inner, {one.name: 1.0, two.name: 1.0})
    registry.add_mixture(outer, {inner: 3.0, three.name: 1.0})
    view = MixtureView(workspace(), registry.resolve(workspace(), outer))
    table = printed(view)
    assert f"{one.name}.zs_noopt" in table and "28.1250%" in table and "shared" in table
    monkeypatch.setattr(show_tables, "_FEW_LEAVES", 2)
    short = printed(view)
    assert inner in short and f"{one.name}.zs_noopt" not in short and "75.000%" in short
    assert f"{one.name}.zs_noopt" in printed(view, every_leaf=True)
    monkeypatch.setattr(show_tables, "FEW", 1)
    assert "and 1 smaller ones" in printed(view)
    # A single task has nothing to sum up.
    assert f"{one.name}.fs_noopt" in printed(
        MixtureView(workspace(), registry.resolve(workspace(), one.name))
    )


def test_an_empty_task_has_a_row():
    declared = {"train": 5}
    full = registry.add_task(toy_spec(ToySource("full", size=5), num_examples=declared))
    empty = registry.add_task(toy_spec(ToySource("empty", size=0), num_examples=declared))
    name = fresh_name("mix")
    registry.add_mixture(name, {full.name: None, empty.name: None})
    prepare(workspace(), registry.resolve(workspace(), name), toy_config(name)).check()
    assert empty.name in printed(
        MixtureView(workspace(), registry.resolve(workspace(), name), draws=100)
    )
