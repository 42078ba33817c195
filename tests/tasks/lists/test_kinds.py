"""The items of the lists family."""

import pytest

from tasks.lists.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_twenty_different_items_that_a_list_can_show(kind):
    items = KINDS[kind]
    assert len(set(items)) == len(items) >= 20
    assert not [item for item in items if "," in item or " " in item]
