"""Suites read what the Hugging Face hub holds as they read the published files.

Rows are made up in the schemas of the hub's data sets; equal content gives equal records.
"""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instruct.data import registry
from instruct.data.sources.public_releases import Gsm8kSource
from instruct.data.stores.prepare import prepare
from instruct.prompts.record import Record
from tasks.suites import bbh, grade_school, mmlu, passages, summaries
from tests.data.toy import toy_config
from tests.tasks.suites.made_up import data_folder
from tests.workspaces import workspace


def write_table(path, rows, ending):
    """Rows as a file of a hub: Parquet, JSON lines, a JSON array or CSV."""
    file = path.with_name(path.name + ending)
    file.parent.mkdir(parents=True, exist_ok=True)
    if ending.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif ending == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == ".json":
        file.write_text(json.dumps(rows))
    else:
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def records(source, split):
    assert source.available(workspace()) is None
    assert source.fingerprint(workspace()) != "absent"
    return list(source.records(workspace(), split))


ENDINGS = (".jsonl", ".json", "-00000-of-00001.parquet")
WITH_CSV = (*ENDINGS, ".csv")


@pytest.mark.parametrize("ending", WITH_CSV)
@pytest.mark.parametrize("folder", ["dialogsum", "knkarthick/dialogsum", "dialogsum/data"])
def test_dialogsum(tmp_path, ending, folder):
    dialogue = '#Person1#: Hi, "you".\n#Person2#: Hello.'
    test = [
        {"id": f"test_{n}_{k}", "dialogue": f"{dialogue} {n}", "summary": f"s{n}{k}", "topic": "t"}
        for n in range(2)
        for k in (1, 2, 3)
    ]
    train = [
        {"id": "train_0", "dialogue": dialogue, "summary": "one,  two", "topic": "greeting"},
        {"id": "train_1", "dialogue": dialogue, "summary": "three", "topic": "greeting"},
    ]
    write_table(tmp_path / folder / "test", test, ending)
    write_table(tmp_path / folder / "train", train, ending)
    with data_folder(tmp_path):
        source = summaries.dialogsum_task().source
        found = records(source, "test")
        assert [(r.id, r.references) for r in found] == [
            ("dialogsum-test_0", ("s01", "s02", "s03")),
            ("dialogsum-test_1", ("s11", "s12", "s13")),
        ]
        found = records(source, "train")
        assert [(r.id, r.answer) for r in found] == [
            ("dialogsum-train_0", "one, two"),
            ("dialogsum-train_1", "three"),
        ]
        assert found[0].fields == {"dialogue": dialogue}
        assert found[0].metadata == {"topics": ["greeting"]}


@pytest.mark.parametrize("ending", WITH_CSV)
def test_samsum(tmp_path, ending):
    rows = [{"id": "7", "dialogue": "A: hi\r\nB: ho", "summary": "They greet."}]
    for split in ("train", "validation", "test"):
        write_table(tmp_path / "samsum" / split, rows, ending)
    with data_folder(tmp_path):
        source = summaries.samsum_task().source
        for split in ("train", "validation", "test"):
            (found,) = records(source, split)
            assert (found.id, found.answer) == ("samsum-7", "They greet.")
            assert found.fields == {"dialogue": "A: hi\nB: ho"}


