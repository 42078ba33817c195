"""Names and places: where they begin and end, and which they are."""

import pytest

from instruct.errors import UserError
from instruct.report.faithfulness.detector import load_detector
from instruct.report.faithfulness.names import places, word_keys


def found(text, context=""):
    mentions = load_detector().find(text, context)
    return [(m.kind, m.text) for m in mentions if m.counts and not m.text.startswith("#")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He met Dr. Ruth O'Brien.", [("name", "Dr. Ruth O'Brien")]),
        ("She asked Jean-Luc and Rosa.", [("name", "Jean-Luc"), ("name", "Rosa")]),
        ("They study at the University of Oxford.", [("name", "University of Oxford")]),
        ("He works for the Bank of the West now.", [("name", "Bank of the West")]),
        ("Park Avenue leads to Mount Tarn.", [("place", "Park Avenue"), ("place", "Mount Tarn")]),
        ("Laura's dog lives in Xanten.", [("name", "Laura"), ("place", "Xanten")]),
        ("We moved to New York from Spain.", [("place", "New York"), ("place", "Spain")]),
        ("A Spanish film was shown.", [("name", "Spanish")]),
        ("The U.S. and the UK agreed.", [("place", "U.S."), ("place", "UK")]),
        ("It runs on the LX200.", [("name", "LX200")]),
        ("I'm at IKEA. OK? My TV and CDs are there.", [("name", "IKEA"), ("name", "CDs")]),
        ("#Person1# met Ann.", [("name", "Ann")]),
        ("WE ALL LOVE PIZZA AND PARIS", [("place", "PARIS")]),
    ],
)  # fmt: skip
def test_spans_and_kinds(text, expected):
    assert found(text) == expected


def test_the_first_word_of_a_sentence_is_judged_by_what_else_is_known():
    assert found("Wobblers came.") == []
    assert found("Brexley came.") == [("name", "Brexley")]
    assert found("Brexley came.", "the old brexley in the yard") == []
    assert found("Weaving came. I saw Weaving.") == [("name", "Weaving"), ("name", "Weaving")]


def test_a_word_after_in_is_a_place_everywhere():
    assert found("Brexley is far.", "She lives in Brexley.") == [("place", "Brexley")]
    assert {"spain", "new york", "paris"} <= places() and "laura" not in places()


def test_words_for_one_place_share_a_key():
    for one, other in (("spanish", "spain"), ("dutch", "netherlands"), ("u.s.", "america")):
        assert word_keys(one) & word_keys(other)
    assert not word_keys("laura") & word_keys("spain")


def test_a_missing_spacy_or_pipeline_is_an_error_that_says_how_to_install_it():
    with pytest.raises(UserError, match=r"pip install|spacy download"):
        load_detector("spacy:no_such_pipeline")
