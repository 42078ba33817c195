import math
import warnings

import pytest

from tasks.flan2021 import metrics as flan
from tests.sentences import SENTENCES, UNSPACED


def label(text, group):
    return flan.GroupedLabel(text, group)


def test_f1_of_yes():
    assert flan.f1_of_yes(["yes", "no", "yes"], ["yes", "no", "yes"]) == {"f1": 100.0}
    assert flan.f1_of_yes(["yes", "no", "yes"], ["no", "yes", "no"]) == {"f1": 0.0}
    # one of two found, one found wrongly
    assert flan.f1_of_yes(["yes", "yes", "no"], ["yes", "no", "yes"]) == {"f1": 50.0}
    # What is no label is never right.
    assert flan.f1_of_yes(["yes", "no"], ["", ""]) == {"f1": 0.0}
    assert flan.f1_of_yes([], []) == {"f1": 0.0}


def test_mean_label_f1():
    targets = ["yes", "no", "it's impossible to say"]
    assert flan.mean_label_f1(targets, targets) == {"mean_f1": 100.0}
    assert flan.mean_label_f1(targets, ["no", "yes", "no"]) == {"mean_f1": 0.0}
    # "yes" 2/3, "no" 0
    assert flan.mean_label_f1(["yes", "no"], ["yes", "yes"])["mean_f1"] == pytest.approx(100 / 3)
    assert flan.mean_label_f1([], []) == {"mean_f1": 0.0}


def test_correlation():
    found = flan.correlation([0.0, 1.0, 3.0, 5.0], [0.0, 1.0, 3.0, 5.0])
    assert found == {"pearson": pytest.approx(100.0), "spearman": pytest.approx(100.0)}
    found = flan.correlation([0.0, 1.0, 3.0], [3.0, 1.0, 0.0])
    assert found["pearson"] < 0 and found["spearman"] == pytest.approx(-100.0)
    found = flan.correlation([1.0, 2.0, 3.0], [1.0, 2.0, 9.0])
    assert found["spearman"] == pytest.approx(100.0) and found["pearson"] < 95.0
    for targets, predictions in (([1.0, 2.0], [-1.0, -1.0]), ([2.0, 2.0], [1.0, 3.0]), ([], [])):
        assert flan.correlation(targets, predictions) == {"pearson": 0.0, "spearman": 0.0}


def test_multirc_counts_answers_and_whole_questions():
    targets = [label("yes", "1-1"), label("no", "1-1"), label("yes", "1-2")]
    assert flan.multirc(targets, ["yes", "no", "yes"]) == {"f1a": 100.0, "question_em": 100.0}
    assert flan.multirc(targets, ["no", "yes", "no"]) == {"f1a": 0.0, "question_em": 0.0}
    found = flan.multirc(targets, ["yes", "yes", "yes"])
    assert found == {"f1a": pytest.approx(80.0), "question_em": 50.0}
    assert flan.multirc([], []) == {"f1a": 0.0, "question_em": 0.0}


def test_record_compares_entities_only():
    first = flan.EntityTarget(("Berry", "Gladys Berry"), " was found.", "8-1")
    second = flan.EntityTarget(("Orca",), " sank.", "8-2")
    right = ["Gladys Berry was found.", "the Orca sank."]
    assert flan.record([first, second], right) == {"em": 100.0, "f1": 100.0}
    wrong = ["Sam Doyle was found.", "Ellis sank."]
    assert flan.record([first, second], wrong) == {"em": 0.0, "f1": 0.0}
    # Rows of one query count once, with the best of them.
    assert flan.record([first, first], ["Berry was found.", "Sam was found."])["em"] == 100.0
    half = flan.record([flan.EntityTarget(("Gladys Berry",), "", "1")], ["Berry"])
    assert half == {"em": 0.0, "f1": pytest.approx(200 / 3)}
    assert flan.record([], []) == {"em": 0.0, "f1": 0.0}


def test_bleu():
    targets = ["Der Ausschuss stimmt morgen darüber ab.", ["Es regnet heute sehr stark.", "Regen"]]
    perfect = ["Der Ausschuss stimmt morgen darüber ab.", "Es regnet heute sehr stark."]
    assert flan.bleu(targets, perfect)["bleu"] == pytest.approx(100.0)
    assert flan.bleu(targets, ["x y z", "q w e"])["bleu"] == pytest.approx(0.0, abs=1e-6)
    assert 0 < flan.bleu(targets, ["Der Ausschuss stimmt ab.", "Es regnet."])["bleu"] < 60
    assert flan.bleu([], []) == {"bleu": 0.0}


def test_word_edit_distance():
    found = flan.word_edit_distance(["a B c", "d e"], ["a B c", "d e"])
    assert set(found.values()) == {0.0}
    found = flan.word_edit_distance(["a B c", "d e", ""], ["a b", "d e", "x"])
    assert found == {
        "word_edit_min": 0.0,
        "word_edit_max": 2.0,
        "word_edit_mean": 1.0,
        "word_edit_median": 1.0,
        "word_edit_sum": 3.0,
    }
    assert set(flan.word_edit_distance([], []).values()) == {0.0}


def test_reading_of_answers():
    example = {"options": [b"0", b"1", b"2"], "markers": [b"(A)", b"(B)", b"(C)"], "answer": b"2"}
    assert flan.read_score("(C)", example) == 2.0
    assert flan.read_score("(C)", example, is_target=True) == 2.0
    assert flan.read_score("about 3.5 points") == 3.5
    assert flan.read_score("very") == -1.0
    # Endless digits are beyond every float; one such reply must not make the correlation NaN.
    assert flan.read_score("5" * 400) == -1.0
    assert flan.read_first_line("gram\nbecause it is light") == "gram"
    assert flan.read_first_word('Coat . " she') == "coat"
    assert flan.read_first_word(" ") == ""
    assert flan.read_text(" x ", {"answer": b"In May"}, is_target=True) == "In May"
    assert flan.read_text(" In May ") == "In May"
    grouped = {"options": [b"no", b"yes"], "metadata": b'{"group": "4-31"}'}
    assert flan.read_grouped_label("Yes.", grouped) == "yes"
    assert flan.read_grouped_label("yes", grouped, is_target=True) == label("yes", "4-31")


def test_entities_are_read_by_marker_and_by_text():
    example = {
        "options": [b"Orca sank.", b"Berry sank."],
        "markers": [b"(i)", b"(ii)"],
        "references": [b"Orca sank."],
        "metadata": b'{"group": "8-2", "tail": " sank."}',
    }
    target = flan.read_entity("(i)", example, is_target=True)
    assert target == flan.EntityTarget(("Orca",), " sank.", "8-2")
    assert flan.read_entity("(ii)", example) == "Berry sank."
    assert flan.read_entity("orca sank", example) == "Orca sank."
    assert not math.isnan(flan.record([target], ["(iii)"])["em"])


@pytest.mark.parametrize("language", SENTENCES)
def test_bleu_of_scripts_without_blanks(language):
    one = SENTENCES[language][0] * 3  # long enough for four words
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flan.bleu([one, "An English sentence of words."], ["x", "y"])
    said = [str(warning.message) for warning in caught]
    assert bool(said) == (language in UNSPACED)
    assert not said or said[0].startswith("1 of 2 targets are in scripts without blanks")
    if language != "emoji":
        way = "char" if language in UNSPACED else "intl"
        assert flan.bleu([one], [one], way)["bleu"] == pytest.approx(100.0)


def test_bleu_wants_a_prediction_for_each_target():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        flan.bleu(["the dog bit the man", "it was not"], ["the dog bit the man"])
