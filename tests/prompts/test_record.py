import json

import pytest

from instruct.prompts.record import Record

FULL = Record(
    "q1",
    {"question": "größer {als}?", "context": ""},
    "ja",
    ("ja", "nein"),
    0,
    ("ja", "Ja"),
    "Weil.",
    {"entry": {"numbers": [1, 2]}},
)


def test_json_and_back():
    assert Record.from_json(FULL.to_json()) == FULL
    assert Record.from_json(FULL.to_json().encode()) == FULL
    assert "\n" not in FULL.to_json() and "größer" in FULL.to_json()


def test_equal_records_give_equal_bytes():
    swapped = Record(
        **{
            **json.loads(FULL.to_json()),
            "options": FULL.options,
            "references": FULL.references,
            "fields": {"context": "", "question": "größer {als}?"},
        }
    )
    assert swapped == FULL and swapped.to_json() == FULL.to_json()


def test_empty_answers_and_bad_indices_are_refused():
    with pytest.raises(ValueError, match="'x': the answer is empty"):
        Record("x", {}, " \n")
    for index in (-1, 2):
        with pytest.raises(ValueError, match=f"answer_index {index} is outside the 2 options"):
            Record("x", {}, "a", ("a", "b"), index)
