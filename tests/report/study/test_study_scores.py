"""Quantities of a study, which runs and tasks count for them, and which points are compared."""

import itertools
import json
import statistics

import numpy as np
import pytest

from instruct import results
from instruct.report.papers import normalized
from instruct.report.study import study_scores
from instruct.report.study.study_files import read_study
from instruct.report.study.study_scores import measure
from tests.report.made_up_study import write_state, write_study_json, write_suite, write_training
from tests.report.made_up_suites import add_suites

RIGHT, WRONG = 100.0, 0.0


def scores(right, of=10):
    return [RIGHT] * right + [WRONG] * (of - right)


def make(folder, counts=("0", "9", "89"), seeds=("0", "1"), **fields):
    """A study over tasks without results; returns run folders by (tasks, seed)."""
    axes = {"tasks": counts, "SEED": seeds}
    runs = [{"tasks": count, "SEED": seed} for count in counts for seed in seeds]
    names = write_study_json(folder, axes, runs, "tasks", **fields)
    folders = {}
    for name, labels in zip(names, runs):
        write_training(write_state(folder / name), 1e6)
        folders[labels["tasks"], labels["SEED"]] = folder / name
    return folders


def test_points_are_means_over_seeds_of_means_over_tasks(tmp_path):
    right = {("0", "0"): (1, 2), ("0", "1"): (3, 4), ("9", "0"): (5, 7), ("9", "1"): (8, 9)}
    folders = make(tmp_path, ("0", "9"))
    for key, (first, second) in right.items():
        write_suite(folders[key], "s", {"gym.a": scores(first), "gym.b": scores(second)})
    measured = measure(read_study(tmp_path))
    (panel,) = measured.panels
    assert panel.panel.title == "s, held-out" and panel.paired == 20 and not panel.unpaired
    assert panel.points["0", ()].value == pytest.approx((15 + 35) / 2)
    assert panel.points["9", ()].value == pytest.approx((60 + 85) / 2)
    assert panel.tasks[("s", "gym.a", "direct"), ("9", ())] == pytest.approx(65)
    assert panel.baselines == {"majority answer": 30, "random option": 25}
    (change,) = measured.changes
    assert change.estimate is not None and change.estimate.value == pytest.approx(47.5)
    assert change.estimate.seeds == 2 and change.p_holm == change.estimate.p
    low, high = panel.points["0", ()].low, panel.points["0", ()].high
    assert low is not None and high is not None and 0 <= low < 25 < high


def test_neighbors_and_ends_are_compared_and_corrected_together(tmp_path):
    for number, folder in enumerate(make(tmp_path).values()):
        write_suite(folder, "s", {"gym.a": scores(number + 2)})
        write_suite(folder, "t", {"gym.b": scores(5)})
    measured = measure(read_study(tmp_path))
    compared = [(c.panel.title, c.first[0], c.second[0]) for c in measured.changes]
    ends = [("0", "9"), ("9", "89"), ("0", "89")]
    assert compared == [(f"{s}, held-out", *pair) for s in ("t", "s") for pair in ends]
    p = [c.estimate.p for c in measured.changes if c.estimate]
    assert all(c.p_holm is not None and c.p_holm >= q for c, q in zip(measured.changes, p))
    assert p[0] == 1 and measured.changes[0].estimate.value == 0


def test_a_checkpoint_that_is_only_evaluated_is_paired_with_every_seed(tmp_path):
    axes = {"tasks": ("0", "9"), "SEED": ("0", "1", "2")}
    runs = [{"tasks": "0", "SEED": "0"}, *({"tasks": "9", "SEED": s} for s in axes["SEED"])]
    names = write_study_json(tmp_path, axes, runs, "tasks", only_eval=runs[:1])
    for right, name in enumerate(names, start=2):
        write_suite(write_state(tmp_path / name), "s", {"gym.a": scores(right)}, group="unknown")
    measured = measure(read_study(tmp_path))
    (change,) = measured.changes
    assert change.estimate is not None and change.estimate.seeds == 3
    assert change.seeds == (1, 3) and change.estimate.value == pytest.approx(20)
    (panel,) = measured.panels
    assert panel.panel.title == "s"
    start, tuned = panel.points["0", ()], panel.points["9", ()]
    assert start.freedom == np.inf and tuned.freedom < np.inf  # its score has no chance in training


def test_points_without_a_common_seed_are_not_compared(tmp_path):
    folders = make(tmp_path, ("0", "9"))
    write_suite(folders["0", "0"], "s", {"gym.a": scores(3)})
    write_suite(folders["9", "1"], "s", {"gym.a": scores(6)})
    (change,) = measure(read_study(tmp_path)).changes
    assert change.estimate is None and change.p_holm is None


