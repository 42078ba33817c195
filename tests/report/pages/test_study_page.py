"""The page of a made-up study of 30 runs: its numbers, its gaps, and how it looks in a browser."""

import json
import statistics

import pytest

from instruct import results
from instruct.report.blocks import Bars, Charts, Notices, Row, Table
from instruct.report.pages import study_page
from instruct.report.pages.study_page import document, write_study
from instruct.report.read import read_evaluation
from instruct.report.study.study_files import read_study
from instruct.report.study.study_scores import measure
from tests.report.browser import look
from tests.report.made_up_study import (
    DISTANCES,
    SEEDS,
    TASK_COUNTS,
    answers,
    write_categories,
    write_curves,
    write_state,
    write_study_json,
    write_suite,
    write_training,
)
from tests.report.made_up_suites import suite_tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_curves(tmp_path_factory.mktemp("study"), examples=10)


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    return write_study(folder, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def sections(folder):
    return {s.name: s.blocks for s in document(measure(read_study(folder))).sections}


def of_kind(blocks, kind):
    return [block for block in blocks if isinstance(block, kind)]


def plain_mean(folder, tasks, size, suite):
    """The mean over seeds of the mean over tasks, from the examples of the results files."""
    by_seed = []
    for seed in SEEDS:
        path = folder / f"tasks={tasks},size={size},SEED={seed}/eval/{suite}/step_500/results.jsonl"
        if path.exists():
            by_task = {}
            for line in read_evaluation(path, lambda line: line).examples:
                by_task.setdefault(line["task"], []).append(line["scores"]["exact_match"])
            by_seed.append(statistics.fmean(map(statistics.fmean, by_task.values())))
    return statistics.fmean(by_seed), len(by_seed)


def test_of_one_curve_with_many_suites_each_suite_is_a_row(tmp_path):
    runs = [{"tasks": count, "SEED": "0"} for count in ("1", "8")]
    names = write_study_json(tmp_path, {"tasks": ("1", "8"), "SEED": ("0",)}, runs, "tasks")
    for name, right in zip(names, (2, 6)):
        for suite in "abcdefg":
            scores = [100.0] * right + [0.0] * (8 - right)
            write_suite(write_state(tmp_path / name), suite, {f"gym.{suite}": scores})
    (section, *_) = document(measure(read_study(tmp_path))).sections
    (table,) = of_kind(section.blocks, Table)
    ends = ("majority answer", "random option", "n a run")
    assert table.columns == ("tasks →", "1", "8", "1 → 8", *ends)
    assert [row.cells[0] for row in table.rows] == [*(f"{x}, held-out" for x in "abcdefg"), "Runs"]
    assert table.rows[0].cells[1].startswith("25.0 [") and table.rows[-1].cells[1:3] == ("1", "1")


def test_of_several_curves_with_many_suites_each_suite_and_curve_is_a_row(tmp_path):
    axes = {"tasks": ("1", "8", "24"), "size": ("32", "64")}
    runs = [{"tasks": count, "size": size} for count in axes["tasks"] for size in axes["size"]][:-1]
    names = write_study_json(tmp_path, axes, runs, "tasks")
    for right, name in enumerate(names):
        for suite in "abcd":
            scores = [100.0] * right + [0.0] * (8 - right)
            write_suite(write_state(tmp_path / name), suite, {f"gym.{suite}": scores})
    (section, *_) = document(measure(read_study(tmp_path))).sections
    (table,) = of_kind(section.blocks, Table)
    levels = ("majority answer", "random option", "n a run")
    assert table.columns == ("tasks →", "size", "1", "8", "24", "1 → 24", "1 → 8", *levels)
    assert [row.cells[:2] for row in table.rows[:3]] == [
        *(("a, held-out", "32"), ("a, held-out", "64"), ("b, held-out", "32")),
    ]
    small, large = (row.cells for row in table.rows[:2])
    assert [cell.partition(" ")[0] for cell in small[2:6]] == ["0.0", "25.0", "50.0", "+50.0"]
    assert [cell.partition(" ")[0] for cell in large[2:6]] == ["12.5", "37.5", "", ""]
    assert small[6] == "" and large[6].startswith("+25.0 [") and small[7:] == ("30.0", "25.0", "8")
    assert [row.cells[:5] for row in table.rows[-2:]] == [
        ("Runs", "32", "1", "1", "1"),
        ("Runs", "64", "1", "1", ""),
    ]
    assert table.text_columns == 2 and len(table.rows) == 4 * 2 + 2


def test_the_headline_table_has_every_point_by_plain_computation(folder, sections):
    (table,) = of_kind(sections["overview"], Table)
    assert table.columns[:2] == ("size", "tasks") and table.columns[-1] == "Runs"
    suites = [title.removesuffix(", held-out") for title in table.columns[2:-1]]
    assert sorted(suites) == sorted(DISTANCES)
    points = {row.cells[:2]: row for row in table.rows if row.cells[1] in TASK_COUNTS}
    assert len(points) == 10
    for (size, tasks), row in points.items():
        for suite, cell in zip(suites, row.cells[2:-1]):
            value, runs = plain_mean(folder, tasks, size, suite)
            assert cell.startswith(f"{value:.1f} [") and row.cells[-1][0] == str(runs)
    assert points["base", "8"].cells[-1] == "2 of 3"
    first, last = (plain_mean(folder, n, "small", suites[0])[0] for n in ("1", "64"))
    assert first < last
    ends = [row for row in table.rows if row.strong]
    assert [row.cells[:2] for row in ends] == [("small", "1 → 96"), ("base", "1 → 96")]
    ends = ["majority answer", "random option", "n a run"]
    assert [row.cells[0] for row in table.rows[-3:]] == ends and table.rows[-1].cells[2] == "40"


def test_the_first_screen_says_what_is_missing(sections):
    text, facts, *_ = sections["overview"]
    assert "tasks (1, 8, 24, 64, 96); size (small, base). 3 seeds of each." in text.text
    assert {fact.name: fact.value for fact in facts.items} == {
        "Runs done": "27 of 30",
        "Runs failed": "2",
        "Runs missing": "1",
        "Time of all runs": "3.2 h",
    }
    (notices,) = of_kind(sections["overview"], Notices)
    assert notices.items[0].endswith("failed in train: RuntimeError: out of memory")
    assert "no reason recorded" in notices.items[1]
    assert "1 run is missing" in notices.items[2] and "tasks=8,size=base,SEED=1" in notices.items[2]


def test_a_curve_for_each_size_with_intervals_in_each_chart(sections):
    (charts,) = of_kind(sections["points"], Charts)
    assert len(charts.charts) == 4
    for chart in charts.charts:
        assert [series.name for series in chart.series] == ["size small", "size base"]
        assert [x for x, _ in chart.series[0].points] == [1, 8, 24, 64, 96]
        assert all(
            low <= y <= high
            for s in chart.series
            for (_, y), (low, high) in zip(s.points, s.intervals)
        )
        assert chart.levels == (("majority answer", 30), ("random option", 25))
        assert not chart.linear and [text for _, text in chart.ticks] == list(TASK_COUNTS)


def test_differences_are_counted_and_corrected(sections):
    text = sections["differences"][0].text
    assert "40 comparisons" in text and "about 2.0 would have p below 0.05" in text
    assert sections["differences"][0].text.endswith("of 40.")
    (table,) = of_kind(sections["differences"], Table)
    assert len(table.rows) == 40 and table.fold
    rows = {row.cells[:3]: row.cells for row in table.rows}
    one = rows["unseen_instances, held-out", "size base", "tasks: 1 → 8"]
    assert one[-2] == "2" and one[-1] == "40"  # seed 1 failed at 1 task, is missing at 8
    small = rows["unseen_instances, held-out", "size small", "tasks: 64 → 96"]
    assert small[-2] == "2 of 3"
    (bars,) = of_kind(sections["differences"], Bars)
    assert len(bars.groups) == 8 and all(len(group) == 5 for _, group in bars.groups)


def test_every_run_and_task_has_its_row(sections):
    (runs,) = of_kind(sections["runs"], Table)
    assert len(runs.rows) == 30
    states = [row.cells[3] for row in runs.rows]
    assert states.count("done") == 27 and states.count("missing") == 1
    assert states.count("failed (train)") == 2
    assert runs.rows[4].cells[:-1] == ("1", "base", "1", "failed (train)", "–", "–", "12 s")
    tasks = of_kind(sections["tasks"], Table)
    assert [len(table.rows) for table in tasks] == [4] * 4
    assert tasks[0].columns[:2] == ("Task", "Version")
    assert tasks[0].columns[5:7] == ("small, 1", "small, 8")
    (conditions,) = of_kind(sections["conditions"], Table)
    cells = dict(row.cells for row in conditions.rows)
    assert cells["seeds"] == "0, 1, 2" and cells["commit"] == "0123abcd"
    assert (
        "n 10 each; 40 examples paired over all runs; checkpoint step 500"
        in (cells["unseen_tasks, held-out"])
    )


def test_the_results_file_has_a_line_for_each_run_suite_and_task(page):
    lines = (page.parent / "study_results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    with_results = [row for row in rows if row["suite"]]
    assert len(with_results) == 27 * 4 * 4 and len(rows) == len(with_results) + 3
    one = with_results[0]
    assert one["labels"] == {"tasks": "1", "size": "small", "SEED": "0"} and one["n"] == 10
    assert {"value", "stderr", "task", "task_version", "template_set", "step"} <= one.keys()
    without = {row["run"]: row["state"] for row in rows if not row["suite"]}
    assert sorted(without.values()) == ["failed", "failed", "missing"]


def test_the_markdown_has_the_numbers(page):
    text = (page.parent / "study.md").read_text()
    assert "| tasks | size small | size base |" in text and "majority answer: 30.0" in text
    assert "27 of 30" in text and page.name == "study.html"


def test_categories_have_dots_and_differences_to_the_first(tmp_path):
    study = read_study(write_categories(tmp_path, examples=6))
    sections = {s.name: s.blocks for s in document(measure(study)).sections}
    assert [dots.title for dots in sections["points"][:2]] == [
        "BBH few-shot",
        "unseen_tasks, held-out",
    ]
    assert [row.label for row in sections["points"][0].rows][:2] == ["Flan 2022", "minus CoT"]
    ours, printed = of_kind(sections["differences"], Bars)
    assert [bar.label for bar in ours.groups[0][1]] == [
        *("minus CoT", "minus input inversion", "not trained"),
    ]
    assert printed.title == "Longpre et al. 2023, table 1: change against Flan 2022"
    assert printed.groups[0][1][0].label == "– CoT"
    assert printed.groups[0][1][0].value == pytest.approx(30.0 - 39.3)
    notes = sections["overview"][3].text
    assert "(3 degrees of freedom" in notes and notes.endswith("have intervals over examples.")
    runs = of_kind(sections["runs"], Table)[0].rows
    assert runs[-1].cells[2] == "done, only evaluated"


def test_the_papers_curves_stand_beside_ours(tmp_path):
    write_curves(
        tmp_path,
        tasks_per_suite=1,
        examples=2,
        counts=("0", "9", "89", "282", "1836"),
        papers=("flan_palm.3",),
        suites=("bbh.direct",),
    )
    sections = {s.name: s.blocks for s in document(measure(read_study(tmp_path))).sections}
    (charts,) = of_kind(sections["points"], Charts)
    chart = charts.charts[0]
    assert chart.title == "BBH direct"
    assert [s.tag for s in chart.series if s.dashed] == ["8B", "62B", "540B"]
    assert [x for x, _ in chart.series[0].points] == [0, 9, 89, 282, 1836]
    assert not any(s.dashed for c in charts.charts[1:] for s in c.series)
    assert "table 3" in of_kind(sections["papers"], Table)[0].fold
    (differs,) = (b.text for b in sections["papers"] if "differs from its protocol" in str(b))
    assert "BBH direct: our prompts show fewer exemplars: 0 of 3" in differs


def test_a_curve_that_starts_late_is_compared_from_its_own_first_point(tmp_path):
    axes = {"tasks": ("0", "9", "89"), "size": ("a", "b")}
    runs = [{"tasks": t, "size": s} for t in axes["tasks"] for s in axes["size"]][:5]
    names = write_study_json(tmp_path, axes, runs, "tasks")
    for step, name in enumerate(names):
        run = write_state(tmp_path / name)
        write_suite(run, "s", answers(["gym.a"], step, "0", 8), step=500 if step else 400)
    sections = {s.name: s.blocks for s in document(measure(read_study(tmp_path))).sections}
    (table,) = of_kind(sections["overview"], Table)
    assert [row.cells[:2] for row in table.rows if row.strong] == [("a", "0 → 89"), ("b", "0 → 9")]
    (notices,) = of_kind(sections["overview"], Notices)
    assert "s, held-out: runs are evaluated at different steps, 400 to 500." in notices.items


def test_categories_beside_a_numeric_axis_are_compared_at_each_point(tmp_path):
    axes = {"tasks": ("1", "8"), "mixture": ("all", "minus CoT")}
    runs = [{"tasks": t, "mixture": m} for t in axes["tasks"] for m in axes["mixture"]]
    for skill, name in enumerate(write_study_json(tmp_path, axes, runs, "tasks")):
        write_suite(write_state(tmp_path / name), "s", answers(["gym.a"], skill, "0", 8))
    blocks = {s.name: s.blocks for s in document(measure(read_study(tmp_path))).sections}
    assert "along tasks (neighbouring points, and the last with the first) and mixture (each" in (
        blocks["differences"][0].text
    )
    (bars,) = of_kind(blocks["differences"], Bars)
    assert [heading for heading, _ in bars.groups] == [
        *("s, held-out: mixture all", "s, held-out: mixture minus CoT"),
        "s, held-out: mixture all → minus CoT",
    ]
    assert [bar.label for bar in bars.groups[-1][1]] == ["tasks 1", "tasks 8"]
    (table,) = of_kind(blocks["differences"], Table)
    assert table.rows[-1].cells[1:3] == ("tasks 8", "mixture: all → minus CoT")


@pytest.mark.parametrize(
    ("xs", "linear"),
    [
        ((0, 5, 10, 25, 50, 75, 90, 95, 100), True),
        ((0, 9, 89, 282, 1836), False),
        ((0, 0.25, 0.5, 1, 1.25), True),
        ((1e-4, 5e-4, 1e-3, 3e-3), False),
        ((-1, 1, 100), True),
        ((7,), True),
    ],
)
def test_the_axis_is_the_one_that_tells_points_apart(xs, linear):
    assert study_page._is_linear(xs) == linear


def test_what_runs_do_not_share_is_said(tmp_path):
    """Other baselines, other examples, steps of checkpoints that are only evaluated."""
    runs = [{"tasks": "0", "SEED": "0"}, *({"tasks": "9", "SEED": seed} for seed in "01")]
    axes = {"tasks": ("0", "9"), "SEED": ("0", "1")}
    facts = {"before": ["base", "other"], "code_sha256": "new"}
    names = write_study_json(tmp_path, axes, runs, "tasks", runs[:1], **facts)
    for name in ("base", "other"):
        write_training(write_state(tmp_path / name, code=name), 1e6)
    for number, name in enumerate(names):
        run, step = write_state(tmp_path / name, code="new"), 500 if number else 900
        write_training(run, 1e6)
        scores = {"gym.a": [100.0, 0.0] * 10}
        write_suite(run, "s", scores, step=step, baseline=40.0 if number else 30.0)
        write_suite(run, "t", scores, step=step)
    path = tmp_path / names[2] / "eval/t/step_500/results.jsonl"
    rows = [
        row | {"id": f"new {row.get('index')}"} if row.get("index", 0) > 4 else row
        for row in results.read_rows(path)
    ]
    path.write_text("".join(map(results.to_line, rows)))
    sections = {s.name: s.blocks for s in document(measure(read_study(tmp_path))).sections}
    assert "2 seeds of each trained point." in sections["overview"][0].text
    (notices,) = of_kind(sections["overview"], Notices)
    assert notices.items == [
        "2 runs were made by other code than the commit under Conditions: base, other.",
        "t, held-out: of 20 examples of each run only 5 are the same in all runs, and only they "
        "count. Runs are evaluated on different examples.",
        "baseline is not the same in all runs: gym.a direct; the highest counts.",
    ]
    (table,) = of_kind(sections["overview"], Table)
    lines = {row.cells[0]: row.cells[1:] for row in table.rows}
    assert lines["majority answer"] == ("40.0", "30.0", "") and lines["n a run"] == ("20", "5", "")
    of_tasks, _ = of_kind(sections["tasks"], Table)
    assert of_tasks.rows[0].cells[1] == "1" and of_tasks.rows[0].cells[4] == "40.0 / 25.0"
    conditions = dict(row.cells for row in of_kind(sections["conditions"], Table)[0].rows)
    assert "checkpoint step 500, only evaluated: 900;" in conditions["s, held-out"]
    assert conditions["s, held-out"].endswith("task version 1")
    (runs_table,) = of_kind(sections["runs"], Table)
    assert [row.cells[0] for row in runs_table.rows[:2]] == [
        "before the grid: base",
        "before the grid: other",
    ]


def test_a_run_whose_record_is_damaged_is_not_one_that_was_never_started(tmp_path):
    names = write_study_json(tmp_path, {"x": ("a", "b")}, [{"x": "a"}, {"x": "b"}], "x")
    for name in names:
        write_suite(write_state(tmp_path / name), "s", {"gym.a": [100.0, 0.0]})
    (tmp_path / names[1] / "study_run.json").write_text('{"state": "do')
    (overview, *_) = document(measure(read_study(tmp_path))).sections
    (notices,) = of_kind(overview.blocks, Notices)
    assert notices.items[0] == "x=b failed: study_run.json is damaged"


def test_a_study_without_results_has_a_page(tmp_path):
    names = write_study_json(tmp_path, {"x": ("a", "b")}, [{"x": "a"}, {"x": "b"}], "x")
    write_state(tmp_path / names[0], "failed", stage="train", error="<b>no</b>")
    text = write_study(tmp_path, tmp_path).read_text()
    assert "No run of the study has results yet." in text and "0 of 2" in text
    assert "&lt;b&gt;no&lt;/b&gt;" in text


def test_a_study_without_seeds_says_that_intervals_are_over_examples(tmp_path):
    axes = {"tasks": ("1", "8")}
    names = write_study_json(tmp_path, axes, [{"tasks": "1"}, {"tasks": "8"}], "tasks")
    for skill, name in enumerate(names):
        write_suite(write_state(tmp_path / name), "s", answers(["gym.a"], skill, "0", 30))
    text = (write_study(tmp_path, tmp_path).parent / "study.md").read_text()
    assert "One seed: intervals are over examples only." in text
    assert "the same examples; one seed each" in text


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_the_page_fits_a_phone_and_a_desk(page, tmp_path, width, dark):
    (seen,), console, _ = look(tmp_path, [page.read_text()], width, dark)
    assert seen["width"] <= width and seen["charts"] == 4 and not console
    assert all(table["cue"] or not table["wide"] for table in seen["tables"])


def test_rows_have_as_many_cells_as_columns(sections):
    tables = [t for blocks in sections.values() for t in of_kind(blocks, Table)]
    assert tables and all(
        len(row.cells) == len(table.columns) for table in tables for row in table.rows
    )
    assert all(isinstance(row, Row) for table in tables for row in table.rows)


def test_models_of_known_size_stand_beside_the_papers_models(tmp_path):
    axes = {"size": ("base", "small")}
    runs = [{"size": size} for size in axes["size"]]
    names = write_study_json(tmp_path, axes, runs, "size", papers="flan_palm.5")
    for parameters, name in zip((248e6, 77e6), names):
        write_training(write_state(tmp_path / name), parameters)
        scores = answers([row[1] for row in suite_tasks(("bbh.direct",))], 0.0, name, 3)
        write_suite(tmp_path / name, "bbh.direct", scores)
    scores = measure(read_study(tmp_path))
    assert scores.x_labels == ("small", "base")
    (charts,) = of_kind({s.name: s for s in document(scores).sections}["points"].blocks, Charts)
    ours, *printed = charts.charts[0].series
    assert [x for x, _ in ours.points] == [77e6, 248e6] and not charts.charts[0].ticks
    assert [series.tag for series in printed] == ["T5", "Flan-T5", "PaLM", "Flan-PaLM"]


@pytest.mark.parametrize("done", [("1",), ("1", "54")])
def test_points_without_runs_have_no_label_on_the_axis(tmp_path, done):
    counts = ("0", "1", "6", "54")
    runs = [{"tasks": count} for count in counts]
    names = write_study_json(tmp_path, {"tasks": counts}, runs, "tasks")
    for count, name in zip(counts, names):
        if count in done:
            write_training(write_state(tmp_path / name), 77e6)
            scores = answers([row[1] for row in suite_tasks(("bbh.direct",))], 0.0, name, 3)
            write_suite(tmp_path / name, "bbh.direct", scores)
    sections = {s.name: s for s in document(measure(read_study(tmp_path))).sections}
    (charts,) = of_kind(sections["points"].blocks, Charts)
    for chart in charts.charts:
        assert [text for _, text in chart.ticks] == list(done)
        assert [x for x, _ in chart.series[0].points] == [x for x, _ in chart.ticks]
