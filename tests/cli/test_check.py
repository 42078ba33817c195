"""`check`: what it says of a model, a mesh and a mixture, with nothing allocated."""

import re
import time

import pytest

from instruct.cli import arguments, check


def shown(capsys, *flags):
    assert check.run(arguments.parse(["check", *flags])) == 0
    return capsys.readouterr().out


def test_the_largest_model_on_a_pod(capsys):
    started = time.process_time()
    out = shown(capsys, "--gin_file=gin/models/t5_1_1_xxl.gin", "--mesh=4x64")
    assert time.process_time() - started < 30
    assert "11,135,332,352 parameters" in out and "mesh: data 4 x fsdp 1 x tensor 64" in out
    # 64 shares of float32 numbers, and a little that every device holds whole.
    found = re.search(r"GiB a device: parameters ([\d.]+), gradients ([\d.]+), optimiser", out)
    assert found
    share = 11_135_332_352 * 4 / 64 / 2**30
    assert [float(size) for size in found.groups()] == pytest.approx([share] * 2, rel=0.01)
    assert "encoder/layers/attention/query/kernel" in out and "embed joined_heads" in out


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


def test_a_prepared_mixture_shows_its_first_row(capsys):
    task = "gym.chain_sum.zs_noopt"
    names = ["--gin.MODEL_DIR=/not/made", f"--gin.MIXTURE_OR_TASK_NAME={task}"]
    recipe = ["--gin_file=gin/recipes/gym_demo.gin", *names]
    assert arguments.main(["prepare", f"--mixture={task}", "--workers=1"]) == 0
    capsys.readouterr()
    out = shown(capsys, *recipe, "--rows=1")
    assert "warning" not in out and "segment 1" in out and "targets:" in out
