"""The feed: exact resume, hosts apart, the same from threads and processes, honest statistics."""

import dataclasses
import json
import multiprocessing

import numpy as np
import pytest

from instruct import batch
from instruct.data import registry
from instruct.data.feed.pipeline import TrainFeed, eval_batches, own_lanes
from instruct.data.stores.prepare import prepare
from instruct.data.stores.store import spec_key, store_path
from instruct.data.stores.writing import write_store
from instruct.errors import RunFailed, UserError
from instruct.prompts.record import Record
from instruct.prompts.template import Template
from tests.data.toy import TEMPLATES, ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


def children():
    return set(multiprocessing.active_children())


@pytest.fixture
def mixture():
    specs = [
        registry.add_task(
            toy_spec(ToySource(f"p{i}", words=9), modes={"zs_noopt": 3, "fs_noopt": 1})
        )
        for i in range(3)
    ]
    name = fresh_name("mix")
    registry.add_mixture(name, {spec.name: rate for spec, rate in zip(specs, (4, 2, 1))})
    config = toy_config(name)
    prepare(workspace(), registry.resolve(workspace(), name), config).check()
    return registry.resolve(workspace(), name)


def take(feed, count):
    return [next(feed) for _ in range(count)]


def equal(one, two):
    return len(one) == len(two) and all(
        a[0].keys() == b[0].keys() and (a[0][key] == b[0][key]).all() and a[1] == b[1]
        for a, b in zip(one, two)
        for key in a[0]
    )


@pytest.mark.parametrize(
    ("plan", "layout"),
    [
        ("low_discrepancy", "encoder_decoder"),
        ("iid", "encoder_decoder"),
        ("low_discrepancy", "decoder_only"),
    ],
)
def test_resume_is_exact_at_any_batch(mixture, plan, layout):
    config = toy_config(mixture.name, plan=plan, layout=layout)
    whole = TrainFeed(workspace(), config, mixture)
    states, batches = [], []
    for _ in range(40):  # several windows
        states.append(json.loads(json.dumps(whole.state())))
        batches += take(whole, 1)
    assert states[-1]["lanes"][0][1] >= 3  # windows
    for at in (0, 1, 7, 23, 39):
        resumed = TrainFeed(workspace(), config, mixture)
        resumed.restore([states[at]])
        assert equal(take(resumed, 40 - at), batches[at:])
        assert resumed.state() == whole.state()
        assert resumed.statistics() == whole.statistics()
    for rows, _ in batches:
        batch.LAYOUTS[layout].check(rows)


def test_layouts_have_the_same_examples_and_another_position(mixture):
    pairs = [TrainFeed(workspace(), toy_config(mixture.name), mixture)]
    pairs.append(TrainFeed(workspace(), toy_config(mixture.name, layout="decoder_only"), mixture))
    for feed in pairs:
        take(feed, 1)
    both, one = (feed.statistics() for feed in pairs)
    assert one["tokens"] == both["tokens"] + both["kept"]  # the start tokens
    assert {**one, "tokens": 0, "leaves": 0} == {**both, "tokens": 0, "leaves": 0}
    with pytest.raises(UserError, match="belongs to other data"):
        pairs[1].restore([pairs[0].state()])


def test_a_restored_feed_can_go_back(mixture):
    feed = TrainFeed(workspace(), toy_config(mixture.name), mixture)
    start = feed.state()
    first = take(feed, 5)
    feed.restore([start])
    assert equal(take(feed, 5), first)


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(mixture):
    config = toy_config(mixture.name, workers=2)
    apart = TrainFeed(workspace(), config, mixture)
    here = TrainFeed(workspace(), toy_config(mixture.name), mixture)
    assert equal(take(apart, 20), take(here, 20))
    assert apart.state() == here.state()
    apart.close()


def texts(batches):
    found = set()
    for rows, _ in batches:
        tokens, segments = rows[batch.ENCODER_INPUT_TOKENS], rows[batch.ENCODER_SEGMENT_IDS]
        for row, marks in zip(tokens, segments):
            found |= {tuple(row[marks == n].tolist()) for n in range(1, marks.max() + 1)}
    return found


def joined(batches):
    """The rows of several processes, one after another."""
    return {
        key: np.concatenate([rows[key] for rows, _ in batches])
        for key in batch.ENCODER_DECODER.keys
    }


def states_of(feeds):
    return json.loads(json.dumps([feed.state() for feed in feeds]))


def feeds_of(config, mixture, num_processes):
    rows = np.arange(config.batch_size).reshape(num_processes, -1).tolist()
    lanes = [own_lanes(config, dict(enumerate(rows)), number) for number in range(num_processes)]
    return [TrainFeed(workspace(), config, mixture, own) for own in lanes]


