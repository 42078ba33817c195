"""What a study's folder says: states of runs, the x axis, and damage."""

import json

import pytest

from instruct.errors import UserError
from instruct.report.study.study_files import number_of, read_study
from instruct.study import plan
from tests.report import made_up_study
from tests.report.made_up_study import write_state, write_study_json, write_suite, write_training


def test_every_run_of_the_grid_has_a_state(tmp_path):
    axes = {"tasks": ("0", "9"), "SEED": ("0", "1")}
    runs = [{"tasks": "0", "SEED": "0"}, *({"tasks": "9", "SEED": s} for s in ("0", "1"))]
    names = write_study_json(tmp_path, axes, runs, "tasks", only_eval=runs[:1], before=["pretrain"])
    write_training(write_state(tmp_path / "pretrain"), 1e6)
    write_state(tmp_path / names[1], "failed", stage="train", error="ValueError: x")
    study = read_study(tmp_path)
    assert [one.state for one in study.runs] == ["missing", "failed", "missing"]
    assert study.runs[0].only_evaluated and not study.runs[1].only_evaluated
    assert study.runs[1].error == "ValueError: x" and study.runs[1].seconds == 431
    (before,) = study.before
    assert before.state == "done" and not before.only_evaluated and before.run is not None
    assert study.curve_axes == () and study.seed_axis == "SEED"
    assert study.facts["commit"] == "0123abcd"
    write_state(tmp_path / names[2], "odd")
    assert read_study(tmp_path).runs[2].error == "unknown state 'odd'"


def test_it_reads_what_a_plan_writes(tmp_path):
    study = plan.Study(
        title="t",
        recipe="gin/recipes/gym_small.gin",
        axes={"tasks": {"0": "", "9": "A = 1"}, "size": {"a": "", "b": ""}, "SEED": (0, 1)},
        papers="flan_palm.3",
        only_eval={"tasks": "0"},
    )
    document = plan.study_document(study, commit="0123abcd")
    (tmp_path / "study.json").write_text(json.dumps(document))
    files = read_study(tmp_path)
    assert [one.name for one in files.runs] == [run.name for run in study.runs()]
    assert [one.only_evaluated for one in files.runs] == [True, True, *[False] * 4]
    assert files.x_axis == "tasks" and files.curve_axes == ("size",)
    assert files.papers == ("flan_palm.3",) and files.x_values() == {"0": 0, "9": 9}


def test_examples_of_the_latest_evaluation_are_kept(tmp_path):
    (name,) = write_study_json(tmp_path, {"x": ("a",)}, [{"x": "a"}], "x")
    run = write_state(tmp_path / name)
    for step in (100, 200):
        write_suite(run, "s", {"gym.a": [0.0, 100.0, 100.0]}, step)
    (one,) = read_study(tmp_path).runs
    assert one.run is not None and one.done
    latest = one.run.latest("s")
    assert latest is not None and latest.step == 200 and len(latest.examples) == 3
    assert "prompt" not in latest.examples[0]


@pytest.mark.parametrize(
    ("label", "value"),
    [("1,836", 1836), ("250M", 250e6), ("0.5", 0.5), ("-1", -1), ("10 %", 10), ("1e-3", 1e-3)],
)
def test_labels_that_are_numbers(label, value):
    assert number_of(label) == pytest.approx(value)


@pytest.mark.parametrize("label", ["all", "", "minus CoT", "9 tasks", "inf"])
def test_labels_that_are_none(label):
    assert number_of(label) is None


def test_an_axis_of_model_names_takes_their_parameters(tmp_path):
    axes = {"size": ("small", "base")}
    names = write_study_json(tmp_path, axes, [{"size": s} for s in axes["size"]], "size")
    write_training(write_state(tmp_path / names[1]), 77e6)
    assert read_study(tmp_path).x_values() is None  # of one run the size is not known
    write_training(write_state(tmp_path / names[0]), 248e6)
    assert read_study(tmp_path).x_values() == {"base": 77e6, "small": 248e6}
    write_training(write_state(tmp_path / names[0]), 78e6)
    assert read_study(tmp_path).x_values() is None  # two architectures of one size


def test_a_model_that_is_only_evaluated_tells_no_size(tmp_path):
    axes = {"model": ("t5_small", "t5_base"), "finetuned": ("no", "yes")}
    runs = [{"model": m, "finetuned": f} for m in axes["model"] for f in axes["finetuned"]]
    only_eval = [labels for labels in runs if labels["finetuned"] == "no"]
    names = write_study_json(tmp_path, axes, runs, "model", only_eval)
    for size, name, labels in zip((0, 77e6, 0, 248e6), names, runs):
        write_state(tmp_path / name)
        if labels not in only_eval:
            write_training(tmp_path / name, size)
    study = read_study(tmp_path)
    assert study.x_values() == {"t5_small": 77e6, "t5_base": 248e6}
    assert study.category_axes == ("finetuned",)


def test_a_study_of_seeds_compares_them(tmp_path):
    axes = {"SEED": ("0", "1")}
    write_study_json(tmp_path, axes, [{"SEED": "0"}, {"SEED": "1"}], "SEED")
    assert read_study(tmp_path).seed_axis == "" and read_study(tmp_path).curve_axes == ()


def test_what_is_not_a_study_is_an_error(tmp_path):
    with pytest.raises(UserError, match="study.json is missing"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(UserError, match="study.json is damaged"):
        read_study(tmp_path)
    made_up_study.write_study_json(tmp_path, {"x": ("a",)}, [], "x")
    with pytest.raises(UserError, match=r"runs is \[\], expected a list"):
        read_study(tmp_path)
    made_up_study.write_study_json(tmp_path, {"x": ("a",)}, [{"x": "a"}], "y")
    with pytest.raises(UserError, match="x_axis is 'y'; axes: x"):
        read_study(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("axes", {"x": 1}),
        ("seed_axis", ["x"]),
        ("papers", 1),
        ("papers", [1]),
        ("runs", ["x=a"]),
        ("runs", [{"name": "x=a", "labels": ["a"]}]),
        ("before", None),
        ("before", [{"name": "b"}]),
    ],
)
def test_values_of_another_type_are_named(tmp_path, name, value):
    write_study_json(tmp_path, {"x": ("a",)}, [{"x": "a"}], "x")
    path = tmp_path / "study.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(UserError, match=f"study.json: {name} is .*no study writes"):
        read_study(tmp_path)