def squad_rows(prefix=""):
    return [
        {
            "id": f"{prefix}{n}",
            "context": "Berlin is a city." if n < 2 else "Rome is old.",
            "question": f"Which? {n}",
            "answers": {"text": ["Berlin" if n < 2 else "Rome"] * 2, "answer_start": [0, 0]},
        }
        for n in range(3)
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_xquad(tmp_path, ending):
    write_table(tmp_path / "xquad" / "xquad.de" / "validation", squad_rows(), ending)
    with data_folder(tmp_path):
        source = passages.xquad_source("de")
        found = records(source, "test")
        assert [(r.id, r.answer, r.references) for r in found] == [
            ("xquad-de-0", "Berlin", ("Berlin",)),
            ("xquad-de-1", "Berlin", ("Berlin",)),
            ("xquad-de-2", "Rome", ("Rome",)),
        ]
        (exemplar,) = records(source, "exemplars")
        assert exemplar.fields == {"context": "Rome is old.", "question": "Which? 2"}


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Rome"], "answer_start": [0]},
        {"text": "Rome", "answer_start": 0},
        [{"text": "Rome", "answer_start": 0}],
    ],
)
@pytest.mark.parametrize("shape", ["paragraphs", "rows under data", "array", "lines"])
def test_answers_of_every_layout_in_the_published_file(tmp_path, answers, shape):
    question = {"id": "q", "question": "Which?", "answers": answers}
    row = {"context": "Rome is old."} | question
    if shape == "paragraphs":
        paragraph = {"context": row["context"], "qas": [question]}
        text = json.dumps({"data": [{"paragraphs": [paragraph]}], "version": "1"})
    else:
        under = {"data": [row]} if shape == "rows under data" else [row]
        text = json.dumps(row) + "\n" if shape == "lines" else json.dumps(under)
    (tmp_path / "xquad").mkdir()
    (tmp_path / "xquad" / "xquad.en.json").write_text(text)
    with data_folder(tmp_path):
        (found,) = records(passages.xquad_source("en"), "test")
        assert (found.answer, found.id) == ("Rome", "xquad-en-q")


@pytest.mark.parametrize("ending", ENDINGS)
def test_tydiqa(tmp_path, ending):
    rows = [*squad_rows("korean-"), *squad_rows("arabic-")]
    for split in ("train", "validation"):
        write_table(tmp_path / "tydiqa" / "secondary_task" / split, rows, ending)
    with data_folder(tmp_path):
        source = passages.tydiqa_source("arabic")
        for split in ("train", "validation"):
            found = records(source, split)
            assert [r.id for r in found] == [f"tydiqa-arabic-{n}" for n in range(3)]


GSM8K_ROWS = [
    {"question": f"How many are {n} and 1?", "answer": f"It is <<{n}+1=0>>\n#### {n + 1}"}
    for n in range(40)
]
MGSM_TRAIN = [
    {
        "question": "Frage: Wie viele?",
        "answer": "Schritt-für-Schritt-Antwort: Es sind 5. Die Antwort ist 5.",
        "answer_number": 5.0,
        "equation_solution": "5",
    }
] * 8


@pytest.mark.parametrize("ending", WITH_CSV)
@pytest.mark.parametrize("folder", ["gsm8k/main", "openai/gsm8k/main", "gsm8k/data/main"])
def test_gsm8k(tmp_path, ending, folder):
    published, hub = tmp_path / "published", tmp_path / "hub"
    for split in ("train", "test"):
        write_table(hub / folder / split, GSM8K_ROWS, ending)
        write_table(published / "gsm8k" / split, GSM8K_ROWS, ".jsonl")
        write_table(hub / "mgsm" / "en" / split, MGSM_TRAIN, ending)
    for source, splits in (
        (Gsm8kSource(), ("train", "validation", "test")),
        (grade_school.gsm8k_task().source, ("test",)),
    ):
        for split in splits:
            with data_folder(published):
                expected = records(source, split)
            with data_folder(hub):
                assert records(source, split) == expected
            assert all(isinstance(record, Record) for record in expected)
    with data_folder(hub):
        assert len(records(grade_school.gsm8k_task().source, "exemplars")) == 8


