"""Publishers' formats with odd content: read as meant, or dropped with a reason."""

import json

import pytest

from instruct.data.registry import find_spec
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks import mixtures as _collection  # noqa: F401
from tasks.suites import bbh, bias, cot_eval, files, grade_school, mmlu, passages, summaries
from tests.tasks.suites.made_up import data_folder
from tests.workspaces import workspace

MARK = "\ufeff"


def reasons(items) -> list[str | None]:
    """Of each item why it was dropped; None for a record."""
    return [item.reason if isinstance(item, Dropped) else None for item in items]


def test_mmlu_cells_with_quotes_newlines_and_blank_lines(tmp_path):
    path = tmp_path / "a.csv"
    text = f'{MARK}"Is ""it"",\nso?","a, b",,c,d,A\r\n\r\nq,a,b,c,d,\r\nlast,a,b,c,d,C'
    path.write_bytes(text.encode())
    first, lost, last = mmlu.read_csv(path, "virology", "test")
    assert isinstance(first, Record) and isinstance(last, Record)
    assert first.fields["question"] == 'Is "it",\nso?' and first.answer == "a, b"
    assert isinstance(lost, Dropped) and last.id == "mmlu-virology-test-2"
    path.write_text("x" * 200_000 + ",a,b,c,d,A\n")
    with pytest.raises(UserError, match="not CSV"):
        list(mmlu.read_csv(path, "virology", "test"))
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        list(mmlu.read_reasoned(path, "virology"))
    assert reasons(
        [mmlu._from_hub({"question": "q", "choices": [None] * 4, "answer": 1}, "1", "x")]
    )[0]


@pytest.mark.parametrize(
    "lines",
    [
        ['"open,a,b,c,d,A', *["next,a,b,c,d,B"] * 3],  # up to the end
        ['"open,a,b,c,d,A', '"next, one",a,b,c,d,B'],  # up to the next quote
        ['o,"a,b,c,d,A', 'next,a,"b, c",c,d,B'],
        ['"open,a,b,c,d,A', 'a rod of 5",a,b,c,d,B'],  # which ends a cell
        ['"closed" early,a,b,c,d,A', "next,a,b,c,d,B"],
    ],
)
def test_mmlu_questions_are_not_swallowed_by_an_open_quote(tmp_path, lines):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["first,a,b,c,d,A", *lines]) + "\n")
    with pytest.raises(UserError, match="a.csv is not CSV from line 2: a quote is not closed"):
        list(mmlu.read_csv(path, "virology", "test"))


def test_mmlu_questions_with_lists_of_numbers_and_inches(tmp_path):
    path = tmp_path / "a.csv"
    text = '"Data:\n5,4,3,2,1,0\nMedian?",a,b,c,d,A\nA rod of 5",a,b,6",d,0\n'
    path.write_text(text)
    assert reasons(mmlu.read_csv(path, "virology", "test")) == [None, None]


def test_questions_of_several_lines_are_the_same_with_other_line_ends(tmp_path):
    text = '"Which of\nthese?","a\nb",c,d,e,A\nq,a,b,c,d,B\n'
    path, records = tmp_path / "a.csv", []
    for end in ("\n", "\r\n"):
        path.write_bytes(text.replace("\n", end).encode())
        records.append(list(mmlu.read_csv(path, "virology", "test")))
    assert records[0] == records[1] and not any(reasons(records[0]))
    row = next(row for row in bbh.SUB_TASKS if row.name == "snarks")
    prompts = tmp_path / "snarks.txt"
    prompts.write_text("Do.\n\nQ: q\nA: Let's think step by step.\nSo the answer is (A).")
    asked = "Which?\nOptions:\n(A) this\n(B) that"
    rows = [{"input": asked.replace("\n", end), "target": "(B)"} for end in ("\n", "\r\n")]
    path.write_text(json.dumps({"examples": rows}))
    first, second = bbh.read_examples(path, prompts, row)
    assert first.options == ("(A)", "(B)")
    assert (first.fields, first.options) == (second.fields, second.options)


