"""`check --topology`: flags, the child process, and what it prints."""

import argparse
import json
import subprocess
import sys

import jax
import pytest

from instruct.capacity.chips import parse_topology
from instruct.cli import arguments, compiled_step, topology
from instruct.errors import RunFailed, UserError

TINY = ("--gin_file=gin/models/tiny_test.gin", "--mesh=fsdp=8")


def test_flags_that_need_a_topology(capsys):
    assert arguments.main(["check", *TINY, "--price=3", "--eval"]) == 2
    assert "--eval, --price needs --topology=NAME" in capsys.readouterr().err
    assert arguments.main(["check", *TINY, "--topology=v5e-8", "--price=cheap"]) == 2
    assert "--price=cheap: give a number above 0" in capsys.readouterr().err
    assert arguments.main(["check", *TINY, "--topology=v9-8"]) == 2
    assert "Chips: v4, v5e, v5p" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["json", "hlo"])
def test_a_file_that_cannot_be_written_is_refused_before_compiling(name, tmp_path, capsys):
    for path, words in ((tmp_path / "no" / "x", "does not exist"), (tmp_path, "is a folder")):
        flags = ["check", *TINY, "--topology=v5e-8", f"--{name}={path}"]
        assert arguments.main(flags) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a100:4096", "4,096 chips: GPUs have no compiler without one"),
        ("a100:800000000", "takes at most 2,048; give fewer"),
        ("500x v5p-64", "no libtpu is installed, and XLA for CPUs, which stands in"),
        ("1000000000x v5e:4x4", "the number of slices is 1 to 511"),
    ],
)
def test_more_chips_than_compilers_take_are_refused(name, words, capsys, monkeypatch):
    """They ended in aborts of the compilers, or in a traceback before."""
    monkeypatch.setattr(topology, "libtpu_path", lambda: None)
    assert arguments.main(["check", TINY[0], f"--topology={name}"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("mesh", ["data=3000000000", "slice=70000,data=70000", "70000x70000"])
def test_a_mesh_of_more_devices_than_jax_counts_is_refused(mesh, capsys):
    assert arguments.main(["check", TINY[0], f"--mesh={mesh}"]) == 2
    assert "devices, at most 2147483647 are allowed" in capsys.readouterr().err


def test_a_mesh_of_another_size_is_refused(capsys):
    assert arguments.main(["check", *TINY, "--topology=v5e-16"]) == 2
    assert "needs 8 devices, but there are 16" in capsys.readouterr().err


def test_where_the_compiler_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/somewhere/libtpu.so")
    found = topology.compiler_environment(parse_topology("v5p-64"))
    assert found["TPU_LIBRARY_PATH"] == "/somewhere/libtpu.so" and "XLA_FLAGS" not in found
    gpus = topology.compiler_environment(parse_topology("a100:64"))
    assert "TPU_LIBRARY_PATH" not in gpus and gpus["XLA_FLAGS"].endswith("device_count=64")
    monkeypatch.delenv("TPU_LIBRARY_PATH")
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu" / "__init__.py").write_text("")
    (tmp_path / "libtpu" / "libtpu.so").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "libtpu", raising=False)
    assert topology.libtpu_path() == tmp_path / "libtpu" / "libtpu.so"


def test_a_compiler_that_dies_is_one_message(monkeypatch):
    def dies(command, **_):
        return subprocess.CompletedProcess(command, -6, "", "F0000 check failed: no such chip\n")

    monkeypatch.setattr(subprocess, "run", dies)
    flags = arguments.parse(["check", *TINY, "--topology=v5e-8"])
    with pytest.raises(RunFailed, match="ended with status -6:\nF0000 check failed"):
        topology.compile_in_child(flags)


@pytest.mark.slow
def test_the_report_without_libtpu(tmp_path, monkeypatch, capsys):
    """Eight fake devices of this process stand in for the child's; its report is printed."""
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    lengths = "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}"
    files = ("--gin_file=gin/runs/train.gin", *TINY[:1], "--gin.TRAIN_STEPS=100", lengths)
    command = ["check", *files, "--mesh=fsdp=8", "--topology=v5e-8", "--eval", "--price=2"]
    flags = arguments.parse([*command, f"--json={tmp_path}/report.json"])
    report = json.loads(json.dumps(compiled_step.compile_report(passed(flags))))
    monkeypatch.setattr(topology, "compile_in_child", lambda flags: report)
    assert topology.print_compiled(topology.Console(width=200), flags)
    out = " ".join(capsys.readouterr().out.split())
    assert "compiled for v5e:2x4, 8 chips" in out and "XLA for CPU with 8 fake devices" in out
    assert "64 rows of 32 + 16 tokens" in out and "16.00: fits" in out
    assert "all-gather fsdp" in out and "estimated step:" in out and "at 2 a chip-hour" in out
    assert "decode: 32 rows" in out and "score: 32 rows" in out
    assert "loops run an unknown number of times" in out
    train = report["programs"]["train"]
    assert train["flops"] == pytest.approx(train["model_flops"] / 8, rel=0.05)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    report["programs"]["train"] |= {"fits": False}
    assert not topology.print_compiled(topology.Console(), flags)


def passed(flags):
    """What the child gets of the flags."""
    return argparse.Namespace(**{name: getattr(flags, name) for name in topology._PASSED})


@pytest.mark.slow
@pytest.mark.skipif(topology.libtpu_path() is None, reason="the extra `tpu` is not installed")
def test_the_tpu_compiler_in_a_child_process():
    lengths = "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}"
    files = ("--gin_file=gin/runs/train.gin", *TINY[:1], "--gin.BATCH_SIZE=4", lengths)
    flags = arguments.parse(["check", *files, "--mesh=fsdp=4", "--topology=v5e:2x2", "--quick"])
    report = topology.compile_in_child(flags)
    train = report["programs"]["train"]
    assert report["compiler"].startswith("libtpu") and train["fits"]
    assert not train["unknown_loops"]
    assert train["flops"] == pytest.approx(train["model_flops"] / 4, rel=0.1)


def test_a_mistake_in_the_child_is_this_programs_error(monkeypatch):
    def refuses(command, **_):
        with open(command[-1], "w") as target:
            json.dump({"error": "BATCH_SIZE does not divide"}, target)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", refuses)
    flags = arguments.parse(["check", *TINY, "--topology=v5e-8"])
    with pytest.raises(UserError, match="BATCH_SIZE does not divide"):
        topology.compile_in_child(flags)
    assert jax.default_backend() == "cpu"
