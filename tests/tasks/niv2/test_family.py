import collections
import json
import re

import pytest

from instruct.data.registry import find_spec, resolve, scored_task, task_specs
from instruct.data.sources.natural_instructions import EXEMPLARS, FOLDER, normalized_stem
from instruct.data.spec import SPLITS
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered
from instruct.prompts.template import load_template_sets, placeholders
from tasks.answers import rouge_l, rouge_l_of_gpt2_tokens
from tasks.niv2 import family as niv2
from tasks.niv2.table import (
    UNITED,
    Niv2Row,
    all_rows,
    find_row,
    is_mmlu,
    niv2_rows,
    registry_name,
)
from tasks.table_files import FOLDER as TABLES
from tasks.wordings import FOLDER as WORDINGS
from tests.tasks.niv2.goldens import made_up_records, number_of
from tests.tasks.shown_prompts import rendered
from tests.workspaces import workspace

ROWS = niv2_rows()
OMITTED = [row for row in all_rows() if row.omitted]
TEST_CATEGORIES = {
    "Textual Entailment": 24,
    "Title Generation": 18,
    "Coreference Resolution": 14,
    "Answerability Classification": 13,
    "Question Rewriting": 11,
    "Data to Text": 9,
    "Word Analogy": 8,
    "Cause Effect Classification": 7,
    "Dialogue Act Recognition": 7,
    "Keyword Tagging": 5,
    "Overlap Extraction": 2,
    "Grammar Error Correction": 1,
}
# The collection's list: category -> tasks, those in English only. The 42 categories of one task
# are counted together.
CATEGORIES = """
Translation 394 2; Question Answering 150 128; Program Execution 90 90; Question Generation 83 76;
Sentiment Analysis 75 51; Text Categorization 46 38; Text Matching 43 24;
Toxic Language Detection 40 32; Cause Effect Classification 37 7; Information Extraction 34 30;
Textual Entailment 27 24; Wrong Candidate Generation 27 26; Named Entity Recognition 25 21;
Commonsense Classification 24 24; Fill in The Blank 22 10; Text Completion 21 20;
Sentence Composition 20 20; Title Generation 19 18; Question Understanding 16 15;
Summarization 16 16; Language Identification 15 0; Sentence Perturbation 15 4;
Answerability Classification 14 13; Coreference Resolution 14 14; Dialogue Generation 13 13;
Paraphrasing 12 5; Text Quality Evaluation 12 12; Text to Code 12 12; Question Rewriting 11 11;
Pos Tagging 10 9; Word Semantics 10 10; Data to Text 9 9; Linguistic Probing 9 9;
Speaker Identification 9 9; Story Composition 9 9; Word Analogy 8 8; Answer Verification 7 7;
Dialogue Act Recognition 7 7; Gender Classification 7 7; Negotiation Strategy Detection 7 7;
Stereotype Detection 7 7; Coherence Classification 6 6; Ethics Classification 6 6;
Explanation 6 6; Intent Identification 5 5; Keyword Tagging 5 5; Mathematics 5 4;
Sentence Ordering 5 5; Word Relation Classification 5 5; Code to Text 4 4;
Dialogue State Tracking 4 4; Text Simplification 4 4; Fact Verification 3 3;
Food Classification 3 3; Grammar Error Detection 3 3; Section Classification 3 3;
Stance Detection 3 2; Date Validity Prediction 2 2; Emotion Word Generation 2 2;
Grammar Error Correction 2 2; Irony Detection 2 2; Number Conversion 2 2; Overlap Extraction 2 2;
Question Decomposition 2 2; Speaker Relation Classification 2 2; Style Transfer 2 2
"""
OLD = {
    "Definition": "Name the colour.",
    "Positive Examples": [{"input": "sky", "output": "blue", "explanation": "By day."}],
    "Negative Examples": [{"input": "snow", "output": "black", "explanation": "It is white."}],
    "Instances": [{"input": f"thing {n}", "output": [f"colour {n}"]} for n in range(60)],
}
NEW = OLD | {
    "Definition": ["Name the colour."],
    "Positive Examples": [{"input": "sky", "output": ["blue"], "explanation": "By day."}],
    "Instances": [
        {"id": f"task-{n}", "input": f"thing {n}", "output": [f"colour {n}", "?"]}
        for n in range(60)
    ],
}


