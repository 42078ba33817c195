"""Counts, changes, errors and p-values in words."""

import math

import pytest

from instruct.report import wording


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks"), (1200, "1,200 tasks")]
)
def test_counts_agree_with_their_noun(count, text):
    assert wording.counted(count, "task") == text
    assert wording.all_of(count, "task") == (f"All {text}" if count > 1 else text)
    assert wording.counted(count, "entry is", "entries are").endswith(
        "y is" if count == 1 else "s are"
    )


@pytest.mark.parametrize(
    ("p", "text", "sentence"),
    [
        (0.0, "< 0.001", "p < 0.001"),
        (0.00099, "< 0.001", "p < 0.001"),
        (0.03, "0.030", "p = 0.030"),
        (0.5, "0.50", "p = 0.50"),
    ],
)
def test_no_p_value_is_zero(p, text, sentence):
    assert wording.probability(p) == text and wording.p_equals(p) == sentence


def test_changes_and_errors():
    assert [wording.signed(v) for v in (0.04, -0.04, -0.06, 3.0)] == [
        "+0.0",
        "+0.0",
        "-0.1",
        "+3.0",
    ]
    errors = [None, math.nan, math.inf, 0.0, 1e-17, 0.02, 1.26]
    assert [wording.plus_minus(e) for e in errors] == [*[""] * 5, " ± < 0.1", " ± 1.3"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.inf, "–"),
        (76_961_152, "77.0M"),
        (11_135_332_352, "11.1B"),
        (2e12, "2.0T"),
        (12_345, "12.3k"),
        (1_991, "1,991"),
        (0.0312, "0.0312"),
        (1234.5, "1,234"),
        (999_970, "1.0M"),  # not 1000.0k
    ],
)
def test_compact(value, text):
    assert wording.compact(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((9, "9"), (1836, "1.84k"), (77e6, "77M"), (2.85e9, "2.85B"), (5.4e11, "540B")),
        *((2e12, "2T"), (999_885_952, "1B"), (999_499_999, "999M"), (999_900, "1M")),
    ],
)
def test_magnitudes(value, text):
    assert wording.magnitude(value) == text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [(None, None, "–"), (1.25, None, "1.2"), (float("nan"), 1.0, "–"), (1.0, float("inf"), "1.0")],
)
def test_with_error(value, stderr, text):
    assert wording.with_error(value, stderr) == text
