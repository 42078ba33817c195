"""Task specs check themselves."""

import pytest

from instruct.data.spec import Leaf, Resolved
from instruct.errors import UserError
from tests.data.toy import toy_spec


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"modes": {}}, "no prompt mode"),
        ({"modes": {"zs_nopt": 1.0}}, "Did you mean 'zs_noopt'"),
        ({"modes": {"zs_noopt": 0.0}}, "must be above 0"),
        ({"cap": 0}, "cap is 0"),
    ],
)
def test_bad_specs_are_refused(changes, part):
    with pytest.raises(UserError, match=part):
        toy_spec(**changes)


def test_leaf_names():
    assert toy_spec(name="toy.sums").leaf_name("fs_opt") == "toy.sums.fs_opt"


def test_counts_of_a_mixture():
    leaves = [
        Leaf(f"t{i}.m{j}", 0.25, f"t{i}", f"m{j}", "t", f"{i}", f"c{i % 2}", "1", count, (), None)
        for i, j, count in ((0, 0, 5), (0, 1, 5), (1, 0, None), (2, 0, 7))
    ]
    resolved = Resolved("mix", "train", tuple(leaves))
    assert (resolved.num_tasks, resolved.num_datasets, resolved.num_categories) == (3, 3, 2)
    assert resolved.unprepared == ("t1.m0",)
    assert resolved.leaf("t2.m0") is leaves[3]
    with pytest.raises(UserError, match="Did you mean"):
        resolved.leaf("t2.m1")
