"""Files of wordings are read once, whoever asks."""

import pytest

from instruct.errors import UserError
from tasks.wordings import FOLDER, wordings


def test_one_file_or_several():
    together = wordings("dialog", "formatting")
    assert set(together) == {*wordings("dialog"), *wordings("formatting")}
    assert together["next_turn"] is wordings("dialog")["next_turn"]


def test_every_file_of_the_folder_is_one():
    assert all(wordings(path.stem) for path in FOLDER.glob("*.toml"))


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UserError, match="nowhere.toml"):
        wordings("nowhere")
