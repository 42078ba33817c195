"""Rows become records: what is normalised, what is kept for metrics, what is dropped and why."""

import pytest

from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.flan2021 import rows as rows
from tasks.flan2021 import rows_choice as choice
from tasks.flan2021 import rows_text as free


def made(result: Record | Dropped) -> Record:
    assert isinstance(result, Record), result
    return result


def test_text_is_cleaned_once():
    assert rows.text(b"one \r\ntwo\xc2\xa0\n\n\n\nthree ") == "one\ntwo\n\nthree"
    assert rows.as_question("who won ??") == "who won?"
    assert rows.tight("Well , he left . Why ?") == "Well, he left. Why?"
    assert rows.numbered(["a", "b"]) == "1. a\n2. b"
    with pytest.raises(UnicodeDecodeError):
        rows.text(b"\xff")


def test_a_choice_needs_a_label_and_options_that_differ():
    fields = {"question": "Which?"}
    record = made(rows.choice_record("i", fields, ("a", "b"), 1))
    assert (record.answer, record.answer_index, record.options) == ("b", 1, ("a", "b"))
    assert rows.choice_record("i", fields, ("a", "b"), -1) == Dropped("no label")
    assert rows.choice_record("i", fields, ("a", "a"), 0) == Dropped("two options are the same")
    assert rows.choice_record("i", {"question": ""}, ("a", "b"), 0) == Dropped("empty question")


def test_labels_mean_what_their_data_sets_say():
    entails = {"premise": b"A dog runs.", "hypothesis": b"An animal moves.", "label": 0}
    assert made(choice.nli(entails, "i")).answer == "Yes"
    assert made(choice.nli({**entails, "label": 2}, "i")).answer == "No"
    assert choice.nli({**entails, "label": -1}, "i") == Dropped("no label")
    assert made(choice.rte(entails, "i")).answer == "yes"
    # CB has contradiction second, SNLI and the others last.
    assert made(choice.nli_contradiction_second({**entails, "label": 1}, "i")).answer == "No"


def test_neutral_tweets_and_unanswerable_choices_are_dropped():
    assert choice.tweet({"text": b"so so", "polarity": 2}, "i") == Dropped("neutral")
    assert made(choice.tweet({"text": b"nice &amp; warm", "polarity": 4}, "i")).fields == {
        "text": "nice & warm"
    }
    answers = {f"answer{i}": f"because {i} ." for i in range(3)}
    row = {
        "context": "c .",
        "question": "why ?",
        **answers,
        "answer3": "None of the above choices .",
    }
    assert made(choice.comprehension({**row, "label": 1}, "i")).answer == "because 1."
    assert choice.comprehension({**row, "label": 3}, "i") == Dropped("answer is none of the above")


def test_every_accepted_answer_is_kept():
    row = {"question": b"who wrote it", "answer": [b"Ann Lee", b"A. Lee", b"Ann Lee"]}
    record = made(free.open_question(row, "i"))
    assert record.fields["question"] == "who wrote it?"
    assert record.answer == "Ann Lee" and set(record.references) == {"Ann Lee", "A. Lee"}
    assert free.open_question({**row, "answer": []}, "i") == Dropped("empty answer")


@pytest.mark.parametrize("question", [b"", b" ", b" ? "])
def test_a_question_of_nothing_but_a_mark_is_none(question):
    assert rows.as_question(question) == ""
    found = rows.free_record("id", {"question": rows.as_question(question)}, "a")
    assert found == Dropped("empty question")
