"""`import instruct`, and the examples and the notebook that use it, on one tiny trained run."""

import json
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest

import instruct
from instruct import api, peak
from instruct.data import registry
from instruct.errors import UserError
from tests.data.toy import toy_spec
from tests.flan_t5 import SMALL_GIN, write_flan_t5

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
CALLED = {"own_task", "own_metric", "lora", "decode", "load_in_transformers"}


def example(name: str):
    """The function `main` of a script."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """The run of own_task.py after a few steps."""
    folder = tmp_path_factory.mktemp("example")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUCT_STORE_DIR", str(folder / "stores"))
        patch.setattr(peak, "matmul_peak", lambda *_: 1e9)
        example("own_task")(folder / "run", steps=4)
    return folder / "run"


@pytest.fixture(scope="module")
def model(model_dir):
    return instruct.load_model(model_dir)


@pytest.mark.slow
def test_importing_imports_nothing_but_what_is_used():
    program = """
import sys, instruct
heavy = {"jax", "tensorflow", "numpy", "gin", "instruct.api"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert callable(instruct.load_model) and "jax" in sys.modules
assert "tensorflow" not in sys.modules and "gin" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_names_of_the_package_are_those_of_the_module():
    assert instruct.__all__ == api.__all__
    text = (ROOT / "instruct" / "__init__.py").read_text()
    for name in instruct.__all__:
        assert getattr(instruct, name) is getattr(api, name) and getattr(api, name).__doc__
        assert f"        {name},\n" in text, "for type checkers"
    assert set(instruct.__all__) <= set(dir(instruct)) and "Any" not in dir(instruct)
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        instruct.load  # noqa: B018


@pytest.mark.slow
def test_loading_writes_nothing_to_the_screen(model_dir):
    program = "import sys, instruct; instruct.load_model(sys.argv[1])"
    command = [sys.executable, "-c", program, str(model_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_scores_are_log_likelihoods_of_each_option(model, capsys):
    prompts = ["Oslo: fog at noon.\n\nIs the day wet or dry?", "Wet or dry? " + "rain " * 100]
    options = [["wet", "dry", "wet"], ["dry"]]
    first, second = model.score(prompts, options)
    assert first.log_likelihoods.shape == (3,) and np.all(first.log_likelihoods < 0)
    assert first.log_likelihoods[0] == pytest.approx(first.log_likelihoods[2], abs=1e-5)
    assert second.lengths[0] == len(model.loaded.encoder.frame.answer("dry"))
    assert "loses its end" in capsys.readouterr().err
    for wrong in ([["wet"]], [["wet"], []], None, [3, 4]):
        with pytest.raises(instruct.UserError, match=r"at least one text|give a list of"):
            model.score(prompts, wrong)
    for wrong in ("wet?", None, 3, {"inputs": "wet?"}, [None]):
        with pytest.raises(instruct.UserError, match="prompts is .*; give a list of texts"):
            model.generate(wrong)
    with pytest.raises(instruct.UserError, match="decode is 'beam'; give a DecodeConfig"):
        model.generate(prompts, "beam")
    assert model.generate([]) == [] and len(repr(model)) < 200 and "parameters" in repr(model)
    (answer,) = model.generate(prompts[1:], max_decode_steps=2)
    assert answer.texts == (answer.text,) and answer.scores == (answer.score,) and answer.score < 0
    assert answer.truncated


@pytest.mark.slow
def test_results_have_metrics_with_n_and_standard_errors(model_dir, capsys):
    (result,) = instruct.read_results(model_dir)
    assert result.suite == "example.weather" and result.step == 4 and not result.failures
    assert {score.mode for score in result.scores} == {"zs_noopt", "zs_opt"}
    for score in result.scores:
        assert score.n == 40 and score.stderr is not None and score.baseline >= 50
        assert score.group == "held_in" and score.line["task_version"] == "1.0.0"
        assert f"{score.metric} {score.value:.1f} ± {score.stderr:.1f} (n 40)" in str(result)
    texts = list(result.examples())
    assert len(texts) == 80 and {"prompt", "target", "prediction"} <= texts[0].keys()
    # Finished results are read, not computed again; other settings are refused.
    assert instruct.evaluate_model(model_dir, "example.weather") == [result]
    with pytest.raises(instruct.UserError, match="num_examples: 200 -> 3"):
        instruct.evaluate_model(model_dir, "example.weather", limit=3)


def test_wrong_settings_have_the_messages_of_the_command_line(tmp_path):
    train = "gin/runs/train.gin"
    with pytest.raises(instruct.UserError, match="must be set: MIXTURE_OR_TASK_NAME"):
        instruct.train_model(train, tmp_path, TASK_FEATURE_LENGTHS={"inputs": 8, "targets": 8})
    with pytest.raises(instruct.UserError, match=r"SEED is <object .*docs/extending.md"):
        instruct.train_model(train, tmp_path, SEED=object())
    with pytest.raises(instruct.UserError, match="no checkpoint in"):
        instruct.load_model(tmp_path)
    assert instruct.read_results(tmp_path) == []
    with pytest.raises(instruct.UserError, match="there is no such folder"):
        instruct.read_results(tmp_path / "runs")
    wrong = {
        "path is None; give a path": lambda: instruct.load_model(None),
        "mesh is 'fsdp=2'; give a MeshConfig": lambda: instruct.load_model(tmp_path, mesh="fsdp=2"),
        "model is 't5'; give a ModelConfig or": lambda: instruct.load_model(tmp_path, model="t5"),
        "model_dir is None; give a path": lambda: instruct.train_model(train, None),
        "gin_files is None; give a list": lambda: instruct.train_model(None, tmp_path),
        "data is 5; give a TaskFile": lambda: instruct.train_model(train, tmp_path, data=5),
        "task is 'a.jsonl'; give a TaskFile": lambda: instruct.add_task("a.jsonl"),
        "metric_fns is 'rouge'; give": lambda: instruct.add_task(None, metric_fns=["rouge"]),
    }
    for message, call in wrong.items():
        with pytest.raises(instruct.UserError, match=message):
            call()


def test_paths_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    assert instruct.read_results("~/run") == []


@pytest.mark.slow
def test_lora(model_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(peak, "matmul_peak", lambda *_: 1e9)
    example("lora")(model_dir, tmp_path, steps=2)
    shown = capsys.readouterr()
    assert "trains " in shown.err and "own.numbers" in shown.out
    assert (tmp_path / "run" / "before_after.html").is_file()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 4 and config["base_model_name_or_path"] == str(model_dir)
    # The run's own file is the task that is evaluated, by flags or without.
    (result,) = instruct.evaluate_model(tmp_path / "run")
    assert result.scores[0].task == "own.numbers" and result.scores[0].n == 10


@pytest.mark.slow
def test_own_metric(model_dir, capsys):
    example("own_metric")(model_dir)
    out = capsys.readouterr().out
    assert "rougeL" in out and "at_most_ten_words" in out and "Summarize: Mia" in out


@pytest.mark.slow
def test_decode(model_dir, capsys):
    example("decode")(model_dir)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "'Oslo" in line]
    texts = {line.partition(":")[0]: line.partition(" -> ")[2].count("', '") + 1 for line in lines}
    assert [texts.get(name) for name in ("greedy", "beams", "samples")] == [1, 3, 3]
    assert "log-likelihood of wet -" in out


@pytest.mark.slow
def test_load_in_transformers(model_dir, tmp_path, capsys):
    pytest.importorskip("transformers")
    example("load_in_transformers")(model_dir, tmp_path / "folder")
    assert "transformers: " in capsys.readouterr().out


TINY = """
MODEL_FOLDER = "flan-t5-small"
SETTINGS = {"TRAIN_STEPS": 2, "BATCH_SIZE": 8}
RECIPE = ["gin/recipes/flan_t5_small_finetune.gin", "small.gin"]
"""


@pytest.mark.slow
def test_the_notebook(tmp_path, monkeypatch, capsys):
    """Every code cell in order, in one namespace, with a tiny model in the model's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peak, "matmul_peak", lambda *_: 1e9)
    write_flan_t5(tmp_path / "flan-t5-small")
    (tmp_path / "small.gin").write_text(SMALL_GIN)
    notebook = json.loads((EXAMPLES / "finetune_flan_t5.ipynb").read_text())
    assert notebook["nbformat"] == 4
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    first, *others = cells
    namespace: dict = {}
    for cell in (first, TINY, *others):
        assert not cell.startswith(("%", "!")), "plain Python runs anywhere"
        exec(compile(cell, "cell", "exec"), namespace)
    assert "own.dialogues" in capsys.readouterr().out
    assert (tmp_path / "runs/tuned/before_after.html").is_file()
    assert (tmp_path / "my-flan-t5" / "model.safetensors").is_file()


def test_a_task_cannot_have_a_name_of_a_module_that_is_not_imported_yet(tmp_path, monkeypatch):
    (tmp_path / "api_taken.py").write_text(
        "from instruct.data import registry\n"
        "from tests.data.toy import toy_spec\n"
        "registry.add_task(toy_spec(name='api_taken.task'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_on_demand", {})
    monkeypatch.setattr(registry, "_joined_seqio", [])  # else the module is imported at once
    registry.add_on_demand({"api_taken": ("api_taken",)})
    with pytest.raises(UserError, match=r"'api_taken\.task' is registered already"):
        instruct.add_task(toy_spec(name="api_taken.task"))


def test_every_example_is_run_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == CALLED
