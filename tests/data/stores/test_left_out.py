"""What is not there is left out by name and on record; the rest keeps its proportions exactly."""

import io
import json

import pytest
import seqio
from rich.console import Console

from instruct.data import registry
from instruct.data.feed.pipeline import TrainFeed
from instruct.data.mixture_shares import make_left_out
from instruct.data.sources.json_files import write_json
from instruct.data.stores import store
from instruct.data.stores.left_out import (
    left_out_path,
    missing_stores,
    read_left_out,
    tasks_left_out,
)
from instruct.data.stores.prepare import prepare
from instruct.errors import UserError
from instruct.train.inputs import open_inputs
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace

NUM_TASKS = 50


def fifty():
    """(mixture, its two parts, the tasks): one source breaks in the middle, another is not here."""
    sources = [ToySource(f"s{i}", size=10 + i) for i in range(NUM_TASKS)]
    sources[7] = ToySource("breaks", broken=True)
    sources[31] = ToySource("away", missing="put the files of `away` into the data folder")
    specs = [registry.add_task(toy_spec(source)) for source in sources]
    sizes, fixed, name = fresh_name("sizes"), fresh_name("fixed"), fresh_name("mix")
    registry.add_mixture(sizes, {spec.name: None for spec in specs[:20]}, cap=25)
    registry.add_mixture(fixed, {spec.name: 1 + i for i, spec in enumerate(specs[20:])})
    registry.add_mixture(name, {sizes: 0.25, fixed: 0.75})
    return name, (sizes, fixed), specs


def prepared(name, console=None, workers=1):
    config = toy_config(name, skip_unavailable=True)
    done = prepare(
        workspace(), registry.resolve(workspace(), name), config, workers=workers, console=console
    )
    missing = missing_stores(done.stores, config.split)
    return config, make_left_out(
        workspace(), registry.resolve(workspace(), name), missing, config.split
    )


def test_fifty_tasks_two_of_them_broken():
    name, (sizes, fixed), specs = fifty()
    config, record = prepared(name, Console(file=io.StringIO()), workers=2)
    gone = (specs[7].name, specs[31].name)
    assert record.tasks == gone and record.num_tasks_left == 48
    assert [(m.task, m.split) for m in record.left_out] == [
        (task, split) for task in gone for split in ("train", "validation")
    ]
    assert tasks_left_out(workspace(), config) == ()  # nobody has written the record yet
    path = record.write(workspace())
    assert (
        path
        == left_out_path(workspace(), name)
        == workspace().store_dir / "left_out" / f"{name}.json"
    )
    assert (
        read_left_out(workspace(), name) == record and tasks_left_out(workspace(), config) == gone
    )
    assert tasks_left_out(workspace(), toy_config(name)) == ()
    lines = "\n".join(record.describe(left_out_path(workspace(), record.mixture)))
    assert "2 tasks are left out" in lines and "48 tasks are left" in lines
    assert "RuntimeError: the file ends in the middle" in lines
    assert "put the files of `away` into the data folder" in lines

    # 10 + i records, at most 25; then rates 1 + i.
    records = {spec.name: min(25, 10 + i) for i, spec in enumerate(specs[:20]) if i != 7}
    rates = {spec.name: 1 + i for i, spec in enumerate(specs[20:]) if i != 11}
    expected = {f"{t}.zs_noopt": 0.25 * n / sum(records.values()) for t, n in records.items()}
    expected |= {f"{t}.zs_noopt": 0.75 * r / sum(rates.values()) for t, r in rates.items()}
    resolved = registry.resolve(workspace(), name, left_out=gone)
    assert resolved.left_out == gone
    assert {leaf.name: leaf.rate for leaf in resolved.leaves} == pytest.approx(expected, rel=1e-12)
    feed = TrainFeed(workspace(), config, resolved)
    assert feed._builder is not None
    planned = dict(zip(expected, feed._builder.plan.rates.tolist()))
    assert planned == pytest.approx(expected, rel=1e-12)

    parts = record.sub_mixtures
    assert [(parts[part]["before"], parts[part]["after"]) for part in (sizes, fixed)] == [
        (0.25, 0.25),
        (0.75, 0.75),
    ]
    last = parts[fixed]["tasks"][specs[49].name]
    assert last == pytest.approx({"before": 0.75 * 30 / 465, "after": 0.75 * 30 / 453})
    assert sum(t["after"] for t in parts[sizes]["tasks"].values()) == pytest.approx(0.25)


def test_a_run_goes_on_without_them_and_says_so():
    name, _, specs = fifty()
    config, record = prepared(name)
    with pytest.raises(UserError, match=r"4 of 100 (.|\n)*--skip_unavailable"):
        open_inputs(toy_config(name), 384, 0, Console(file=io.StringIO()), workspace())
    # The setting alone leaves nothing out that is not on record.
    with pytest.raises(UserError, match="4 of 100"):
        open_inputs(config, 384, 0, Console(file=io.StringIO()), workspace())
    record.write(workspace())
    out = io.StringIO()
    inputs = open_inputs(config, 384, 8, Console(file=out, width=200), workspace())
    assert (
        "2 tasks of" in out.getvalue() and str(left_out_path(workspace(), name)) in out.getvalue()
    )
    assert len(inputs.leaves) == 48 and inputs.eval_batches
    _, info = next(inputs.feed)
    assert set(info.task_counts) <= {leaf.name for leaf in inputs.leaves}
    assert inputs.feed.statistics()["left_out"] == [specs[7].name, specs[31].name]
    saved = inputs.feed.state()
    inputs.feed.close()

    # Another set of tasks left out is another run.
    values = json.loads(left_out_path(workspace(), record.mixture).read_text())
    values["left_out"].append({"task": specs[0].name, "split": "train", "reason": "tired of it"})
    write_json(left_out_path(workspace(), record.mixture), values)
    fewer = open_inputs(config, 384, 0, Console(file=io.StringIO()), workspace())
    assert len(fewer.leaves) == 47
    with pytest.raises(UserError, match="tasks left out"):
        fewer.feed.restore([saved])
    record.write(workspace())
    again = open_inputs(config, 384, 0, Console(file=io.StringIO()), workspace())
    again.feed.restore([saved])
    again.feed.close()


