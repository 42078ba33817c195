"""docs/pods.md: its commands are commands, its files are there."""

import pathlib
import re
import shlex

import pytest

from instruct import gin_config
from instruct.cli import arguments, settings

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "pods.md").read_text()
# What the reader puts in.
MADE_UP = {"PROJECT_NUMBER": "1", "HOST": "node0", "I": "1", "N": "2"}


def commands() -> list[list[str]]:
    """The words of every command in the page's code blocks, without comments; flags put in."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    found, flags = [], []
    # The lines of an array go on until its closing bracket.
    for line in re.sub(r"\\\n|(?<=\S)\n(?=  --)", " ", "".join(blocks)).splitlines():
        for name, value in MADE_UP.items():
            line = re.sub(rf"(?<=[=@]){name}\b", value, line)
        if line.startswith("flags=("):
            flags = shlex.split(line.removeprefix("flags=(").removesuffix(")"))
            continue
        words = shlex.split(line, comments=True)
        found.append([w for word in words for w in (flags if word == "${flags[@]}" else [word])])
    return [words for words in found if words]


def run_commands() -> list[list[str]]:
    """Mode and flags of every `run.py`, whoever starts it."""
    started = []
    for words in commands():
        for index, word in enumerate(words):
            if word == "run.py" or word.endswith((".sbatch", "gke_xpk.sh", "tpu_vm.sh")):
                rest = words[index + 1 :]
                if word.endswith("tpu_vm.sh"):
                    rest = rest[1:] if rest[0] == "run" else []
                if word.endswith("gke_xpk.sh"):
                    rest = rest[4:] if rest[0] == "run" else []
                started += [rest] if rest else []
    return started


@pytest.mark.parametrize("words", run_commands(), ids=" ".join)
def test_commands_parse_and_their_settings_are_known(words):
    flags = arguments.parse(words)
    bindings = [*flags.gin_bindings, *flags.gin_flags]
    files = [settings._SETTINGS_FILE, *flags.gin_file]
    stand_ins = {"str": "/not/set", "mapping": {"inputs": 8, "targets": 8}, "int": 1}
    gin_config.load(files, bindings, stand_ins)  # an unknown macro or file is an error
    gin_config.entry_arguments((settings._SETTINGS, *gin_config.ENTRIES))


def test_every_launcher_is_shown():
    words = {word for command in commands() for word in command}
    shown = {path.name for path in (ROOT / "launch").iterdir() if path.name in PAGE}
    assert {f"launch/{name}" for name in ("tpu_vm.sh", "gke_xpk.sh", "slurm.sbatch")} <= words
    assert shown == {p.name for p in (ROOT / "launch").iterdir() if p.suffix != ".dockerignore"}


def test_files_are_there():
    for name in re.findall(r"\b(?:launch|gin|benchmarks)/[\w./-]+\.\w+", PAGE):
        assert (ROOT / name).is_file(), name
    hardware = {path.stem for path in (ROOT / "gin" / "hardware").glob("*.gin")}
    table = PAGE.split("\n\n## ")[0]
    named = set(re.findall(r"`([\w-]*(?:cpu|h100|v\d[\w-]*))`", table))
    assert named and named <= hardware, named - hardware
