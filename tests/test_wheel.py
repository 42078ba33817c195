"""The wheel is enough: installed away from the checkout, it trains, evaluates and reports."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

from tests.xla_flags import QUICK_COMPILATION

pytestmark = pytest.mark.slow(secs=5)

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = ("instruct", "tasks", "gin", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
FLAGS = [
    "--gin_file=gin/recipes/gym_demo.gin",
    "--gin.MIXTURE_OR_TASK_NAME=gym.chain_sum.zs_noopt",
    "--gin.EVAL_MIXTURES=gym.chain_sum.zs_noopt",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 16}",
    "--gin.ModelConfig.num_encoder_layers=1",
    "--gin.ModelConfig.num_decoder_layers=1",
    "--gin.TRAIN_STEPS=2",
    "--gin.DataConfig.window_examples=32",
    "--gin.MODEL_DIR=run",
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(folder that the wheel was installed into, the environment in which Python finds it)."""
    source, target, wheels = (tmp_path_factory.mktemp(name) for name in ("source", "site", "dist"))
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={wheels}", str(source)]
    subprocess.run([*pip, *build], check=True, cwd=source)
    (wheel,) = wheels.glob("*.whl")
    install = ["install", "--no-deps", "--no-index", f"--target={target}", str(wheel)]
    subprocess.run([*pip, *install], check=True, cwd=target)
    # Dependencies come from this environment; the wheel goes before the checkout it may know of.
    path = os.pathsep.join([str(target), sysconfig.get_paths()["purelib"]])
    # One device: a program for the eight of these tests takes longer to compile.
    return target, {**os.environ, "PYTHONPATH": path, "XLA_FLAGS": QUICK_COMPILATION}


def run_instruct(installed, folder, *arguments):
    target, environment = installed
    command = [sys.executable, "-P", str(target / "bin" / "instruct"), *arguments]
    environment = {**environment, "INSTRUCT_STORE_DIR": str(folder / "stores")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_demo_runs_from_the_wheel_in_another_folder(installed, tmp_path):
    for mode, flags in (
        ("train", FLAGS),
        ("eval", [*FLAGS, "--limit=2"]),
        ("report", ["--model_dir=run"]),
    ):
        result = run_instruct(installed, tmp_path, mode, *flags)
        assert result.returncode == 0, result.stdout + result.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["commit"] is None  # the wheel is no checkout
    assert "gym.chain_sum" in (tmp_path / "run" / "report.md").read_text()


def test_help_names_the_command_that_was_typed(installed, tmp_path):
    result = run_instruct(installed, tmp_path, "--help")
    assert result.returncode == 0 and result.stdout.startswith("usage: instruct ")


def test_pages_tables_and_types_are_in_the_wheel(installed):
    target, _ = installed
    files = {
        path.relative_to(ROOT)
        for name in ("instruct", "tasks")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "README.md"
    }
    assert {path for path in files if not (target / path).is_file()} == set()
    assert (target / "instruct/py.typed").is_file()


def test_every_gin_file_is_in_the_wheel(installed):
    target, _ = installed
    shipped = {path.relative_to(target / "instruct/resources") for path in target.rglob("*.gin")}
    assert shipped == {path.relative_to(ROOT) for path in (ROOT / "gin").rglob("*.gin")}