@pytest.mark.parametrize("ending", WITH_CSV)
def test_mgsm(tmp_path, ending):
    test = [{"question": "Wie viel ist 70 mal 1000?", "answer": None, "answer_number": 70000.0}]
    write_table(tmp_path / "mgsm" / "de" / "train", MGSM_TRAIN, ending)
    write_table(tmp_path / "mgsm" / "de" / "test", test, ending)
    with data_folder(tmp_path):
        source = grade_school.mgsm_source("de")
        (found,) = records(source, "test")
        assert (found.id, found.answer) == ("mgsm-de-0", "70000")
        assert found.fields["question"] == "Frage: Wie viel ist 70 mal 1000?"
        assert found.fields["cue"] == "Schritt-für-Schritt-Antwort:"
        exemplars = records(source, "exemplars")
        assert [r.answer for r in exemplars] == ["5"] * 8
        assert exemplars[0].rationale == " Es sind 5. Die Antwort ist 5."


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("config", ["anatomy", "all"])
def test_mmlu(tmp_path, ending, config):
    def row(n, subject):
        choices = [f"{letter}{n}" for letter in "abcd"]
        return {"question": f"Q{n}?", "subject": subject, "choices": choices, "answer": n % 4}

    subjects = ["anatomy"] if config == "anatomy" else ["anatomy", "virology"]
    rows = [row(n, subject) for n in range(3) for subject in subjects]
    for split in ("test", "dev"):
        write_table(tmp_path / "mmlu" / config / split, rows, ending)
    with data_folder(tmp_path):
        source = mmlu.mmlu_source("anatomy")
        for split in ("test", "dev"):
            found = records(source, split)
            assert [(r.id, r.answer) for r in found] == [
                (f"mmlu-anatomy-{split}-{n}", f"{'abcd'[n]}{n}") for n in range(3)
            ]


@pytest.mark.parametrize("ending", WITH_CSV)
@pytest.mark.parametrize(
    "place", ["bbh/navigate/test", "bigbenchhard/navigate/train", "lukaemon/bbh/navigate/test"]
)
def test_bbh(tmp_path, ending, place):
    prompt = "canary\n-----\nHeads.\n\nQ: q1\nA: Let's think step by step.\nSo the answer is No."
    (tmp_path / "bbh" / "cot-prompts").mkdir(parents=True)
    (tmp_path / "bbh" / "cot-prompts" / "navigate.txt").write_text(prompt)
    question = "Turn left.\nOptions:\n- Yes\n- No"
    write_table(tmp_path / place, [{"input": question, "target": "No"}], ending)
    row = next(one for one in bbh.SUB_TASKS if one.name == "navigate")
    with data_folder(tmp_path):
        source = bbh.bbh_source(row)
        (found,) = records(source, "test")
        assert (found.id, found.answer, found.options) == ("bbh-navigate-0", "No", ("Yes", "No"))
        assert found.fields["description"] == "Heads."
        assert len(records(source, "exemplars")) == 1


def test_a_split_without_a_record_is_never_silent(tmp_path, caplog):
    rows = [{"id": n, "context": "Rome.", "question": "?", "solution": "Rome"} for n in range(4)]
    write_table(tmp_path / "xquad" / "xquad.ro" / "validation", rows, ".jsonl")
    with data_folder(tmp_path):
        for once in (True, False):  # and the store is tried again, as another reader may do better
            caplog.clear()
            done = prepare(
                workspace(),
                registry.resolve(workspace(), "xquad.ro"),
                toy_config("xquad.ro"),
                ("test",),
            )
            stores = {store.split: store for store in done.stores}
            assert stores["test"].status == "built"
            assert stores["test"].records == 0
            assert (
                "task xquad.ro, split test: none of its 4 rows became a record: empty passage, "
                "question or answer (4). The first of them has nothing in answers. Its fields are "
                "context, id, question, solution" in caplog.text
            )
            assert ("split exemplars: its source gave no rows" in caplog.text) == once


def test_published_files_come_first_and_keep_their_fingerprints(tmp_path):
    """Files of a hub beside the published ones change neither records nor fingerprint."""
    (tmp_path / "xquad").mkdir()
    paragraph = {
        "context": "Rome.",
        "qas": [{"id": "q", "question": "?", "answers": [{"text": "R"}]}],
    }
    (tmp_path / "xquad" / "xquad.en.json").write_text(
        json.dumps({"data": [{"paragraphs": [paragraph]}]})
    )
    with data_folder(tmp_path):
        source = passages.xquad_source("en")
        before = records(source, "test"), source.fingerprint(workspace())
        write_table(tmp_path / "xquad" / "xquad.en" / "validation", squad_rows(), ".jsonl")
        found = records(source, "test"), source.fingerprint(workspace())
        assert found == before
