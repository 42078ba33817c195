import pytest
from rouge_score import rouge_scorer

from tasks import answers
from tasks.gpt2_tokens import GPT2_TOKENIZER
from tests.sentences import SENTENCES

PHRASES = (("The answer is", "."), ("So the answer is", "."), ("####", ""), ("Final answer:", ""))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 1 = 2.\nThe answer is 2.", "2"),
        ("the  answer is 3. No wait.\nSo the answer is 4.\nThank you", "4"),
        ("It is said so.\n#### 1,250", "1,250"),
        ("Final answer: (B)", "(B)"),
        ("no phrase here", "no phrase here"),
        ("The answer is", ""),
        ("The answer is 6. The answer isn't 5.", "6. The answer isn't 5"),
        ("####five", "five"),
    ],
)
def test_cut_answer(text, expected):
    assert answers.cut_answer(text, PHRASES) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$1,250.00", "1250"),
        ("1250", "1250"),
        ("-3.50", "-3.5"),
        ("\u22120.5", "-0.5"),
        ("-0", "0"),
        ("40%", "40"),
        ("22 1/2 %", "22 1/2 %"),
        # Commas group digits, or the text is no number: "3,4" is not "34".
        ("12,345,678", "12345678"),
        ("1,00,000", "100000"),
        ("3,4", "3,4"),
        ("0,5", "0,5"),
        ("1,2,3", "1,2,3"),
        (f"{'1' * 29}2", f"{'1' * 29}2"),  # all digits count
        ("-.50", "-0.5"),
        ("Yes.", "yes"),
        (" The Loom! ", "the loom"),
        ("<=", "<="),
        ("= .", "="),
        ("", ""),
    ],
)
def test_canonical(text, expected):
    assert answers.canonical(text) == expected


def test_answers_by_marker_and_by_text_are_the_same():
    example = {"options": [b"iron", b"tin"], "markers": [b"(A)", b"(B)"]}
    for reply in ("(B)", "b", "tin", "Tin.", "Thinking...\nThe answer is (B)."):
        assert answers.read_answer(reply, example, closing_phrases=PHRASES) == "tin"
    assert answers.read_answer("gold", example) == "gold"
    assert answers.read_answer("(B)") == "b"


def test_references_are_all_accepted():
    example = {"references": [b"late", b"tardy"]}
    target = answers.read_references("late", example, is_target=True)
    assert target == ["late", "tardy"]
    given = answers.read_references(" Tardy. ", example)
    assert isinstance(given, str)
    assert answers.loose_exact_match([target], [given]) == {"exact_match": 100.0}
    assert answers.rouge_l([target], [given]) == {"rougeL": pytest.approx(100.0)}
    assert answers.loose_exact_match([target], ["soon"]) == {"exact_match": 0.0}


@pytest.mark.parametrize("language", SENTENCES)
def test_rouge_l_of_other_scripts(language):
    one, other = SENTENCES[language]
    for score in (answers.rouge_l_of_gpt2_tokens, answers.rouge_l_by_script):
        assert score([one], [one]) == {"rougeL": pytest.approx(100.0)}
        assert 0 <= score([[one]], [other])["rougeL"] < 70
        assert score([], []) == {"rougeL": 0.0}
    assert answers.loose_exact_match([one], [one]) == {"exact_match": 100.0}
    assert answers.loose_exact_match([one], [other]) == {"exact_match": 0.0}


def test_rouge_l_by_script_is_tk_instructs_for_english():
    targets, predictions = [["running cats", "naïve cats"], "Котка"], ["run cat", "Котката"]
    english = answers.rouge_l(targets[:1], predictions[:1])["rougeL"]
    other = answers.rouge_l_of_gpt2_tokens(targets[1:], predictions[1:])["rougeL"]
    assert english == 100.0 and 0 < other < 100
    mixed = answers.rouge_l_by_script(targets, predictions)["rougeL"]
    assert mixed == pytest.approx((english + other) / 2)


def test_rouge_l_of_the_cross_lingual_track_is_the_publishers():
    """Its scorer: GPT-2's tokens without the sign of the blank, case kept, no stemmer."""
    pairs = [(a, b) for a, b in SENTENCES.values()] + [("Running cats", "running cat")]
    for reference, prediction in pairs:
        scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=GPT2_TOKENIZER)
        expected = 100 * scorer.score(target=reference, prediction=prediction)["rougeL"].fmeasure
        found = answers.rouge_l_of_gpt2_tokens([reference], [prediction])["rougeL"]
        assert found == pytest.approx(expected, abs=1e-9)


def test_metrics_refuse_lists_of_unequal_length():
    with pytest.raises(ValueError, match="zip"):
        answers.rouge_l_by_script(["one", "two"], ["one"])
