import pytest

from instruct.data.registry import resolve, task_specs
from instruct.prompts.lint import lint
from instruct.prompts.render import Rendered
from instruct.prompts.template import placeholders
from tasks import cot, public
from tests.tasks.cot_goldens import records
from tests.tasks.shown_prompts import rendered
from tests.workspaces import workspace

SPECS = {row.id: cot.cot_task(row) for row in cot.SETS}
SIZES = {
    "gsm8k": 7_473,
    "strategyqa": 2_061,
    "creak": 6_915,
    "qasc": 1_084,
    "esnli": 36_174,
    "ecqa": 7_112,
    "sensemaking": 6_070,
    "aqua": 2_728,
    "qed": 5_154,
}


def test_the_table_is_the_collections():
    assert {row.id: row.rows for row in cot.SETS} == SIZES
    assert sum(SIZES.values()) == 74_771
    assert {f"cot.{row.id}" for row in cot.SETS} <= set(task_specs(workspace()))
    assert len({row.category for row in cot.SETS}) == 8
    for row in cot.SETS:
        assert row.license and row.url.startswith("https://") and row.description
        expected = SPECS[row.id].num_examples
        assert sum(expected.values()) == pytest.approx(row.rows, abs=2)
    assert SPECS["gsm8k"].group == public.gsm8k_task().group == "gsm8k"
    assert SPECS["esnli"].group == "snli"


def test_inversions_have_three_tenths_and_direct_answers_no_share():
    for spec in SPECS.values():
        shares = {leaf.mode: leaf.rate for leaf in resolve(workspace(), spec.name).leaves}
        assert set(shares) == {"cot", "fs_cot", "zs_inv", "fs_inv"}
        assert shares["cot"] == shares["fs_cot"] == pytest.approx(shares["zs_inv"] / 0.3)
        assert shares["zs_inv"] == shares["fs_inv"]
        assert "direct" in spec.all_modes


def test_sets_count_by_their_size():
    """Registered without data, they have rates already; a store's number replaces the expected."""
    sizes = {row.id: SPECS[row.id].num_examples["train"] for row in cot.SETS}
    assert sizes["esnli"] / sizes["qasc"] == pytest.approx(36_174 / 1_084, rel=0.01)
    assert all(spec.cap == 100_000 for spec in SPECS.values())


def test_the_inverted_wordings_map_what_the_collections_do():
    assert lint(cot.templates()) == []
    kinds: dict[tuple[frozenset[str], frozenset[str]], int] = {}
    for template in cot.templates().inv:
        kind = frozenset(placeholders(template.inputs)), frozenset(placeholders(template.targets))
        kinds[kind] = kinds.get(kind, 0) + 1
    question, answer, rationale = (
        frozenset(["question"]),
        frozenset(["answer"]),
        frozenset(["rationale"]),
    )
    assert kinds == {
        (rationale | answer, question): 3,
        (question | answer, rationale): 5,
        (rationale, question | answer): 6,
        (answer, question | rationale): 4,
    }


@pytest.mark.parametrize("name", SIZES)
def test_every_set_renders_in_every_mode(name):
    spec = SPECS[name]
    assert len(records()[name]) == 2
    for mode in spec.all_modes:
        for number in range(60):
            example = rendered(spec, mode, number, records()[name])
            assert isinstance(example, Rendered), (mode, example)
            record = records()[name][number % len(records()[name])]
            if mode in ("cot", "fs_cot"):
                assert record.rationale in example.targets
                assert spec.postprocess_fn is not None
                features = {"options": example.options, "markers": example.markers}
                right = spec.postprocess_fn(record.answer, example=features, is_target=True)
                assert spec.postprocess_fn(example.targets, example=features) == right


def test_options_are_taken_out_of_the_questions_of_both_styles():
    for name, number in {"creak": 2, "qasc": 8, "esnli": 3, "ecqa": 5, "aqua": 5}.items():
        record = records()[name][1]
        assert len(record.options) == number and "Options:" not in record.fields["question"]
    # The rationale names an option by its letter, which holds only where the letters stay.
    assert not records()["aqua"][0].options


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_files_of_the_release_become_records(name, shared_data):
    path = shared_data / "cot" / f"{name}_train.tsv"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    rows = [item for item, _ in cot.cot_source(cot.SETS[list(SIZES).index(name)]).rows(path)]
    assert len(rows) == SIZES[name]
    assert sum(hasattr(item, "answer") for item in rows) > 0.99 * len(rows)