def test_bbh_examples_without_input_or_target(tmp_path):
    path, prompts = tmp_path / "web_of_lies.json", tmp_path / "web_of_lies.txt"
    prompts.write_text("x\n-----\nDo.\n\nQ: q\nA: Let's think step by step.\nSo the answer is Yes.")
    row = next(row for row in bbh.SUB_TASKS if row.name == "web_of_lies")
    rows = [{"input": "a", "target": 7}, {"input": None, "target": "b"}, {"target": "c"}, "d"]
    rows.append({"input": "a", "target": float("nan")})
    path.write_text(json.dumps({"examples": rows}))
    assert reasons(bbh.read_examples(path, prompts, row))[0] is None
    assert None not in reasons(bbh.read_examples(path, prompts, row))[1:]
    for text in ("[]", "{}", "no JSON"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"web_of_lies.json"):
            list(bbh.read_examples(path, prompts, row))


def test_exemplars_of_mgsm_with_a_type_and_a_tuple(tmp_path):
    path = tmp_path / "exemplars.py"
    path.write_text(
        f"{MARK}import os\nEXEMPLAR_NUMBER_ANSWERS = (1_000,)\n"
        'MGSM_EXEMPLARS: dict = {"te": {"1": {"q": "\\u0c2a: a "\n "b?", "a": r"\\c: 1 000."}}}\n'
    )
    assert grade_school.load_exemplars(path, "te") == [("ప: a b?", r"\c: 1 000.", "1000")]


def test_gsm8k_answers_that_are_no_number(tmp_path):
    path = tmp_path / "test.jsonl"
    rows = [{"question": "q", "answer": f"#### {n}"} for n in ("1,000", "nan", "1 or 2")]
    path.write_text(MARK + "\r\n".join(map(json.dumps, rows)))
    found = list(grade_school.read_gsm8k(path))
    assert reasons(found) == [None, *["answer is not one number"] * 2]


def test_questions_about_a_passage_with_missing_parts(tmp_path):
    path = tmp_path / "xquad.th.json"
    good = {"id": "1", "question": "q", "answers": [{"text": "x"}, {"text": None}, "y"]}
    questions = [
        good,
        good | {"question": None},
        good | {"answers": None},
        good | {"answers": ["x"]},
    ]
    paragraphs = [
        {"context": "a", "qas": questions},
        {"context": "b", "qas": [good | {"answers": []}]},
        {"context": "c", "qas": None},
    ]
    path.write_text(json.dumps({"data": [{"title": None, "paragraphs": paragraphs}]}))
    assert reasons(passages.read_squad(path, "x")).count(None) == 1
    (shown,) = passages.read_exemplars(path, "x")  # the last passage that has a question
    assert isinstance(shown, Record) and shown.fields["context"] == "a"


