"""Contamination: what a plain comparison of all n-grams finds, in one pass and in processes."""

import contextlib
import dataclasses
import html
import itertools
import json
import string
import time

import numpy as np
import pytest

from instruct.data import registry
from instruct.data.overlap import scan as overlap_scan
from instruct.data.overlap.contamination import contamination
from instruct.data.overlap.index import StoredTask, sample_part
from instruct.data.overlap.ngrams import record_keys, record_words, unescaped
from instruct.data.stores.writing import write_store
from instruct.data.task_modules import load_modules
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.workspace import DATA_VARIABLE
from tests.workspaces import workspace

N = 3


def text(*numbers):
    return " ".join(f"w{number}" for number in numbers)


def stored(tmp_path, name, texts, group=""):
    """A store of records with these texts; ids are `name/number`."""
    path = tmp_path / name / "train"
    records = [Record(f"{name}/{k}", {"text": t}, "so") for k, t in enumerate(texts)]
    manifest = write_store(
        path, records, task=name, kind="records", version="1", source_fingerprint="x"
    )
    return StoredTask(name, path, manifest.num_records, group or name)


def grams(words):
    found = {tuple(words[i : i + N]) for i in range(len(words) - N + 1)}
    return found or ({("whole", *words)} if words else set())


def listed(task):
    store = overlap_scan.Store(task.path)
    return [grams(record_words(store[number])) for number in range(task.size)]


def by_hand(train, test):
    """touched and covered of both sides, from the definitions."""
    ours, theirs = listed(train), listed(test)
    all_ours, all_theirs = set().union(*ours), set().union(*theirs)

    def count(side, other):
        touched = sum(bool(g & other) for g in side)
        covered = sum(bool(g) and len(g & other) >= 0.7 * len(g) for g in side)
        return touched, covered

    return (*count(ours, all_theirs), *count(theirs, all_ours))


@pytest.fixture
def tasks(tmp_path):
    train = stored(
        tmp_path,
        "train",
        [text(*range(k, k + 12)) for k in range(0, 600, 15)] + ["Yes, indeed", "w1 w2", "!"],
        "shared",
    )
    unrelated = stored(tmp_path, "unrelated", [text(*range(k, k + 9)) for k in range(5000, 5200)])
    test = stored(
        tmp_path,
        "test",
        [
            text(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),  # the whole of the first
            text(15, 16, 17, 900, 901, 902, 903, 904),  # touches the second
            text(700, 701, 702, 703, 704),
            "yes indeed!",  # with its answer just one n-gram
            "w2",  # two words with the answer: compared as a whole
        ],
        "shared",
    )
    return train, unrelated, test


@pytest.mark.parametrize("chunk", [50_000, 7])
def test_as_by_hand(tasks, chunk, monkeypatch):
    monkeypatch.setattr(overlap_scan, "CHUNK", chunk)
    train, unrelated, test = tasks
    pairs, totals = contamination([train, unrelated], [test], n=N)
    [pair] = pairs
    numbers = (pair.train_touched, pair.train_covered, pair.test_touched, pair.test_covered)
    assert numbers == by_hand(train, test)
    assert (pair.train_task, pair.test_task, pair.same_group) == ("train", "test", True)
    assert (pair.train_examples, pair.test_examples) == (43, 5)
    assert ("train/0", "test/0", 1.0) in [dataclasses.astuple(e) for e in pair.examples]
    [total] = totals
    assert (total.touched, total.covered) == numbers[2:] and total.comparable == 5


def test_short_texts_count_as_a_whole_only(tmp_path):
    train = stored(tmp_path, "a", ["w7", "w7 w8 w9 w10"])
    test = stored(tmp_path, "b", ["W7.", "w8", "w9 w10"])
    [pair], _ = contamination([train], [test], n=N)
    # "w9 w10 so" is an n-gram of the longer text, "w8 so" only a part of it.
    assert (pair.test_touched, pair.test_covered) == (2, 2)


def test_boilerplate_is_ignored(tmp_path):
    wording = "tell me whether this is so or not"
    train = stored(tmp_path, "a", [f"{wording} w{k} x{k} y{k}" for k in range(30)])
    test = stored(tmp_path, "b", [f"{wording} z{k} u{k} v{k}" for k in range(30)])
    pairs, [total] = contamination([train], [test], n=N)
    assert not pairs and total.touched == 0 and total.comparable == 30
    few = stored(tmp_path, "c", [f"{wording} z{k} u{k} v{k}" for k in range(10)])
    [pair], _ = contamination([train], [few], n=N)
    assert pair.test_touched == 10 and pair.train_touched == 30


def test_processes_find_the_same(tasks, monkeypatch):
    train, unrelated, test = tasks
    here = contamination([train, unrelated], [test], n=N)
    monkeypatch.setattr(overlap_scan, "_FEW_RECORDS", 1)
    assert contamination([train, unrelated], [test], n=N, workers=2) == here