def english(row: Niv2Row) -> bool:
    return row.languages == ("English",)


def test_numbers_of_tasks():
    assert (len(ROWS), len(OMITTED)) == (1554, 2)
    assert len(niv2.test_tasks()) == 119
    assert len(niv2.xlingual_test_tasks()) == 35
    # The published 757 had task1295 before it was excluded; 57 copies of MMLU, 2 omitted here.
    assert len(niv2.train_tasks()) == 757 - 1 - 57 - 2
    assert len(niv2.xlingual_train_tasks()) == 1271 - 1 - 57 - 2
    assert {row.stem for row in OMITTED} == {
        "task062_bigbench_repeat_copy_logic",
        "task1731_quartz_question_answering",
    }


def test_categories_are_those_of_the_collection():
    every = all_rows()
    tasks = collections.Counter(row.category for row in every)
    in_english = collections.Counter(row.category for row in every if english(row))
    listed = {}
    for entry in " ".join(CATEGORIES.split()).split(";"):
        category, count, spoken = entry.strip().rsplit(" ", 2)
        listed[category] = (int(count), int(spoken))
    assert {c: (tasks[c], in_english[c]) for c in listed} == listed
    rest = tasks.keys() - listed.keys()
    assert len(rest) == 42 and all(tasks[category] == 1 for category in rest)
    assert len(tasks) == 108 and tasks.total() == 1556
    assert len({row.category for row in ROWS.values()}) == 108
    assert sum(not english(row) for row in every) == 576
    assert len({language for row in every for language in row.languages}) == 60


def test_test_tasks_are_those_of_the_twelve_categories():
    tested = collections.Counter(row.category for row in ROWS.values() if row.split == "test")
    assert tested == TEST_CATEGORIES
    for row in ROWS.values():
        if row.category in TEST_CATEGORIES and number_of(row) != 1415:
            assert (row.split == "test") == english(row), row
            assert (row.xlingual == "test") == (not english(row)), row
        else:
            assert "test" not in (row.split, row.xlingual), row
        assert row.split != "train" or english(row), row


def test_no_training_task_shares_a_data_set_with_a_test_task():
    specs = task_specs(workspace())
    tested = {specs[name].dataset for name in niv2.test_tasks()}
    both = tested | {specs[name].dataset for name in niv2.xlingual_test_tasks()}
    shared = [name for name in niv2.train_tasks() if specs[name].dataset in tested]
    assert len(shared) == 9
    assert {specs[name].dataset for name in shared} == {"enhanced_wsc", "roc_stories", "wiki_auto"}
    assert set(niv2.train_tasks(disjoint=True)) == set(niv2.train_tasks()) - set(shared)
    assert not both & {specs[name].dataset for name in niv2.xlingual_train_tasks(disjoint=True)}
    assert not set(niv2.train_tasks()) & set(niv2.test_tasks())


def test_names():
    names = [row.name for row in ROWS.values()]
    assert len(set(names)) == 1554
    assert all(re.fullmatch(r"niv2\.task\d{3,4}_\w+", name) for name in names)
    assert len({normalized_stem(stem) for stem in ROWS}) == 1554
    numbers = collections.Counter(number_of(row) for row in ROWS.values())
    assert sorted(n for n, count in numbers.items() if count > 1) == [184, 672, 861, 868, 1168]
    assert list(numbers) == sorted(numbers)
    assert registry_name("task074_squad1.1_question_generation") in names


