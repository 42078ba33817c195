"""The code of docs/extending.md: a task over a file of the user's, in a mixture of theirs."""

import json
import os
import pathlib
import subprocess

import pytest

from tests.train.test_users_module import code_block

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_tasks.py").write_text(code_block("my_tasks.py"))
    rows = (
        {"text": f"Day {n}: {'rain' if n % 2 else 'sun'}.", "label": "wet" if n % 2 else "dry"}
        for n in range(200)
    )
    data = folder / "data" / "weather" / "reports.jsonl"
    data.parent.mkdir(parents=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(python: pathlib.Path, folder: pathlib.Path, *arguments: str) -> str:
    settings = {
        "MIXTURE_OR_TASK_MODULE": "my_tasks.py",
        "DATA_DIR": folder / "data",
        "STORE_DIR": folder / "stores",
    }
    command = [python, ROOT / "run.py", *arguments]
    command += [f"--gin.{name}={value}" for name, value in settings.items()]
    process = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
def test_a_task_of_the_page_is_shown_and_trained_on(forked_python, folder):
    shown = run(forked_python, folder, "show", "--task=weather.reports", "--examples=2")
    assert "wet or dry" in shown.lower() and "-> wet" in shown
    run(
        forked_python,
        folder,
        "train",
        "--gin_file=gin/runs/train.gin",
        "--gin_file=gin/models/tiny_test.gin",
        "--gin.ModelConfig.num_encoder_layers=1",
        "--gin.ModelConfig.num_decoder_layers=1",
        "--gin.MIXTURE_OR_TASK_NAME=mine",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 256, 'targets': 32}",
        "--gin.TRAIN_STEPS=2",
        "--gin.BATCH_SIZE=8",
        "--gin.VOCABULARY=bytes",
        "--gin.MODEL_DIR=run",
    )
    mixture = json.loads((folder / "run" / "mixture.json").read_text())
    leaves = {leaf["name"]: leaf["asked"] for leaf in mixture["leaves"]}
    assert leaves["weather.reports.zs_noopt"] == pytest.approx(0.25)