def test_a_store_that_vanishes_later_is_an_error():
    name, _, specs = fifty()
    config, record = prepared(name)
    record.write(workspace())
    object.__setattr__(specs[3], "source", ToySource("s3", missing="the disk is gone"))
    for split in ("train", "validation"):
        folder = store.store_path(workspace(), store.spec_key(specs[3]), split)
        folder.rename(folder.with_name(f"moved_{split}"))
    with pytest.raises(UserError, match="the disk is gone"):
        open_inputs(config, 384, 0, Console(file=io.StringIO()), workspace())


def test_a_part_that_lost_everything_gives_its_share_to_the_others():
    away = registry.add_task(toy_spec(ToySource("a", missing="gone")))
    empty = registry.add_task(toy_spec(ToySource("e", drop_every=1)))
    here, both = (registry.add_task(toy_spec(ToySource("h"))) for _ in "ab")
    lost, rest, name = fresh_name("lost"), fresh_name("rest"), fresh_name("mix")
    registry.add_mixture(lost, {away.name: 1, empty.name: 1})
    registry.add_mixture(rest, {here.name: 1, both.name: 3})
    registry.add_mixture(name, {lost: 0.5, rest: 0.3, both.name: 0.2})
    _, record = prepared(name)
    assert record.tasks == (away.name, empty.name)
    assert "no record; rejected rows: empty answer: 40" in record.left_out[-1].reason
    after = {part: values["after"] for part, values in record.sub_mixtures.items()}
    assert after == pytest.approx({lost: 0.0, rest: 0.6, both.name: 0.4})
    assert f"{lost} has no task left; its share of 0.5" in "\n".join(
        record.describe(left_out_path(workspace(), record.mixture))
    )
    resolved = registry.resolve(workspace(), name, left_out=record.tasks)
    assert [leaf.rate for leaf in resolved.leaves] == pytest.approx([0.15, 0.45 + 0.4])
    with pytest.raises(UserError, match="every task of .* is left out"):
        registry.resolve(workspace(), lost, left_out=record.tasks)


def test_shares_by_size_go_by_the_records_that_are_left():
    small, large, other = (
        registry.add_task(toy_spec(num_examples={"train": n})) for n in (100, 300, 600)
    )
    inner, name = fresh_name("inner"), fresh_name("mix")
    registry.add_mixture(inner, {small.name: None, large.name: None})
    registry.add_mixture(name, {inner: None, other.name: None})
    rates = [
        leaf.rate for leaf in registry.resolve(workspace(), name, left_out=[large.name]).leaves
    ]
    assert rates == pytest.approx([100 / 700, 600 / 700])


def test_users_own_seqio_mixtures_lose_tasks_too():
    ours = registry.add_task(toy_spec()).name
    features = {k: seqio.Feature(seqio.ByteVocabulary()) for k in ("inputs", "targets")}
    plain, theirs, name = fresh_name("plain"), fresh_name("mix"), fresh_name("mix")
    source = seqio.FunctionDataSource(lambda split, shuffle_files: None, ["train"], {"train": 25})
    seqio.TaskRegistry.add(plain, source=source, output_features=features, preprocessors=[])
    seqio.MixtureRegistry.add(theirs, [(plain, 2.0), (f"{ours}.zs_noopt", 1.0)])
    registry.add_mixture(name, {theirs: 1, ours: 3})
    for left_out, left in ((plain, f"{ours}.zs_noopt"), (ours, plain)):
        (leaf,) = registry.resolve(workspace(), name, left_out=[left_out]).leaves
        assert (leaf.name, leaf.rate) == (left, pytest.approx(1))
    registry.add_mixture(fresh_name("mix"), {theirs: None, ours: None})


def test_a_record_that_is_none_is_refused():
    name = fresh_name("mix")
    config = toy_config(name, skip_unavailable=True)
    for text in ("{", "[]", '{"format": 2, "mixture": "x"}', '{"format": 1, "mixture": "other"}'):
        left_out_path(workspace(), name).parent.mkdir(parents=True, exist_ok=True)
        left_out_path(workspace(), name).write_text(text)
        with pytest.raises(UserError, match="cannot be read.*--skip_unavailable"):
            tasks_left_out(workspace(), config)


def test_the_setting_is_checked():
    with pytest.raises(UserError, match="skip_unavailable.*True or False"):
        toy_config("x", skip_unavailable="yes")
    with pytest.raises(UserError, match="feed='records'"):
        toy_config("x", skip_unavailable=True, feed="seqio")


def test_a_json_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": "é"})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": "é"}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]
