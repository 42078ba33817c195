"""What processes compare at their start: the first difference is named."""

import argparse
import asyncio

from instruct import gin_config
from instruct.cli import handshake
from instruct.coordinator import Coordinator, Member


def facts(**flags):
    values = {
        "mode": "train",
        "given": {"gin_file", "process_id"},
        "strict": False,
        "process_id": 3,
    }
    return handshake._facts(argparse.Namespace(**values | flags))


def difference(here, there):
    """The message about a process with facts `there`."""

    async def compare():
        run = Coordinator(2, 1, 1, 0)
        run.members = {n: Member(n, f"host{n}", None, 0.0) for n in (0, 1)}  # pyright: ignore
        return run._difference({0: here, 1: there})

    return asyncio.run(compare())


def test_own_flags_are_not_compared():
    assert difference(facts(), facts(process_id=0, given={"coordinator", "gin_file"})) == ""


def test_each_kind_of_difference_is_named():
    gin_config.load([], [])
    base = facts()
    files = [name for name in base if name.startswith("file ")]
    assert "file instruct/train/loop.py" in files
    assert any(name.startswith("file tasks/") and name.endswith(".toml") for name in files)
    changes = {
        "--strict": "True",
        "package jax": "0.1",
        "file instruct/train/loop.py": "0123456789abcdef",
        "file tasks/registry.toml": "0123456789abcdef",
        "gin value SEED": "1",
    }
    for name, value in changes.items():
        message = difference(base, base | {name: value})
        assert message.startswith("process 1 (host1) differs from process 0 (host0)")
        assert f" in {name}: " in message and value in message


def test_gin_values_are_facts():
    gin_config.load(["gin/runs/settings.gin"], ["--gin.DATA_DIR=theirs"])
    assert facts()["gin value DATA_DIR"] == "'theirs'"


def test_a_users_module_is_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their_tasks.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("their_tasks")
    before = facts()["file of module their_tasks"]
    (tmp_path / "their_tasks.py").write_text("x = 2\n")
    assert facts()["file of module their_tasks"] != before
