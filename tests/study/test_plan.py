"""A study's grid: names, order, gin of each run, and what a wrong study file gets to hear."""

import ast
import json

import pytest

from instruct.errors import UserError
from instruct.study import plan

GRID = {
    "title": "More tasks",
    "recipe": "gin/recipes/gym_demo.gin",
    "axes": {
        "tasks": {"0": "", "8": "MIXTURE_OR_TASK_NAME = 'gym.scale_8'"},
        "size": {"tiny": "include 'gin/models/tiny_test.gin'", "demo": ""},
        "SEED": (0, 1),
    },
}


def study(**changes):
    return plan.Study(**GRID | changes)


def names(made):
    return [run.name for run in made.runs()]


def test_runs_are_the_product_in_order_with_the_last_axis_fastest():
    made = study()
    assert names(made)[:3] == [
        "tasks=0,size=tiny,SEED=0",
        "tasks=0,size=tiny,SEED=1",
        "tasks=0,size=demo,SEED=0",
    ]
    assert len(names(made)) == 8
    assert made.runs()[-1].labels == {"tasks": "8", "size": "demo", "SEED": "1"}
    assert all(run.stages == ("train", "eval") for run in made.runs())


def test_gin_of_a_run_has_recipe_points_files_and_the_last_word():
    run = study(settings="TRAIN_STEPS = 4").runs()[5]
    text = run.gin_text("/studies/a", ["gin/hardware/cpu.gin"], ["TRAIN_STEPS = 2"])
    assert text.splitlines()[1:] == [
        "include 'gin/recipes/gym_demo.gin'",
        "TRAIN_STEPS = 4",
        "MIXTURE_OR_TASK_NAME = 'gym.scale_8'",
        "include 'gin/models/tiny_test.gin'",
        "SEED = 1",
        "include 'gin/hardware/cpu.gin'",
        "TRAIN_STEPS = 2",
        "MODEL_DIR = '/studies/a/tasks=8,size=tiny,SEED=1'",
    ]


def test_gin_of_a_run_enables_imports_first_and_once_if_a_text_does():
    texts = "from __gin__ import dynamic_registration\nfrom instruct.eval import runner"
    text = study(settings=texts, axes={"a": {"x": texts}}).runs()[0].gin_text("/s", (), ())
    lines = text.splitlines()
    assert lines[1] == "from __gin__ import dynamic_registration"
    assert lines.count(lines[1]) == 1 and lines.count("from instruct.eval import runner") == 2


def test_skipped_points_match_any_label_of_the_axes_they_do_not_name():
    made = study(skip=({"tasks": "8", "size": "tiny"}, {"SEED": 1}))
    assert names(made) == [
        "tasks=0,size=tiny,SEED=0",
        "tasks=0,size=demo,SEED=0",
        "tasks=8,size=demo,SEED=0",
    ]


def test_points_that_are_only_evaluated_run_once_not_once_a_seed():
    made = study(only_eval={"tasks": "0"})
    assert names(made)[:3] == [
        "tasks=0,size=tiny,SEED=0",
        "tasks=0,size=demo,SEED=0",
        "tasks=8,size=tiny,SEED=0",
    ]
    run = made.runs()[0]
    assert run.stages == ("eval",)
    text = run.gin_text("/s", (), ())
    assert "CHECKPOINT_PATH = %INITIAL_CHECKPOINT_PATH\n" in text
    assert "runner.evaluate.feature_lengths = %TASK_FEATURE_LENGTHS\n" in text
    own = study(only_eval={"tasks": "0"}, settings="runner.evaluate.feature_lengths = None")
    assert "%TASK_FEATURE_LENGTHS" not in own.runs()[0].gin_text("/s", (), ())