def test_categories_are_compared_with_the_first(tmp_path):
    for number, folder in enumerate(make(tmp_path, ("all", "minus CoT", "minus P3")).values()):
        write_suite(folder, "s", {"gym.a": scores(number)})
    measured = measure(read_study(tmp_path))
    assert measured.x_values is None
    assert [(c.first[0], c.second[0]) for c in measured.changes] == [
        ("all", "minus CoT"),
        ("all", "minus P3"),
    ]


def test_labels_of_a_category_are_compared_at_each_point_and_sizes_are_not(tmp_path):
    axes = {"tasks": ("1", "9"), "size": ("a", "b"), "mixed": ("no", "yes"), "few": ("0", "5")}
    runs = [dict(zip(axes, labels)) for labels in itertools.product(*axes.values())]
    for number, name in enumerate(write_study_json(tmp_path, axes, runs, "tasks")):
        write_suite(write_state(tmp_path / name), "s", {"gym.a": scores(number % 9)})
    study = read_study(tmp_path)
    assert study.category_axes == ("mixed",)
    changes = [c for c in measure(study, resamples=50).changes if c.axis == "mixed"]
    assert [c.first for c in changes[:2]] == [("1", ("a", "no", "0")), ("9", ("a", "no", "0"))]
    assert len(changes) == 8 and all(c.second[1][1] == "yes" for c in changes)
    assert all(c.first[1][::2] == c.second[1][::2] for c in changes)


def test_only_runs_with_all_tasks_count_and_only_tasks_that_half_of_them_have(tmp_path):
    folders = list(make(tmp_path).values())
    for folder in folders[:4]:
        write_suite(folder, "s", {"gym.a": scores(5), "gym.b": scores(5)})
    write_suite(folders[4], "s", {"gym.a": scores(5)})
    write_suite(folders[5], "s", {"gym.a": scores(5), "gym.b": scores(5), "gym.c": scores(1)})
    write_state(folders[0], "running")
    measured = measure(read_study(tmp_path))
    (panel,) = measured.panels
    assert panel.panel.runs == (1, 2, 3, 5) and panel.panel.lacking == {4: 1}
    assert panel.panel.left_out == (("s", "gym.c", "direct"),)
    assert panel.points["0", ()].seeds == 1 and not measured.rows[0]


def test_runs_without_a_common_task_are_left_out_with_a_sentence(tmp_path):
    folders = make(tmp_path, ("0", "9"), ("0",))
    write_suite(folders["0", "0"], "s", {"gym.a": scores(5)})
    write_suite(folders["9", "0"], "s", {"gym.b": scores(5)})
    measured = measure(read_study(tmp_path))
    assert not measured.panels and "no two runs have the same tasks" in measured.left_out[0]


def test_tasks_that_fewer_than_half_of_the_runs_have_are_left_out_with_a_sentence(tmp_path):
    for name, folder in zip("abc", make(tmp_path, seeds=("0",)).values()):
        write_suite(folder, "s", {f"gym.{name}": scores(5)})
    measured = measure(read_study(tmp_path))
    assert not measured.panels and "no two runs have the same tasks" in measured.left_out[0]


def test_a_run_lacks_the_task_of_a_papers_column_whose_metric_is_not_finite(tmp_path):
    folders = make(tmp_path, ("0", "9"), ("0",))
    for folder in folders.values():
        tasks = {"mmlu.anatomy": scores(5), "mmlu.virology": scores(3)}
        write_suite(folder, "mmlu.direct", tasks, split="validation")
    path = folders["9", "0"] / "eval/mmlu.direct/step_500" / results.FILE_NAME
    *rows, last = results.read_rows(path)
    path.write_text("".join(map(results.to_line, [*rows, last | {"value": None}])))
    (panel,) = measure(read_study(tmp_path)).panels
    assert panel.panel.column == "mmlu_direct" and panel.panel.lacking == {1: 1}
    assert panel.points["0", ()].value == pytest.approx(40) and list(panel.points) == [("0", ())]


