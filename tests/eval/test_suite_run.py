"""What a suite needs of its tasks; the whole of it is in test_runner.py."""

import pytest

from instruct.data import registry
from instruct.errors import UserError
from instruct.eval.suite_run import split_of
from tests.eval import toy_tasks


def test_the_first_split_that_a_task_has():
    toy_tasks.register()
    (leaf,) = registry.resolve("evalsuite.new").leaves
    assert split_of(leaf, ("validation", "test", "train")) == "test"
    assert split_of(leaf, ("train", "test")) == "train"
    with pytest.raises(UserError, match="none of the splits validation; it has train, test"):
        split_of(leaf, ("validation",))
