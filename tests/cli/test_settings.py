"""Folders and task modules that every mode sets first."""

import argparse
import os
import sys

import pytest

from instruct import gin_config
from instruct.cli import settings
from instruct.data import registry
from instruct.errors import UserError
from instruct.workspace import DATA_VARIABLE, FLAN_VARIABLE, STORE_VARIABLE


@pytest.fixture(autouse=True)
def _folders_return(monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, "/from/the/environment")
    monkeypatch.setenv(STORE_VARIABLE, "/stores/of/the/environment")
    monkeypatch.setenv(FLAN_VARIABLE, "")


def flags(*gin_flags, files=()):
    return argparse.Namespace(
        gin_file=list(files), gin_bindings=[], gin_flags=[f"--gin.{flag}" for flag in gin_flags]
    )


def test_macros_come_before_the_environment(tmp_path):
    workspace, _ = settings.load(flags())
    assert str(workspace.data_dir) == "/from/the/environment"
    assert str(workspace.store_dir) == "/stores/of/the/environment"
    workspace, _ = settings.load(flags(f"DATA_DIR={tmp_path}/data", "STORE_DIR=~/stores"))
    assert workspace.data_dir == tmp_path / "data"
    assert str(workspace.store_dir) == os.path.expanduser("~/stores")
    assert workspace.flan_checkout is None
    workspace, _ = settings.load(flags("FLAN_CHECKOUT=~/FLAN"))
    assert str(workspace.flan_checkout) == os.path.expanduser("~/FLAN")
    assert os.environ[DATA_VARIABLE] == "/from/the/environment"  # nothing is written there


def test_task_modules_of_the_project_and_of_the_user(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("settings_one", "settings_two", "settings_three"):
        (tmp_path / f"{name}.py").write_text("")
    settings.load(flags(f"MIXTURE_OR_TASK_MODULE=settings_one, {tmp_path}/settings_two.py"))
    settings.load(flags("MIXTURE_OR_TASK_MODULE=('settings_three',)"))
    assert {"settings_one", "settings_two", "settings_three"} <= set(sys.modules)
    assert "gym.chain_sum" in registry.task_specs(settings.Settings().workspace())


def test_arguments_of_all_entries_come_back():
    _, built = settings.load(flags("MODEL_DIR=runs/a", files=["gin/recipes/gym_demo.gin"]))
    assert set(built) == set(gin_config.ENTRIES)
    assert built[gin_config.TRAIN]["model_dir"] == built[gin_config.EVALUATE]["model_dir"]
    assert built[gin_config.INFER] == {}


@pytest.mark.parametrize("flag", ["DATA_DIR=3", "STORE_DIR=['a']", "FLAN_CHECKOUT=1e5"])
def test_folders_may_have_any_name(flag):
    workspace, _ = settings.load(flags(flag))
    name, _, value = flag.partition("=")
    assert str(getattr(workspace, name.lower())) == value


@pytest.mark.parametrize(
    "line",
    ["DATA_DIR = 3", "STORE_DIR = ['a']", "FLAN_CHECKOUT = 1", "MIXTURE_OR_TASK_MODULE = [3]"],
)
def test_values_that_are_no_folders_or_modules(line):
    given = flags()
    given.gin_bindings = [line]
    with pytest.raises(UserError, match=line.split(" ")[0]):
        settings.load(given)