def test_number_of_processes_changes_nothing(mixture):
    """A run that goes on with 4, 2 and 1 processes reads what one process reads."""
    config = toy_config(mixture.name, batch_size=8, lanes=4)
    alone = TrainFeed(workspace(), config, mixture)
    wanted = [next(alone)[0] for _ in range(24)]
    statistics, states, batches = [], None, []
    for num_processes in (4, 2, 1, 2):
        feeds = feeds_of(config, mixture, num_processes)
        for feed in feeds:
            if states:
                feed.restore(states)
        for _ in range(6):
            parts = [next(feed) for feed in feeds]
            batches.append(joined(parts))
        states = states_of(feeds)
        statistics.append(feeds[0].statistics(states))
    assert all((one[key] == two[key]).all() for one, two in zip(batches, wanted) for key in one)
    assert statistics[-1] == alone.statistics()


def test_a_lane_reads_every_fourth_window(mixture):
    config = toy_config(mixture.name, batch_size=4, lanes=4)
    one_lane = TrainFeed(workspace(), toy_config(mixture.name, batch_size=4), mixture)
    first = next(one_lane)[0][batch.ENCODER_INPUT_TOKENS][0]
    rows, _ = next(TrainFeed(workspace(), config, mixture))
    assert (rows[batch.ENCODER_INPUT_TOKENS][0] == first).all()
    assert len({row.tobytes() for row in rows[batch.ENCODER_INPUT_TOKENS]}) == 4


def test_lanes_that_do_not_fit(mixture):
    with pytest.raises(UserError, match="LANES is 3, .* use one of 1, 2, 4"):
        toy_config(mixture.name, batch_size=4, lanes=3)
    config = toy_config(mixture.name, batch_size=8, lanes=2)
    with pytest.raises(UserError, match=r"LANES = 2 .* 4 processes.* --gin.LANES=4"):
        feeds_of(config, mixture, 4)
    feed = TrainFeed(workspace(), config, mixture)
    with pytest.raises(UserError, match=r"2 lanes, .* LANES = 4. Give --gin.LANES=2"):
        TrainFeed(workspace(), toy_config(mixture.name, batch_size=8, lanes=4), mixture).restore(
            [feed.state()]
        )


def test_processes_that_hold_the_same_rows_feed_the_same_lanes(mixture):
    """As in a mesh that splits heads over processes."""
    config = toy_config(mixture.name, batch_size=4, lanes=2)
    rows = {0: [0, 1], 1: [0, 1], 2: [2, 3], 3: [2, 3]}
    assert [own_lanes(config, rows, number) for number in rows] == [[0], [0], [1], [1]]


def test_a_state_written_before_lanes_is_read(mixture):
    config = toy_config(mixture.name, lanes=1)
    feed = TrainFeed(workspace(), config, mixture)
    take(feed, 9)
    state = feed.state()
    ((_, window, row, opened),) = state.pop("lanes")
    state |= {"format": 2, "host": 0, "num_hosts": state.pop("num_lanes")}
    state |= {"window": window, "row": row, "opened": bool(opened)}
    resumed = TrainFeed(workspace(), config, mixture)
    resumed.restore([state])
    assert equal(take(resumed, 9), take(feed, 9))
    assert resumed.statistics() == feed.statistics()


def test_statistics_are_what_was_asked_and_what_came(mixture):
    feed = TrainFeed(workspace(), toy_config(mixture.name), mixture)
    total = sum(info.num_examples for _, info in take(feed, 60))
    statistics = feed.statistics()
    assert statistics["kept"] >= total
    assert statistics["truncated"] > 0
    leaves = {leaf["name"]: leaf for leaf in statistics["leaves"]}
    assert sum(leaf["asked"] for leaf in leaves.values()) == pytest.approx(1)
    assert sum(leaf["realised"] for leaf in leaves.values()) == pytest.approx(1)
    for leaf in leaves.values():
        share = leaf["examples"] + leaf["dropped"]
        assert abs(share - leaf["asked"] * (statistics["kept"] + statistics["dropped"])) < 1.5
    assert statistics["dropped"] == sum(statistics["dropped_reasons"].values())
    json.dumps(statistics)


def test_batch_info_counts_this_batch(mixture):
    feed = TrainFeed(workspace(), toy_config(mixture.name), mixture)
    names = [leaf.name for leaf in mixture.leaves]
    for rows, info in take(feed, 15):
        segments, tasks = rows[batch.DECODER_SEGMENT_IDS], rows[batch.DECODER_TASK_IDS]
        found = {}
        for row in range(4):
            for number in range(1, segments[row].max() + 1):
                (task,) = set(tasks[row][segments[row] == number].tolist())
                found[names[task - 1]] = found.get(names[task - 1], 0) + 1
        assert info.task_counts == found
        assert info.num_examples == sum(found.values())


