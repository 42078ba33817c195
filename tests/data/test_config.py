"""The settings of the feed check themselves."""

import pytest

from instruct.errors import UserError
from tests.data.toy import toy_config


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"feature_lengths": {"inputs": 8}}, "'targets'"),
        ({"feature_lengths": {"inputs": 8, "targets": 1}}, "at least 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"window_examples": 0}, "window_examples"),
        ({"workers": -1}, "workers is -1"),
        ({"packing": "best"}, "Did you mean 'best_fit'"),
        ({"feed": "tfds"}, "Allowed: records, seqio"),
        ({"plan": "random"}, "Allowed: iid, low_discrepancy"),
    ],
)
def test_wrong_settings_are_one_clear_message(changes, part):
    with pytest.raises(UserError, match=part):
        toy_config("any", **changes)


def test_identity_holds_what_changes_batches():
    plain = toy_config("any")
    assert plain.identity() == toy_config("any", workers=3, prefetch_windows=9).identity()
    for change in ({"seed": 1}, {"batch_size": 8}, {"packing": "none"}, {"plan": "iid"}):
        assert toy_config("any", **change).identity() != plain.identity()
