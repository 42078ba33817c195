"""`run.py study --dry_run`: parameters and FLOPs as `check` has them, chip-hours, cost."""

import re

import pytest

from instruct.cli import topology
from instruct.cli.arguments import main
from tests.cli.studies import write_study

ONE = "--gin.ONE_TASK=gym.scale_1"


@pytest.fixture
def dry_run(tmp_path, capsys):
    def dry_run(*flags, status=0):
        file = write_study(tmp_path)
        assert main(["study", f"--gin_file={file}", "--dry_run", *flags]) == status
        printed = capsys.readouterr()
        return printed.out if status == 0 else printed.err

    return dry_run


def row(out, name):
    (line,) = (line for line in out.splitlines() if line.strip().startswith(name))
    return line.split()


@pytest.mark.slow
def test_numbers_are_those_of_check(dry_run, tmp_path, capsys):
    out = dry_run()
    assert main(["check", f"--gin_file={tmp_path}/tiny.gin"]) == 0
    checked = capsys.readouterr().out
    (parameters,) = re.findall(r"([\d,]+) parameters:", checked)
    (flops,) = re.findall(r"16 tokens: ([\d.e+]+) FLOPs", checked)
    _, *stages, shown, steps, tokens, total = row(out, "tasks=1,vocabulary=bytes")
    assert stages == ["train", "eval"] and shown == parameters and steps == "3"
    assert float(tokens) == pytest.approx(3 * 8 * 80, rel=0.01)
    assert float(total) == pytest.approx(3 * float(flops), rel=0.01)
    assert row(out, "tasks=0") == [row(out, "tasks=0")[0], "eval", parameters]
    assert "4 runs, 3 of them trained" in out
    assert "not set, and needed to run it: --gin.ONE_TASK=..." in out
    assert not any(tmp_path.glob("*/study.json")), "nothing is written"


def test_chip_hours_by_a_share_of_the_peak(dry_run):
    flags = (ONE, "--topology=v5p-64", "--mfu=0.5", "--gin.STEPS=(3000000,)")
    out = dry_run(*flags, "--price=4", "--only=tasks=1")
    total = float(row(out, "tasks=1,vocabulary=bytes")[6])
    (chip_hours, hours) = map(float, row(out, "tasks=1,vocabulary=bytes")[7:])
    expected = total / (459e12 * 0.5) / 3600
    assert chip_hours == pytest.approx(expected, abs=0.06)
    assert hours == pytest.approx(expected / 32, abs=0.06)
    assert "FLOPs / (32 x 459 TFLOP/s x MFU 0.5), assumed" in out
    (summed, cost) = re.findall(r"([\d.]+) chip-hours, .*; ([\d.]+) at 4 a chip-hour", out)[0]
    assert float(cost) == pytest.approx(4 * float(summed), abs=0.3)


def test_chip_hours_of_compiled_steps_compile_each_program_once(dry_run, monkeypatch):
    compiled = []

    def compile_in_child(flags):
        compiled.append(flags)
        return {"programs": {"train": {"fits": True, "estimate": {"seconds": 3600.0}}}}

    monkeypatch.setattr(topology, "compile_in_child", compile_in_child)
    out = dry_run(ONE, "--topology=v5e-16")
    assert row(out, "tasks=1,vocabulary=bytes")[-2:] == ["48.0", "3.0"]
    assert "each step compiled, as `check --topology` does" in out
    assert len(compiled) == 1, "all runs are of one program"
    assert compiled[0].topology == "v5e-16" and "MODEL_DIR" in compiled[0].gin_bindings[0]


def test_steps_that_do_not_fit_are_an_error(dry_run, monkeypatch):
    report = {"programs": {"train": {"fits": False}}}
    monkeypatch.setattr(topology, "compile_in_child", lambda flags: report)
    assert "pretrain does not fit on v5e-16" in dry_run(ONE, "--topology=v5e-16", status=2)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--mfu=0.4",), "--mfu needs --topology"),
        (("--price=4",), "--price needs --topology"),
        (("--topology=v5p-64", "--mfu=40"), "a share of the chips' peak"),
        (("--topology=v5p-64", "--price=much"), "--price=much"),
        (("--topology=v9",), "--topology='v9'"),
    ],
)
def test_wrong_flags_are_refused(dry_run, flags, said):
    assert said in dry_run(*flags, status=2)
