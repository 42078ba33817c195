"""Which runs make a curve, over what, and which of the papers' curves stand beside it."""

import dataclasses

import pytest

from instruct.report import read
from instruct.report.blocks import Charts, Document, Text
from instruct.report.pages import scaling
from instruct.report.pages.rendering import to_html, to_markdown
from instruct.report.papers import printed_tables
from tests.report.browser import look
from tests.report.made_up_run import write_run
from tests.report.made_up_suites import add_suites, set_size


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name, tasks, size, level in (
        ("small", 12, 77e6, 30.0),
        ("few", 6, 77e6, 20.0),
        ("base", 12, 248e6, 40.0),
        ("again", 12, 248e6, 99.0),
    ):
        run = write_run(folder / name, num_tasks=tasks, eval_steps=(1000,), steps=1)
        set_size(run, size)
        made.append(add_suites(run, level, (500, 2000), ("bbh.direct", "held_in"), spread=1.0))
    return read.read_runs(made)


def charts_of(section):
    groups = [block for block in section.blocks if isinstance(block, Charts)]
    return {chart.title: chart for group in groups for chart in group.charts}


def test_curves_over_parameters_and_over_tasks(runs):
    charts = charts_of(scaling.scaling_section(runs))
    assert set(charts) == {
        *("BBH direct over parameters", "Held-In over parameters"),
        *("BBH direct over finetuning tasks", "Held-In over finetuning tasks"),
    }
    ours, *printed = charts["BBH direct over parameters"].series
    assert ours.name == "ours, 8 tasks" and [x for x, _ in ours.points] == [77e6, 248e6]
    # Of two runs of one size and one number of tasks, the first counts.
    assert [y for _, y in ours.points] == pytest.approx([30, 40], abs=1)
    assert all(error > 0 for error in ours.errors)
    assert [series.tag for series in printed] == ["T5", "Flan-T5", "PaLM", "Flan-PaLM"]
    assert all(series.dashed for series in printed) and not ours.dashed
    ours, *printed = charts["BBH direct over finetuning tasks"].series
    assert [x for x, _ in ours.points] == [4, 8]
    assert [series.tag for series in printed] == ["8B", "62B", "540B"]
    assert not [s for s in charts["Held-In over parameters"].series if s.dashed]
    notes = [b.text for b in scaling.scaling_section(runs).blocks if isinstance(b, Text)]
    assert any(note.endswith("in size and tasks: again.") for note in notes)


def test_runs_of_two_kinds_of_model_are_no_curve(runs):
    def of_kind(run, **fields):
        return dataclasses.replace(run, info=run.info | {"model": fields})

    kind = {"class": "DecoderConfig"}
    small, _, base, again = runs
    prefix_lm = of_kind(base, **kind, prefix_lm=True)
    assert scaling.scaling_section([small, prefix_lm]).blocks == ()
    causal = [of_kind(run, **kind) for run in (small, again)]
    charts = charts_of(scaling.scaling_section([small, base, prefix_lm, *causal]))
    names = [s.name for s in charts["Held-In over parameters"].series if not s.dashed]
    assert len(names) == 2 and names[1] == "ours, 8 tasks, DecoderConfig"


def test_the_papers_curves_are_the_papers_numbers(runs):
    charts = charts_of(scaling.scaling_section(runs))
    flan_t5 = charts["BBH direct over parameters"].series[2]
    assert [y for _, y in flan_t5.points] == [29.1, 31.3, 37.5, 41.0, 45.3]
    tasks = charts["BBH direct over finetuning tasks"].series[1]
    assert tasks.points == ((0, 30.8), (9, 19.8), (89, 31.0), (282, 33.1), (1836, 36.4))
    labels = {row.labels[0] for row in printed_tables.find_table("flan_palm.5").rows}
    assert labels == set(printed_tables.PARAMETERS)


def test_no_curve_of_runs_that_do_not_differ_or_are_not_known(runs):
    assert scaling.scaling_section(runs[:1]).blocks == ()
    assert scaling.scaling_section([runs[2], runs[3]]).blocks == ()
    unknown = dataclasses.replace(runs[1], mixture={})
    assert scaling.scaling_section([runs[0], unknown]).blocks == ()
    section = scaling.scaling_section([*runs[:3], dataclasses.replace(unknown, label="odd")])
    assert section.blocks[-1].text.endswith("odd.")


def test_other_suites_scale_too(tmp_path):
    made = []
    for name, size in (("a", 1e6), ("b", 4e6)):
        run = write_run(tmp_path / name, num_tasks=6, eval_steps=(1000,), steps=1)
        set_size(run, size)
        made.append(run)
    charts = charts_of(scaling.scaling_section(read.read_runs(made)))
    assert set(charts) == {"Held-in tasks over parameters", "Held-out tasks over parameters"}


def test_learning_curves_with_the_papers_level(runs):
    charts = charts_of(scaling.learning_section(runs[:2]))
    small, few, printed = charts["BBH direct over steps"].series
    assert not charts["BBH direct over steps"].sizes
    assert [x for x, _ in small.points] == [500, 2000] and few.name == "few"
    assert small.points[0][1] < small.points[1][1]
    assert printed.dashed and printed.points == ((500, 29.1), (2000, 29.1))
    assert len(charts["Held-In over steps"].series) == 2
    once = dataclasses.replace(runs[0], evaluations=runs[0].evaluations[:1])
    assert scaling.learning_section([once]).blocks == ()


def test_as_markdown_every_point_is_a_number(runs):
    section = scaling.scaling_section(runs)
    text = to_markdown(Document("t", "", (section,)))
    assert "| 11,100,000,000 | – | 29.5 | 45.3 | – | – |" in text
    assert "| 0 | – | 30.8 | 37.4 | 49.1 |" in text
    shown = [c for b in section.blocks if isinstance(b, Charts) for c in b.charts]
    assert all(chart.sizes for chart in shown)


@pytest.mark.slow
def test_the_page_fits_a_phone_and_a_desk(runs, tmp_path):
    sections = (scaling.scaling_section(runs), scaling.learning_section(runs))
    text = to_html(Document("Six runs", "", sections))
    for width, dark in ((360, False), (1200, True)):
        folder = tmp_path / str(width)
        folder.mkdir()
        (seen,), console, _ = look(folder, [text], width, dark)
        assert seen["width"] <= width and seen["charts"] == 6 and not console
