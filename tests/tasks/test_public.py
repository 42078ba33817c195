import pytest

from instruct.data.registry import resolve, task_specs
from instruct.data.spec import SPLITS
from instruct.errors import UserError
from instruct.eval import metrics
from instruct.prompts.lint import lint
from instruct.prompts.template import load_template_sets
from tasks import cot, public
from tasks.wordings import FOLDER as WORDINGS
from tests.tasks.public_goldens import made_up_data, specs


@pytest.mark.parametrize("name", ["gsm8k", "cot", "natural_instructions"])
def test_wordings_pass_the_lint(name):
    (template_set,) = load_template_sets(WORDINGS / f"{name}.toml").values()
    assert lint(template_set) == []


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.name)
def test_a_perfect_and_a_wrong_prediction(spec):
    """Wiring of source, post-processing and metric: gold answers score 100, nonsense 0."""
    with made_up_data():
        records = [r for r in spec.source.records("train") if hasattr(r, "answer")]
    assert records and spec.postprocess_fn is not None
    for metric in spec.metric_fns:
        targets, right, wrong = [], [], []
        for record in records:
            example = {
                "options": record.options,
                "references": record.references or (record.answer,),
            }
            read = spec.postprocess_fn
            targets.append(read(record.answer, example=example, is_target=True))
            right.append(read(record.answer, example=example, is_target=False))
            wrong.append(read("nothing of it", example=example, is_target=False))
        assert list(metric(targets, right).values()) == [pytest.approx(100.0)]
        assert list(metric(targets, wrong).values()) == [0.0]


def test_number_match_takes_numbers_as_numbers():
    read = public.gsm8k_task().postprocess_fn
    assert read is not None
    target = read("1,250", example={}, is_target=True)
    given = read("It fires 1250.\nThe answer is $1250.00.", example={}, is_target=False)
    assert metrics.number_match([target], [given]) == {"number_match": 100.0}


def test_names_and_splits():
    by_name = {spec.name: spec for spec in specs()}
    assert list(by_name) == [
        "gsm8k.main",
        "cot_files.crafts",
        "cot_files.yesno",
        "niv2_files.task9001_made_up_word_classification",
        "niv2_files.task9002_made_up_v2_text_generation",
    ]
    for spec in by_name.values():
        assert set(SPLITS) <= set(spec.splits) <= set(spec.source.splits)
        assert spec.exemplar_split in spec.splits
    assert by_name["niv2_files.task9001_made_up_word_classification"].category == "classification"
    assert by_name["niv2_files.task9002_made_up_v2_text_generation"].category == "text generation"


def test_registration_follows_the_files_that_are_there():
    """Only names of files matter; importing without any leaves GSM8K, which says what to do."""
    registered = set(task_specs())
    assert "gsm8k.main" in registered
    with made_up_data():
        public.register()
        public.register()
    assert set(task_specs()) >= registered | {spec.name for spec in specs()}
    assert {leaf.mode for leaf in resolve("cot_files.crafts").leaves} == set(cot.MODES)
    sample = resolve(public.SAMPLE)
    assert sum(leaf.rate for leaf in sample.leaves) == pytest.approx(1.0)
    with pytest.raises(UserError, match=r"cot_files\.crafts"):
        resolve("cot_files.craft")


def test_what_is_left_out_of_the_table_is_not_added(tmp_path, monkeypatch):
    folder = tmp_path / "natural_instructions" / "tasks"
    folder.mkdir(parents=True)
    for name in (
        "task667_mmmlu_answer_generation_x",
        "task737-mmmlu-answer-generation-world-religions",
        "task062_bigbench_repeat_copy_logic",
        "task126_scan_structured_text_generation_command_action_all",
        "task9003_made_up_question_answering",
    ):
        (folder / f"{name}.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    before = set(task_specs())
    public.register()
    assert set(task_specs()) - before == {"niv2_files.task9003_made_up_question_answering"}


def test_additions_are_not_of_the_families_of_the_collection():
    for spec in specs()[1:]:
        assert spec.family in (public.COT_FILES, public.NIV2_FILES)
