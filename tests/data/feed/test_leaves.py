"""What a mixture needs before it can be read."""

import pytest

from instruct.data import registry
from instruct.data.feed.leaves import make_builder
from instruct.data.stores import store
from instruct.data.stores.prepare import prepare
from instruct.data.stores.store import leaf_manifest, store_key
from instruct.errors import UserError
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


def test_missing_stores_are_named():
    specs = [registry.add_task(toy_spec()) for _ in range(7)]
    name = fresh_name("mix")
    registry.add_mixture(name, {spec.name: 1 for spec in specs})
    resolved, config = registry.resolve(workspace(), name), toy_config(name)
    held = toy_config(name, split="validation")
    with pytest.raises(UserError, match=r"7 of 7 tasks.*\.\.\.\).*prepare"):
        make_builder(workspace(), config, resolved)
    with pytest.raises(UserError, match="no task of .* has prepared records"):
        make_builder(workspace(), held, resolved, training=False)
    assert leaf_manifest(workspace(), resolved.leaves[0], "train", config)[0] is None


def test_few_shot_leaves_need_their_exemplars():
    spec = registry.add_task(toy_spec(modes={"fs_noopt": 1}, exemplar_split="validation"))
    config = toy_config(spec.name)
    prepare(workspace(), registry.resolve(workspace(), spec.name), config).check()
    builder, _ = make_builder(workspace(), config, registry.resolve(workspace(), spec.name))
    assert builder.leaves[0].exemplar_store[0].endswith("validation")
    (
        store.store_path(workspace(), store.spec_key(spec), "validation") / store.MANIFEST_FILE
    ).unlink()
    with pytest.raises(UserError, match="no store"):
        make_builder(workspace(), config, registry.resolve(workspace(), spec.name))


def test_empty_tasks_stop_training_and_are_left_out_of_evaluation():
    full = registry.add_task(toy_spec())
    empty = registry.add_task(toy_spec(ToySource("none", drop_every=1)))
    name = fresh_name("mix")
    registry.add_mixture(name, {empty.name: 1, full.name: 1})
    config = toy_config(name)
    prepare(workspace(), registry.resolve(workspace(), name), config).check()
    resolved = registry.resolve(workspace(), name)
    with pytest.raises(UserError, match=f"without a single record.*{empty.name}"):
        make_builder(workspace(), config, resolved)
    held = toy_config(name, split="validation")
    builder, used = make_builder(workspace(), held, resolved, training=False)
    assert [leaf.task for leaf in used] == [full.name]
    assert builder.plan.rates.tolist() == [1.0]
    by_records = fresh_name("mix")
    registry.add_mixture(by_records, {empty.name: None})
    with pytest.raises(UserError, match="all of its tasks are empty"):
        registry.resolve(workspace(), by_records)


def test_modes_of_a_task_share_a_store():
    spec = registry.add_task(toy_spec(modes={"zs_noopt": 1, "fs_noopt": 1}))
    keys = {
        store_key(leaf, toy_config("x")) for leaf in registry.resolve(workspace(), spec.name).leaves
    }
    assert keys == {f"{spec.name}@1.0.0"}
