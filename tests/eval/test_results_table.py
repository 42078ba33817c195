"""The table at the end of an evaluation."""

import io

from rich.console import Console

from instruct import results
from instruct.eval import results_table
from tests.test_results import TASK, metric, shown

HELD_IN = ["held-in", "tasks", "(1)", "mean", "50.0", "5.0", "10.0", "2"]


def printed(rows) -> str:
    console = Console(file=io.StringIO(), width=100)
    results_table.print_table(console, "suite, step 5", rows)
    return console.file.getvalue()


def test_groups_categories_tasks_and_failures():
    failure = {"kind": "failure", **TASK, "task": "toy.bad", "error": "it broke", "checkpoint": "c"}
    new = metric(task="toy.new", group="held_out", category="logic", value=None, stderr=None)
    text = printed([metric(), metric(metric="f1"), new | {"baseline": None}, failure])
    lines = [line.rstrip() for line in text.splitlines()]
    assert any(line.split() == HELD_IN for line in lines)
    assert any(line.strip().startswith("toy.sum zs_noopt") for line in lines)
    assert any(line.split()[:3] == ["held-out", "tasks", "(1)"] for line in lines)
    assert "1 of 2 tasks has no finite value and is left out of the mean." in text
    assert "finite" not in printed([metric()])
    assert "toy.bad (zs_noopt) failed: it broke" in text and "f1" not in text


def test_exemplars_and_the_better_baseline_where_they_are_known():
    old = metric(task="toy.old", baseline=None, random_baseline=25.0)
    text = printed([shown(), old])
    assert "exemplars" in text and "exemplars" not in printed([metric()])
    lines = {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if line.strip()}
    assert lines["toy.sum"].endswith("10.0 2 4.5 of 5 (at least 4)")
    assert lines["toy.old"].endswith("25.0 2 –")  # a file that did not count them
    assert lines["held-in"].endswith("17.5 4 –")


def test_many_failures_are_summed_up():
    failure = {"kind": "failure", **TASK, "error": "no file", "checkpoint": "c"}
    rows = [failure | {"task": f"toy.t{i}"} for i in range(results.MOST_FAILURES + 7)]
    text = " ".join(printed([metric(), *rows]).split())
    assert text.count("no file") == results.MOST_FAILURES
    more = "7 more tasks failed (toy.t5, toy.t6, toy.t7, toy.t8, toy.t9, ...); the results file has"
    assert more in text


def test_many_tasks_are_summed_up():
    text = printed([metric(task=f"toy.t{i}") for i in range(results_table.MOST_TASKS + 1)])
    assert "toy.t3 " not in text and "61 tasks; `run.py report` lists every one." in text
