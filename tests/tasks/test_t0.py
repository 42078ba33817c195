import collections
import json
import pickle

import pytest

from instruct.data.registry import resolve, scored_task, task_specs
from instruct.data.sources.promptsource import p3_name
from instruct.data.spec import SPLITS
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered
from tasks.t0 import read_reply, t0_rows, t0_source, t0_task
from tests.tasks.shown_prompts import rendered
from tests.tasks.t0_goldens import made_up_records
from tests.workspaces import workspace

ROWS = t0_rows()
# Prompts and summed capped sizes of each configuration of a data set in the collection.
SETS = {
    "adversarial_qa_dbert": (5, 50_000),
    "adversarial_qa_dbidaf": (5, 50_000),
    "adversarial_qa_droberta": (5, 50_000),
    "amazon_polarity": (9, 180_000),
    "app_reviews": (4, 80_000),
    "cos_e_v1.11": (11, 107_140),
    "dbpedia_14": (4, 80_000),
    "dream": (5, 30_550),
    "duorc_ParaphraseRC": (9, 180_000),
    "duorc_SelfRC": (9, 180_000),
    "kilt_tasks_hotpotqa": (5, 100_000),
    "qasc": (8, 65_040),
    "quail": (13, 133_120),
    "quarel": (5, 9_700),
    "quartz": (8, 21_520),
    "quoref": (11, 213_290),
    "race_high": (8, 160_000),
    "race_middle": (8, 160_000),
    "ropes": (12, 131_040),
    "sciq": (5, 58_350),
    "social_i_qa": (6, 120_000),
    "web_questions": (5, 18_850),
    "wiki_bio": (5, 100_000),
    "wiki_hop_original": (9, 180_000),
    "wiki_qa": (11, 106_240),
    "wiqa": (8, 160_000),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder, and no hub cache."""
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("INSTRUCT_DOWNLOAD", raising=False)
    return tmp_path


def test_kinds_and_categories():
    assert len(ROWS) == 193
    assert collections.Counter(row.kind for row in ROWS.values()) == {"G": 104, "M": 70, "S": 19}
    assert collections.Counter(row.category for row in ROWS.values()) == {
        "Multiple-Choice QA (no trivia knowledge required)": 89,
        "Extractive QA": 37,
        "Closed-Book QA": 20,
        "Adversarial QA": 12,
        "Sentiment Analysis": 12,
        "Question Generation": 6,
        "Structured Data to Text": 5,
        "Topic Classification": 4,
        "Dialog Turn Prediction": 2,
        "Title Generation": 2,
        "Span Generation": 2,
        "Context Generation": 1,
        "Explanation Generation": 1,
    }
    assert len({row.dataset for row in ROWS.values()}) == 22


def test_names_and_sizes_are_those_of_the_collection():
    prompts, sizes = collections.Counter(), collections.Counter()
    for row in ROWS.values():
        # The name in P3 is made of the data set's, the subset's and the template's.
        assert p3_name(row.promptsource_name, row.subset, row.template) == row.prompt
        name = "_".join(filter(None, (row.promptsource_name, row.subset)))
        prompts[name] += 1
        sizes[name] += min(20_000, row.train // 10 * 10)  # Flan rounds sizes down to tens
    assert {name: (prompts[name], sizes[name]) for name in prompts} == SETS
    assert sizes.total() == 2_724_840


def test_what_is_read_fits_the_kind():
    for row in ROWS.values():
        assert (row.reads == "options") == (row.kind == "S")
        if row.kind == "M":
            assert (row.reads, row.metric) == ("whole", "accuracy")
        if row.reads in ("line", "word"):
            assert row.kind == "G" and row.metric in ("squad", "accuracy")
    words = [row.prompt for row in ROWS.values() if row.reads == "word"]
    assert words == [
        "app_reviews_convert_to_rating",
        "wiqa_does_the_supposed_perturbation_have_an_effect",
        "wiqa_effect_with_label_answer",
    ]


@pytest.mark.parametrize(
    ("text", "reads", "metric", "expected"),
    [
        ("A. Because", "word", "accuracy", "a"),
        ("5 stars", "word", "accuracy", "5"),
        ("", "word", "accuracy", ""),
        (" Paris \nI think", "line", "squad", "Paris"),
        ("No.\nReally", "line", "accuracy", "no"),
        ("One.\nTwo.\n", "whole", "rouge", "One.\nTwo."),
        ("Not  certain", "whole", "accuracy", "not certain"),
    ],
)
def test_read_reply(text, reads, metric, expected):
    assert read_reply(text, reads=reads, metric=metric) == expected


def test_a_marker_is_read_as_its_option():
    example = {"options": [b"No", b"Yes"], "markers": [b"(A)", b"(B)"]}
    for text in ("(B)", "yes", "B."):
        assert read_reply(text, example, reads="options", metric="accuracy") == "yes"


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_task_renders_and_scores(row):
    spec = task_specs(workspace())[row.name]
    assert (spec.cap, spec.license, spec.dataset) == (20_000, row.license, row.dataset)
    assert set(spec.source.splits) == set(SPLITS)
    wanted = ["zs_noopt", "fs_noopt"]
    if row.kind == "S":
        wanted = ["zs_opt", "zs_noopt", "fs_opt", "fs_noopt"]
    leaves = resolve(workspace(), row.name).leaves
    assert [leaf.mode for leaf in leaves] == wanted
    assert {leaf.rate for leaf in leaves} == {1 / len(wanted)}
    records = made_up_records(row)
    for mode in wanted:
        assert scored_task(workspace(), spec.leaf_name(mode)).postprocess_fn is not None
        for number, record in enumerate(records):
            shown = rendered(spec, mode, number, records)
            assert isinstance(shown, Rendered), shown
            assert record.fields["prompt"] in shown.inputs
            assert bool(shown.options) == mode.endswith("_opt")
            if mode == "zs_noopt":
                assert shown.inputs == record.fields["prompt"]
                assert shown.targets == record.answer
    read = spec.postprocess_fn
    assert read is not None
    golds = [read(record.answer, example=None, is_target=True) for record in records]
    wrong = [read("nothing", example=None, is_target=False) for _ in records]
    for metric in spec.metric_fns:
        assert all(score == pytest.approx(100.0) for score in metric(golds, golds).values())
        assert all(score == 0.0 for score in metric(golds, wrong).values())


def test_rows_of_p3_and_rows_of_the_raw_data_set(folder):
    """P3's files go first; without them promptsource's template is applied to the raw rows."""
    row = ROWS["sciq_Direct_Question_Closed_Book_"]
    source = t0_source(row)
    reason = source.available(workspace())
    assert reason is not None and "bigscience/P3" in reason and "promptsource" in reason
    raw = folder / "sciq"
    raw.mkdir()
    rows = [{"question": f"q{n}?", "answer": f"a{n}", "other": "b"} for n in range(40)]
    (raw / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    templates = folder / "promptsource" / "templates" / "sciq"
    templates.mkdir(parents=True)
    (templates / "templates.yaml").write_text(
        "dataset: sciq\ntemplates:\n  one: !Template\n"
        f"    name: {row.template}\n    answer_choices: '{{{{other}}}} ||| {{{{answer}}}}'\n"
        "    jinja: 'Tell me. {{question}} ||| {{answer}}'\n"
    )
    assert source.available(workspace()) is None
    assert (
        pickle.loads(pickle.dumps(source)).fingerprint(workspace())
        == source.fingerprint(workspace())
        != "absent"
    )
    items = [item for split in SPLITS for item in source.records(workspace(), split)]
    records = [item for item in items if isinstance(item, Record)]
    assert len(records) == len(items) == 40
    assert {r.fields["prompt"] for r in records} == {f"Tell me. q{n}?" for n in range(40)}
    assert all(r.options == ("b", r.answer) for r in records)
    published = folder / "P3" / row.prompt
    published.mkdir(parents=True)
    line = {
        "inputs_pretokenized": "Say it.\nNow",
        "targets_pretokenized": "\na",
        "answer_choices": ["a", "b"],
    }
    (published / "train.jsonl").write_text(json.dumps(line) + "\n")
    items = [item for split in SPLITS for item in source.records(workspace(), split)]
    (record,) = [item for item in items if isinstance(item, Record)]
    assert (record.fields["prompt"], record.answer) == ("Say it.\nNow", "a")
    assert record.options == ("a", "b")


def test_prompts_that_show_their_options_get_no_second_list(folder):
    row = ROWS["sciq_Multiple_Choice"]
    assert row.kind == "M"
    published = folder / "P3" / row.prompt
    published.mkdir(parents=True)
    line = {
        "inputs_pretokenized": "a or b?",
        "targets_pretokenized": "a",
        "answer_choices": ["a", "b"],
    }
    (published / "train.jsonl").write_text(json.dumps(line) + "\n")
    spec = t0_task(row)
    items = [item for split in SPLITS for item in spec.source.records(workspace(), split)]
    assert [item.options for item in items if isinstance(item, Record)] == [()]


def test_data_sets_that_share_examples_are_one_group():
    assert task_specs(workspace())["t0.cos_e_v1_11_rationale"].group == "commonsenseqa"
    assert task_specs(workspace())["t0.race_high_Taking_a_test"].group == "race"
    assert task_specs(workspace())["t0.race_middle_Taking_a_test"].group == "race"
