"""Overview, curves, mixture, throughput and configuration of made-up runs."""

import math

import pytest

from instruct.report import blocks, read, sections
from tests.report.made_up_run import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[read.Run]:
    folder = tmp_path_factory.mktemp("runs")
    paths = [write_run(folder / name, seed, 300, 8) for seed, name in enumerate(("a", "b"))]
    return read.read_runs(paths)


def of_type(section: blocks.Section, kind: type) -> list:
    return [block for block in section.blocks if isinstance(block, kind)]


def test_one_run_has_facts_and_two_a_table(runs):
    (facts,) = of_type(sections.overview_section(runs[:1]), blocks.Facts)
    named = {fact.name: fact for fact in facts.items}
    assert named["Parameters"].value == "2.7M"
    assert named["Held-in score"].note.startswith("baseline ")
    (table,) = of_type(sections.overview_section(runs), blocks.Table)
    assert table.columns == ("", "a", "b")


def test_a_score_that_is_not_above_the_baseline_is_said(runs):
    (notices,) = of_type(sections.overview_section(runs[:1]), blocks.Notices)
    weak = [item for item in notices.items if "not clearly above" in item]
    assert len(weak) == 1 and weak[0].startswith("the held-out score")


def test_training_and_validation_share_a_chart(runs):
    (charts,) = of_type(sections.training_section(runs[:1]), blocks.Charts)
    loss = charts.charts[0]
    assert [(s.name, s.dashed) for s in loss.series] == [("training", False), ("validation", True)]
    (both,) = of_type(sections.training_section(runs), blocks.Charts)
    assert [s.color for s in both.charts[0].series] == [0, 0, 1, 1]


def test_more_groups_than_colours_are_cut_to_the_highest(runs):
    row = {"step": 1} | {f"loss/g{i}": float(i) for i in range(12)}
    run = read.Run(runs[0].path, "r", {}, (row,), {}, "", (), ())
    (charts,) = of_type(sections.training_section([run]), blocks.Charts)
    (chart,) = charts.charts
    assert chart.title == "Training loss by group (the 8 highest of 12)"
    assert {s.name for s in chart.series} == {f"g{i}" for i in range(4, 12)}


def test_mixture_shares_are_of_one(runs):
    section = sections.mixture_section(runs[:1])
    (dots,) = of_type(section, blocks.Dots)
    assert sum(row.baseline for row in dots.rows) == pytest.approx(100.0)
    assert sum(row.marks[0].value for row in dots.rows) == pytest.approx(100.0)
    leaves, dropped = of_type(section, blocks.Table)
    assert leaves.fold and dropped.rows[0].cells == ("empty targets", "4")


def test_many_categories_are_cut(runs):
    leaves = [{"name": str(i), "category": f"c{i}", "asked": 1, "realised": i} for i in range(40)]
    run = read.Run(runs[0].path, "r", {}, (), {"leaves": leaves}, "", (), ())
    section = sections.mixture_section([run])
    (dots,) = of_type(section, blocks.Dots)
    assert len(dots.rows) == sections.MIXTURE_ROWS
    assert blocks.Text("10 smaller ones not shown.", quiet=True) in section.blocks


def test_throughput_is_the_median_without_the_first_step(runs):
    rows = tuple(
        {"step": i, "real_tokens_per_sec": v} for i, v in enumerate((1.0, 50.0, 70.0, 60.0))
    )
    run = read.Run(runs[0].path, "r", {"matmul_peak_gflops": 100.0}, rows, {}, "", (), ())
    (table,) = of_type(sections.throughput_section([run]), blocks.Table)
    cells = [row.cells for row in table.rows]
    assert cells == [("Real tokens per second", "60"), ("Matrix-multiply peak, GFLOP/s", "100")]


def test_configuration_has_command_and_settings(runs):
    section = sections.configuration_section(runs[:1])
    codes = of_type(section, blocks.Code)
    assert codes[0].text.startswith("run.py train") and codes[1].title == "operative.gin"
    folds = {table.fold: table for table in of_type(section, blocks.Table)}
    settings = {row.cells for row in folds["Model"].rows}
    assert {("model.d_model", "128"), ("num_params", "2,734,080")} <= settings
    assert ("sessions 1.from_step", "0") in {row.cells for row in folds["Sessions"].rows}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.inf, "–"),
        (76_961_152, "77.0M"),
        (11_135_332_352, "11.1B"),
        (2e12, "2.0T"),
        (12_345, "12.3k"),
        (1_991, "1,991"),
        (0.0312, "0.0312"),
        (1234.5, "1,234"),
    ],
)
def test_compact(value, text):
    assert sections.compact(value) == text


def test_thin_keeps_ends_means_and_gaps():
    points = [(i, float(i % 2)) for i in range(1000)]
    points[500] = (500, math.nan)
    thinned = sections.thin(points)
    assert len(thinned) <= sections.MAX_POINTS and thinned[-1][0] == 999
    assert sum(math.isnan(y) for _, y in thinned) == 1
    assert sections.thin(points[:5]) == tuple(points[:5])
