"""Users' own seqio mixtures: public rates, as they are or without some of their tasks."""

import functools

import pytest
import seqio

from instruct.data import registry
from instruct.data.seqio.mixtures import UNKNOWN_RECORDS, plain_num_records, plain_shares
from instruct.data.stores.prepare import prepare
from instruct.errors import UserError
from tests.data.seqio.test_reading import make_task
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


def add_task(records=None):
    name = fresh_name("plain")
    known = None if records is None else {"train": records}
    source = seqio.FunctionDataSource(lambda split, shuffle_files: None, ["train"], known)
    features = {"inputs": seqio.Feature(seqio.ByteVocabulary())}
    seqio.TaskRegistry.add(name, source=source, output_features=features, preprocessors=[])
    return name


def add_mixture(rates):
    name = fresh_name("mix")
    return seqio.MixtureRegistry.add(name, list(rates.items()))


def nothing(name):
    return False


def test_shares_of_the_rest_keep_their_proportions():
    one, two, three = (add_task() for _ in range(3))
    mixture = add_mixture({one: 1.0, two: 3.0, three: 4.0})
    assert plain_shares(workspace(), mixture, nothing, set()) == {
        one: 1 / 8,
        two: 3 / 8,
        three: 1 / 2,
    }
    assert plain_shares(workspace(), mixture, {three}.__contains__, set()) == {
        one: 1 / 4,
        two: 3 / 4,
    }
    assert plain_shares(workspace(), mixture, lambda name: True, set()) == {}


def test_records_of_the_rest_count():
    known, unknown = add_task(25), add_task()
    mixture = add_mixture({known: 1.0, unknown: 1.0}).name
    assert plain_num_records(workspace(), known, "train", nothing) == 25
    assert plain_num_records(workspace(), mixture, "train", nothing) == 25 + UNKNOWN_RECORDS
    assert plain_num_records(workspace(), mixture, "train", {unknown}.__contains__) == 25
    assert plain_num_records(workspace(), mixture, "test", nothing) == 0


@pytest.mark.parametrize(
    "rates, message",
    [((0.0,), "rates above 0"), ((lambda task: 1 + None,), "cannot compute")],
)
def test_rates_that_are_none(rates, message):
    mixture = add_mixture({add_task(): rate for rate in rates})
    with pytest.raises(UserError, match=message):
        plain_shares(workspace(), mixture, nothing, set())


@pytest.mark.slow
def test_sizes_are_those_of_the_stores(tmp_path, caplog):
    """SeqIO's examples-proportional rates and sizes know what was built, in any process."""
    few, many = make_task(tmp_path, num_lines=10), make_task(tmp_path, num_lines=30)
    name = fresh_name("mix")
    rate = functools.partial(seqio.mixing_rate_num_examples, maximum=20)
    mixture = seqio.MixtureRegistry.add(name, [few.name, many.name], default_rate=rate)
    outer = add_mixture({name: 1.0})
    before = registry.resolve(workspace(), name)
    assert [leaf.rate for leaf in before.leaves] == [0.5, 0.5]
    assert before.unprepared == (few.name, many.name)
    said = f"not known yet for {few.name}, {many.name}. Each counts as 1,000"
    assert caplog.text.count(said) == 1
    assert few.num_input_examples("train") is None

    prepare(workspace(), before, toy_config(name)).check()
    after = registry.resolve(workspace(), name)
    assert [leaf.rate for leaf in after.leaves] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert [leaf.records for leaf in after.leaves] == [10, 30] and not after.unprepared
    assert mixture.num_input_examples("train") == 40
    assert mixture.num_input_examples("validation") == 40
    assert plain_shares(workspace(), outer, nothing, set()) == {
        leaf.name: leaf.rate for leaf in after.leaves
    }
    assert plain_num_records(workspace(), name, "train", nothing) == 40


def test_our_tasks_in_a_users_mixture_have_the_sizes_of_their_stores():
    small, large = (toy_spec(ToySource(tag, size=size)) for tag, size in (("s", 10), ("l", 30)))
    leaves = [registry.add_task(spec).leaf_name("zs_noopt") for spec in (small, large)]
    name = fresh_name("mix")
    mixture = seqio.MixtureRegistry.add(name, leaves, default_rate=seqio.mixing_rate_num_examples)
    assert [leaf.rate for leaf in registry.resolve(workspace(), name).leaves] == [0.5, 0.5]
    prepare(workspace(), registry.resolve(workspace(), name), toy_config(name)).check()
    assert [leaf.rate for leaf in registry.resolve(workspace(), name).leaves] == [0.25, 0.75]
    assert mixture.num_input_examples("train") == 40
