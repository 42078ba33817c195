"""Records come from the store, else from the source."""

import pytest

from instruct.data import registry
from instruct.data.feed.records import exemplar_records, known_num_records, numbered_records
from instruct.data.stores.prepare import prepare
from instruct.errors import UserError
from tests.data.toy import ToySource, toy_config, toy_spec
from tests.workspaces import workspace


def test_store_and_source_hold_the_same_records():
    spec = registry.add_task(toy_spec(ToySource("s", size=12, drop_every=5)))
    before = list(numbered_records(workspace(), spec, "train", False, 0))
    assert known_num_records(workspace(), spec, "train") is None
    pool = exemplar_records(workspace(), spec, "train")
    prepare(workspace(), registry.resolve(workspace(), spec.name), toy_config(spec.name)).check()
    assert list(numbered_records(workspace(), spec, "train", False, 0)) == before
    assert known_num_records(workspace(), spec, "train") == len(before) == len(pool) == 9
    assert exemplar_records(workspace(), spec, "train").read([3, 0]) == pool.read([3, 0])


def test_shares_of_a_shuffled_store_add_up():
    spec = registry.add_task(toy_spec(ToySource("s", size=12)))
    prepare(workspace(), registry.resolve(workspace(), spec.name), toy_config(spec.name)).check()
    whole = list(numbered_records(workspace(), spec, "train", True, 5))
    assert sorted(number for number, _ in whole) == list(range(12)) != [n for n, _ in whole]
    parts = [
        list(numbered_records(workspace(), spec, "train", True, 5, (index, 3)))
        for index in range(3)
    ]
    assert parts == [whole[index::3] for index in range(3)]


def test_a_source_that_is_not_there():
    spec = registry.add_task(toy_spec(ToySource("s", missing="get it from example.org")))
    with pytest.raises(UserError, match="no prepared store.*example.org"):
        next(numbered_records(workspace(), spec, "train", False, 0))
