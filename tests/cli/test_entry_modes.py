"""`train`, `eval`, `infer`, `report`: what gin and flags say reaches the function that does it.

What those functions do is tested beside them; tests/test_end_to_end.py runs them in a row.
"""

import dataclasses
import json
import sys
import types

import pytest

from instruct.cli import arguments, infer, report, serve, train
from instruct.cli import eval as evaluation
from instruct.errors import UserError
from instruct.models.config import ModelConfig


@pytest.fixture
def called(monkeypatch):
    """Arguments that the entry functions were called with; they only return 0."""
    seen = {}
    for mode, module, function in (
        (train, "loop", "train"),
        (evaluation, "runner", "evaluate"),
        (infer, "infer", "infer"),
    ):
        stand_in = types.SimpleNamespace(**{function: lambda **given: seen.update(given) or 0})
        monkeypatch.setattr(mode, module, stand_in)
    return seen


def test_train_gets_its_configuration_and_the_texts_of_it(called, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MODEL_DIR is made and locked
    flags = ["--gin_file=gin/recipes/gym_demo.gin", "--gin.MODEL_DIR=runs/a", "--gin.SEED=7"]
    assert train.run(arguments.parse(["train", *flags, "--gin.loop.train.log_every_steps=5"])) == 0
    assert called["model_dir"] == "runs/a" and called["log_every_steps"] == 5
    assert called["seed"] == called["data"].seed == 7 and called["data"].mixture == "gym.demo"
    texts = called["texts"]
    assert set(texts) == {"config.gin", "operative.gin"}
    assert "SEED = 7" in texts["config.gin"]
    assert "LossConfig.z_loss" in texts["operative.gin"]  # a default, hence not in the other
    assert "LossConfig.z_loss" not in texts["config.gin"]


def test_train_gets_an_evaluator_of_the_suites_that_are_asked_for(called, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--gin_file=gin/recipes/gym_demo.gin", "--gin.MODEL_DIR=runs/a"]
    flags += ["--gin.BEST_METRIC=eval/gym.demo/mean", "--gin.EARLY_STOPPING_PATIENCE=3"]
    assert train.run(arguments.parse(["train", *flags])) == 0
    assert "evaluators" not in called
    assert called["checkpoint"].best_metric == "eval/gym.demo/mean"
    assert called["early_stopping"].patience == 3
    every = ["--gin.EVAL_SUITES_EVERY_STEPS=50"]
    with pytest.raises(UserError, match="EVAL_SUITES names no mixture"):
        train.run(arguments.parse(["train", *flags, *every]))
    suites = ["--gin.EVAL_SUITES=('gym.demo', 'gym.demo_held_out')", "--gin.EVAL_BATCH_SIZE=8"]
    assert train.run(arguments.parse(["train", *flags, *every, *suites])) == 0
    (evaluator,) = called["evaluators"]
    assert evaluator.every_steps == 50 and evaluator._batching.batch_size == 8
    assert evaluator._config.suites == ("gym.demo", "gym.demo_held_out")


def test_eval_gets_its_configuration(called):
    flags = ["--gin_file=gin/runs/eval.gin", "--gin.MODEL_DIR=runs/a"]
    flags += ["--gin.EVAL_MIXTURES=('gym.held_in', 'gym.held_out')", "--gin.EVAL_CHECKPOINTS=all"]
    assert evaluation.run(arguments.parse(["eval", *flags])) == 0
    assert called["model_dir"] == "runs/a" and called["config"].checkpoints == "all"
    assert called["config"].suites == ("gym.held_in", "gym.held_out")


def test_infer_gets_flags_and_configuration(called):
    flags = ["--gin_file=gin/runs/infer.gin", "--gin.MODEL_DIR=runs/a", "--gin.STEP=3"]
    flags += ["--gin.MAX_DECODE_STEPS=5"]
    assert infer.run(arguments.parse(["infer", *flags, "--input=a.jsonl", "--output=b.jsonl"])) == 0
    assert called["step"] == 3 and called["max_decode_steps"] == 5
    assert "decode" not in called, "the checkpoint's own settings would be overruled"
    assert (called["input_path"], called["output_path"]) == ("a.jsonl", "b.jsonl")
    assert "prompt" not in called and "strict" not in called
    assert infer.run(arguments.parse(["infer", *flags, "--prompt=a", "--strict"])) == 0
    assert called["strict"] is True and "interactive" not in called
    assert infer.run(arguments.parse(["infer", *flags, "--interactive"])) == 0
    assert called["interactive"] is True


def test_serve_gets_its_configuration_and_the_token(monkeypatch, tmp_path):
    seen = {}
    stand_in = types.SimpleNamespace(serve=lambda **given: seen.update(given) or 0)
    monkeypatch.setattr(serve, "_server", lambda: stand_in)
    flags = ["--gin_file=gin/runs/serve.gin", "--gin.MODEL_DIR=runs/a", "--gin.PORT=0"]
    monkeypatch.setenv("INSTRUCT_SERVE_TOKEN", "of-the-environment")
    assert serve.run(arguments.parse(["serve", *flags])) == 0
    assert seen["config"].port == 0 and seen["batching"].max_shapes == 4
    assert seen["token"] == "of-the-environment" and "strict" not in seen
    (tmp_path / "token").write_text("of-the-file\n")
    assert serve.run(arguments.parse(["serve", *flags, f"--token_file={tmp_path / 'token'}"])) == 0
    assert seen["token"] == "of-the-file"
    with pytest.raises(UserError, match="give the token by --token_file"):
        serve.run(arguments.parse(["serve", *flags, "--gin.server.serve.token=abc"]))


def test_serve_without_its_libraries_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "instruct.serve.server", raising=False)
    monkeypatch.delattr("instruct.serve.server", raising=False)
    with pytest.raises(UserError, match=r"serving needs uvicorn.*pip install 'instruct\[serve\]'"):
        serve.run(arguments.parse(["serve"]))


@pytest.mark.parametrize(
    ("mode", "flags"),
    [
        (train, ["train", "--gin_file=gin/recipes/gym_demo.gin"]),
        (evaluation, ["eval", "--gin_file=gin/runs/eval.gin", "--gin.EVAL_MIXTURES=gym.demo"]),
        (infer, ["infer", "--gin_file=gin/runs/infer.gin"]),
    ],
    ids=["train", "eval", "infer"],
)
def test_every_mode_that_computes_uses_the_compilation_cache(called, mode, flags, monkeypatch):
    used = []
    stand_in = types.SimpleNamespace(use=lambda **given: used.append(given))
    monkeypatch.setattr(mode, "compilation_cache", stand_in)
    flags = [*flags, "--gin.MODEL_DIR=runs/a"]
    assert mode.run(arguments.parse(flags)) == 0
    assert mode.run(arguments.parse([*flags, "--gin.COMPILATION_CACHE_DIR=5"])) == 0
    assert used == [{"folder": None}, {"folder": "5"}]


def test_report_of_a_run(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n')
    flags = arguments.parse(["report", f"--model_dir={run}", f"--out={tmp_path}"])
    assert report.run(flags) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert "# " in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    "flags",
    [[], ["--model_dir=/no/run"], ["--model_dir=tests"], ["--model_dir=a", "--gin.SEED=1"]],
)
def test_report_refuses_what_is_no_run(flags):
    with pytest.raises(UserError, match="model_dir"):
        report.run(arguments.parse(["report", *flags]))


def test_eval_before_and_after(tmp_path, monkeypatch, capsys):
    """Both checkpoints are evaluated alike, and the page is of these results."""
    run = tmp_path / "run"
    run.mkdir()
    config = {"initial_checkpoint_path": "start", "data.vocabulary": "bytes"}
    config |= {"data.feature_lengths.inputs": 16, "data.feature_lengths.targets": 4}
    sizes = {"vocab_size": 384, "d_model": 8, "num_heads": 2, "head_dim": 4, "d_ff": 8}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    recorded = {"config": config, "model": dataclasses.asdict(ModelConfig(**sizes, **layers))}
    (run / "run.json").write_text(json.dumps(recorded, default=str))
    calls = []

    statuses = iter([0, 0, 1, 0])

    def evaluate(on_results=print, **given):
        calls.append(given)
        on_results(tmp_path / f"results_{len(calls)}.jsonl")
        return next(statuses)

    monkeypatch.setattr(evaluation, "runner", types.SimpleNamespace(evaluate=evaluate))
    compared = []

    def write(*given):
        compared.append(given)
        return tmp_path / "page.html", {"left_out": ["few examples"]}

    monkeypatch.setattr(evaluation, "write_comparison", write)
    flags = ["eval", "--before", "--gin_file=gin/runs/eval.gin", f"--gin.MODEL_DIR={run}"]
    assert arguments.main([*flags, "--gin.EVAL_MIXTURES=gym.demo"]) == 0
    before, after = calls
    assert before["checkpoint_path"] == "start" and after["checkpoint_path"] is None
    assert before["feature_lengths"] == {"inputs": 16, "targets": 4}
    assert before["vocabulary"] == "bytes" and before["config"] == after["config"]
    (first, second, folder, _), *others = compared
    results = [str(tmp_path / f"results_{number}.jsonl") for number in (1, 2)]
    assert [first, second] == results and folder == run and not others
    assert calls[0]["model_dir"] == str(run / "before")
    assert "note: few examples" in capsys.readouterr().out
    # A task that failed before is no reason to evaluate nothing after.
    assert arguments.main([*flags, "--gin.EVAL_MIXTURES=gym.demo"]) == 1
    assert len(calls) == 4 and len(compared) == 2
    assert arguments.main([*flags, "--gin.EVAL_MIXTURES=('gym.demo', 'gym.held_out')"]) == 2
    assert "one suite" in capsys.readouterr().err
    (run / "run.json").write_text("{}")
    assert arguments.main([*flags, "--gin.EVAL_MIXTURES=gym.demo"]) == 2
    assert "does not record a checkpoint" in capsys.readouterr().err
    assert len(calls) == 4