def test_runs_before_are_those_that_a_run_needs_and_name_their_folders():
    axes = GRID["axes"] | {
        "size": {
            "tiny": "INITIAL_CHECKPOINT_PATH = '{before:pretrain/{axis:size}}'",
            "demo": "",
        }
    }
    before = {
        "words": "include 'gin/recipes/gym_demo.gin'",
        "unused": "",
        "pretrain/tiny": "INITIAL_CHECKPOINT_PATH = '{before:words}'",
    }
    made = study(axes=axes, before=before)
    earlier = made.runs_before(made.runs())
    assert [run.name for run in earlier] == ["words", "pretrain-tiny"]
    assert earlier[1].needs == ("words",) and earlier[1].stages == ("train",)
    assert "INITIAL_CHECKPOINT_PATH = '/s/words'" in earlier[1].gin_text("/s", (), ())
    text = made.runs()[0].gin_text("/s", (), ())
    assert "INITIAL_CHECKPOINT_PATH = '/s/pretrain-tiny'" in text
    assert made.runs_before([run for run in made.runs() if run.labels["size"] == "demo"]) == ()


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("folder", ["/o'brien/s", '/a"b/s', "/a\\b/s"])
def test_the_folder_of_a_run_before_may_have_quotes(quote, folder):
    settings = f"INITIAL_CHECKPOINT_PATH = {quote}{{before:words}}{quote}"
    made = study(settings=settings, before={"words": ""})
    text = made.runs()[0].gin_text(folder, (), ())
    line = next(line for line in text.splitlines() if line.startswith("INITIAL"))
    assert ast.literal_eval(line.partition(" = ")[2]) == f"{folder}/words"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axes": {}}, "Study.axes is {}"),
        ({"axes": {"a": ()}}, "'a'] has no point"),
        ({"axes": {"SEED": (0, "0")}}, "a value twice"),
        ({"axes": {"SEED": 3}}, "give {label: gin text}, or several values"),
        ({"axes": {"a": {"x": 1}}}, "names and gin are texts"),
        ({"axes": {"a": {"x y": "", "x-y": ""}}}, "would be named 'a=x-y'"),
        ({"seed_axis": "SED"}, "axis of Study.seed_axis"),
        ({"before": {"study.html": ""}}, "cannot be named 'study.html'"),
        ({"axes": {"a": {"x": "B = '{axis:b}'"}}}, "{axis:...}, 'b'"),
        ({"x_axis": "task"}, "Did you mean 'tasks'"),
        ({"skip": {"task": "8"}}, "axis in Study.skip 'task'"),
        ({"only_eval": {"tasks": 9}}, "label of tasks in Study.only_eval '9'"),
        ({"skip": ({"SEED": 0}, {"SEED": 1})}, "leaves all points out"),
        ({"settings": "A = '{before:pretrain}'"}, "run of Study.before"),
        ({"before": {"a": "A = '{before:b}'", "b": ""}, "settings": "B = '{before:a}'"}, "'b'"),
        ({"title": 3}, "Study.title is 3"),
        ({"title": ""}, "say what varies"),
        ({"recipe": ("a", 1)}, "Study.recipe is"),
        ({"recipe": 1}, "Study.recipe is 1"),
        ({"papers": 1}, "Study.papers is 1"),
        ({"skip": 1}, "Study.skip is 1"),
        ({"only_eval": 1}, "Study.only_eval is 1"),
        ({"axes": {"a" * 150: {"x" * 60: ""}}}, "at most 200 are allowed"),
    ],
)
def test_wrong_studies_are_refused_with_the_value_and_the_fix(changes, said):
    with pytest.raises(UserError) as error:
        made = study(**changes)
        made.runs_before(made.runs())
    assert said in str(error.value)


def test_a_study_file_is_read_by_gin(tmp_path):
    file = tmp_path / "study.gin"
    file.write_text(
        "from __gin__ import dynamic_registration\n"
        "from instruct.study import plan\n"
        "plan.Study.title = 'T'\n"
        "plan.Study.recipe = 'gin/recipes/gym_demo.gin'\n"
        "plan.Study.axes = {  # label -> gin\n"
        "  'tasks': {'8': \"MIXTURE_OR_TASK_NAME = 'gym.scale_8'\\nTRAIN_STEPS = 5\"},\n"
        "  'SEED': (0, 1),\n}\n"
    )
    made = plan.read_study([str(file)], ["--gin.STUDY_DIR=runs/a"])
    assert made.study_dir == "runs/a"
    assert "'gym.scale_8'\nTRAIN_STEPS = 5\n" in made.runs()[0].text
    with pytest.raises(UserError, match="title"):
        plan.read_study([str(file)], ["--gin.plan.Study.titel=x"])
    with pytest.raises(UserError, match="binds no plan.Study.title"):
        plan.read_study([])
    with pytest.raises(UserError, match="gym_demo.gin sets a run, not a study"):
        plan.read_study(["gin/recipes/gym_demo.gin"])


def test_the_document_is_json_and_names_what_the_page_needs():
    document = plan.study_document(study(papers="flan_palm.3"), commit="abc")
    document = json.loads(json.dumps(document))
    assert document["axes"]["SEED"] == ["0", "1"] and document["seed_axis"] == "SEED"
    assert document["x_axis"] == "tasks" and document["papers"] == ["flan_palm.3"]
    assert document["commit"] == "abc" and len(document["runs"]) == 8
    assert document["runs"][0] == {
        "name": "tasks=0,size=tiny,SEED=0",
        "labels": {"tasks": "0", "size": "tiny", "SEED": "0"},
        "stages": ["train", "eval"],
    }
    assert plan.study_document(study(axes={"a": {"x": ""}}))["seed_axis"] is None
