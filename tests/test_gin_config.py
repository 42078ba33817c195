"""gin's silent mistakes are not silent here."""

import sys
import types

import pytest

from instruct import gin_config
from instruct.errors import UserError
from instruct.fields import check_arguments
from instruct.files import path_of

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

def train_wired(
    model, steps, directory="here", folder: str = "", other: str = "", place: str | None = None,
    names: str | tuple[str, ...] | None = None, which: str | int = "last",
):
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
FOLDER = 'f'
PLACE = None
NAMES = %ALIAS
ALIAS = ('a', 'b')
WHICH = 'last'
parts.train_wired.folder = %FOLDER
parts.train_wired.place = %PLACE
parts.train_wired.names = %NAMES
parts.train_wired.which = %WHICH
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


def test_a_macro_that_is_read_and_bound_nowhere_is_asked_for_or_stood_in_for(wired):
    """As gin/ablations reads the weights of a size."""
    lines = ["STEPS = 5", "MODEL_DIR = 'a'", "PLACE = %WEIGHTS_small"]
    with pytest.raises(UserError, match="must be set: WEIGHTS_small. Add --gin.WEIGHTS_small="):
        gin_config.load([wired[1]], lines)
    assert gin_config.load([wired[1]], lines, {"str": "<{name}>"}) == ["WEIGHTS_small"]
    assert gin_config.macros()["WEIGHTS_small"] == "<WEIGHTS_small>"


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


# What is text where only text is allowed, whatever else it could be.
TEXTS = (
    *("20261128", "1e5", "True", "1_000", "0x10", "inf", "nan", "-3", "007", "1j", "b'x'", "..."),
    *("[a]", "(x)", "{x}", "[1, 2]", "('a',)", "{'a': 1}", "()", "[[[", "@x", "%x", "@x()", "a@b"),
    *("my runs/a", "runs/a#1", "7#1", "it's", 'say "x', "a\\b", "~/x", "$X", "a=b", "日本"),
)


@pytest.mark.slow
@pytest.mark.parametrize("value", TEXTS)
def test_what_feeds_text_is_text(wired, value):
    required = ("--gin.MODEL_DIR=runs/a", "--gin.STEPS=5")
    for name in ("FOLDER", "PLACE", "ALIAS", "parts.train_wired.other"):
        if name == "ALIAS" and value[:1] in ("[", "(", "{"):
            continue  # several names are allowed there
        train, _ = load_flags(wired, *required, f"--gin.{name}={value}")
        key = {"ALIAS": "names", "PLACE": "place", "FOLDER": "folder"}.get(name, "other")
        assert train[key] == value


@pytest.mark.parametrize(
    "flag, key, value",
    [
        ("PLACE=None", "place", None),
        ("FOLDER=None", "folder", "None"),
        ("FOLDER='\"None\"'", "folder", '"None"'),
        ("PLACE='None'", "place", "None"),
        ('FOLDER="runs/a"', "folder", "runs/a"),
        ("FOLDER=%WHICH", "folder", "last"),
        ("PLACE= None ", "place", None),
        ("ALIAS=('c', 'd')", "names", ("c", "d")),
        ("ALIAS=['c']", "names", ["c"]),
        ("ALIAS=c,d", "names", "c,d"),
        ("ALIAS=3", "names", "3"),
        ("WHICH=3", "which", 3),
        ("WHICH=True", "which", "True"),
        ("WHICH=1e3", "which", "1e3"),
        ("STEPS=1e3", "steps", 1000.0),
    ],
)
def test_what_may_be_something_else_stays_so(wired, flag, key, value):
    flags = {"MODEL_DIR": "--gin.MODEL_DIR=runs/a", "STEPS": "--gin.STEPS=5"}
    train, _ = load_flags(wired, *flags.values(), f"--gin.{flag}")
    assert train[key] == value and type(train[key]) is type(value)


def load_flags(wired, *flags):
    _, path = wired
    gin_config.load([path], flags)
    return gin_config.entry_arguments(
        ["wired.parts.train_wired", "wired.parts.evaluate_wired"]
    ).values()


