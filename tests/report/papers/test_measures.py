"""Which result lines a column of a paper's table is the mean of, and what is said about them."""

import dataclasses
import doctest
import json
import math

import pytest

from instruct.data.registry import task_specs
from instruct.report import read
from instruct.report.papers import measures, normalized, printed_tables
from tasks.suites import mixtures  # noqa: F401 (registers)
from tests.report.made_up_suites import add_suites
from tests.results_text import without_checksums
from tests.workspaces import workspace


def run_with(folder, **options):
    (folder / "run").mkdir(exist_ok=True)
    return read.read_run(add_suites(folder / "run", **options), "run")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_with(tmp_path_factory.mktemp("whole"), level=40.0, steps=(500, 2000))


def test_doctests():
    assert doctest.testmod(measures).failed == 0


def test_every_column_of_the_papers_tables_is_known_or_a_title():
    for table in printed_tables.all_tables().values():
        for column in table.columns:
            key, _, part = column.partition(":")
            assert measures.is_measure(column) or not part, column
            if part:
                assert part in measures.MEASURES[key].sub_tasks
            assert measures.title_of(column)


@pytest.mark.parametrize(
    ("column", "tasks"),
    [("mmlu_direct", 57), ("mmlu_cot", 57), ("bbh_direct", 27), ("bbh_cot", 27), ("mgsm", 10)],
)
def test_a_suite_is_the_unweighted_mean_of_its_sub_tasks(whole, column, tasks):
    found = measures.score(whole, column)
    values = [row["value"] for row in found.rows]
    assert len(values) == found.tasks == found.expected == tasks and found.complete
    assert found.value == pytest.approx(sum(values) / tasks)
    assert found.stderr == pytest.approx(4.0 / math.sqrt(tasks))
    assert found.n == 100 * tasks and found.step == 2000


def test_what_the_papers_leave_out_is_left_out(whole):
    languages = {row["task"] for row in measures.score(whole, "tydiqa").rows}
    assert "tydiqa.en" not in languages and len(languages) == 8
    assert {row["mode"] for row in measures.score(whole, "bbh_cot").rows} == {"cot"}
    assert len(measures.score(whole, "bbh_nlp").rows) == 12


def test_parts_steps_and_shots(whole):
    one = measures.score(whole, "bbh_cot:snarks")
    assert [row["task"] for row in one.rows] == ["bbh.snarks"] and one.expected == 1
    assert measures.score(whole, "mmlu_direct", step=500).step == 500
    assert measures.score(whole, "mmlu_direct", step=700) is None
    assert measures.steps_of(whole, "mmlu_direct") == [500, 2000]
    zero, few = measures.score(whole, "held_in@zero"), measures.score(whole, "held_in@few")
    assert {row["mode"] for row in zero.rows} == {"zs_opt"} and zero.complete
    assert {row["mode"] for row in few.rows} == {"fs_opt"}
    assert measures.score(whole, "held_in").tasks == 8
    assert measures.score(whole, "cot_eval") is None


def test_results_of_named_settings_count_only_where_no_others_are(tmp_path):
    add_suites(tmp_path / "run", 40.0, parts=("mgsm",), spread=0.0)
    (tmp_path / "run" / "eval" / "mgsm").rename(tmp_path / "run" / "eval" / "beam4-mgsm")
    named = read.read_run(tmp_path / "run", "run")
    assert measures.score(named, "mgsm").value == pytest.approx(40)
    both = run_with(tmp_path, level=60.0, parts=("mgsm",), spread=0.0)
    assert len(both.evaluations) == 2 and measures.score(both, "mgsm").value == pytest.approx(60)


def test_self_consistency_is_no_plain_chain_of_thought(tmp_path):
    run = add_suites(tmp_path / "run", 40.0, parts=("mgsm",), spread=0.0)
    (path,) = run.rglob("results.jsonl")
    sampled = "sample temperature=0.7 samples=40 seed=0 steps=256"
    text = without_checksums(path)
    decode = next(json.loads(line)["decode"] for line in text.splitlines() if '"metric"' in line)
    path.write_text(text.replace(f'"{decode}"', f'"{sampled} majority"'))
    voted = read.read_run(run, "run")
    assert measures.score(voted, "mgsm") is None
    found = measures.score(voted, "mgsm", modes=measures.COT, voted=True)
    assert found.value == pytest.approx(40)
    assert not any("decoding" in what for _, what in measures.differences([found], "test"))
    path.write_text(text.replace(f'"{decode}"', f'"{sampled}"'))
    once = measures.score(read.read_run(run, "run"), "mgsm")
    assert ("MGSM", "our decoding is sample, the paper's greedy") in measures.differences(
        [once], "test"
    )


def test_rounded_kernels_are_a_difference_from_the_paper(tmp_path):
    run = add_suites(tmp_path / "run", 40.0, parts=("mgsm",), spread=0.0)
    (path,) = run.rglob("results.jsonl")
    text = without_checksums(path)
    decode = next(json.loads(line)["decode"] for line in text.splitlines() if '"metric"' in line)
    told = ("MGSM", "our kernels are rounded to int8 for decoding")
    for decoding, is_told in ((decode, False), ("greedy steps=256 weights=int8", True)):
        path.write_text(text.replace(f'"{decode}"', f'"{decoding}"'))
        found = measures.score(read.read_run(run, "run"), "mgsm")
        assert (told in measures.differences([found], "test")) == is_told


