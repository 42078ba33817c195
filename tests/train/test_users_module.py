"""The code of docs/extending.md: an optax chain, a tracker and an evaluator of a user, by gin."""

import csv
import json
import os
import pathlib
import re
import sys

import jax
import numpy as np
import pytest

from instruct.checkpoints.loading import load_params
from instruct.checkpoints.model_fields import recorded_model
from instruct.cli.arguments import main
from instruct.models.model import make_model

pytestmark = pytest.mark.slow(secs=0.2)  # seconds together

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "extending.md"
EXACT = ("step", "loss", "gradient_norm", "learning_rate", "norm/embedding", "eval/loss")


def code_block(name: str) -> str:
    """The block that follows `name`: on the page."""
    return re.search(rf"`{re.escape(name)}`:\n\n```\w*\n(.*?)```", PAGE.read_text(), re.S)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working folder of a user, with the files of the page, and a run of six steps."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("my_training.py", "my_training.gin"):
        (folder / name).write_text(code_block(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("INSTRUCT_STORE_DIR", str(folder / "stores"))
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        assert train("whole", 6) == 0
        yield folder


def train(run: str, steps: int, *flags: str, mode: str = "train") -> int:
    return main(
        [
            mode,
            "--gin_file=my_training.gin",
            "--gin_file=gin/models/tiny_test.gin",
            "--gin.MIXTURE_OR_TASK_NAME=gym.chain_sum.zs_noopt",
            "--gin.VOCABULARY=bytes",
            "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}",
            "--gin.BATCH_SIZE=8",
            "--gin.LEARNING_RATE=0.01",
            "--gin.my_training.frozen_embeddings.train_steps=6",
            f"--gin.TRAIN_STEPS={steps}",
            f"--gin.STORE_DIR={os.getcwd()}/stores",
            f"--gin.MODEL_DIR={run}",
            "--gin.loop.train.log_every_steps=1",
            "--gin.loop.train.eval_every_steps=3",
            "--gin.loop.train.num_eval_examples=8",
            "--gin.checkpoint.CheckpointConfig.save_every_steps=1",
            "--gin.checkpoint.CheckpointConfig.keep=9",
            *flags,
        ]
    )


def rows(path: pathlib.Path) -> list[dict]:
    found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in EXACT if name in row} for row in found]


def parameters(path: pathlib.Path, step: int):
    record = path / "run.json"
    model = recorded_model(json.loads(record.read_text())["model"], record)
    return load_params(path, make_model(model).abstract_params(), step)


def test_frozen_embeddings_stay_and_everything_else_learns(folder):
    first, last = (parameters(folder / "whole", step) for step in (1, 6))
    for (path, before), after in zip(
        jax.tree_util.tree_flatten_with_path(first)[0], jax.tree.leaves(last)
    ):
        same = np.asarray(before).tobytes() == np.asarray(after).tobytes()
        assert same == ("token_embedder" in jax.tree_util.keystr(path)), path


def test_tracker_and_evaluator_are_called(folder):
    logged = rows(folder / "whole")
    with (folder / "whole" / "losses.csv").open(newline="") as file:
        written = [(int(step), float(loss)) for step, loss in csv.reader(file)]
    assert written == [(row["step"], row["loss"]) for row in logged] and len(written) == 6
    assert [row["step"] for row in logged if "norm/embedding" in row] == [2, 4, 6]
    embedding = parameters(folder / "whole", 6)["token_embedder"]["embedding"]
    assert logged[5]["norm/embedding"] == pytest.approx(np.linalg.norm(embedding), rel=1e-5)
    assert [row["step"] for row in logged if "eval/loss" in row] == [3, 6]
    cosine = [0.01 * 0.5 * (1 + np.cos(np.pi * n / 6)) for n in range(6)]
    np.testing.assert_allclose([row["learning_rate"] for row in logged], cosine, rtol=1e-5)
    assert list((folder / "whole" / "tensorboard").iterdir())


def test_a_resumed_run_computes_the_same(folder):
    assert train("cut", 3) == 0
    assert train("cut", 6) == 0
    whole, cut = rows(folder / "whole"), rows(folder / "cut")
    # The first part ended at step 3, and a last step is evaluated.
    assert cut[2].pop("norm/embedding") > 0 and cut == whole
    both = [parameters(folder / name, 6) for name in ("whole", "cut")]
    jax.tree.map(np.testing.assert_array_equal, *both)
    assert len((folder / "cut" / "losses.csv").read_text().splitlines()) == 6


def test_another_value_of_the_chain_is_refused_on_resume(folder, capsys):
    recorded = json.loads((folder / "whole" / "run.json").read_text())["config"]["optimizer"]
    assert recorded.startswith("@my_training.frozen_embeddings(); ")
    assert "frozen_embeddings.learning_rate = 0.01" in recorded
    assert "frozen_embeddings.clip = 1.0" in recorded  # a default
    assert train("whole", 9, "--gin.my_training.frozen_embeddings.clip=0.5") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds a run with another configuration (optimizer: " in said and "clip = 0.5" in said


def test_check_shows_its_memory(folder, capsys):
    assert train("checked", 6, mode="check") == 0
    assert "optimiser" in capsys.readouterr().out
    assert not (folder / "checked").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--gin.loop.train.trackers=[@my_training.CsvTracker]", "no Tracker"),
        (
            "--gin.loop.train.evaluators=[@my_training.EmbeddingNorm(), 3]",
            "3, which is no Evaluator",
        ),
        ("--gin.EmbeddingNorm.every_steps=0", "no Evaluator"),
    ],
)
def test_wrong_bindings_are_named(folder, capsys, flag, message):
    assert train("wrong", 6, flag) == 2
    assert message in " ".join(capsys.readouterr().err.split())