def test_ranked_options_are_a_panel_of_their_own(tmp_path):
    folders = make(tmp_path, ("0", "9"), ("0",))
    for (tasks, _), folder in folders.items():
        write_suite(folder, "near", {"gym.a": scores(2 if tasks == "0" else 8)})
        path = folder / "eval" / "near" / "step_500" / results.FILE_NAME
        rows = list(results.read_rows(path))
        for row in rows[1:-1]:
            row["scores"]["rank_accuracy"] = RIGHT
        ranked = rows[-1] | {"metric": "rank_accuracy", "value": RIGHT, "stderr": 0.0}
        path.write_text("".join(map(results.to_line, [*rows, ranked])))
    measured = {panel.panel.title: panel for panel in measure(read_study(tmp_path)).panels}
    means = {name: [p.value for p in panel.points.values()] for name, panel in measured.items()}
    assert means["near, held-out"] == [20.0, 80.0]
    assert means["near, options ranked, held-out"] == [100.0, 100.0]


def test_suites_stand_in_the_given_order_each_before_its_ranked_options(tmp_path):
    for folder in make(tmp_path, ("0", "9"), ("0",)).values():
        for suite, right in (("far", 1), ("near", 5), ("unasked", 9)):
            write_suite(folder, suite, {"gym.a": scores(right)})
        path = folder / "eval" / "near" / "step_500" / results.FILE_NAME
        rows = list(results.read_rows(path))
        ranked = rows[-1] | {"metric": "rank_accuracy", "value": RIGHT, "stderr": 0.0}
        path.write_text("".join(map(results.to_line, [*rows, ranked])))

    def titles(*suites):
        panels = measure(read_study(tmp_path), suites).panels
        return [panel.panel.title.removesuffix(", held-out") for panel in panels]

    assert titles("far", "near") == ["far", "near", "near, options ranked", "unasked"]
    assert titles() == ["near, options ranked", "unasked", "near", "far"]


def test_tasks_are_divided_by_whether_runs_were_trained_on_them(tmp_path):
    for (count, _), folder in make(tmp_path, ("1", "9")).items():
        group = "held_in" if count == "9" else "held_out"
        write_suite(folder, "s", {"gym.a": scores(5)}, group=group)
        write_suite(folder, "t", {"gym.b": scores(4)}, group="held_in")
    titles = [panel.panel.title for panel in measure(read_study(tmp_path)).panels]
    assert titles == ["s, trained on by some runs", "t, held-in"]


def test_the_papers_columns_come_first_with_their_normalised_average(tmp_path):
    folders = make(tmp_path, ("0", "9"), ("0",), papers=["flan_palm.3"])
    for level, folder in zip((30, 40), folders.values()):
        add_suites(folder, level, steps=(500,), examples=4, spread=5.0)
        write_suite(folder, "s", {"gym.a": scores(5)}, step=500)
    measured = measure(read_study(tmp_path))
    columns = [panel.panel.column for panel in measured.panels]
    assert columns[:7] == [
        *("normalized_average", "mmlu_direct", "mmlu_cot", "bbh_direct", "bbh_cot"),
        *("tydiqa", "mgsm"),
    ]
    by_column = {panel.panel.column: panel for panel in measured.panels}
    point = ("9", ())
    mmlu, tydiqa = (by_column[name].points[point].value for name in ("mmlu_direct", "tydiqa"))
    bbh = {
        normalized.sub_task_name(task): value
        for (task, value) in (
            (key[1], value)
            for (key, cell), value in by_column["bbh_direct"].tasks.items()
            if cell == point
        )
    }
    whole = normalized.normalized_average(
        {
            "mmlu_direct": mmlu,
            "mmlu_cot": by_column["mmlu_cot"].points[point].value,
            "bbh_direct": bbh,
            "bbh_cot": {
                normalized.sub_task_name(key[1]): value
                for (key, cell), value in by_column["bbh_cot"].tasks.items()
                if cell == point
            },
            "tydiqa": tydiqa,
            "mgsm": by_column["mgsm"].points[point].value,
        }
    )
    assert by_column["normalized_average"].points[point].value == pytest.approx(whole.value)


def test_tasks_resampled_have_wider_intervals_that_hold_the_same_mean(tmp_path):
    rng = np.random.default_rng(0)
    for folder in make(tmp_path, ("0", "9")).values():
        tasks = {f"gym.{n}": scores(int(rng.integers(3)) + 2 * n, 20) for n in range(8)}
        write_suite(folder, "s", tasks)
    (panel,) = measure(read_study(tmp_path)).panels
    for cell, estimate in panel.points.items():
        wider = panel.wider[cell]
        assert wider.value == pytest.approx(estimate.value)
        assert wider.stderr is not None and estimate.stderr is not None
        assert wider.stderr > 1.5 * estimate.stderr
    values = [value for (cell, _), value in panel.values.items() if cell == ("0", ())]
    assert statistics.fmean(values) == pytest.approx(panel.points["0", ()].value)