def test_a_store_is_not_compared_with_itself(tasks):
    train, _, test = tasks
    pairs, _ = contamination([train, test], [test], n=N)
    assert [(pair.train_task, pair.test_task) for pair in pairs] == [("train", "test")]
    assert contamination([train], [], n=N) == ([], [])
    pairs, [total] = contamination([], [test], n=N)
    assert not pairs and total.touched == 0


def test_samples_and_sketches(tmp_path):
    task = stored(tmp_path, "a", [text(*range(k, k + 40)) for k in range(0, 1000, 50)])
    whole = sample_part(task, N, 1000, 1000)
    assert whole.columns[:, 0].tolist() == list(range(20))
    part = sample_part(task, N, 5, 8)
    assert np.bincount(part.texts).tolist() == [8] * 5
    assert part.columns[:, 0].tolist() == [0, 4, 8, 12, 16]
    for example, number in enumerate(part.columns[:, 0]):
        mine = part.hashes[part.texts == example]
        assert mine.tolist() == sorted(whole.hashes[whole.texts == number])[:8]


def planted(tmp_path, question, copies, others=()):
    """(covered, examples) of a test task of the question and unlike ones, against the copies."""
    filler = [
        Record(f"o{k}", {"question": f"Entirely unlike matter, number {k}."}, "so")
        for k in range(30)
    ]
    test = write(tmp_path, "test", [question, *others, *filler])
    train = write(tmp_path, "train", list(copies))
    pairs, [total] = contamination([train], [test])
    assert not pairs or pairs[0].test_covered == total.covered
    return total.covered


def write(tmp_path, name, records):
    path = tmp_path / name / "train"
    manifest = write_store(
        path, records, task=name, kind="records", version="1", source_fingerprint="x"
    )
    return StoredTask(name, path, manifest.num_records, name)


LONG = (
    "On the desk, there's a red mug worth $1,200, two blue pens and a grey stapler that nobody "
    "uses. If I remove the pens, how many items are left on the desk?"
)
LETTERED = "\nOptions:\n(A) none\n(B) one\n(C) two"
CHOICES = ("Mercury is nearest", "Venus", "the Earth", "Mars")
# As suites keep their records: with a description, with the options twice, with a passage.
ASKED = {
    "described": Record(
        "q", {"question": LONG + LETTERED, "description": "Count things that are left."}, "(C)",
        ("(A)", "(B)", "(C)"), 2,
    ),
    "twice": Record(
        "q",
        {
            **dict(zip("abcd", CHOICES)),
            "question": "Which planet is hottest?",
            "subject": "astronomy",
            "listed": " ".join(f"({'ABCD'[k]}) {choice}" for k, choice in enumerate(CHOICES)),
        },
        CHOICES[1], CHOICES, 1,
    ),
    "passage": Record(
        "q",
        {"context": "A long passage about rivers and lakes. " * 8, "question": "Who swam there?"},
        "Ada",
    ),
    "short": Record("q", {"question": "How many legs do four cats have together?"}, "16"),
    "signs": Record("q", {"question": "((-1 + 2) * (3 - -4)) ="}, "7"),
    "brackets": Record("q", {"question": "Close them. Input: [ ( { < > }"}, ") ]"),
    "one field": Record("q", {"dialogue": "A: Did you feed the cat?\nB: No, I forgot."}, "The cat"),
}  # fmt: skip


def own_text(record):
    return record.fields.get("question") or next(iter(record.fields.values()))


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize(
    "copy",
    [
        lambda asked, text: dataclasses.replace(asked, id="c"),
        lambda asked, text: Record("c", {"question": text}, "something else"),
        lambda asked, text: Record("c", {"inputs": f"Answer this.\n\nQuestion: {text}\n\nA:"}, "x"),
        lambda asked, text: Record("c", {"text": f"  {text.upper().replace(' ', '  ')} "}, "x"),
    ],
    ids=["record", "question", "prompt", "case and blanks"],
)
def test_a_copied_question_is_covered(tmp_path, name, copy):
    asked = ASKED[name]
    assert planted(tmp_path, asked, [copy(asked, own_text(asked))]) == 1


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize(
    "copy",
    [
        lambda text: f"17. {text}",
        lambda text: f"### Human: {text}",
        lambda text: f"<|user|> {text}",
        lambda text: html.escape(text).replace("'", "&rsquo;").replace("\n", "<br>"),
        lambda text: "<p class='q'>" + text.replace("<", "&lt;").replace(" ", "&nbsp;") + "</p>",
        lambda text: " ".join(f"<b>{word}</b>" for word in text.split(" ")),
        lambda text: text.replace(" ", "\u200b "),
    ],
    ids=["number", "speaker", "token", "escapes", "paragraph", "bold", "no width"],
)
def test_headings_and_escapes_hide_no_copy(tmp_path, name, copy):
    text = copy(own_text(ASKED[name]))
    assert planted(tmp_path, ASKED[name], [Record("c", {"text": text}, "x")]) == 1