def test_every_united_name_occurs_and_none_is_left():
    text = (TABLES / "niv2.tsv").read_text(encoding="utf-8")
    for name in UNITED:
        assert f"\t{name}\t" in text, name
    datasets = {row.dataset for row in ROWS.values()}
    assert not datasets & UNITED.keys()
    assert all(re.fullmatch(r"[a-z0-9_.]+", name) for name in datasets)
    assert len(datasets) == 362


@pytest.mark.parametrize(
    ("stem", "number"),
    [
        ("task1529_scitail1", 1529),
        ("task1529_scitail1.1_classification", 1529),
        ("task1529_scitail1_1_classification", 1529),
        ("task141_odd_man_out_classification_category", 141),
        ("task062_bigbench_repeat_copy_logic", 62),
        ("task184_other", None),
        ("task9001_new", None),
    ],
)
def test_find_row(stem, number):
    row = find_row(stem)
    assert (row and number_of(row)) == number


def test_the_five_shared_numbers_are_told_apart():
    first, second = (
        find_row("task184_break_generate_question"),
        find_row("task184_snli_entailment_to_neutral_text_modification"),
    )
    assert first is not None and second is not None
    assert (first.dataset, second.dataset) == ("break", "snli")


def test_copies_of_mmlu_are_known():
    assert is_mmlu("task685_mmmlu_answer_generation_clinical_knowledge")
    assert is_mmlu("task737_mmmlu-answer_generation_world_religions")
    assert is_mmlu("task1800_mmlu_law")
    assert not is_mmlu("task684_online_privacy_policy_text_information_type_generation")
    assert not is_mmlu("task738_perspectrum_classification")
    assert not is_mmlu("task6640_x")
    assert not any(map(is_mmlu, ROWS))


def test_registration():
    specs = [spec for spec in task_specs(workspace()).values() if spec.family == "niv2"]
    by_name = {spec.name: spec for spec in specs}
    for row in ROWS.values():
        spec = by_name[row.name]
        assert spec.dataset == row.dataset
        assert (spec.category, tuple(spec.languages)) == (row.category, row.languages)
        assert spec.cap == 5_000 and spec.license.startswith("Apache-2.0")
        assert set(spec.splits) == {*SPLITS, EXEMPLARS} == set(spec.source.splits)
        shares = {leaf.mode: leaf.rate for leaf in resolve(workspace(), row.name).leaves}
        assert shares == {"zs_noopt": 0.5, "fs_noopt": 0.5}
        for mode in ("zs_noopt", "fs_noopt", "tk_instruct", "tk_instruct_mixed"):
            assert scored_task(workspace(), f"{row.name}.{mode}").postprocess_fn is not None


@pytest.mark.parametrize("category", sorted({row.category for row in ROWS.values()}))
def test_every_task_renders_in_all_modes(category):
    for row in (row for row in ROWS.values() if row.category == category):
        spec = niv2.niv2_task(row)
        records, pool = made_up_records(row)
        for mode in spec.all_modes:
            for number in range(3):
                shown = rendered(spec, mode, number, records, pool)
                assert isinstance(shown, Rendered), (row.stem, mode, shown)
                assert shown.targets == "y" and "x" in shown.inputs
                if mode != "tk_instruct_mixed":  # one of its encodings has no definition
                    assert f"Do {number_of(row)}." in shown.inputs
                if mode == "fs_noopt":
                    assert shown.num_exemplars >= 1


def test_negative_examples_reach_the_encoding():
    row = next(iter(ROWS.values()))
    records, pool = made_up_records(row)
    spec = niv2.niv2_task(row)
    prompts = [rendered(spec, "tk_instruct_mixed", n, records, pool) for n in range(40)]
    texts = [shown.inputs for shown in prompts if isinstance(shown, Rendered)]
    assert any("n0" in text and "n1" in text for text in texts)
    assert not all("n0" in text for text in texts)
    assert any("why0" in text for text in texts)


