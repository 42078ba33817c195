"""Runs against the first: paired where examples are common, else from two standard errors."""

import json

import pytest

from instruct import results
from instruct.report import read
from instruct.report.blocks import Bars, Document, Table
from instruct.report.pages import differences
from instruct.report.pages.rendering import to_html, to_markdown
from instruct.report.wording import probability
from tests.report.made_up_run import write_run
from tests.report.made_up_suites import add_suites


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name, level, seed in (("base", 30.0, 1), ("better", 60.0, 2), ("same", 30.0, 3)):
        run = write_run(folder / name, num_tasks=6, eval_steps=(2000,), steps=1, seed=seed)
        parts = ("bbh.cot", "tydiqa")
        made.append(add_suites(run, level, parts=parts, seed=seed, examples=12))
    return read.read_runs(made)


@pytest.fixture(scope="module")
def found(runs):
    return differences.compare_runs(runs)


def test_suites_are_compared_with_pairs(found):
    by_key = {(c.title, c.run): c for c in found}
    better, same = by_key["BBH CoT", 1], by_key["BBH CoT", 2]
    assert better.test.n == 27 * 12 and better.test.groups == 27
    assert better.change > 15 and better.low > 0 and better.test.clear
    assert abs(same.change) < 12
    assert len(better.tasks) == 27 and set(better.tasks) >= {"bbh.snarks cot"}
    assert by_key["TyDiQA", 1].test.n == 8 * 12  # English is not counted


def test_the_difference_is_that_of_the_scores(runs, found):
    rows = [
        row
        for run in (runs[0], runs[1])
        for row in results.read_rows(
            run.path / "eval/bbh.cot/step_2000/results.jsonl", ("example",)
        )
    ]
    means = [
        sum(100.0 * row["correct"] for row in part) / len(part)
        for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :])
    ]
    compared = next(c for c in found if c.title == "BBH CoT" and c.run == 1)
    assert compared.change == pytest.approx(means[1] - means[0])


def test_examples_that_are_not_the_same_are_not_paired(found):
    # The targets of this suite are made up anew for each run.
    compared = next(c for c in found if c.title == "gym.demo_eval" and c.run == 1)
    assert compared.test is None and "too few common examples" in compared.note
    assert compared.low < compared.change < compared.high


def test_suites_of_one_run_only_are_left_out(runs, tmp_path):
    alone = read.read_run(add_suites(tmp_path / "alone", parts=("mgsm",)), "alone")
    assert differences.compare_runs([runs[0], alone]) == []
    assert differences.differences_section([runs[0], alone]) is None
    assert differences.differences_section(runs[:1]) is None


def test_damaged_examples_do_not_end_the_report(runs, tmp_path):
    broken = tmp_path / "broken"
    add_suites(broken, 50.0, parts=("bbh.cot",), examples=12)
    made = read.read_run(broken, "broken")
    path = broken / "eval" / "bbh.cot" / "step_2000" / results.FILE_NAME
    path.write_text(json.dumps({"kind": "nonsense"}) + "\n")
    (compared,) = differences.compare_runs([runs[0], made])
    assert compared.test is None and compared.change == pytest.approx(20, abs=8)


def test_the_section_has_bars_tables_and_the_papers_ablations(runs):
    section = differences.differences_section(runs)
    bars = [block for block in section.blocks if isinstance(block, Bars)]
    assert bars[0].title == "Change against base"
    assert [bar.label for bar in dict(bars[0].groups)["BBH CoT"]] == ["better", "same"]
    assert bars[0].groups[0][1][0].note == "p < 0.001"
    printed = dict(bars[1].groups)["BBH-CoT few-shot"]
    assert [(bar.label, round(bar.value, 1)) for bar in printed] == [
        ("– CoT", -23.2),
        ("– Input inversion", -22.2),
        ("– Mixture balancing", -19.8),
        ("– Few-shot templates", -11.9),
    ]
    tables = [block for block in section.blocks if isinstance(block, Table)]
    assert tables[0].columns[2:4] == ("base", "Run's")
    suites = {row.cells[:2]: row.cells for row in tables[0].rows}
    assert suites["BBH CoT", "better"][8:10][0] == "324"
    assert float(suites["BBH CoT", "same"][7].lstrip("< ")) >= float(
        suites["BBH CoT", "same"][6].lstrip("< ")
    )
    assert "tasks of better against base" in tables[1].fold
    document = Document("t", "", (section,))
    assert "hollow" in to_html(document) and "95 % interval" in to_markdown(document)


@pytest.mark.parametrize(
    ("p", "text"), [(0.0001, "< 0.001"), (0.0312, "0.031"), (0.5, "0.50"), (1.0, "1.00")]
)
def test_probabilities(p, text):
    assert probability(p) == text