def test_copies_that_stand_in_other_places(tmp_path):
    def ask(text):
        choices = ("red", "green", "blue", "grey")
        return Record("q", {"question": text, "description": "Choose."}, "red", choices, 0)

    asked = ask("Which hormones does the human pancreas produce daily?")
    text = own_text(asked)
    for number, copy in enumerate(
        [
            Record("c", {"prompt": "Write a question for this answer: red"}, text),
            Record("c", {"chat": f"Hi there, I need help. {text} Sure, here you are."}, "x"),
            Record(
                "c", {"line": json.dumps({"role": "user", "content": f"{text}\n\nThanks é"})}, "x"
            ),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        assert planted(tmp_path / str(number), asked, [copy]) == 1
    short = ask("Which colour is nicest?")  # too few words to be looked for in a text
    copy = Record("c", {"chat": "Hi there. Which colour is nicest? Well."}, "x")
    (tmp_path / "short").mkdir()
    assert planted(tmp_path / "short", short, [copy]) == 0


def test_escapes_are_read_and_mathematics_is_not():
    read = "Is 2 &lt; 3&nbsp;<b>true</b>?<br>Caf\\u00e9\\n(A) \\ud83d\\ude00"
    assert unescaped(read) == "Is 2 < 3\xa0true?\nCafé\n(A) \U0001f600"
    for text in (r"a \neq b, \times, \nu", "a<b and c>d", "< > } <s> <mask>", "if x<i then y>i"):
        assert unescaped(text) == text
    assert "x" in record_words(Record("r", {"text": "x"}, "<br>"))  # a record has an answer
    start = time.thread_time()  # 0.04 s of the processor, whatever else it does
    for text in ("a" * 50_000, "a." * 20_000, "a. " * 20_000, "<a b=c " * 10_000, "." * 50_000):
        record_keys(Record("r", {"text": text}, "x"))
    assert time.thread_time() - start < 5


@pytest.mark.parametrize("name", ["described", "twice", "short"])
def test_a_copy_without_punctuation_is_covered(tmp_path, name):
    text = own_text(ASKED[name]).translate(str.maketrans("", "", string.punctuation))
    assert planted(tmp_path, ASKED[name], [Record("c", {"q": text}, "x")]) == 1


@pytest.mark.parametrize(
    ("asked", "other"),
    [
        ("How much is 3 + 4?", "How much is 3 - 4?"),  # the same words
        ("[ ( { < > }", "[ { ( < > )"),
        ("Who swam?", "He asked who swam, and nobody knew."),  # too short to be found in a text
        (LONG, LONG.replace("red", "blue").replace("two", "six").replace("remove", "add")[:60]),
    ],
)
def test_another_question_is_not_covered(tmp_path, asked, other):
    question = Record("q", {"question": asked}, "yes")
    assert planted(tmp_path, question, [Record("c", {"question": other}, "no")]) == 0


def test_words_of_several_questions_count_with_their_options(tmp_path):
    def ask(name, *choices):
        return Record(name, {"question": "Which of these is a true statement?"}, "x", choices, 0)

    asked, other = ask("1", "cats bark", "dogs bark"), ask("2", "fish fly", "birds fly")
    choices = "(A) cats bark (B) dogs bark"
    text = f"which of these is a true statement\n{choices}"
    assert planted(tmp_path, asked, [Record("c", {"inputs": text}, "x")], [other]) == 1
    # The bare words tell neither; a field that is nothing else is a copy of both.
    bare = Record("c", {"inputs": "Read this. which of these is a true statement"}, "x")
    assert planted(tmp_path, asked, [bare], [other]) == 0
    verbatim = Record("c", {"inputs": asked.fields["question"]}, "x")
    assert planted(tmp_path, asked, [verbatim], [other]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefixes", "each"),
    [(("bbh.",), 2), (("mmlu.a", "mmlu.h"), 2), (("xquad.",), 3), (("mgsm.",), 3)]
    + [((name,), 5) for name in ("gsm8k.main", "dialogsum.main")],
)
def test_planted_copies_of_suites(tmp_path, monkeypatch, shared_data, prefixes, each):
    """Copies of questions of real suites among unrelated text: all of them are found."""
    load_modules(["tasks.public", "tasks.suites.mixtures"])
    monkeypatch.setenv(DATA_VARIABLE, str(shared_data))
    test, copies = [], []
    for name, spec in sorted(registry.task_specs(workspace()).items()):
        if not name.startswith(prefixes) or spec.source.available(workspace()):
            continue
        with contextlib.suppress(UserError, OSError):  # a language that is not there
            rows = list(itertools.islice(spec.source.records(workspace(), spec.splits["test"]), 60))
            records = [row for row in rows if isinstance(row, Record)]
            test.append(write(tmp_path, name, records))
            copies.append([Record("c", {"text": own_text(r)}, "x") for r in records[:: 60 // each]])
    assert test
    unrelated = stored(tmp_path, "unrelated", [text(*range(k, k + 40)) for k in range(0, 900, 9)])
    train = write(tmp_path, "train", [copy for part in copies for copy in part])
    _, totals = contamination([train, unrelated], test)
    for total, part in zip(totals, copies):
        assert total.covered >= len(part), total
    _, totals = contamination([unrelated], test)
    assert sum(total.touched for total in totals) == 0