@pytest.mark.parametrize("content", [OLD, NEW], ids=["old", "new"])
def test_files_of_both_schemas(content, tmp_path, monkeypatch):
    """A task reads its file under another spelling; its exemplars never show the query."""
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    row = find_row("task141_odd-man-out_classification_category")
    assert row is not None
    spec = niv2.niv2_task(row)
    assert spec.source.available(workspace()) is not None
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    repeated = {"input": "sky", "output": ["blue"]}
    content = {**content, "Instances": [*content["Instances"], repeated]}
    (folder / "task141_odd_man_out_classification_category.json").write_text(json.dumps(content))
    assert spec.source.available(workspace()) is None
    splits = {split: list(spec.source.records(workspace(), split)) for split in SPLITS}
    assert sum(map(len, splits.values())) == 61 and len(splits["train"]) > 45
    records = [r for items in splits.values() for r in items if isinstance(r, Record)]
    assert len({record.id for record in records}) == 61
    pool = [r for r in spec.source.records(workspace(), EXEMPLARS) if isinstance(r, Record)]
    assert [record.answer for record in pool] == ["blue"]
    assert pool[0].metadata["negative"]["output"] == "black"
    query = next(record for record in records if record.fields["input"] == "sky")
    shown = rendered(spec, "fs_noopt", 0, [query], pool)
    assert isinstance(shown, Rendered) and shown.num_exemplars == 0
    other = next(record for record in records if record is not query)
    shown = rendered(spec, "fs_noopt", 0, [other], pool)
    assert isinstance(shown, Rendered) and shown.num_exemplars == 1


@pytest.mark.slow
def test_test_tasks_are_evaluated_on_their_first_100_instances(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    instances = [{"id": f"i-{n}", "input": f"thing {n}", "output": ["x"]} for n in range(300)]
    name = next(name for name in niv2.xlingual_test_tasks() if "xcopa" in name)
    (folder / f"{name.removeprefix('niv2.')}.json").write_text(
        json.dumps(NEW | {"Instances": instances})
    )
    items = list(task_specs(workspace())[name].source.records(workspace(), "test"))
    assert [r.id for r in items if isinstance(r, Record)] == [f"i-{n}" for n in range(100)]
    counts = collections.Counter(
        getattr(task_specs(workspace())[row.name].source, "num_test", None) for row in ROWS.values()
    )
    assert counts == {100: 119 + 35, 0: 1554 - 154}


@pytest.mark.slow
def test_published_files_are_rows_of_the_table(shared_data, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(shared_data))
    files = sorted((shared_data / FOLDER).glob("*.json"))
    assert files
    for file in files:
        row = find_row(file.stem)
        assert row is not None, file
        spec = niv2.niv2_task(row)
        assert spec.source.available(workspace()) is None
        records = [r for r in spec.source.records(workspace(), "train") if isinstance(r, Record)]
        pool = [r for r in spec.source.records(workspace(), EXEMPLARS) if isinstance(r, Record)]
        assert records and pool and pool[0].metadata["negative"]["input"]
        for mode in spec.all_modes:
            assert isinstance(rendered(spec, mode, 0, records, pool, (4000, 1000)), Rendered)
            assert records[0].fields["definition"]


def test_templates_are_written_for_instances_with_a_definition():
    path = WORDINGS / "natural_instructions.toml"
    (template_set,) = load_template_sets(path).values()
    for template in template_set.zs_noopt:
        assert {"definition", "input"} <= set(placeholders(template.inputs))


def test_rouge_l_is_the_publishers_in_both_tracks():
    """English tasks by the tokenizer of `rouge_score`, all others by GPT-2's."""
    for row in niv2_rows().values():
        english = row.languages == ("English",)
        assert english or row.split == "excluded"  # from the English track
        expected = rouge_l if english else rouge_l_of_gpt2_tokens
        assert find_spec(workspace(), row.name).metric_fns[0] is expected
    bulgarian = find_spec(workspace(), "niv2.task1561_clickbait_new_bg_summarization").metric_fns[0]
    text = "Котката спи на дивана."
    assert bulgarian([[text]], [text]) == {"rougeL": pytest.approx(100.0)}
