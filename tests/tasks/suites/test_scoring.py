"""Metrics agree with the filters and packages that published numbers come from."""

import pickle
import re

import numpy as np
import pytest
from rouge_score import rouge_scorer

from instruct.data.registry import find_spec, scored_task
from tasks.suites import grade_school, scoring
from tasks.suites import mixtures as _register  # noqa: F401
from tasks.suites.reading import Answer
from tests.workspaces import workspace

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


def asked(text: str, question: str = "", options: tuple[str, ...] = (), reasoned=True) -> Answer:
    """A target that knows what was asked."""
    answer = Answer(text, text, reasoned)
    answer.question, answer.options = question, options
    return answer


NEXT = ".\n\nQ: 1+1?\nA: The answer is 2."


def test_replies_end_where_the_harness_stops_them():
    gsm8k = scoring.number_filters("The answer is ", ".", scoring.QUESTION_STOPS)
    both = {"strict_match": 100.0, "flexible_extract": 100.0}
    for more in (NEXT, ".</s> 2", ".<|im_end|>2", ". Q: 2"):
        assert gsm8k(["18"], [f"The answer is 18{more}"]) == both, more
    assert gsm8k(["18"], [".\nQuestion: 1+1?\nThe answer is 18."])["flexible_extract"] == 100.0
    german = find_spec(workspace(), "mgsm.de").metric_fns[1]
    assert german(["18"], ["Die Antwort lautet 18.\nFrage: 1+1?\nDie Antwort lautet 2."]) == both
    french = find_spec(workspace(), "mgsm.fr").metric_fns[
        1
    ]  # its stop string has a blank before the colon
    reply = "La réponse est 18.\nQuestion{}: 1+1?\nLa réponse est 2."
    assert french(["18"], [reply.format(" ")]) == both
    assert french(["18"], [reply.format("")]) == {"strict_match": 100.0, "flexible_extract": 0.0}
    # BBH with exemplars stops at any Q, MMLU with exemplars at no question.
    assert scoring.strict_bbh(["(B)"], ["Quite so: the answer is (B)."]) == {"strict_match": 0.0}
    assert scoring.strict_bbh(["(B)"], [f"the answer is (B){NEXT}"]) == {"strict_match": 100.0}
    for filter_of_mmlu, right in (("cot", 100.0), ("zs_cot", 0.0)):
        metric = scoring.HARNESS_MMLU[filter_of_mmlu]
        assert metric(["B"], ["Q: The answer is (B)."])["strict_match"] == right


def test_mgsm_compares_without_punctuation():
    """As published: "1.200" and "-1,200" are 1200, and "3.5" is 35."""
    metric = find_spec(workspace(), "mgsm.de").metric_fns[1]
    for written, gold in (("1.200", "1200"), ("-1,200", "1200"), ("3.5", "35")):
        assert metric([gold], [f"Die Antwort lautet {written}."])["strict_match"] == 100.0
    assert grade_school.LANGUAGES[0].filter_phrase == "The answer is "  # in Bengali too


SHOWN = "Which?\nOptions:\n(A) One cat\n(B) One cat's dog"


@pytest.mark.parametrize(
    ("sub_task", "mode", "reply", "gold", "strict", "flexible"),
    [
        ("navigate", "zs_direct", "no.", "No", 100.0, 100.0),
        ("navigate", "zs_direct", "Yes, or No", "Yes", 0.0, 100.0),  # the first one counts
        ("navigate", "zs_cot", "Yes? The answer is no.", "No", 100.0, 100.0),  # the last one
        ("navigate", "zs_cot", "So the answer is No.\nQ: The answer is Yes.", "No", 100.0, 100.0),
        ("boolean_expressions", "zs_cot", "It is True", "True", 0.0, 100.0),
        ("formal_fallacies", "zs_direct", "It is invalid.", "invalid", 0.0, 100.0),
        ("dyck_languages", "zs_direct", "] )", "] )", 100.0, 100.0),
        ("sports_understanding", "zs_direct", "Not plausible.", "no", 0.0, 100.0),
        ("web_of_lies", "zs_cot", "She tells the truth.", "Yes", 0.0, 100.0),
        ("object_counting", "zs_direct", "twelve apples", "12", 0.0, 100.0),
        ("object_counting", "zs_cot", "Two and 3, so 5", "5", 0.0, 100.0),
        ("multistep_arithmetic_two", "zs_direct", "-24", "-24", 100.0, 100.0),
        ("word_sorting", "zs_cot", "bee, ant. Sorted: ant bee", "ant bee", 0.0, 100.0),
        ("snarks", "zs_direct", "(B)", "(B)", 100.0, 100.0),
        ("snarks", "zs_direct", "I say one cats dog!", "(B)", 0.0, 100.0),  # the longer text
        ("snarks", "zs_cot", "The answer: B.", "(B)", 0.0, 100.0),  # a letter behind a colon
        ("snarks", "zs_cot", "I cannot say.", "(B)", 0.0, 0.0),
    ],
)
def test_bbh_without_exemplars(sub_task, mode, reply, gold, strict, flexible):
    question = "Sort. List: bee ant" if sub_task == "word_sorting" else SHOWN
    metric = scoring.harness_bbh(sub_task)[mode]
    found = metric([asked(gold, question, reasoned=mode == "zs_cot")], [reply])
    assert found == {"strict_match": strict, "flexible_extract": flexible}


def test_mmlu_without_exemplars():
    target = asked("B", options=("One", "One and two", "three", "four"))
    metric = scoring.HARNESS_MMLU["zs_cot"]
    for reply, found in (
        ("The answer is (B).", (100.0, 100.0)),
        ("(A) or (B)?", (0.0, 100.0)),
        ("One and two it is", (0.0, 100.0)),
        ("The final answer: B.", (100.0, 100.0)),
        ("It is A", (0.0, 0.0)),
    ):
        assert tuple(metric([target], [reply]).values()) == found, reply


def test_direct_replies_in_the_harness():
    metric = scoring.harness_bbh("snarks")["direct"]
    assert metric(["(B)"] * 5, ["(B)\n\nQ: more", "(B).", "B", "(b)", ""]) == {"unfiltered": 20.0}
    metric = scoring.HARNESS_MMLU["direct"]
    assert metric(["B"] * 4, [" (b).\nC", "B.", "B it is", ""]) == {"get_response": 50.0}
    # GSM8K's prompt without reasoning holds the phrase that the strict filter wants.
    metric = find_spec(workspace(), "gsm8k_test.gsm8k").metric_fns[1]
    assert metric([asked("18", reasoned=False)], ["18"]) == {"flexible_extract": 100.0}


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("nine", "9"),
        ("forty two", "42"),
        ("one hundred and five", "105"),
        ("two thousand and forty", "2040"),
        ("three million one hundred thousand twelve", "3100012"),
        ("zero", "0"),
        ("two thousand thousand", ""),
        ("thousand two", ""),
        ("and", ""),
    ],
)
def test_numbers_in_words(words, number):
    assert scoring.spelled_number(words) == number


@pytest.mark.parametrize("name", ["mmlu.astronomy", "bbh.snarks", "bbh.word_sorting"])
def test_every_mode_is_judged_by_its_own_task_of_the_harness(name):
    spec = find_spec(workspace(), name)
    assert set(spec.mode_metric_fns) == set(spec.all_modes)
    for mode in spec.all_modes:
        task = scored_task(workspace(), spec.leaf_name(mode))
        assert list(task.predict_metric_fns) == list(spec.metric_fns_of(mode))
        assert pickle.loads(pickle.dumps(spec.metric_fns_of(mode)[1]))([], []) is not None