def test_prompts_on_the_same_records_do_not_count_as_more_records(tmp_path):
    rng = np.random.default_rng(0)
    answers = [100.0 * (rng.random() < 0.5) for _ in range(60)]
    others = [100.0 * (rng.random() < 0.5) for _ in range(60)]
    for folder in make(tmp_path, ("0", "9"), ("0",)).values():
        write_suite(folder, "alone", {"gym.a": answers})
        write_suite(folder, "modes", {"gym.a": answers}, modes=("direct", "few"))
        write_suite(folder, "tasks", {"gym.a": answers, "gym.b": others})
    panels = {panel.panel.title: panel for panel in measure(read_study(tmp_path)).panels}
    error = {title: panel.points["0", ()].stderr or 0.0 for title, panel in panels.items()}
    assert len(panels["modes, held-out"].panel.tasks) == 2
    assert error["modes, held-out"] == pytest.approx(error["alone, held-out"])
    assert error["tasks, held-out"] < 0.8 * error["alone, held-out"]


def test_nothing_right_is_no_certainty(tmp_path):
    for folder in make(tmp_path, ("0", "9")).values():
        write_suite(folder, "s", {"gym.a": scores(0)})
    measured = measure(read_study(tmp_path))
    point = measured.panels[0].points["0", ()]
    assert point.value == point.low == 0 and point.high == pytest.approx(27.8, abs=0.1)
    (change,) = measured.changes
    assert change.estimate is not None and change.p_holm == 1
    assert change.estimate.low == -point.high and change.estimate.high == point.high


def test_a_difference_from_a_checkpoint_has_the_spread_of_the_trained_points(tmp_path):
    """Three trained points: six degrees of freedom where seeds are all that varies."""
    axes = {"tasks": ("0", "1", "2", "3"), "SEED": ("0", "1", "2")}
    points = itertools.product(axes["tasks"][1:], axes["SEED"])
    runs = [{"tasks": "0", "SEED": "0"}, *({"tasks": t, "SEED": s} for t, s in points)]
    names = write_study_json(tmp_path, axes, runs, "tasks", only_eval=runs[:1])
    for name, labels in zip(names, runs):
        right = 0 if labels["tasks"] == "0" else (20, 60, 100)[int(labels["SEED"])]
        tasks = {f"gym.{n}": [RIGHT if n < right else WRONG] * 4 for n in range(100)}
        write_suite(write_state(tmp_path / name), "s", tasks)
    measured = measure(read_study(tmp_path))
    point = measured.panels[0].points["1", ()]
    changes = {(c.first[0], c.second[0]): c.estimate for c in measured.changes}
    assert point.freedom == pytest.approx(6, abs=0.5)
    for second in ("1", "3"):
        change = changes["0", second]
        assert change is not None and change.freedom == pytest.approx(6, abs=0.5)
        assert change.stderr == pytest.approx(point.stderr, rel=1e-6)
    between = changes["1", "2"]
    assert between is not None and between.value == 0 and between.stderr is None


def test_two_checkpoints_that_are_only_evaluated_have_no_spread_over_seeds(tmp_path):
    axes = {"mixture": ("a", "b", "c"), "SEED": ("0", "1")}
    once = [{"mixture": "a", "SEED": "0"}, {"mixture": "b", "SEED": "0"}]
    runs = [*once, *({"mixture": "c", "SEED": seed} for seed in "01")]
    names = write_study_json(tmp_path, axes, runs, "mixture", only_eval=once)
    for right, name in zip((3, 5, 1, 9), names):
        write_suite(write_state(tmp_path / name), "s", {"gym.a": scores(right)})
    first, second = (change.estimate for change in measure(read_study(tmp_path)).changes)
    assert first is not None and first.freedom == np.inf
    assert second is not None and second.freedom < np.inf


def test_the_same_folder_gives_the_same_numbers(tmp_path):
    for number, folder in enumerate(make(tmp_path).values()):
        write_suite(folder, "s", {"gym.a": scores(number + 2)})
    first, second = (measure(read_study(tmp_path), resamples=200) for _ in range(2))
    assert json.dumps([str(p.points) for p in first.panels]) == json.dumps(
        [str(p.points) for p in second.panels]
    )
    assert first.resamples == 200


def test_differences_within_joined_points_add_no_degrees_of_freedom():
    """Two numbers of tasks in two mixtures: four differences, of which three are independent."""
    few_a, many_a, few_b, many_b = (("8", ("a",)), ("64", ("a",)), ("8", ("b",)), ("64", ("b",)))
    pairs = [(few_a, many_a), (few_b, many_b), (few_a, few_b), (many_a, many_b)]
    assert study_scores._independent(pairs) == [True, True, True, False]
