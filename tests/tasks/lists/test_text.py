"""Text about lists that small models are pretrained on."""

import itertools
import random

from instruct.data.registry import resolve
from tasks import splits
from tasks.lists.kinds import KINDS
from tasks.lists.text import FOLDER, TEXTS, ListTextSource, text_about
from tests.tasks.lists.test_operations import check_steps
from tests.workspaces import workspace


def test_statements_are_true():
    for seed in range(50):
        text = text_about(random.Random(seed), KINDS["animals"])
        first, _, rest = text.removeprefix("Items: ").partition(" 1 ")
        steps, _, last = rest.rpartition(" List: ")
        check_steps("1 " + steps, first.removesuffix(".").split(", "))
        assert f"{last}." == first


def test_texts_are_the_same_each_time_and_ask_nothing():
    records = [ListTextSource().records(workspace(), "train") for _ in range(2)]
    texts = [[record.answer for record in itertools.islice(some, 50)] for some in records]
    assert texts[0] == texts[1] and len(set(texts[0])) == 50
    assert not any("?" in text for text in texts[0])
    assert len(list(ListTextSource().records(workspace(), "test"))) == TEXTS["test"]


def test_the_users_text_is_mixed_in_where_there_is_any(tmp_path):
    def tasks(found):
        return {leaf.task for leaf in resolve(found, "lists.pretraining").leaves}

    empty = workspace(data_dir=tmp_path)
    assert tasks(empty) == {"lists.text"} and splits.leaks(empty, "lists.pretraining") == []
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "notes.txt").write_text("A text of one's own.\n" * 20)
    assert tasks(empty) == {"lists.text", "lists.users_text"}
