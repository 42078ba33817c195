"""Metrics against values worked out by hand, and ROUGE against its package."""

import decimal
import warnings

import pytest

from instruct.eval import metrics
from instruct.prompts.options import match_option
from tests.sentences import NOT_ASCII, SENTENCES


def test_exact_match_takes_any_reference():
    values = metrics.exact_match(["a", ["b", "c"], "d", "e"], [" a\n", "c", "D", ""])
    assert values == {"exact_match": 50.0}
    assert metrics.exact_match([], []) == {"exact_match": 0.0}


@pytest.mark.parametrize(
    ("target", "written"),
    [
        ("\u0e04\u0e33", "\u0e04\u0e4d\u0e32"),  # Thai, as SentencePiece's NFKC takes it apart
        ("5\u00a0km\u00b2", "5 km2"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u00bd", "1\u20442"),
        ("one\n  two", "one two"),
    ],
)
def test_what_t5s_vocabularies_write_of_a_target_is_right(target, written):
    assert metrics.exact_match([target], [written]) == {"exact_match": 100.0}
    assert metrics.exact_match([["other", target]], [written]) == {"exact_match": 100.0}
    assert metrics.accuracy([target, "no"], [written, "no"]) == {"accuracy": 100.0}
    values = metrics.class_f1([target, "no"], [written, "no"])
    assert values == {"macro_f1": 100.0, f"f1 {target}": 100.0, "f1 no": 100.0}
    assert match_option(written, ["no", target]) == 1


def test_forms_that_no_vocabulary_makes_of_a_target_are_wrong():
    assert metrics.exact_match(["a b", "one two", "no"], ["a  b", "one\ntwo", "No"]) == {
        "exact_match": 0.0
    }
    assert metrics.accuracy([1, "1"], ["1", 1]) == {"accuracy": 0.0}
    assert match_option("x2", ["x\u00b2", "x2"]) == 1  # an option's own form comes first
    assert match_option("\uff08\uff22\uff09", ["iron", "tin"], ["(A)", "(B)"]) == 1


def test_accuracy_compares_labels():
    assert metrics.accuracy([1, 0, 2, 2], [1, 1, 2, -1]) == {"accuracy": 50.0}


def test_class_f1_counts_by_class():
    targets, predictions = ["a", "a", "b", "b", "c"], ["a", "b", "b", "b", "none"]
    values = metrics.class_f1(targets, predictions)
    # a: 1 right of 2 asked and 1 given; b: 2 of 2 and 3; c: never given.
    assert values["f1 a"] == pytest.approx(100 * 2 / 3)
    assert values["f1 b"] == pytest.approx(100 * 4 / 5)
    assert values["f1 c"] == 0.0
    assert values["macro_f1"] == pytest.approx(100 * (2 / 3 + 4 / 5 + 0) / 3)
    assert metrics.class_f1([], []) == {"macro_f1": 0.0}


def test_squad_normalises():
    values = metrics.squad(
        ["The Eiffel Tower!", ["Paris", "the city of Paris"], "four", "no"],
        ["eiffel tower", "city of Paris, France", "", "no"],
    )
    # F1 of "city of paris" (3 words) and "city of paris france" (4): 2 * 3 / 7.
    assert values["em"] == 50.0
    assert values["f1"] == pytest.approx(100 * (1 + 6 / 7 + 0 + 1) / 4)


def test_token_f1_counts_repeated_words():
    assert metrics.token_f1("b b c", "b b b") == pytest.approx(2 / 3)
    assert metrics.token_f1("the", "a") == metrics.token_f1("", "") == 0.0


def test_rouge_takes_the_best_reference_for_each_kind():
    one = metrics.rouge(["cats sat\non mats"], ["cats sat on a mat"])
    assert one["rouge1"] == pytest.approx(100 * 8 / 9)  # 4 shared stems of 4 and 5 words
    assert one["rouge2"] == pytest.approx(100 * 4 / 7)  # "cat sat", "sat on" of 3 and 4 pairs
    two = metrics.rouge([["nothing shared", "cats sat\non mats"]], ["cats sat on a mat"])
    assert two == one
    plain = metrics.rouge(["cats sat"], ["cat sat"], use_stemmer=False)
    assert plain["rouge1"] == pytest.approx(50.0)
    assert metrics.rouge([], []) == dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), 0.0)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("12 apples for $1,234.50 and -3", ["12", "1234.50", "-3"]),
        ("5-3=2, x7, \u22124", ["5", "3", "2", "-4"]),
        ("no number", []),
        ("It is 72.", ["72"]),
        (".5 of 1,23", [".5", "1", "23"]),
        ("1,20,000 and 12,34,567", ["120000", "1234567"]),
        ("1,2345 and 1,234,5", ["1", "2345", "1234", "5"]),
        ("合計３３個、－１，２００．５円", ["33", "-1200.5"]),
        ("約11個 是-5 คำตอบคือ๑๒", ["11", "-5", "12"]),
        ("১২টি, ౧౨", ["12", "12"]),
    ],
)
def test_numbers_in(text, numbers):
    assert metrics.numbers_in(text) == [decimal.Decimal(n) for n in numbers]