def test_a_number_for_text_in_a_file_is_refused(wired, tmp_path):
    more = tmp_path / "more.gin"
    more.write_text("FOLDER = 20261128\n")
    gin_config.load([wired[1], str(more)], ["MODEL_DIR = 'a'", "STEPS = 1"])
    names = ["wired.parts.train_wired", "wired.parts.evaluate_wired"]
    arguments = gin_config.entry_arguments(names)[names[0]]
    message = r"folder is 20261128; use a text\. Write it in quotes: '20261128'"
    with pytest.raises(UserError, match=message):
        check_arguments(wired[0].train_wired, arguments)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le with mark"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_of_other_editors_are_read(wired, tmp_path, monkeypatch, encoding, end):
    """With a byte order mark, another encoding, other line ends; included ones too."""
    mark = "\ufeff" if "mark" in encoding else ""
    included = f"{mark}# Größe\nSTEPS = 7\n".replace("\n", end)
    (tmp_path / "steps.gin").write_bytes(included.encode(encoding.partition(" ")[0]))
    text = f"{mark}include 'steps.gin'\nMODEL_DIR = 'läufe/a'\n".replace("\n", end)
    (tmp_path / "mine.gin").write_bytes(text.encode(encoding.partition(" ")[0]))
    monkeypatch.chdir(tmp_path)
    gin_config.load([wired[1], "mine.gin"])
    (train, _) = gin_config.entry_arguments(
        ["wired.parts.train_wired", "wired.parts.evaluate_wired"]
    ).values()
    assert train["directory"] == "läufe/a" and train["steps"] == 7


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_named(tmp_path, monkeypatch, encoding):
    (tmp_path / "inner.gin").write_bytes("MODEL_DIR = 'läufe'\n".encode(encoding))
    (tmp_path / "outer.gin").write_text("include 'inner.gin'\n")
    monkeypatch.chdir(tmp_path)
    for name in ("inner.gin", "outer.gin"):
        with pytest.raises(
            UserError, match=r"^inner\.gin: not UTF-8 text \(.*Save the file as UTF-8"
        ):
            gin_config.load([name])


def test_a_text_of_gin_may_include_files_and_its_first_line_names_it_in_errors(wired, tmp_path):
    included = tmp_path / "more.gin"
    included.write_text("WIDTH = 16\n")
    text = f"# run one\ninclude '{included}'\nSTEPS = 2\nMODEL_DIR = 'a'\n"
    gin_config.load([wired[1]], [text])
    assert gin_config.macros()["WIDTH"] == 16
    with pytest.raises(UserError, match="run one: "):
        gin_config.load([wired[1]], [text + "WIDTH = ["])


def test_files_may_be_in_a_bucket(wired, gcs):
    path_of("gs://bucket/a/run.gin").write_text("STEPS = 2\nMODEL_DIR = 'a'\n")
    gin_config.load([wired[1], "gs://bucket/a/run.gin"])
    assert gin_config.macros()["STEPS"] == 2


def test_files_are_found_without_a_word_from_any_folder(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        gin_config.load(["gin/recipes/gym_demo.gin"], ["--gin.MODEL_DIR=a"])
    assert not caplog.text
    (tmp_path / "lacking.gin").write_text("include 'gin/runs/trian.gin'\n")
    with pytest.raises(
        UserError, match=r"unknown gin file 'gin/runs/trian.gin'.*'gin/runs/train.gin'"
    ):
        gin_config.load(["lacking.gin"])
    assert not caplog.text


@pytest.mark.parametrize("name", ["runs/%s%d", 'it\'s "%MODEL_DIR2" #1', "a\\' %nothing"])
def test_a_percent_sign_in_a_text_is_no_macro(wired, name):
    gin_config.load([wired[1]], [f"MODEL_DIR = {name!r}", "STEPS = 3"])
    assert gin_config.macros()["MODEL_DIR"] == name


@pytest.mark.parametrize(("mode", "more"), [("eval", ["EVAL_MIXTURES=gym.demo"]), ("infer", [])])
def test_a_hardware_file_goes_with_every_mode(mode, more):
    """What a mode does not use of it, such as processes that build windows, is left out."""
    files = [f"gin/runs/{mode}.gin", "gin/hardware/8xh100.gin"]
    flags = [f"--gin.{flag}" for flag in ("MODEL_DIR=runs/a", *more)]
    gin_config.load(files, flags)
    gin_config.entry_arguments(gin_config.ENTRIES)
    gin_config.load(files, [*flags, "--gin.DataConfig.workers=3"])
    with pytest.raises(UserError, match="DataConfig.workers"):
        gin_config.entry_arguments(gin_config.ENTRIES)
