"""Which numbers stand beside which."""

import pathlib

from instruct.report import blocks
from instruct.report.pages import tables
from instruct.report.pages.rendering import to_markdown
from instruct.report.read import Evaluation, Run


def metric(task, value, group="held_in", category="c", **changes):
    row = {"suite": "s", "task": task, "mode": "m", "metric": "exact_match", "group": group}
    row |= {
        "category": category,
        "family": "f",
        "split": "test",
        "value": value,
        "stderr": 3.0,
        "n": 10,
    }
    return row | {"baseline": 5.0, "kind": "metric"} | changes


def sample(task, correct, category="c", group="held_in", **changes):
    row = {"task": task, "mode": "m", "category": category, "group": group, "correct": correct}
    row |= {"prompt": "p", "target": "t", "prediction": "x", "scores": {"exact_match": 0.0}}
    return row | changes


def make_run(label, *evaluations):
    return Run(pathlib.Path(label), label, {}, (), {}, "", tuple(evaluations), ())


def evaluation(step, *rows, suite="s", others=(), samples=()):
    return Evaluation(suite, step, {}, tuple(rows), tuple(others), (), tuple(samples))


def folded(section):
    found = [b for b in section.blocks if isinstance(b, blocks.Table)]
    return {table.fold: table for table in found}


def test_groups_categories_and_tasks():
    rows = [
        metric("a", 20.0, category="x"),
        metric("b", 60.0, category="y"),
        metric("c", 10.0, "held_out", "z", baseline=None),
    ]
    section = tables.results_section([make_run("r", evaluation(7, *rows))])
    (pair,) = (b for b in section.blocks if isinstance(b, blocks.Pair))
    assert pair.plot.title == "s, step 7" and pair.plot.unit == "exact_match (%)"
    cells = [(row.cells, row.strong) for row in pair.table.rows]
    assert cells == [
        (("Held-in tasks", "40.0 ± 2.1", "5.0", "2", "20"), True),
        (("y", "60.0 ± 3.0", "5.0", "1", "10"), False),
        (("x", "20.0 ± 3.0", "5.0", "1", "10"), False),
        (("Held-out tasks", "10.0 ± 3.0", "–", "1", "10"), True),
        (("z", "10.0 ± 3.0", "–", "1", "10"), False),
    ]
    table = folded(section)["All 3 tasks of s"]
    first = ("b m", "60.0 ± 3.0", "5.0", "10", "exact_match", "held-in")
    assert table.rows[0].cells == first and len(table.columns) == len(first)


def prompts(name, *values):
    return [
        metric(f"{name}_{n}", value, "held_out", name, metric="rank_accuracy")
        for n, value in enumerate(values)
    ]


def test_prompts_of_one_set_show_their_median_and_quartiles():
    rows = [*prompts("rte", 40.0, 50.0, 52.0, 58.0, 90.0), *prompts("cb", 30.0)]
    section = tables.results_section([make_run("r", evaluation(7, *rows))])
    (pair,) = (b for b in section.blocks if isinstance(b, blocks.Pair))
    assert pair.table.columns[:3] == ("Category", "Score ± s.e.", "Median [quartiles]")
    cells = {row.cells[0]: row.cells[1:3] for row in pair.table.rows}
    # Five prompts on the same examples are no surer than one.
    assert cells["rte"] == ("58.0 ± 3.0", "52.0 [50.0, 58.0]")
    assert cells["cb"] == ("30.0 ± 3.0", "–")
    assert cells["Held-out tasks"] == ("53.3 ± 2.5", "–")
    assert any("over its prompts" in b.text for b in section.blocks if isinstance(b, blocks.Text))


def test_prompts_of_one_set_in_two_runs():
    rows = [prompts("rte", 40.0, 50.0, 60.0), [*prompts("rte", 20.0), metric("a", 9.0)]]
    runs = [make_run(f"r{n}", evaluation(7, *lines)) for n, lines in enumerate(rows)]
    section = tables.results_section(runs)
    (pair,) = (b for b in section.blocks if isinstance(b, blocks.Pair))
    assert pair.table.columns[3:5] == ("Difference", "r0: median [quartiles]")
    by_name = {row.cells[0]: row.cells[4] for row in pair.table.rows}
    assert by_name == {
        "Held-in tasks": "–", "c": "–", "Held-out tasks": "–", "rte": "50.0 [45.0, 55.0]"
    }  # fmt: skip


