"""Replies as models write them, and what they answer."""

import copy
import functools
import json
import pickle
import unicodedata

import pytest

from instruct.data.registry import find_spec
from instruct.eval import metrics
from instruct.prompts.record import Record
from tasks import mixtures as _collection  # noqa: F401
from tasks.suites import grade_school, reading
from tasks.suites import mixtures as _register  # noqa: F401
from tasks.suites.reading import (
    Answer,
    concluded,
    own_reply,
    raw_reply,
    read_choice,
    read_exact,
    read_label,
    read_number,
    read_span,
)
from tests.workspaces import workspace

DIRECT = {
    "template": b"letters+blocks",
    "options": [b"0", b"4", b"2", b"6"],
    "markers": [b"A", b"B", b"C", b"D"],
    "answer_index": 1,
    "answer": b"4",
}
REASONED = DIRECT | {"template": b"cot+blocks"}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("B", "B"),
        (" B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("b)", "B"),
        ("B. 4", "B"),
        ("(B) 4", "B"),
        ("4", "B"),
        ("The answer is (B).", "B"),
        ("Answer: B", "B"),
        ("B\n\nFind the order of the group.\nA. 1\nB. 2\nAnswer: C", "B"),
        ("E", ""),
        ("", ""),
        ("I do not know", ""),
    ],
)
def test_choices_without_reasoning(reply, answer):
    assert read_choice(reply, DIRECT) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("It is 4, for 2 * 2 = 4. The answer is (B).", "B"),
        ("So the answer is B", "B"),
        ("the answer is (b).\n\nQ: Another one\nA: The answer is (D).", "B"),
        ("The answer is (A). No: the answer is (B).", "B"),
        ("Final answer: (B) 4", "B"),
        ("The answer is option (B).", "B"),
        ("The answer is 4.", "B"),
        ("The answer is between (A) and (B).", ""),
        ("The answer is (A) or (B).", ""),
        ("The answer is A, B", ""),
        ("The answer is **(B)**.", "B"),
        ("The answer is (B), not (A).", "B"),
        ("The answer is (B). Q: Another one A: Let's think. The answer is (D).", "B"),
        ("(B)", ""),  # reasoning that never comes to an answer is wrong
        ("We do not know.", ""),
    ],
)
def test_choices_with_reasoning(reply, answer):
    assert read_choice(reply, REASONED) == answer


def test_targets_are_read_as_the_right_answer():
    assert read_choice("B", DIRECT, is_target=True) == "B"
    assert read_choice("anything", REASONED, is_target=True) == "B"


LETTERS = {"template": b"cot_of_options", "options": [b"(A)", b"(B)"], "markers": []}
LABELS = {"template": b"cot_of_options", "options": [b"yes", b"no"], "markers": []}
FREE = {"template": b"cot", "options": [], "markers": []}


@pytest.mark.parametrize(
    ("example", "reply", "answer"),
    [
        (LETTERS, "Tomorrow is Tuesday. So the answer is (B).", "(B)"),
        (LETTERS, "So the answer is (B)", "(B)"),
        (LETTERS, "So the answer is (A). No, the answer is (B).", "(B)"),
        (LETTERS, "So the answer is B.", "B"),
        (LETTERS, "So the answer is (b).", "(b)"),
        (LETTERS, 'So the answer is "(B)".', '"(B)"'),
        (LETTERS, "So the answer is (B). I hope", "(B). I hope"),
        (LETTERS, "So the answer is (B).\nI hope", "(B)"),
        (LETTERS, "So the answer is (B) Tuesday.", "(B) Tuesday"),
        (LETTERS, "So the answer is Tuesday.", "Tuesday"),
        (LETTERS, "It is (B).", ""),
        (LETTERS, "So the answer is **(B)**.", "**(B)**"),
        (LETTERS, "So the answer is option (B).", "option (B)"),
        (LETTERS, "So the answer is (A) and (B).", "(A) and (B)"),
        (LETTERS, "So the answer is (B). Q: And then? A: So the answer is (A).", "(B)"),
        (LABELS, "Goal tending is basketball. So the answer is yes.", "yes"),
        (LABELS, "So the answer is Yes.", "Yes"),  # case counts, as published
        (FREE, "We pop them. So the answer is ] ) ].", "] ) ]"),
        (FREE, "So the answer is  costume  counterpart oven.", "costume counterpart oven"),
        (FREE, "So the answer is -41.", "-41"),
        (FREE | {"template": b"answer"}, "] }\n\nQ: Complete the rest", "] }"),
        (LETTERS | {"template": b"answer"}, "(A)", "(A)"),
        (LETTERS | {"template": b"answer"}, "(A).", "(A)"),
        (LETTERS | {"template": b"answer"}, "A", "A"),
        (LABELS | {"template": b"answer"}, "no.", "no"),
    ],
)
def test_texts_that_are_matched_exactly(example, reply, answer):
    assert read_exact(reply, example) == answer


