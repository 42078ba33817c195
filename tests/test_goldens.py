"""Golden files are what the code writes today, and every one of them is compared."""

import difflib

import pytest

from tests.update_goldens import FOLDER, golden_files, make_goldens


@pytest.fixture(scope="module")
def texts():
    return make_goldens()


def test_no_golden_file_is_unread_and_none_is_missing(texts):
    assert golden_files() == set(texts)


def test_goldens_are_up_to_date(texts):
    for name in sorted(golden_files() & texts.keys()):
        lines = (FOLDER / name).read_text(encoding="utf-8").splitlines(), texts[name].splitlines()
        difference = list(difflib.unified_diff(*lines, "committed", "now", lineterm="", n=2))
        assert not difference, f"{name} (python -m tests.update_goldens):\n" + "\n".join(difference)
