"""Readers of publishers' formats, where the golden prompts do not show a case."""

import csv
import json
import pickle

import pytest

from instruct.data.registry import find_spec, resolve, task_specs
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered, render
from tasks import mixtures as _collection  # noqa: F401
from tasks.suites import cot_eval, grade_school, mmlu, passages, summaries, t0_held_out
from tasks.suites.held_in import IDS, NUM_WORDINGS, first_wording
from tasks.suites.task import suite_task
from tests.tasks.suites.made_up import data_folder
from tests.tasks.suites_goldens import records_of
from tests.workspaces import workspace


def test_prefixes_of_every_script():
    assert grade_school.split_prefix("Question : Combien ?") == ("Question : ", "Combien ?")
    assert grade_school.split_prefix("問題：何個？") == ("問題：", "何個？")
    assert grade_school.split_prefix("no prefix here") == ("", "no prefix here")
    assert len(grade_school.LANGUAGES) == 11


def test_reasoned_exemplars_keep_the_lines_of_their_choices(tmp_path):
    """Elementary mathematics has a line a choice, an exemplar of college chemistry five."""
    path = tmp_path / "mmlu-cot.json"
    lines = "(A) 4\n(B) 5, of\n  which 2\n(C) 6\n(D) 7"
    reasoning = " One (A) is less.\n(B) is not. The answer is (B)."
    five = "(A) 1 (B) 2 (C) 3 (D) 4 (E) 5"
    blocks = (
        "About nature.",
        f"Q: How many?\nI. here\n{lines}\nA: Let's think step by step.{reasoning}",
        f"Q: Which?\n{five}\nA: Let's think step by step. The answer is (E).\n\n",
        "Q: Which?\n(A) 1 (C) 2 (B) 3 (D) 4\nA: Let's think step by step. The answer is (B).",
        "Q: Which?\n(A) 1 (B) 2 (C) 3 (D) 4\nA: Let's think step by step. The answer is (E).",
    )
    path.write_text(json.dumps({"anatomy": "\n\n".join(blocks)}))
    first, second, *others = mmlu.read_reasoned(path, "anatomy")
    assert isinstance(first, Record) and isinstance(second, Record)
    assert (first.fields["question"], first.fields["listed"]) == ("How many?\nI. here", lines)
    assert first.options == ("4", "5, of\n  which 2", "6", "7") and first.answer_index == 1
    assert first.rationale == reasoning
    assert second.fields["listed"] == five and second.answer == "5"
    assert others == [
        Dropped("exemplar is not of the published form"),
        Dropped("the answer is none of the choices"),
    ]


def test_squad_files_of_another_layout_are_named(tmp_path):
    path = tmp_path / "xquad.xx.json"
    for text in ("[]", '{"data": [{}]}', "no JSON"):
        path.write_text(text)
        with pytest.raises(UserError, match="SQuAD's layout"):
            list(passages.read_squad(path, "xquad-xx"))
    path.write_text('{"data": []}')
    assert list(passages.read_exemplars(path, "xquad-xx")) == []


def test_summaries_keep_turns_and_topics(tmp_path):
    path = tmp_path / "dialogsum.train.jsonl"
    row = {"fname": "t1", "dialogue": "#Person1#: Hi. \n#Person2#: Hi.", "summary": "They\n meet."}
    path.write_text(
        json.dumps(row | {"topic": "greeting"}) + "\n" + json.dumps(row | {"summary": ""})
    )
    record, dropped = summaries.read_dialogsum(path)
    assert isinstance(record, Record) and isinstance(dropped, Dropped)
    assert record.fields == {"dialogue": "#Person1#: Hi.\n#Person2#: Hi."}
    assert (record.answer, record.references) == ("They meet.", ("They meet.",))
    assert record.metadata == {"topics": ["greeting"]}


def test_word_problems_are_joined_as_sentences(tmp_path):
    path = tmp_path / "SVAMP.json"
    rows = [
        {"ID": "1", "Body": "Ann has 3 pens.", "Question": "How many?", "Answer": 3.0},
        {"ID": "2", "Body": "If Ann buys 3 pens", "Question": "How many has she?", "Answer": 1.5},
        {"ID": "3", "Body": "", "Question": "", "Answer": 1},
    ]
    path.write_text(json.dumps(rows))
    items = list(cot_eval.read_svamp(path))
    records = [item for item in items if isinstance(item, Record)]
    asked = [record.fields["question"] for record in records]
    assert asked == ["Ann has 3 pens. How many?", "If Ann buys 3 pens, how many has she?"]
    assert [record.answer for record in records] == ["3", "1.5"]
    assert items[2] == Dropped("empty question")
    path.write_text('{"ID": 1}')
    with pytest.raises(UserError, match="SVAMP's file"):
        list(cot_eval.read_svamp(path))
    path.write_text("<open>")
    with pytest.raises(UserError, match="not XML"):
        list(cot_eval.read_asdiv(path))


PROMPTS = {
    **{"rte": 10, "cb": 15, "anli_r1": 15, "anli_r2": 15, "anli_r3": 15, "wsc": 10},
    **{"winogrande": 5, "copa": 12, "story_cloze": 5, "hellaswag": 4, "wic": 10},
}


def test_prompts_of_t0_by_their_published_names():
    assert {row.id: len(row.prompts) for row in t0_held_out.SETS} == PROMPTS
    names = {
        t0_held_out.published_name(row, prompt)
        for row in t0_held_out.SETS
        for prompt in row.prompts
    }
    assert len(names) == 116
    assert {
        "super_glue_copa_C1_or_C2_premise_so_because_",
        "super_glue_copa__As_a_result_C1_or_C2_",
        "super_glue_cb_guaranteed_possible_impossible",
        "super_glue_wsc.fixed_p_is_are_r",
        "anli_GPT_3_style_r1",
        "winogrande_winogrande_xl_fill_in_the_blank",
    } <= names