def test_exact_targets():
    assert read_exact("(B)", LETTERS, is_target=True) == "(B)"
    assert read_exact("Monsters, Inc", FREE, is_target=True) == "Monsters, Inc"
    assert read_exact("] ) ]", FREE, is_target=True) == "] ) ]"


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("She sells 9 eggs. 9 * 2 = 18. The answer is 18.", "18"),
        ("The answer is $1,200.00.", "1200"),
        ("The answer is 18 dollars, not 20.", "18"),
        ("The answer is -3", "-3"),
        ("answer: 1,234.00", "1234"),
        ("The answer is -$5.", "-5"),
        ("The answer is $5", "5"),
        ("The answer is 5%.", "5"),
        ("The answer is 3. No, the answer is 4.", "4"),
        ("The answer is 1,20,000.", "120000"),
        ("The answer is 18. Q: Tom has 3 cats. A: The answer is 3.", "18"),
        ("The answer is -0.", "0"),
        ("The answer is 1.50.", "1.5"),
        ("The answer is eighteen.", ""),
        ("9 * 2 = 18", ""),
        ("The answer is 18.\nQ: Tom has 3 cats.\nA: The answer is 3.", "18"),
    ],
)
def test_numbers_after_reasoning(reply, answer):
    assert read_number(reply, FREE) == answer


def test_numbers_in_other_languages_and_without_reasoning():
    german = ("Die Antwort lautet", "Die Antwort ist")
    assert read_number("4 + 5 = 9. Die Antwort lautet 9.", FREE, phrases=german) == "9"
    assert read_number("4 + 5 = 9.", FREE, phrases=german) == ""
    assert read_number("答えは33個です。", FREE, phrases=("答えは",)) == "33"
    assert read_number("Also ist die Antwort 9.", FREE, phrases=german) == ""
    assert read_number("Also: die Antwort ist 9.", FREE, phrases=german) == "9"
    assert read_number("答えは全部で３，３００個です。", FREE, phrases=("答えは",)) == "3300"
    assert read_number("উত্তর হল ১২।", FREE, phrases=("উত্তর হল",)) == "12"
    assert read_number("18", {"template": b"answer"}) == "18"
    assert read_number("1,200", FREE, is_target=True) == "1200"
    long = f"{10**30 + 1:,}"  # more digits than decimal's own context keeps
    assert read_number(long, FREE, is_target=True) == str(10**30 + 1)


MORE = {
    "bn": ("উত্তর হল 9। প্রশ্ন: আর? ধাপে ধাপে উত্তর: উত্তর হল 3।"),
    "de": (
        "Die Antwort lautet 9.\n\nFrage: Und?\nSchritt-für-Schritt-Antwort: Die Antwort lautet 3."
    ),
    "ja": ("答えは9です。問題：では？\nステップごとの答え：答えは3です。"),
    "ru": ("Ответ — 9. Задача: А? Пошаговоерешение: Ответ — 3."),
    "th": ("คำตอบคือ 9 โจทย์: แล้ว? คำตอบทีละขั้นตอน: คำตอบคือ 3"),
    "zh": ("答案是 9。\n\n问题： 那么？\n逐步解答: 答案是 3。"),
}


@pytest.mark.parametrize("code", MORE)
def test_a_reply_ends_where_the_next_question_of_its_language_begins(code):
    spec = find_spec(workspace(), f"mgsm.{code}")
    assert spec.postprocess_fn is not None
    for reply in (MORE[code], unicodedata.normalize("NFKC", MORE[code])):
        assert spec.postprocess_fn(reply, example=FREE, is_target=False) == "9", reply


