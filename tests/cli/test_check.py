"""`check`: what it says of a model, a mesh and a mixture, with nothing allocated."""

import re
import time

import pytest

from instruct.cli import arguments, check
from instruct.data import registry
from tests.data.feed.test_task_report import BracesSource
from tests.data.tokenizer_folders import write_t5_model
from tests.data.toy import toy_spec


def shown(capsys, *flags):
    assert check.run(arguments.parse(["check", *flags])) == 0
    return capsys.readouterr().out


def test_the_largest_model_on_a_pod(capsys):
    started = time.process_time()
    out = shown(capsys, "--gin_file=gin/models/t5_1_1_xxl.gin", "--mesh=4x64")
    assert time.process_time() - started < 30
    assert "11,135,332,352 parameters" in out and "data 4 x fsdp 1 x tensor 64" in out
    # 64 shares of float32 numbers, and a little that every device holds whole.
    found = re.search(r"GiB a device: parameters ([\d.]+), gradients ([\d.]+), optimiser", out)
    assert found
    share = 11_135_332_352 * 4 / 64 / 2**30
    assert [float(size) for size in found.groups()] == pytest.approx([share] * 2, rel=0.01)
    assert "encoder/layers/attention/query/kernel" in out and "embed joined_heads" in out


@pytest.mark.slow
def test_a_recipe_shows_its_mixture_and_warns_of_what_is_missing(capsys, tmp_path):
    recipe = [
        "--gin_file=gin/recipes/gym_demo.gin",
        "--gin.MODEL_DIR=/not/made",
        "--gin.TRAIN_STEPS=3",
    ]
    out = shown(capsys, *recipe)
    assert "gym.demo" in out and "TRAIN_STEPS = 3\n" in out
    assert "warning: " in out and "run.py prepare --mixture=gym.demo" in out
    out = shown(capsys, *recipe, f"--gin.VOCABULARY={tmp_path}/absent.model")
    assert f"cannot read vocabulary '{tmp_path}/absent.model'" in out.replace("\n", "")


@pytest.mark.slow
def test_a_prepared_mixture_shows_its_first_row(capsys):
    task = "gym.chain_sum.zs_noopt"
    names = ["--gin.MODEL_DIR=/not/made", f"--gin.MIXTURE_OR_TASK_NAME={task}"]
    recipe = ["--gin_file=gin/recipes/gym_demo.gin", *names]
    assert arguments.main(["prepare", f"--mixture={task}", "--workers=1"]) == 0
    capsys.readouterr()
    out = shown(capsys, *recipe, "--rows=1")
    assert "warning" not in out and "segment 1" in out and "targets:" in out


@pytest.mark.slow
def test_what_the_vocabulary_cannot_spell_is_a_warning(capsys, tmp_path):
    task = registry.add_task(toy_spec(BracesSource("abc"))).name
    assert arguments.main(["prepare", f"--mixture={task}", "--workers=1"]) == 0
    capsys.readouterr()
    recipe = ["--gin_file=gin/recipes/gym_demo.gin", "--gin.MODEL_DIR=/not/made"]
    recipe += [f"--gin.MIXTURE_OR_TASK_NAME={task}"]
    out = shown(capsys, *recipe, f"--gin.VOCABULARY={write_t5_model(tmp_path)}")
    assert f"{task}: " in out and "in 100.0% of the targets" in out
    assert "cannot spell 100.0% of the targets: no model can write them" in " ".join(out.split())
    assert "the vocabulary spells all characters" in shown(capsys, *recipe)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "xl"])
def test_what_a_recipe_requires_is_a_warning_here(capsys, size):
    """Everything that does not hang on the checkpoint and the vocabulary is shown all the same."""
    out = shown(capsys, f"--gin_file=gin/recipes/flan_t5_{size}_finetune.gin", "--mesh=2x2")
    flat = " ".join(out.split())
    assert (
        "warning: not set, and needed to train: INITIAL_CHECKPOINT_PATH, MODEL_DIR, VOCABULARY. "
        "Add --gin.INITIAL_CHECKPOINT_PATH=... --gin.MODEL_DIR=... --gin.VOCABULARY=..." in flat
    )
    assert {"small": "76,961,152", "xl": "2,849,757,184"}[size] + " parameters" in out
    assert "the model has rows for 32,128 ids" in flat
    assert "one abstract update traced" in out and "flan2021.samsum.zs_noopt" in out
    assert "no prepared records yet" in flat and "batch of 32 rows of 1024 + 128 tokens" in flat


@pytest.mark.slow
def test_defaults_without_a_recipe_warn_of_all_that_must_be_set(capsys):
    files = ["--gin_file=gin/runs/train.gin", "--gin_file=gin/models/tiny_demo.gin"]
    flat = " ".join(shown(capsys, *files).split())
    assert (
        "needed to train: MIXTURE_OR_TASK_NAME, MODEL_DIR, TASK_FEATURE_LENGTHS, TRAIN_STEPS."
        in flat
    )
    assert "TASK_FEATURE_LENGTHS is taken as {'inputs': 2048, 'targets': 512}" in flat
    assert "64 rows of 2048 + 512 tokens" in flat


def test_a_mistake_is_still_refused(capsys):
    flags = ["--gin_file=gin/recipes/flan_t5_small_finetune.gin", "--gin.VOCABULARI=x"]
    assert arguments.main(["check", *flags]) == 2
    assert "VOCABULARI" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("TRAIN_STEPS=0", "train.train_steps is 0; use a whole number of at least 1"),
        ("loop.train.log_every_steps=0", "train.log_every_steps is 0"),
        ("PROFILE_STEPS=(20,)", "train.profile_steps is (20,) (PROFILE_STEPS)"),
    ],
)
def test_what_train_refuses_at_once_is_refused(setting, words, capsys):
    flags = ["check", "--gin_file=gin/recipes/gym_demo.gin", "--gin.MODEL_DIR=/not/made"]
    assert arguments.main([*flags, f"--gin.{setting}"]) == 2
    assert words in capsys.readouterr().err


def test_suites_of_training_are_checked(capsys):
    flags = ["check", "--gin_file=gin/recipes/gym_demo.gin", "--gin.MODEL_DIR=/not/made"]
    flags += ["--gin.EVAL_SUITES_EVERY_STEPS=5"]
    assert arguments.main(flags) == 2
    assert "EVAL_SUITES names no mixture" in capsys.readouterr().err
    assert arguments.main([*flags, "--gin.EVAL_SUITES=gym.demo_held_ot"]) == 2
    assert "gym.demo_held_out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_decoder_and_what_its_cache_takes(capsys):
    out = shown(capsys, "--gin_file=gin/models/tiny_decoder.gin", "--mesh=fsdp=2,tensor=8")
    assert "causal decoder, 2 layers" in out and "8 heads x 8 (4 of keys and values)" in out
    assert "decoder/layers_*/attention/key/kernel" in out
    assert re.search(r"32 slots, prompts of 2048 tokens: cache of prompts 0\.01\d, answers", out)
