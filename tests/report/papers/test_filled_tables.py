"""A paper's table with runs beside it: rows, remarks, JSON, and the page's section."""

import json
import math

import pytest

from instruct.errors import UserError
from instruct.report import read
from instruct.report.pages import run_page
from instruct.report.pages.rendering import to_html, to_markdown
from instruct.report.papers import filled_tables, printed_tables
from tests.report.made_up_run import write_run
from tests.report.made_up_suites import add_suites, set_size


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    whole = write_run(folder / "whole", num_tasks=6, eval_steps=(), steps=1)
    set_size(whole, 783e6)
    add_suites(whole, 45.0)
    part = add_suites(
        write_run(folder / "part", num_tasks=6, eval_steps=(), steps=1), parts=("mgsm",), limit=20
    )
    bare = write_run(folder / "bare", num_tasks=6, eval_steps=(), steps=1)
    return read.read_runs([whole, part, bare])


def test_tables_are_whole():
    tables = printed_tables.all_tables()
    assert {"flan_palm.3", "flan_palm.5", "flan_collection.1", "flan_collection.2"} <= set(tables)
    for table in tables.values():
        for row in table.rows:
            assert len(row.labels) == len(table.labels)
            assert len(row.values) == len(table.columns)
    means = printed_tables.find_table("flan_palm.20")
    for row in means.rows:
        assert sum(row.values[:8]) / 8 == pytest.approx(row.values[8], abs=0.051)
    means = printed_tables.find_table("flan_palm.21")
    for row in means.rows:
        assert sum(row.values[:10]) / 10 == pytest.approx(row.values[10], abs=0.051)


def test_tables_agree_with_each_other():
    main = printed_tables.find_table("flan_palm.5")
    for name, column in (("flan_palm.20", "tydiqa"), ("flan_palm.21", "mgsm")):
        assert printed_tables.find_table(name).column(column) == main.column(column)
    scaling = {
        (row.labels[0], row.labels[2]): row.values
        for row in printed_tables.find_table("flan_palm.3").rows
    }
    by_model = {row.labels: row.values for row in main.rows}
    for size in ("8B", "62B"):
        assert scaling[size, "0"] == by_model[size, "PaLM"]
        assert scaling[size, "1836"] == by_model[size, "Flan-PaLM"]


def test_an_unknown_table_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"Did you mean 'flan_palm\.5'"):
        printed_tables.find_table("flan_plam.5")


def test_our_rows_stand_under_the_papers(runs):
    content = filled_tables.fill(printed_tables.find_table("flan_palm.5"), runs)
    headings, rows = filled_tables.lines(content)
    assert headings[:3] == ("Params", "Model", "Norm. avg.")
    assert len(rows) == 22 and [row.strong for row in rows] == [False] * 20 + [True] * 2
    assert rows[0].cells[:4] == ("80M", "T5-Small", "-9.2", "26.7")
    assert rows[20].cells[:2] == ("783M", "whole") and "±" in rows[20].cells[2]
    assert rows[21].cells[2:8] == ("–",) * 6 and "±" in rows[21].cells[8]
    assert content.without == ("bare",)
    detail = {line.cells[:2]: line.cells[3:] for line in filled_tables.details(content)}
    assert detail["783M whole", "MGSM"] == (
        *("1,000", "10 of 10", "5", "test", "number_match", "2,000"),
    )
    told = "\n".join(filled_tables.remarks(content))
    assert "- MGSM: at most 20 examples a task, the paper's all." in told
    assert "- BBH CoT: 3 exemplars with reasoning, test split." in told
    assert "decoding greedy" in told and "arxiv.org/abs/2210.11416" in told


def test_tables_by_prompting_by_task_count_and_by_shots(runs):
    content = filled_tables.fill(printed_tables.find_table("flan_palm.4"), runs)
    assert [row.labels for row in content.ours] == [
        ("whole", "direct"),
        ("whole", "CoT"),
        ("part", "CoT"),
    ]
    direct, cot, _ = content.ours
    assert [s is not None for s in direct.scores] == [True, True, True, True, False]
    assert [s is not None for s in cot.scores] == [True, True, True, False, True]
    assert {row["mode"] for row in cot.scores[1].rows} == {"cot"}
    assert any("the paper's test" in what for _, what in content.differences)
    content = filled_tables.fill(printed_tables.find_table("flan_palm.3"), runs[:1])
    assert content.ours[0].labels == ("783M", "whole", "4")
    content = filled_tables.fill(printed_tables.find_table("flan_collection.1"), runs[:1])
    assert [s is not None for s in content.ours[0].scores] == [
        *(True, True, False, False, False),
        *(True, False, True, False, True),
    ]


def test_tables_that_no_evaluation_fills_show_the_papers_figures(runs):
    content = filled_tables.fill(printed_tables.find_table("flan_palm.22"), runs)
    headings, rows = filled_tables.lines(content)
    assert headings[2:] == ("Batch (packed rows)", "Dropout", "Learning rate", "Steps")
    assert rows[0].cells == ("80M", "Flan-T5-Small", "64", "0.05", "0.0005", "98,000")
    assert content.ours == () and len(content.without) == 3


def test_json_is_strict(runs):
    content = filled_tables.fill(printed_tables.find_table("flan_palm.19"), runs)
    made = json.loads(json.dumps(filled_tables.as_json(content), allow_nan=False))
    assert made["paper"][6]["bbh_direct:tracking_shuffled_objects_five_objects"] is None
    ours = made["ours"][0]["bbh_cot"]
    assert ours["sub_tasks"] == 27 and ours["n"] == 2700 and math.isfinite(ours["value"])
    assert made["without_results"] == ["part", "bare"]


def test_the_nearest_model_of_the_paper(runs):
    assert filled_tables.nearest_row(runs).labels == ("780M", "Flan-T5-Large")
    assert filled_tables.nearest_row([]).labels == ("80M", "Flan-T5-Small")


def test_the_page_has_the_papers_numbers_where_a_run_has_their_suites(runs):
    document = run_page.document(runs[:1])
    assert [s.name for s in document.sections][1] == "papers"
    text = to_html(document)
    assert "Flan-T5-Large (780M), Chung et al. 2022" in text
    assert "Chung et al. 2022, table 5" in text and "Longpre et al. 2023, table 1" in text
    assert "59.1" in text
    assert "Chung et al. 2022, table 5" in to_markdown(document)
    assert filled_tables.papers_section(runs[2:]) is None
