"""The page of runs: its blocks; complete, self-contained, escaped, and right in a browser."""

import errno
import json
import math
import re

import pytest

from instruct import results
from instruct.errors import UserError
from instruct.report import blocks, read
from instruct.report.pages import run_page
from instruct.report.pages.run_page import write_report
from instruct.train.goodput import KINDS
from tests.report import browser
from tests.report.made_up_run import write_run

pytestmark = pytest.mark.slow

SECTIONS = ["overview", "results", "training", "mixture", "samples", "throughput", "configuration"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of a whole run, of two, of a run of 3000 tasks, and of an empty folder."""
    folder = tmp_path_factory.mktemp("report")
    first = write_run(folder / "first")
    second = write_run(folder / "a_second_run_with_a_rather_long_name", seed=1, with_nan=True)
    large = write_run(folder / "large", 2, 1, 3000, eval_steps=(1,), examples_per_task=2)
    empty = folder / "empty"
    empty.mkdir()
    made = {"one": [first], "two": [first, second], "large": [large], "empty": [empty]}
    return {
        name: write_report(runs, folder / "out" / name).read_text() for name, runs in made.items()
    }


def test_writes_both_files(tmp_path):
    write_run(tmp_path / "run", steps=100, eval_steps=(100,), num_tasks=6)
    path = write_report([tmp_path / "run"], tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "report.md"]


def test_a_full_disk_names_the_page(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")  # of an open file: it has no name

    write_run(tmp_path / "run")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_report([tmp_path / "run"], tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out" / "report.md")


def test_a_missing_run_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        write_report([tmp_path / "nowhere"], tmp_path)
    with pytest.raises(UserError, match="at least one"):
        write_report([], tmp_path)


def sections_of(name):
    """What a page has: two runs are compared with each other before anything else."""
    return [SECTIONS[0], "differences", *SECTIONS[1:]] if name == "two" else SECTIONS


def test_every_section_is_there(pages):
    for name, text in pages.items():
        found = re.findall(r'<section id="(\w+)">', text)
        assert found == sections_of(name), name


def test_nothing_is_fetched_and_nothing_runs(pages):
    for text in pages.values():
        assert "<script" not in text and '<link rel="stylesheet' not in text
        assert "@import" not in text and "url(" not in text
        outside = set(re.findall(r'(?:src|href)="([^"#][^"]*)"', text))
        assert outside == {"data:,"}


def test_texts_of_the_run_are_escaped(pages):
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in pages["one"]
    assert "<img" not in pages["one"]


def test_numbers_stand_with_their_error_and_baseline(pages):
    assert re.search(r"<dt>Held-in score</dt><dd>\d+\.\d ± \d\.\d</dd>", pages["one"])
    assert re.search(r"baseline \d+\.\d, 16 tasks, 128 examples", pages["one"])
    assert "✓ right" in pages["one"] and "✗ wrong" in pages["one"]
    assert "exact_match (%)" in pages["one"]
    assert "train.train_steps = 2000" in pages["one"]


def test_two_runs_are_compared(pages):
    assert "<th>Difference</th>" in pages["two"]
    assert re.search(r"<td>[+-]\d+\.\d ± \d+\.\d</td>", pages["two"])
    assert "a_second_run_with_a_rather_long_name, validation" in pages["two"]
    assert "loss is not a finite number at step" in pages["two"]


def test_thousands_of_tasks_show_their_ends_and_unfold(pages):
    assert "The 10 best and 10 worst of 3,000 tasks" in pages["large"]
    assert "<summary>All 3,000 tasks of gym.demo_eval</summary>" in pages["large"]
    assert len(pages["large"]) < 3_000_000


def test_what_is_missing_is_said(pages):
    for name in ("run.json", "metrics.jsonl", "mixture.json", "operative.gin", "no evaluation yet"):
        assert name in pages["empty"]
    assert "gym.broken" in pages["one"] and "KeyError" in pages["one"]


def test_an_evaluation_of_an_unfinished_task_is_no_error(tmp_path):
    path = tmp_path / "run" / "eval" / "s" / "step_3" / results.FILE_NAME
    path.parent.mkdir(parents=True)
    header = {"kind": "header", "version": 1, "suite": "s", "step": 3, "checkpoint": "c"}
    path.write_text(json.dumps(header | {"settings": {}}) + '\n{"kind": "exam')
    text = write_report([tmp_path / "run"], tmp_path).read_text()
    assert "s at step 3: no task is finished yet" in text


def test_in_a_browser_on_a_phone(pages, tmp_path):
    asks = '<img src="http://control.example/x.png"><div style="width:800px">x</div>'
    asks += "<script>console.error('control')</script>"
    (control,), console, addresses = browser.look(tmp_path, [asks], width=390)
    assert control["width"] > 800, "the measure itself"
    assert console and "http://control.example/x.png" in addresses

    (tmp_path / "own").mkdir()
    reports, console, addresses = browser.look(tmp_path / "own", [*pages.values()], width=390)
    for name, report in zip(pages, reports):
        assert report["width"] == 390, f"{name} is wider than the screen"
        assert report["sections"] == sections_of(name)
        assert report["scripts"] == 0
    assert reports[0]["charts"] >= 8
    assert reports[3]["charts"] == 0
    assert console == []
    # Chromium asks its maker for updates by itself.
    asked = [a for a in addresses if a.startswith(("http", "ws", "ftp"))]
    assert [a for a in asked if ".google.com/" not in a and ".googleapis.com/" not in a] == []


def test_in_a_browser_in_the_dark(pages, tmp_path):
    (light,), _, _ = browser.look(tmp_path, [pages["one"]], width=1200)
    (dark,), console, _ = browser.look(tmp_path, [pages["one"]], width=1200, dark=True)
    assert light["background"] != dark["background"]
    assert light["width"] == dark["width"] == 1200
    assert console == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[read.Run]:
    folder = tmp_path_factory.mktemp("runs")
    paths = [write_run(folder / name, seed, 300, 8) for seed, name in enumerate(("a", "b"))]
    return read.read_runs(paths)


def of_type(section: blocks.Section, kind: type) -> list:
    return [block for block in section.blocks if isinstance(block, kind)]


def test_one_run_has_facts_and_two_a_table(runs):
    (facts,) = of_type(run_page.overview_section(runs[:1]), blocks.Facts)
    named = {fact.name: fact for fact in facts.items}
    assert named["Parameters"].value == "2.7M"
    assert named["Held-in score"].note.startswith("baseline ")
    (table,) = of_type(run_page.overview_section(runs), blocks.Table)
    assert table.columns == ("", "a", "b")


def test_a_score_that_is_not_above_the_baseline_is_said(runs):
    (notices,) = of_type(run_page.overview_section(runs[:1]), blocks.Notices)
    weak = [item for item in notices.items if "not clearly above" in item]
    assert len(weak) == 1 and weak[0].startswith("the held-out score")


def test_a_task_without_a_value_is_said(tmp_path):
    folder = write_run(tmp_path / "run", steps=20, num_tasks=6, eval_steps=(10,))
    (path,) = folder.glob("eval/*/*/results.jsonl")
    rows = list(results.read_rows(path))
    for row in rows:
        if row["kind"] == "metric" and row["task"] == "gym.task_0001":
            row["value"] = None
    path.write_text("".join(map(results.to_line, rows)))
    notices = " ".join(run_page._weak_scores(read.read_run(folder, "run")))
    told = "the held-in score: 1 of 4 tasks has no finite value and is left out of the mean."
    assert told in notices and "held-out score: " not in notices


def test_several_suites_are_compared_at_a_glance_the_best_over_its_baseline_first(tmp_path):
    folder = write_run(tmp_path / "run", eval_steps=(2000,))
    (file,) = (folder / "eval").rglob(results.FILE_NAME)
    rows = list(results.read_rows(file))
    for suite, value in (("far", 10.0), ("near", 90.0)):
        of_suite = {
            "header": {"description": f"What is {suite}"},
            "metric": {"value": value, "baseline": 30.0},
        }
        lines = [results.to_line(r | {"suite": suite} | of_suite.get(r["kind"], {})) for r in rows]
        path = folder / "eval" / suite / "step_2000" / results.FILE_NAME
        path.parent.mkdir(parents=True)
        path.write_text("".join(lines))
    section = run_page.overview_section(read.read_runs([folder]))
    (pair,) = of_type(section, blocks.Pair)
    labels = [row.label for row in pair.plot.rows]
    assert (labels[0], labels[-1], len(labels)) == ("near", "far", 3)
    assert pair.table.rows[0].cells[:3] == ("What is near", "90.0 ± 0.7", "30.0")
    (notices,) = of_type(section, blocks.Notices)
    assert any(item.startswith("the score on far, 10.0") for item in notices.items)


def test_training_and_validation_share_a_chart(runs):
    (charts,) = of_type(run_page.training_section(runs[:1]), blocks.Charts)
    loss = charts.charts[0]
    assert [(s.name, s.dashed) for s in loss.series] == [("training", False), ("validation", True)]
    (both,) = of_type(run_page.training_section(runs), blocks.Charts)
    assert [s.color for s in both.charts[0].series] == [0, 0, 1, 1]


def test_more_groups_than_colours_are_cut_to_the_highest(runs):
    row = {"step": 1} | {f"loss/g{i}": float(i) for i in range(12)}
    run = read.Run(runs[0].path, "r", {}, (row,), {}, "", (), ())
    (charts,) = of_type(run_page.training_section([run]), blocks.Charts)
    (chart,) = charts.charts
    assert chart.title == "Training loss by group (the 8 highest of 12)"
    assert {s.name for s in chart.series} == {f"g{i}" for i in range(4, 12)}


def test_tasks_that_training_evaluates_have_a_chart_each(runs):
    row = {"eval/loss": 1.0, "eval/accuracy": 1.0, "eval/loss/g": 1.0}
    names = ("eval/own.a/f1", "eval/own.a/em", *(f"eval/t{i}/f1" for i in range(9)))
    rows = tuple({"step": step} | row | dict.fromkeys(names, 2.0) for step in (1, 2))
    run = read.Run(runs[0].path, "r", {}, rows, {}, "", (), ())
    (charts,) = of_type(run_page.training_section([run]), blocks.Charts)
    shown = {chart.title: [s.name for s in chart.series] for chart in charts.charts}
    assert shown["own.a, while training"] == ["f1", "em"]
    assert "t4, while training (6 of 10 tasks are drawn)" in shown
    assert len([title for title in shown if "while training" in title]) == 6


def test_mixture_shares_are_of_one(runs):
    section = run_page.mixture_section(runs[:1])
    (dots,) = of_type(section, blocks.Dots)
    assert sum(row.baseline for row in dots.rows) == pytest.approx(100.0)
    assert sum(row.marks[0].value for row in dots.rows) == pytest.approx(100.0)
    leaves, dropped = of_type(section, blocks.Table)
    assert leaves.fold and dropped.rows[0].cells == ("empty targets", "4")


def test_many_categories_are_cut(runs):
    leaves = [{"name": str(i), "category": f"c{i}", "asked": 1, "realised": i} for i in range(40)]
    run = read.Run(runs[0].path, "r", {}, (), {"leaves": leaves}, "", (), ())
    section = run_page.mixture_section([run])
    (dots,) = of_type(section, blocks.Dots)
    assert len(dots.rows) == run_page.MIXTURE_ROWS
    assert blocks.Text("10 smaller ones not shown.", quiet=True) in section.blocks


def test_throughput_is_the_median_without_the_first_step(runs):
    rows = tuple(
        {"step": i, "real_tokens_per_sec": v} for i, v in enumerate((1.0, 50.0, 70.0, 60.0))
    )
    run = read.Run(runs[0].path, "r", {"matmul_peak_gflops": 100.0}, rows, {}, "", (), ())
    (table,) = of_type(run_page.throughput_section([run]), blocks.Table)
    cells = [row.cells for row in table.rows]
    assert cells == [("Real tokens per second", "60"), ("Matrix-multiply peak, GFLOP/s", "100")]


def test_goodput_is_that_of_the_last_logged_step(runs):
    first, last = (
        {f"goodput/{k}": 1 / 7 for k in KINDS} | {"goodput/steps": s} for s in (0.2, 0.8)
    )
    metrics = ({"step": 1} | first, {"step": 2, "step_secs": 1.0} | last, {"step": 3})
    run = read.Run(runs[0].path, "r", {}, metrics, {}, "", (), ())
    section = run_page.throughput_section([run])
    table = of_type(section, blocks.Table)[1]
    assert table.rows[0].cells == ("Training steps", "80.0 %") and len(table.rows) == len(KINDS)
    assert "–" not in str(table.rows)
    assert any(
        "Restarts: from the checkpoint" in text.text for text in of_type(section, blocks.Text)
    )


def test_configuration_has_command_and_settings(runs):
    section = run_page.configuration_section(runs[:1])
    codes = of_type(section, blocks.Code)
    assert codes[0].text.startswith("run.py train") and codes[1].title == "operative.gin"
    folds = {table.fold: table for table in of_type(section, blocks.Table)}
    settings = {row.cells for row in folds["Model"].rows}
    assert {("model.d_model", "128"), ("num_params", "2,734,080")} <= settings
    assert ("sessions 1.from_step", "0") in {row.cells for row in folds["Sessions"].rows}


def test_thin_keeps_ends_means_and_gaps():
    points = [(i, float(i % 2)) for i in range(1000)]
    points[500] = (500, math.nan)
    thinned = run_page.thin(points)
    assert len(thinned) <= run_page.MAX_POINTS and thinned[-1][0] == 999
    assert sum(math.isnan(y) for _, y in thinned) == 1
    assert run_page.thin(points[:5]) == tuple(points[:5])