def test_the_normalised_average_of_a_run(whole):
    found = measures.score(whole, measures.NORMALIZED)
    given = {name: measures.score(whole, name) for name in normalized.PARTS}
    raw = {name: part.value for name, part in given.items()}
    for name in ("bbh_direct", "bbh_cot"):
        raw[name] = {row["task"].removeprefix("bbh."): row["value"] for row in given[name].rows}
    assert found.value == pytest.approx(normalized.normalized_average(raw).value)
    # Errors of 4 points each: 57, 27, 8 and 10 of them, stretched by 100 / (100 - bound).
    slopes = [100 / (100 - bound) for bound in normalized.BBH_LOWER_BOUNDS.values()]
    variance = 2 * (4 / 0.75) ** 2 / 57 + 2 * 16 * sum(s**2 for s in slopes) / 27**2
    variance += 16 / 8 + 16 / 10
    assert found.stderr == pytest.approx(math.sqrt(variance) / 6)


def test_no_normalised_average_of_a_part(tmp_path):
    assert (
        measures.score(run_with(tmp_path, parts=("bbh.cot", "mgsm")), "normalized_average") is None
    )


def test_a_model_that_knows_nothing_has_a_normalised_average_too(tmp_path):
    found = measures.score(run_with(tmp_path, level=0.0, spread=0.0), measures.NORMALIZED)
    assert -50 < found.value < 0


def test_the_registered_suites_are_what_the_measures_expect():
    rows = [
        {"suite": "any", "task": spec.name, "mode": mode}
        for spec in task_specs(workspace()).values()
        for mode in (*spec.modes, *spec.extra_modes)
    ]
    families = {row["task"].split(".")[0] for row in rows}
    assert {"mmlu", "bbh"} <= families
    for key, measure in measures.MEASURES.items():
        if measure.family in families:
            taken = [row for row in rows if measure.takes(row)]
            assert len({measure.name_of(row) for row in taken}) == measure.expected, key


def test_differences_from_the_papers_protocol(whole, tmp_path):
    scores = [measures.score(whole, name) for name in normalized.PARTS]
    assert measures.differences(scores, "validation") == []
    told = measures.sentences(measures.differences(scores, "test"))
    assert told == ["MMLU direct, MMLU CoT: our split is validation, the paper's test."]
    small = run_with(tmp_path, parts=("bbh.direct",), limit=50)
    evaluation = small.evaluations[0]
    rows = tuple(row | {"group": "held_in", "metric": "f1"} for row in evaluation.metrics[:13])
    changed = dataclasses.replace(evaluation, metrics=rows)
    cut = dataclasses.replace(small, evaluations=(changed,))
    pairs = measures.differences([measures.score(cut, "bbh_direct")], "validation")
    told = " ".join(measures.sentences(pairs))
    for part in ("13 of the paper's 27", "our metric is f1", "at most 50 examples", "trained on"):
        assert part in told


def test_what_prompts_had_to_lose_is_a_difference(whole):
    score = measures.score(whole, "mgsm")
    assert score is not None

    def of_prompts(*counts):
        names = ("exemplars_mean", "exemplars_min", "exemplars_asked", "truncated", "left_out")
        rows = [
            row | dict(zip(names, counts[min(place, len(counts) - 1)]))
            for place, row in enumerate(score.rows)
        ]
        return [dataclasses.replace(score, rows=tuple(rows))]

    full = of_prompts((8.0, 8, 8.0, 0, 0))
    assert measures.differences(full, "validation") == []
    assert "exemplars shown: MGSM 8" in measures.conditions(full)
    unknown = measures.differences(of_prompts((None,) * 5, (8.0, 8, 8.0, 0, 0)), "validation")
    assert [mark for _, mark in unknown] == [
        "how many exemplars our prompts show is not known (an earlier evaluation)"
    ]
    fewer = of_prompts((1.0, 0, 8.0, 2, 1), (8.0, 8, 8.0, 0, 0))
    marks = [mark for _, mark in measures.differences(fewer, "validation")]
    assert marks == [
        "our prompts show fewer exemplars: 7.3 of 8 (at least 0)",
        f"2 of our {score.n:,} prompts lost the end of their passage",
        "1 examples are left out, because they do not fit the inputs' length",
    ]
    assert "exemplars shown: MGSM 7.3 of 8 (at least 0)" in measures.conditions(fewer)


def test_sub_tasks_without_a_value_are_a_difference(whole):
    full = measures.score(whole, "bbh_direct")
    assert full is not None
    rows = ({**full.rows[0], "value": None}, *full.rows[1:])
    told = [text for _, text in measures.differences([dataclasses.replace(full, rows=rows)], "")]
    expected = "1 of 27 tasks has no finite value and is left out of the mean"
    assert f"our mean is over fewer: {expected}" in told


def test_conditions_name_step_decoding_templates_and_versions(whole):
    told = measures.conditions([measures.score(whole, "mgsm")])
    assert told == [
        "exemplars shown: MGSM 5",
        "step 2000",
        "decoding greedy",
        "template set published",
        "task version 1.0.0",
    ]