def test_spans_are_accepted_as_vocabularies_write_them():
    """SentencePiece's NFKC takes Thai and Bengali letters apart."""
    example = {"references": ["น้ำ", "নয়".replace("\u09af\u09bc", "\u09df")]}
    targets = read_span("", example, is_target=True)
    written = [unicodedata.normalize("NFKC", text) for text in example["references"]]
    assert set(targets) == {*example["references"], *written} and len(targets) == 4
    read = read_span(written[0])
    assert isinstance(read, str)
    assert metrics.squad([targets], [read]) == {"em": 100.0, "f1": 100.0}
    assert read_span("", {"references": ["Paris"]}, is_target=True) == ("Paris",)


def test_labels():
    example = {"template": b"ask", "options": [b"Yes", b"No"], "markers": [b"(a)", b"(b)"]}
    assert read_label("(b)", example) == read_label("No.", example) == "no"
    assert read_label("NO\nbecause", example) == "no"
    assert read_label("x", example | {"answer": b"Yes"}, is_target=True) == "yes"


def test_an_answer_keeps_the_reply_it_was_read_from():
    answer = read_choice("The answer is (B).", REASONED)
    assert raw_reply(answer) == "The answer is (B)." and raw_reply("plain") == "plain"
    for made in (pickle.loads(pickle.dumps(answer)), copy.copy(answer)):
        assert isinstance(made, Answer) and made == "B" and made.raw == answer.raw
    assert len({read_choice(text, DIRECT) for text in ("B", "(B)", "4")}) == 1


def test_parts_of_replies():
    assert own_reply("yes\nQuestion: and now?") == "yes"
    assert own_reply("Quite so. Q is a letter.") == "Quite so. Q is a letter."
    assert concluded("The final answer is: 7.") == "7"
    assert concluded("no conclusion") is None


# What follows the language's own phrase -> the number: groups, decimals, signs, digits, scale.
WRITTEN = {
    "bn": {
        "১,০০,০০০।": "100000",
        "৳৭০,০০০": "70000",
        "1,00,000 টাকা": "100000",
        "৩.৫": "3.5",
        "1.000": "1",
        "৭০ হাজার": "70000",
        "২ লাখ": "200000",
    },
    "de": {
        "70.000.": "70000",
        "70.000 €": "70000",
        "1.234,56": "1234.56",
        "3,5": "3.5",
        "3.5 Euro": "3.5",
        "12.50": "12.5",
        "1,000": "1",
        "70 000": "70000",
        "70\u202f000": "70000",
        "70\u2019000 Franken": "70000",
        "\u22122.125": "-2125",
        "70 Tausend": "70000",
        "1 Milliarde.": "1000000000",
        "1,5 Mrd. Euro": "1500000000",
        "2.125": "2125",
    },
    "en": {
        "70,000.": "70000",
        "1.000": "1",
        "$1,234.50": "1234.5",
        "1.234,56": "1234.56",
        "70 000": "70000",
        "1,20,000": "120000",
        "70 thousand": "70000",
        "1, 2, 3": "1",
        "1/2": "0.5",
    },
    "es": {
        "70.000.": "70000",
        "$70 000": "70000",
        "1,50": "1.5",
        "1.234,56": "1234.56",
        "70 mil": "70000",
        "−5 %": "-5",
    },
    "fr": {
        "70\u202f000.": "70000",
        "70\u00a0000 €": "70000",
        "70 000,50 €": "70000.5",
        "3,5": "3.5",
        "70.000": "70000",
        "70'000": "70000",
        "2 millions": "2000000",
    },
    "ja": {
        "70,000です。": "70000",
        "７０，０００ドルです。": "70000",
        "7万ドルです。": "70000",
        "7万5千です。": "75000",
        "3.5です。": "3.5",
        "３．５です。": "3.5",
    },
    "ru": {
        "70\u00a0000.": "70000",
        "70 000 рублей": "70000",
        "3,5": "3.5",
        "70.000": "70000",
        "70 тыс. рублей": "70000",
        "1 миллиард.": "1000000000",
        "\u22125": "-5",
    },
    "sw": {
        "70,000.": "70000",
        "shilingi 70,000/=": "70000",
        "elfu 70": "70000",
        "bilioni 2.": "2000000000",
        "3.5": "3.5",
        "1.000": "1",
    },
    "te": {
        "1,00,000.": "100000",
        "₹౭౦,౦౦౦": "70000",
        "3.5": "3.5",
        "70 వేలు": "70000",
        "2 లక్షల": "200000",
    },
    "th": {
        "70,000": "70000",
        "๗๐,๐๐๐ บาท": "70000",
        "3.5": "3.5",
        "7 หมื่นบาท": "70000",
    },
    "zh": {
        "70,000。": "70000",
        "７０，０００。": "70000",
        "7万。": "70000",
        "1.5亿元": "150000000",
        "-3.5": "-3.5",
        "3，5": "3",
    },
}  # fmt: skip


