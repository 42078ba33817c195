"""Which settings of the command line are the study's and the runs', and what is refused at once."""

import argparse

import pytest

from instruct import gin_config
from instruct.cli import study_runs
from instruct.errors import UserError
from tests.cli.studies import STUDY, write_study

ONE = "--gin.ONE_TASK=gym.scale_1"


@pytest.fixture
def read(tmp_path):
    """(study, runs' settings) of a command line."""

    def read(*settings, text=STUDY, files=()):
        gin_flags = [setting for setting in settings if setting.startswith("--gin.")]
        lines = [setting for setting in settings if not setting.startswith("--gin.")]
        asked = argparse.Namespace(gin_flags=gin_flags, gin_bindings=lines)
        asked.gin_file = [write_study(tmp_path, text), *files]
        return study_runs.read_flags(asked)

    return read


def load(study, rest, name, **options):
    everyone = [*study.runs_before(study.runs()), *study.runs()]
    (run,) = (run for run in everyone if run.name == name)
    return study_runs.load_run(run, "/s", rest.files, rest.of_run(run, everyone), **options)


def test_macros_of_the_study_s_file_are_the_study_s_and_others_the_runs(read):
    study, rest = read("--gin.STUDY_DIR=/s", "--gin.STEPS=(5, 6)", "--gin.BATCH_SIZE=16", ONE)
    assert study.study_dir == "/s" and study.labels_of("TRAIN_STEPS") == ("5", "6")
    assert rest.settings == ("--gin.BATCH_SIZE=16", ONE)
    study, rest = read("plan.Study.title = 'Other'", "SEED = 3", files=["gin/hardware/cpu.gin"])
    assert study.title == "Other" and rest.settings == ("SEED = 3",)
    assert rest.files == ("gin/hardware/cpu.gin",)


def test_a_run_gets_what_it_reads_what_all_share_and_before_the_grid_only_places(read):
    study, rest = read(
        ONE, "--gin.BATCH_SIZE=16", "--gin.DATA_DIR=/data", "--gin.LEARNING_RATE=0.5"
    )
    trained = load(study, rest, "tasks=1,vocabulary=bytes,TRAIN_STEPS=3").planned
    assert "ONE_TASK = 'gym.scale_1'\n" in trained.gin and "DATA_DIR = '/data'\n" in trained.gin
    assert trained.settings["BATCH_SIZE"] == "16" and trained.settings["LEARNING_RATE"] == "0.5"
    evaluated = load(study, rest, "tasks=0,vocabulary=bytes,TRAIN_STEPS=3").planned
    assert "ONE_TASK" not in evaluated.gin and evaluated.steps == 0
    earlier = load(study, rest, "pretrain").planned
    assert earlier.settings["BATCH_SIZE"] == "8" and earlier.settings["DATA_DIR"] == "'/data'"
    assert earlier.steps == 3


def test_run_gin_builds_the_same_run_again(read, tmp_path):
    study, rest = read(ONE, "--gin.BATCH_SIZE=16")
    planned = load(study, rest, "tasks=1,vocabulary=bytes,TRAIN_STEPS=3").planned
    (tmp_path / "run.gin").write_text(planned.gin)
    gin_config.load(["gin/runs/settings.gin", str(tmp_path / "run.gin")])
    assert gin_config.config_bindings() == planned.settings


def test_the_model_and_suites_of_a_run(read):
    loaded = load(*read(ONE), "tasks=1,vocabulary=bytes,TRAIN_STEPS=3")
    assert loaded.suites == {"gym.scale_1": "gym.scale_1"}
    assert loaded.planned.flops == 3 * loaded.model.train_flops(8, 64, 16)
    assert load(*read(), "pretrain").suites == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "these macros must be set: ONE_TASK. Add --gin.ONE_TASK=..."),
        ((ONE, "--gin.BATCH_SIZES=3"), "BATCH_SIZES"),
        (("--gin.ONE_TASK=gym.scale_9",), "gym.scale_9"),
        ((ONE, "--gin.EVAL_MIXTURES=gym.nothing"), "gym.nothing"),
        ((ONE, "--gin.BATCH_SIZE=many"), "batch_size is 'many'"),
    ],
)
def test_what_a_run_would_refuse_is_refused_before_any_starts(read, settings, said):
    name = "tasks=1,vocabulary=bytes,TRAIN_STEPS=3"
    with pytest.raises(UserError) as error:
        load(*read(*settings), name)
    assert str(error.value).startswith(f"{name}: ") and said in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (("gin/runs/eval.gin",), "binds no model"),
        (("gin/runs/eval.gin", "gin/models/tiny_test.gin"), "nothing configures training"),
    ],
)
def test_a_recipe_that_cannot_train_is_refused(read, recipe, said):
    text = (
        "from __gin__ import dynamic_registration\nfrom instruct.study import plan\n"
        f"plan.Study.title = 'T'\nplan.Study.recipe = {recipe!r}\n"
        "plan.Study.axes = {'a': {'x': ''}}\n"
    )
    with pytest.raises(UserError, match=said):
        load(*read("--gin.EVAL_MIXTURES=gym.demo", text=text), "a=x")


def test_an_evaluation_without_a_checkpoint_is_refused(read):
    text = STUDY.replace("'{before:pretrain}'", "None")
    with pytest.raises(UserError, match="INITIAL_CHECKPOINT_PATH, which is not set"):
        load(*read(text=text), "tasks=0,vocabulary=bytes,TRAIN_STEPS=3")


def test_what_is_missing_is_made_up_for_a_dry_run(read):
    loaded = load(*read(), "tasks=1,vocabulary=bytes,TRAIN_STEPS=3", stand_ins=True)
    assert loaded.made_up == ["ONE_TASK"]


def test_only_takes_runs_by_label(read):
    study, _ = read("--gin.STEPS=(5, 6)")

    def names(*only):
        return [run.name for run in study_runs.chosen_runs(study, only)]

    assert names("tasks=1", "TRAIN_STEPS=6", "vocabulary=gym") == [
        "tasks=1,vocabulary=gym,TRAIN_STEPS=6"
    ]
    assert len(names("vocabulary=gym", "vocabulary=bytes")) == len(study.runs())
    for wrong, said in (
        ("tasks", "write --only=AXIS=LABEL"),
        ("task=1", "Did you mean 'tasks'"),
        ("tasks=2", "label of tasks in --only '2'"),
    ):
        with pytest.raises(UserError) as error:
            names(wrong)
        assert said in str(error.value)
    with pytest.raises(UserError, match="leaves no run"):
        names("tasks=0", "vocabulary=gym")


def test_without_a_file_a_study_is_asked_for():
    with pytest.raises(UserError, match="give a study"):
        study_runs.read_flags(argparse.Namespace(gin_file=[], gin_flags=[], gin_bindings=[]))