def test_sets_that_other_families_have_too_are_in_their_groups():
    groups = {spec.name: spec.group for spec in task_specs(workspace()).values()}
    assert groups["cot_eval.commonsense_qa"] == groups["cot_eval.ecqa"] == groups["cot.ecqa"]
    assert groups["cot_eval.strategyqa"] == groups["cot.strategyqa"]
    assert groups["gsm8k_test.gsm8k"] == groups["cot.gsm8k"]
    assert groups["samsum.main"] == groups["flan2021.samsum"]
    niv2 = {spec.group for spec in task_specs(workspace()).values() if spec.family == "niv2"}
    assert {groups["cot_eval.asdiv"], groups["cot_eval.svamp"], groups["xquad.en"]} <= niv2


def test_held_in_and_layouts():
    assert len(IDS) == 8 and all(f"held_in.{name}" in task_specs(workspace()) for name in IDS)
    templates = find_spec(workspace(), "flan2021.rte").templates
    once = first_wording(templates)
    assert (len(once.zs_opt), len(once.formats), once.inv) == (1, 1, ())
    assert first_wording(once).zs_opt == once.zs_opt
    shown = [
        find_spec(workspace(), f"held_in_wordings.rte_{number}").templates.zs_opt
        for number in range(1, NUM_WORDINGS + 1)
    ]
    assert shown == [(template,) for template in templates.zs_opt[:NUM_WORDINGS]]
    assert {leaf.dataset for leaf in resolve(workspace(), "held_in.wording_7").leaves} == {
        find_spec(workspace(), f"held_in.{name}").dataset for name in IDS
    }
    with pytest.raises(UserError, match="Did you mean 'mmlu'"):
        suite_task("mmlu.x", mmlu.mmlu_source("virology"), "mmlo")


def test_every_source_can_be_sent_to_a_worker_process():
    families = {"mmlu", "bbh", "mgsm", "gsm8k_test", "tydiqa", "xquad", "cot_eval", "dialogsum"}
    families |= {"held_in", "samsum", "t0_held_out", "bias"}
    for spec in task_specs(workspace()).values():
        if spec.family in families:
            again = pickle.loads(pickle.dumps(spec.source))
            assert again.splits == spec.source.splits


def mmlu_prompt(rows, question):
    """The prompt of lm-evaluation-harness's `mmlu`, made from rows of CSV."""

    def asked(row):
        choices = (f"{letter}. {choice}" for letter, choice in zip("ABCD", row[1:5]))
        return "\n".join([row[0].strip(), *choices, "Answer:"])

    blocks = [f"{asked(row)} {row[5]}\n\n" for row in rows]
    head = "The following are multiple choice questions (with answers) about high school physics."
    return f"{head}\n\n{''.join(blocks)}{asked(question)}"


def test_mmlu_is_asked_to_the_letter(tmp_path):
    """Repeated exemplars and a question that is one of them stay, and so do blanks of choices."""
    twice = ["Why? ", " a", "b ", "c", "d", "B"]
    dev = [twice, ["Who?", "1", "2", "  3", "4", "A"], twice, ["How?", *"wxyz", "D"], twice]
    test = [[" When?\nThen", "now ", "then", " ", "never", "A"], twice]
    for split, rows in (("dev", dev), ("test", test)):
        path = tmp_path / "mmlu" / split / f"high_school_physics_{split}.csv"
        path.parent.mkdir(parents=True)
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    spec = find_spec(workspace(), "mmlu.high_school_physics")
    with data_folder(tmp_path):
        exemplars, records = records_of(spec, "dev"), records_of(spec, "test")
    assert len(exemplars) == 5
    for record, row in zip(records, test, strict=True):
        for mode, shots, expected in (
            ("direct", exemplars, mmlu_prompt(dev, row)),
            ("zs_direct", [], mmlu_prompt([], row)),
        ):
            shown = render(
                record,
                spec.templates,
                mode,
                1,
                shots,
                frame=Frame(load_vocabulary("bytes")),
                max_inputs_tokens=4_000,
                max_targets_tokens=100,
            )
            assert isinstance(shown, Rendered)
            assert (shown.inputs, shown.targets) == (expected, row[5])
            assert shown.num_exemplars == len(shots)
    reasoned = " ".join(f"({letter}) {choice}" for letter, choice in zip("ABCD", test[0][1:5]))
    assert records[0].fields["listed"] == reasoned


def test_mmlu_of_real_files_to_the_letter(shared_data):
    name = "high_school_physics"
    rows = {}
    for split in ("dev", "test"):
        with (shared_data / "mmlu" / split / f"{name}_{split}.csv").open(newline="") as stream:
            rows[split] = [row for row in csv.reader(stream) if row[-1] != "answer"]
        for row in rows[split]:
            row[5] = "ABCD"[int(row[5])] if row[5].isdecimal() else row[5]
    with data_folder(shared_data):
        spec = find_spec(workspace(), f"mmlu.{name}")
        exemplars, records = records_of(spec, "dev"), records_of(spec, "test")
    assert len(records) == len(rows["test"])
    for record, row in zip(records, rows["test"]):
        shown = render(
            record,
            spec.templates,
            "direct",
            1,
            exemplars,
            frame=Frame(load_vocabulary("bytes")),
            max_inputs_tokens=40_000,
            max_targets_tokens=100,
        )
        assert isinstance(shown, Rendered) and shown.inputs == mmlu_prompt(rows["dev"], row)