@pytest.mark.parametrize("row", grade_school.LANGUAGES, ids=lambda row: row.code)
def test_numbers_are_read_as_their_language_writes_them(row):
    read = find_spec(workspace(), f"mgsm.{row.code}").postprocess_fn
    assert read is not None
    for phrase in row.phrases:
        for written, number in WRITTEN[row.code].items():
            reply = f"2 + 3 = 5. {phrase} {written}"
            assert read(reply, example=FREE, is_target=False) == number, reply
            reply = unicodedata.normalize("NFKC", reply)  # as some vocabularies write it
            assert read(reply, example=FREE, is_target=False) == number, reply


def test_the_closing_phrase_decides_whose_numbers_they_are():
    """A German asked in German may be answered in English."""
    read = find_spec(workspace(), "mgsm.de").postprocess_fn
    assert read is not None
    for reply, number in (
        ("Die Antwort lautet 70.000.", "70000"),
        ("The answer is 70,000.", "70000"),
        ("The answer is 1.000.", "1"),
        ("The answer is 1.000. Die Antwort ist 1.000.", "1000"),
    ):
        assert read(reply, example=FREE, is_target=False) == number


@pytest.mark.parametrize("row", grade_school.LANGUAGES, ids=lambda row: row.code)
def test_targets_are_written_the_english_way_in_every_file(row, tmp_path):
    """All of MGSM's files say 2,125."""
    exemplars = tmp_path / "exemplars.json"
    one = {"1": {"q": "Question: 1?", "a": "Answer: The answer is 1."}}
    exemplars.write_text(json.dumps({"number_answers": [1], "exemplars": {row.code: one}}))
    path = tmp_path / f"mgsm_{row.code}.tsv"
    path.write_text("A?\t2,125\nB?\t114200\nC?\t276 000\nD?\t3.5\nE?\t1 or 2\n", encoding="utf-8")
    records = list(grade_school.read_mgsm(path, exemplars, row.code))
    answers = [r.answer for r in records if isinstance(r, Record)]
    assert answers == ["2125", "114200", "276000", "3.5"] and len(records) == 5
    read = find_spec(workspace(), f"mgsm.{row.code}").postprocess_fn
    assert read is not None
    assert [read(a, example=FREE, is_target=True) for a in answers] == answers


def test_a_denied_answer_is_no_answer():
    """The reply's last "answer is" counts; "isn't" is another word."""
    reply = "The answer is (B). So the answer isn't (A)."
    assert reading.concluded(reply) == "(B). So the answer isn't (A)"
    reasoned = {"template": "cot"}
    assert reading.read_number("The answer is 6, so the answer isn't 5.", reasoned) == "6"
    assert reading.read_number("So the answer isn't 5.", reasoned) == ""
    assert reading.concluded("The answer is: 5") == "5"
    for language in grade_school.LANGUAGES:  # in scripts without blanks a letter may follow
        number = functools.partial(reading.read_number, phrases=language.phrases)
        assert number(f"{language.phrases[0]} 6.", reasoned) == "6"
    english = functools.partial(reading.read_number, phrases=("The answer is",))
    assert english("The answer is 6, the answer isn't 5.", reasoned) == "6"
    japanese = functools.partial(reading.read_number, phrases=("答えは",))
    assert japanese("答えは約6です。", reasoned) == "6"