def test_means_over_other_tasks_are_not_subtracted():
    first = evaluation(7, metric("a", 20.0), metric("b", 60.0), metric("c", 50.0, category="d"))
    second = evaluation(7, metric("a", 30.0, n=8, baseline=9.0), metric("c", 55.0, category="d"))
    section = tables.results_section([make_run("one", first), make_run("two", second)])
    (pair,) = (b for b in section.blocks if isinstance(b, blocks.Pair))
    assert [row.cells for row in pair.table.rows] == [
        ("Held-in tasks", "43.3 ± 1.7", "42.5 ± 2.1", "other tasks", "7.0", "3 / 2", "30 / 18"),
        ("d", "50.0 ± 3.0", "55.0 ± 3.0", "+5.0 ± 4.2", "5.0", "1", "10"),
        ("c", "40.0 ± 2.1", "30.0 ± 3.0", "other tasks", "9.0", "2 / 1", "20 / 8"),
    ]


def test_a_run_without_the_suite_keeps_its_colour_and_column():
    runs = [
        make_run("none"),
        make_run("old", evaluation(1, metric("a", 20.0))),
        make_run("new", evaluation(2, metric("a", 50.0), metric("b", 70.0))),
    ]
    section = tables.results_section(runs)
    (pair,) = (b for b in section.blocks if isinstance(b, blocks.Pair))
    assert pair.plot.legend == ((1, "old"), (2, "new"))
    assert [mark.color for mark in pair.plot.rows[0].marks] == [1, 2]
    table = folded(section)["All 2 tasks of s"]
    assert table.columns[:4] == ("Task", "old", "new", "Difference")
    by_task = {row.cells[0]: row.cells[1:4] for row in table.rows}
    assert by_task["a m"] == ("20.0 ± 3.0", "50.0 ± 3.0", "+30.0 ± 4.2")
    assert by_task["b m"] == ("–", "70.0 ± 3.0", "–")


def test_further_metrics_and_checkpoints():
    rows = (metric("a", 1.0),)
    run = make_run(
        "r", evaluation(5, *rows), evaluation(10, metric("a", 4.0), others=[metric("a", 9.0)])
    )
    section = tables.results_section([run])
    assert folded(section)["1 further metric"].rows[0].cells[1] == "9.0 ± 3.0"
    (charts,) = (b for b in section.blocks if isinstance(b, blocks.Charts))
    assert charts.charts[0].series[0].points == ((5, 1.0), (10, 4.0))
    assert len(folded(section)["s over the checkpoints"].rows) == 2


def test_the_headline_counts_a_task_of_two_suites_once():
    run = make_run(
        "r",
        evaluation(5, metric("a", 10.0), suite="one"),
        evaluation(9, metric("a", 30.0), metric("b", 50.0, "held_out"), suite="two"),
    )
    means = tables.headline(run)
    assert {group: mean.value for group, mean in means.items()} == {
        "held_in": 30.0,
        "held_out": 50.0,
    }


def test_a_few_examples_while_training_count_only_where_there_are_no_others():
    few = evaluation(9, metric("a", 90.0), suite="training-one")
    both = make_run("r", evaluation(5, metric("a", 10.0), suite="one"), few)
    assert tables.headline(both)["held_in"].value == 10.0
    assert tables.headline(make_run("r", few))["held_in"].value == 90.0


def test_samples_take_turns_among_categories():
    rows = [sample("a", False) for _ in range(8)]
    rows += [sample("b", False, category="d"), sample("z", None, scores={"f1": 0.5})]
    section = tables.samples_section([make_run("r", evaluation(1, samples=rows))])
    wrong, unjudged = section.blocks
    assert wrong.title == "Held-in, wrong"
    assert [row["task"] for row in wrong.rows[:2]] == ["a", "b"]
    assert len(wrong.rows) == tables.SAMPLES_SHOWN
    assert unjudged.title == "Held-in, not judged"
    assert "**not judged** · z · m · f1 0.5" in to_markdown(blocks.Document("", "", (section,)))
