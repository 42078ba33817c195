"""Retained and gained skill by hand and by simulation; the page in a browser."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np
import pytest

from instruct.errors import UserError
from instruct.report.pages import forgetting
from instruct.report.pages.forgetting import write_forgetting
from instruct.report.read import keep_scores, read_finished
from tests.report import browser
from tests.report.made_up_summaries import plain_rows, write_evaluation

HALF = [100.0, 0.0] * 20
SECTIONS = ["overview", "matrix", "numbers", "conditions"]


def evaluation(
    folder, tasks, baselines=None, groups: Mapping[str, str] | str = "held_out", **fields
):
    """One evaluation; tasks are {name: scores}."""
    path = write_evaluation(
        folder,
        {name: plain_rows(values) for name, values in tasks.items()},
        "s",
        0,
        groups,
        **fields,
    )
    text = path.read_text()
    for name, value in (baselines or {}).items():
        lines = [
            line.replace('"baseline": null', f'"baseline": {value}')
            if f'"{name}"' in line
            else line
            for line in text.splitlines(keepends=True)
        ]
        text = "".join(lines)
    path.write_text(text)
    return read_finished(path, keep_scores)


@pytest.fixture
def models(tmp_path):
    """A start, a run trained on `new` alone, and one trained on `new` and `old`."""
    baselines = {"old": 10.0, "kept": 20.0}
    start = {"new": [0.0] * 40, "old": HALF, "kept": HALF, "never": [0.0] * 40}
    single = {"new": [100.0] * 40, "old": [100.0] + [0.0] * 39, "kept": HALF, "never": [0.0] * 40}
    multi = {"new": [100.0, 0.0, 0.0, 0.0] * 10, "old": HALF, "kept": HALF, "never": [0.0] * 40}
    of_multi = {"new": "held_in", "old": "held_in"}
    return (
        evaluation(tmp_path / "start", start, baselines),
        evaluation(tmp_path / "single", single, baselines, {"new": "held_in"}),
        evaluation(tmp_path / "multi", multi, baselines, of_multi),
    )


def test_both_numbers_by_hand(models):
    start, single, multi = models
    found = forgetting.measure([start], [("single", [single]), ("multi", [multi])])
    assert [task for task, _ in found.targets] == ["new"]
    assert [task for task, _ in found.able] == ["old", "kept"]
    one, two = found.runs
    # Others above their constant answer: (50 - 10) + (50 - 20) = 70 points at the start.
    assert one.retained.value == pytest.approx(100 * ((2.5 - 10) + 30) / 70)
    assert two.retained.value == pytest.approx(100)
    assert (one.gained.value, two.gained.value) == pytest.approx((100, 25))
    assert one.gained.stderr == 0.0
    # Forty examples, a quarter of them right: sqrt(0.25 * 0.75 / 40) of 100.
    assert two.gained.stderr == pytest.approx(100 * np.sqrt(0.25 * 0.75 / 40), rel=0.1)
    assert (one.fell, one.rose, two.fell, two.rose) == (1, 0, 0, 0)
    change = one.changes["old", "zs_noopt"]
    assert change.change == pytest.approx(-47.5) and change.paired == 40
    assert two.changes["kept", "zs_noopt"].stderr == 0.0, "the same answers: no chance in it"
    assert any("nothing to forget" in text for text in found.warnings)


def test_the_highest_baseline_of_all_evaluations_counts(tmp_path):
    """The start was evaluated where no training records were prepared."""
    tasks = {"new": [0.0] * 40, "old": HALF}
    start = evaluation(tmp_path / "start", tasks, {"old": 10.0})
    tuned = evaluation(tmp_path / "run", tasks, {"old": 30.0}, {"new": "held_in"})
    found = forgetting.measure([start], [("run", [tuned])])
    assert any("1 task with different baselines" in text for text in found.warnings)
    lost = evaluation(tmp_path / "lost", {**tasks, "old": [0.0] * 40}, {"old": 30.0})
    (one,) = forgetting.measure([start], [("lost", [lost])]).runs
    assert one.retained.value == pytest.approx(100 * (0 - 30) / (50 - 30))


def test_a_random_choice_is_no_skill(tmp_path):
    """The better of the two baselines counts: here half of the answers are right by chance."""
    tasks = {"new": [0.0] * 40, "old": HALF}
    start = evaluation(tmp_path / "start", tasks, {"old": 10.0})
    lines = [
        row | {"random_baseline": 50.0} if row["task"] == "old" else row for row in start.metrics
    ]
    chance = dataclasses.replace(start, metrics=tuple(lines))
    run = evaluation(tmp_path / "run", tasks, {"old": 10.0}, {"new": "held_in"})
    assert [t for t, _ in forgetting.measure([start], [("run", [run])]).able] == ["old"]
    assert forgetting.measure([chance], [("run", [run])]).able == ()


def test_targets_by_name(models):
    start, single, _ = models
    found = forgetting.measure([start], [("single", [single])], ["o*"])
    assert [task for task, _ in found.targets] == ["old"] and found.given
    with pytest.raises(UserError, match=r"--target=nowhere.*there are: new, old, kept, never"):
        forgetting.measure([start], [("single", [single])], ["nowhere"])


def test_metric_lines_stand_in_where_no_example_has_a_score(tmp_path):
    start = evaluation(tmp_path / "a", {"t": HALF}, value=40.0, stderr=3.0)
    run = evaluation(tmp_path / "b", {"t": HALF}, value=30.0, stderr=4.0)
    found = forgetting.measure([start], [("b", [run])])
    change = found.runs[0].changes["t", "zs_noopt"]
    assert (change.change, change.paired) == (-10.0, 0)
    assert change.stderr == pytest.approx(5.0, rel=0.1)
    assert found.runs[0].gained.value is None
    assert any("--target=TASK" in text for text in found.warnings)


def test_the_standard_error_is_that_of_repeated_evaluations(tmp_path):
    rng = np.random.default_rng(0)
    seen, told = [], []
    for number in range(60):
        folder = tmp_path / str(number)
        hard = rng.uniform(0.2, 0.9, size=80)
        before = (100.0 * (rng.random(80) < hard)).tolist()
        after = (100.0 * (rng.random(80) < hard - 0.15)).tolist()
        start = evaluation(folder / "a", {"t": before})
        run = evaluation(folder / "b", {"t": after})
        found = forgetting.measure([start], [("b", [run])], resamples=300)
        seen.append(found.runs[0].changes["t", "zs_noopt"].change)
        told.append(found.runs[0].changes["t", "zs_noopt"].stderr)
    assert np.mean(told) == pytest.approx(np.std(seen), rel=0.3)


def test_nothing_in_common(tmp_path):
    start, run = evaluation(tmp_path / "a", {"x": HALF}), evaluation(tmp_path / "b", {"y": HALF})
    with pytest.raises(UserError, match="no evaluated task in common"):
        forgetting.measure([start], [("b", [run])])


def test_the_page(models, tmp_path):
    runs = [str(tmp_path / name) for name in ("single", "multi")]
    page, numbers = write_forgetting(str(tmp_path / "start"), runs, tmp_path / "out")
    text = page.read_text()
    assert re.findall(r'<section id="(\w+)">', text) == SECTIONS
    assert '<td class="up3">+100.0 •<small>100.0</small></td>' in text
    assert 'class="down3">-47.5' in text
    assert numbers["runs"]["multi"]["retained"]["value"] == pytest.approx(100)
    assert numbers["targets"] == ["new zs_noopt"]
    markdown = page.with_suffix(".md").read_text()
    assert "| old zs\\_noopt | 50.0 | -47.5" in markdown
    with pytest.raises(UserError, match="given twice"):
        write_forgetting(str(tmp_path / "start"), [runs[0], runs[0]], tmp_path / "out")
    (tmp_path / "phone").mkdir()
    (phone,), console, _ = browser.look(tmp_path / "phone", [text], width=390)
    assert phone["width"] == 390 and phone["sections"] == SECTIONS and console == []


def test_examples_that_all_change_alike_are_no_certainty(tmp_path):
    start = evaluation(tmp_path / "start", {"t": [0.0] * 3, "u": HALF}, {"u": 0.0})
    run = evaluation(tmp_path / "run", {"t": [100.0] * 3, "u": HALF})
    [skills] = forgetting.measure([start], [("run", [run])]).runs
    change = skills.changes["t", "zs_noopt"]
    assert change.stderr == 0 and change.p == pytest.approx(2 * 2 ** (1 - 3))  # of two tasks


def test_no_target_and_no_other_task_are_said_in_words(tmp_path):
    for name in ("start", "run"):
        evaluation(tmp_path / name, {"t": [0.0] * 4})
    page, numbers = write_forgetting(str(tmp_path / "start"), [str(tmp_path / "run")], tmp_path)
    text = page.read_text()
    assert "Gained: not known, as there is no target task." in text
    assert "Retained: not known, as there is no other task that the start could do." in text
    assert "0 target" not in text and "1 tasks" not in text and "± 0.0" not in text
    assert any("1 other task" in warning for warning in numbers["warnings"])
