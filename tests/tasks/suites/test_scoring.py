"""Metrics agree with the filters and packages that published numbers come from."""

import re

import numpy as np
import pytest
from rouge_score import rouge_scorer

from tasks.suites import grade_school, scoring
from tasks.suites.reading import Answer

REPLIES = (
    "There are 3 cars. 3 + 2 = 5. The answer is 5.",
    "The answer is $1,200.",
    "The answer is 18",  # the published filter wants a sign behind the number
    "So it must be 72",
    "12 and -3.5, no more",
    "none at all",
    "The answer is 7. The answer is 8.",
    "",
)
GOLD = ("5", "1,200", "18", "72", "-3.5", "0", "7", "1")


def _exact_match(text: str, gold: str) -> bool:
    """exact_match of the harness with GSM8K's settings, written out anew from its definition."""
    for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"):
        text, gold = re.sub(pattern, "", text), re.sub(pattern, "", gold)
    return text.lower() == gold.lower()


def _strict(text: str) -> str:
    found = re.findall(r"The answer is (\-?[0-9\.\,]+).", text)
    return found[0].strip() if found else "[invalid]"


def _flexible(text: str) -> str:
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)
    return next(filter(None, found[-1])).strip() if found else "[invalid]"


def test_gsm8k_filters():
    metric = scoring.number_filters("The answer is ", ending=".")
    targets = [Answer("read", gold) for gold in GOLD]
    predictions = [Answer("", reply) for reply in REPLIES]
    found = metric(targets, predictions)
    strict = [_exact_match(_strict(r), g) for r, g in zip(REPLIES, GOLD)]
    flexible = [_exact_match(_flexible(r), g) for r, g in zip(REPLIES, GOLD)]
    assert strict == [True, False, False, False, False, False, True, False]
    assert flexible == [True, True, True, True, True, False, False, False]
    assert found["strict_match"] == pytest.approx(100 * np.mean(strict), abs=1e-9)
    assert found["flexible_extract"] == pytest.approx(100 * np.mean(flexible), abs=1e-9)


def test_number_filters_of_other_languages():
    rows = {row.code: row for row in grade_school.LANGUAGES}
    replies = {
        "de": ("Die Antwort lautet 9.", "Die Antwort ist 9."),
        "ja": ("答えは9です。", "答えは9個です。"),
        "zh": ("答案是 9。", "答案是 9"),
        "th": ("คำตอบคือ 9", "The answer is 9"),
    }
    for code, (right, wrong) in replies.items():
        metric = scoring.number_filters(rows[code].filter_phrase, rows[code].closing)
        assert metric(["9", "9"], [right, wrong])["strict_match"] == 50.0, code


def test_bbh_filter():
    replies = ("So the answer is (B).", "the answer is (B) then.", "So the answer is (B)", "(B)")
    found = scoring.strict_bbh(["(B)"] * 4, list(replies))
    reference = [re.findall(r"(?<=the answer is )(.*)(?=.)", reply) for reply in replies]
    assert reference == [["(B)"], ["(B) then"], ["(B"], []]
    assert found == {"strict_match": 25.0}


def test_mmlu_filter():
    replies = ("The answer is (B).", "So the answer is B.", "The answer: (B).", "answer is (C).")
    assert scoring.strict_mmlu(["B"] * 4, list(replies)) == {"strict_match": 50.0}


def test_rouge_of_several_references():
    references = [["the cat sat on the mat", "a cat is on a mat", "cats"], ["good day"]]
    predictions = ["the cat is on the mat", "good morning"]
    found = scoring.rouge_references(references, predictions)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    for kind in ("rouge1", "rougeL"):
        by_item = [
            [scorer.score(reference, prediction)[kind].fmeasure * 100 for reference in listed]
            for listed, prediction in zip(references, predictions)
        ]
        ways = {"": max, "_mean": np.mean, "_first": lambda values: values[0]}
        for suffix, way in ways.items():
            expected = np.mean([way(values) for values in by_item])
            assert found[f"{kind}{suffix}"] == pytest.approx(expected, abs=1e-9)
    assert len(found) == 12
    perfect = scoring.rouge_references(references, [listed[0] for listed in references])
    assert perfect["rouge2"] == perfect["rougeLsum_first"] == 100.0


@pytest.mark.parametrize(
    "metric",
    [
        scoring.strict_bbh,
        scoring.strict_mmlu,
        scoring.rouge_references,
        scoring.number_filters("x "),
    ],
)
def test_nothing_scores_nothing(metric):
    assert set(metric([], []).values()) == {0.0}
