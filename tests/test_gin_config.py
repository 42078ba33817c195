"""gin's silent mistakes are not silent here."""

import sys
import types

import pytest

from instruct import gin_config
from instruct.errors import UserError

MODULE = """
import dataclasses
from instruct.errors import UserError

@dataclasses.dataclass(frozen=True)
class WiredConfig:
    width: int = 4
    depth: int = 2

    def __post_init__(self):
        if not isinstance(self.width, int):
            raise UserError(f"width {self.width!r} must be a whole number")

def train_wired(model, steps, directory="here"):
    return model, steps, directory

def evaluate_wired(model, examples=3):
    return model, examples
"""

CONFIG = """
from __gin__ import dynamic_registration
from wired import parts

MODEL_DIR = %gin.REQUIRED
STEPS = %gin.REQUIRED
WIDTH = 8
parts.WiredConfig.width = %WIDTH
parts.train_wired.model = @parts.WiredConfig()
parts.train_wired.steps = %STEPS
parts.train_wired.directory = %MODEL_DIR
parts.evaluate_wired.model = @parts.WiredConfig()
"""


@pytest.fixture(scope="module")
def wired(tmp_path_factory):
    """A package `wired` with one module of entry functions, and a gin file that wires them.

    Names are its own: gin keeps them for the whole process, and a second `train` is ambiguous.
    """
    package, parts = types.ModuleType("wired"), types.ModuleType("wired.parts")
    exec(MODULE, parts.__dict__)
    for name in ("WiredConfig", "train_wired", "evaluate_wired"):
        getattr(parts, name).__module__ = "wired.parts"
    package.parts = parts
    package.__path__ = []
    sys.modules.update({"wired": package, "wired.parts": parts})
    path = tmp_path_factory.mktemp("wired") / "run.gin"
    path.write_text(CONFIG)
    yield parts, str(path)
    del sys.modules["wired"], sys.modules["wired.parts"]


def load(wired, *flags):
    _, path = wired
    gin_config.load([path], [gin_config.binding_from_flag(flag) for flag in flags])
    return list(
        gin_config.entry_arguments(
            ["wired.parts.train_wired", "wired.parts.evaluate_wired"]
        ).values()
    )


def test_arguments_are_built_for_every_entry(wired):
    train, evaluate = load(wired, "--gin.MODEL_DIR=runs/a", "--gin.STEPS=5", "--gin.WIDTH=16")
    assert train["model"].width == 16 and train["steps"] == 5 and train["directory"] == "runs/a"
    assert evaluate["model"] == train["model"] and "examples" not in evaluate
    assert "WiredConfig.depth = 2" in gin_config.operative_text()
    assert "depth" not in gin_config.config_text()


def test_all_missing_macros_are_named_at_once(wired):
    with pytest.raises(UserError, match=r"must be set: MODEL_DIR, STEPS"):
        load(wired)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--gin.STEP=7", "'STEP'.*Did you mean 'STEPS'"),
        ("--gin.evall/parts.WiredConfig.width=7", "evall/"),
        ("--gin.parts.WiredConfig.widht=7", "widht"),
        ("--gin.WIDTH='twelve'", "must be a whole number"),
        ("--gin.partss.WiredConfig.width=7", "partss"),
        ("--gin.STEPS=%STEPPS", "STEPPS"),
        ("--gin.STEPS=[1", "STEPS = .*EOF"),
        ("--gin.=7", "--gin.NAME=VALUE"),
    ],
)
def test_mistakes_are_refused_with_the_name(wired, flag, message):
    with pytest.raises(UserError, match=message):
        load(wired, "--gin.MODEL_DIR=runs/a", "--gin.STEPS=5", flag)


def test_missing_file_and_bad_text(wired, tmp_path):
    with pytest.raises(UserError, match="nowhere.gin"):
        gin_config.load(["nowhere.gin"])
    bad = tmp_path / "bad.gin"
    bad.write_text("STEPS = = 3\n")
    with pytest.raises(UserError, match=r"bad\.gin"):
        gin_config.load([str(bad)])
    bad.write_bytes(b"STEPS = '\xff'\n")
    with pytest.raises(UserError, match=r"bad\.gin"):
        gin_config.load([str(bad)])


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ("3", "3"),
        ("1e-3", "1e-3"),
        ("runs/demo", "'runs/demo'"),
        ("'runs/demo'", "'runs/demo'"),
        ('"gym.demo"', '"gym.demo"'),
        ("%MODEL_DIR", "%MODEL_DIR"),
        ("{'inputs': 8}", "{'inputs': 8}"),
        ("None", "None"),
        ("gym.demo,cot", "'gym.demo,cot'"),
    ],
)
def test_words_need_no_inner_quotes(given, source):
    assert gin_config.quote_value(given) == source


@pytest.mark.parametrize("name", ["runs/%s%d", 'it\'s "%MODEL_DIR2" #1', "a\\' %nothing"])
def test_a_percent_sign_in_a_text_is_no_macro(wired, name):
    gin_config.load([wired[1]], [f"MODEL_DIR = {name!r}", "STEPS = 3"])
    assert gin_config.macros()["MODEL_DIR"] == name