def test_other_data_or_settings_are_not_resumed(mixture):
    feed = TrainFeed(workspace(), toy_config(mixture.name), mixture)
    take(feed, 2)
    state = feed.state()
    for change in ({"seed": 1}, {"packing": "none"}, {"window_examples": 32}):
        with pytest.raises(UserError, match="belongs to other data"):
            TrainFeed(workspace(), toy_config(mixture.name, **change), mixture).restore([state])
    with pytest.raises(UserError, match="format 7"):
        feed.restore([state | {"format": 7}])
    other = registry.resolve(workspace(), mixture.leaves[0].task)
    with pytest.raises(UserError, match="belongs to other data"):
        TrainFeed(workspace(), toy_config(other.name), other).restore([state])


def test_other_wordings_or_exemplars_are_not_resumed():
    spec = registry.add_task(toy_spec(modes={"fs_noopt": 1.0}, exemplar_split="validation"))
    resolved, config = registry.resolve(workspace(), spec.name), toy_config(spec.name)
    prepare(workspace(), resolved, config).check()
    feed = TrainFeed(workspace(), config, resolved)
    take(feed, 2)
    state = feed.state()
    TrainFeed(workspace(), config, resolved).restore([state])
    other = dataclasses.replace(TEMPLATES, fs_noopt=(Template("shot", "{question} Say it."),))
    with pytest.raises(UserError, match="wordings"):
        TrainFeed(workspace(), config, worded(resolved, other)).restore([state])
    write_store(
        store_path(workspace(), spec_key(spec), "validation"),
        [Record("other", {"question": "1 + 1 = ?"}, "2")],
        task=spec.name,
        kind="records",
        version=spec.version,
        source_fingerprint="other",
    )
    with pytest.raises(UserError, match="belongs to other data"):
        TrainFeed(workspace(), config, resolved).restore([state])


def worded(resolved, templates):
    """The mixture with other templates."""
    leaves = [
        dataclasses.replace(leaf, spec=dataclasses.replace(leaf.spec, templates=templates))
        for leaf in resolved.leaves
    ]
    return dataclasses.replace(resolved, leaves=tuple(leaves))


def test_a_mixture_of_nothing_usable_ends_with_the_reason(mixture):
    config = toy_config(mixture.name, feature_lengths={"inputs": 5, "targets": 16})
    with pytest.raises(UserError, match=r"none of \d+ examples could be used; why: \{'"):
        next(TrainFeed(workspace(), config, mixture))


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_a_message(mixture):
    feed, others = TrainFeed(workspace(), toy_config(mixture.name, workers=1), mixture), children()
    next(feed)
    for child in children() - others:
        child.kill()
    with pytest.raises(RunFailed, match=r"exit code -9\)\. Did it run out of memory\? Lower Data"):
        while True:
            next(feed)
    feed.close()


def test_evaluation_batches_are_always_the_same(mixture):
    config = toy_config(mixture.name, batch_size=4)
    first = eval_batches(workspace(), config, mixture, num_examples=50)
    again = eval_batches(
        workspace(), toy_config(mixture.name, batch_size=4, seed=9), mixture, num_examples=50
    )
    assert len(first) == len(again) > 1
    for one, two in zip(first, again):
        batch.ENCODER_DECODER.check(one)
        assert all((one[key] == two[key]).all() for key in batch.ENCODER_DECODER.keys)
    assert first[-1][batch.DECODER_LOSS_WEIGHTS].shape == (4, 16)
    halves = [
        eval_batches(workspace(), config, mixture, num_examples=50, own_rows=own)
        for own in ([0, 1], [2, 3])
    ]
    for whole, one, two in zip(first, *halves):
        joined = np.concatenate([one[batch.ENCODER_INPUT_TOKENS], two[batch.ENCODER_INPUT_TOKENS]])
        assert (joined == whole[batch.ENCODER_INPUT_TOKENS]).all()


def test_evaluation_keeps_the_numbers_of_the_mixtures_leaves():
    none = registry.add_task(toy_spec(splits={"train": "train"}))
    both = registry.add_task(toy_spec())
    name = fresh_name("mix")
    registry.add_mixture(name, {none.name: 1, both.name: 1})
    config = toy_config(name)
    prepare(workspace(), registry.resolve(workspace(), name), config).check()
    (first, *_) = eval_batches(
        workspace(), config, registry.resolve(workspace(), name), num_examples=20
    )
    assert set(np.unique(first[batch.DECODER_TASK_IDS])) == {0, 2}


def test_a_state_of_an_older_version_lacks_a_count(mixture):
    feed = TrainFeed(workspace(), toy_config(mixture.name), mixture)
    take(feed, 2)
    state = feed.state()
    kept = feed.statistics()["kept"]
    del state["counts"]["exemplars_missing"]
    feed.restore([state])
    statistics = feed.statistics()
    assert (statistics["kept"], statistics["exemplars_missing"]) == (kept, 0)