@pytest.mark.parametrize(
    ("text", "answer", "number"),
    [
        ("3 + 4 = 7. So the answer is 7.", "7", "7"),
        ("Half of 10 is 5.\n#### 5", "5", "5"),
        ("The answer is yes", "yes", None),
        ("first 3 then 8", "first 3 then 8", "8"),
        ("Answer: 12 (of 40)", "12 (of 40)", "12"),
    ],
)
def test_final_answer_and_number(text, answer, number):
    assert metrics.final_answer(text) == answer
    assert metrics.final_number(text) == (decimal.Decimal(number) if number else None)


def test_number_match_compares_numbers():
    targets = ["#### 7", "1,000", "8", "yes", ["3", "4"]]
    predictions = ["so the answer is 7.0", "1000", "", "the answer is yes", "4"]
    assert metrics.number_match(targets, predictions) == {"number_match": 80.0}


def test_option_match():
    target = {"options": ["yes", "no"], "markers": ["(A)", "(B)"], "answer_index": 1}
    plain = {"options": ["yes", "no"], "answer_index": 0}
    values = metrics.option_match([target, target, target, plain], ["(B)", "yes", "b.", "Yes"])
    assert values == {"option_match": 75.0}


def test_log_likelihood_is_a_plain_mean():
    assert metrics.log_likelihood(["a", "b"], [-1.0, -2.0]) == {"log_likelihood": -1.5}


@pytest.mark.parametrize("language", SENTENCES)
def test_metrics_of_texts_know_every_script(language):
    one, other = SENTENCES[language]
    same = metrics.rouge([one], [one], tokenizer=metrics.UNICODE_TOKENIZER)
    assert same["rouge1"] == same["rougeL"] == same["rougeLsum"] == 100.0
    assert metrics.rouge([one], [other], tokenizer=metrics.UNICODE_TOKENIZER)["rougeL"] < 35
    assert metrics.squad([one], [one]) == {"em": 100.0, "f1": 100.0}
    assert metrics.squad([one], [other]) == {"em": 0.0, "f1": 0.0}
    assert metrics.exact_match([one], [one]) == {"exact_match": 100.0}


def test_tokens_of_all_scripts():
    cut = metrics.UNICODE_TOKENIZER.tokenize
    assert cut("Ｔhe CAT's naïve ２ ideas") == ["the", "cat", "s", "naïve", "2", "ideas"]
    assert len(cut("দৌড়ায়, सोफे")) == 2  # their vowel signs are marks
    assert cut("ที่ 北京 は 잔다") == ["ที่", "北", "京", "は", "잔다"]
    assert cut("🙂👍!") == ["🙂", "👍"]
    assert cut(" .,!") == []


@pytest.mark.parametrize("language", SENTENCES)
def test_rouge_says_what_its_own_tokenizer_loses(language):
    targets = [*SENTENCES[language], "An English one.", "", ["2020", "Γ"]]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics.rouge(targets, ["x"] * 5)
        metrics.rouge(targets, ["x"] * 5, tokenizer=metrics.UNICODE_TOKENIZER)
    said = [str(one.message) for one in caught]
    if language in NOT_ASCII:
        (message,) = said
        assert "less than half of 2 of 5 targets" in message and "UNICODE_TOKENIZER" in message
    else:
        assert said == []


@pytest.mark.parametrize(
    ("text", "fits"),
    [("Call 555 on 12 May", True), ("12 апреля 2020", False), ("5 км", False), ("2020", True)],
)
def test_digits_do_not_make_a_text_english(text, fits):
    assert metrics.in_ascii_words(text) == fits


@pytest.mark.parametrize(
    "metric",
    [metrics.exact_match, metrics.accuracy, metrics.squad, metrics.rouge, metrics.number_match],
)
def test_each_target_needs_its_prediction(metric):
    with pytest.raises(ValueError, match="argument 2 is"):
        metric(["1 a", "2 b"], ["1 a"])
    with pytest.raises(ValueError, match="argument 2 is"):
        metric(["1 a"], ["1 a", "2 b"])


def test_a_denied_answer_is_no_answer():
    assert metrics.final_number("The answer is 6. The answer isn't 5.") == 6
    assert metrics.final_answer("The answer is 6") == metrics.final_answer("answer: 6") == "6"
    assert metrics.final_number("The answer is18") == 18