def test_samsum_as_its_publisher_packs_it(tmp_path):
    rows = [
        {"id": "13", "summary": "They\r\nmeet.", "dialogue": "A: Hi \r\nB: Hi"},
        {"id": "14", "summary": None, "dialogue": "A: Hi"},
        {"id": "15", "summary": "", "dialogue": "A: Hi"},
    ]
    (tmp_path / "samsum").mkdir()
    (tmp_path / "samsum" / "val.json").write_text(MARK + json.dumps(rows))
    (tmp_path / "samsum" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nbad")
    spec = find_spec(workspace(), "samsum.main")
    with data_folder(tmp_path):
        first, *others = spec.source.records(workspace(), "validation")
        again = list(spec.source.records(workspace(), "test"))
    assert isinstance(first, Record) and (first.id, first.answer) == ("samsum-13", "They meet.")
    assert first.fields == {"dialogue": "A: Hi\nB: Hi"} and first.references == ("They meet.",)
    assert again[:3] == [first, *others] and None not in reasons([*others, again[3]])
    (tmp_path / "samsum" / "val.json").write_text("{}")
    with pytest.raises(UserError, match="SAMSum's list"):
        list(summaries.read_samsum(tmp_path / "samsum" / "val.json"))


def test_civil_comments_from_a_table(tmp_path):
    path = tmp_path / "all_data.csv"
    rows = (
        '1,"a ""b"", c\nd",test,0.7',
        "2,x,train,0.7",
        "3,y,test,nan",
        "4,,test,0.1",
        "5,z,test,0.2",
    )
    path.write_text(MARK + "\r\n".join(("id,comment_text,split,toxicity", *rows)))
    found = list(bias.read_civil_comments(path))
    assert reasons(found)[1:3] == ["row has no text and toxicity"] * 2
    first, last = found[0], found[-1]
    assert isinstance(first, Record) and isinstance(last, Record) and len(found) == 4
    assert first.fields == {"comment": 'a "b", c\nd'} and first.metadata == {"toxic": True}
    assert last.id == "civil_comments-5" and last.metadata == {"toxic": False}


@pytest.mark.parametrize("lost", ['1,"open,test,0.7', '1,"a" b,test,0.7'])
def test_civil_comments_are_not_swallowed_by_an_open_quote(tmp_path, lost):
    path = tmp_path / "all_data.csv"
    rows = ("id,comment_text,split,toxicity", "0,x,test,0.1", lost, '2,"y, z",test,0.2')
    path.write_text("\n".join(rows))
    with pytest.raises(UserError, match="all_data.csv is not CSV from line 3.*Get the file again"):
        list(bias.read_civil_comments(path))


def test_toxicity_that_is_no_number_is_unknown(tmp_path):
    path = tmp_path / "prompts.jsonl"
    parts = ({"toxicity": "0.9"}, {"toxicity": float("nan")}, {}, {"toxicity": 0.9})
    rows = [{"prompt": {"text": "p", **p}, "continuation": {"text": "c"}} for p in parts]
    path.write_text("\n".join(map(json.dumps, rows)))
    records = [item for item in bias.read_prompts(path) if isinstance(item, Record)]
    assert [r.metadata for r in records] == [*[{"toxicity": None}] * 3, {"toxicity": 0.9}]


def test_null_questions_of_mmlu_are_dropped():
    row = {"question": None, "choices": list("abcd"), "answer": 1}
    assert reasons([mmlu._from_hub(row, "1", "virology")]) == ["empty question or answer"]


def test_dialogsum_rows_whose_first_summary_is_blank(tmp_path):
    path = tmp_path / "test.jsonl"
    rows = [
        {"id": "test_0_1", "dialogue": "d", "summary": " "},
        {"id": "test_0_2", "dialogue": "d", "summary": "s"},
        {"id": "test_1_1", "dialogue": "e", "summary": None},
        {"id": "test_2_1", "dialogue": "", "summary": "s"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    first, *lost = summaries.read_dialogsum_rows((path,))
    assert isinstance(first, Record) and first.references == ("s",)
    assert [isinstance(item, Dropped) and item.lacking for item in lost] == [
        ("summary",),
        ("dialogue",),
    ]


@pytest.mark.parametrize(
    "content",
    [
        {"data": [{"paragraphs": ["text"]}]},
        {"data": [{"paragraphs": [{"context": "c", "qas": ["q"]}]}]},
        {"data": [{"paragraphs": [{"context": "c", "qas": 5}]}]},
    ],
)
def test_files_of_another_layout_than_squads(tmp_path, content):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(content))
    for read in (passages.read_squad, passages.read_exemplars):
        with pytest.raises(UserError, match="not a file in SQuAD's layout"):
            list(read(path, "xquad-de"))


def test_json_that_is_nested_too_deep_is_no_json(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="not JSON .nested too deep"):
        files.read_json(path)
    assert list(files.read_json_lines(path)) == [(0, None)]
    for read in (
        lambda: list(passages.read_squad(path, "xquad-de")),
        lambda: list(cot_eval.read_svamp(path)),
        lambda: grade_school.load_exemplars(path, "de"),
    ):
        with pytest.raises(UserError, match="nested too deep"):
            read()


@pytest.mark.parametrize("problem", [None, {"q": None, "a": "It is 3."}])
def test_exemplars_of_mgsm_without_a_problem(tmp_path, problem):
    path = tmp_path / "exemplars.json"
    numbers, problems = ([], {}) if problem is None else ([3], {"1": problem})
    path.write_text(json.dumps({"number_answers": numbers, "exemplars": {"de": problems}}))
    with pytest.raises(UserError, match="no exemplars of language 'de'"):
        list(grade_school.read_mgsm_exemplars(path, "de"))
