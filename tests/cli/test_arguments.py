"""Flags, and the one place where errors become exit statuses."""

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
import types

import jax
import pytest

from instruct.cli import arguments
from instruct.errors import UserError
from tests.waiting import LIMIT_SECS


def run_mode(monkeypatch, action, *flags):
    """`main` with the report mode replaced by `action`."""
    module = types.SimpleNamespace(run=lambda parsed: action(parsed))
    monkeypatch.setitem(sys.modules, "instruct.cli.report", module)
    monkeypatch.setattr(arguments.importlib, "import_module", lambda name: module)
    return arguments.main(["report", *flags])


@pytest.mark.parametrize(
    ("mode", "advice"),
    [
        ("train", "--gin.loop.train.num_microbatches=4"),
        ("eval", "--gin.EVAL_BATCH_SIZE"),
        ("infer", "--gin.MAX_DECODE_STEPS"),
        ("serve", "--gin.BATCH_SIZE"),
        ("convert", "more memory"),
    ],
)
def test_devices_without_memory_are_no_traceback(monkeypatch, capsys, mode, advice):
    def run(parsed):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    module = types.SimpleNamespace(run=run)
    monkeypatch.setattr(arguments.importlib, "import_module", lambda name: module)
    assert arguments.main([mode]) == 1
    said = capsys.readouterr().err
    assert "too little memory (Out of memory allocating 9 bytes)" in said and advice in said
    assert "Traceback" not in said


def test_gin_flags_are_kept_in_order():
    flags = arguments.parse(
        ["train", "--gin_file=a.gin", "--gin.TRAIN_STEPS=3", "--gin_file", "b.gin", "--gin.SEED=1"]
    )
    assert flags.mode == "train" and flags.gin_file == ["a.gin", "b.gin"]
    assert flags.gin_flags == ["--gin.TRAIN_STEPS=3", "--gin.SEED=1"]


def test_a_gin_flag_without_equals_sign_says_what_to_write():
    with pytest.raises(UserError, match=r"equals sign, such as --gin.SEED=3"):
        arguments.parse(["train", "--gin.SEED", "3"])


def single_flags():
    """(mode, flag) of everything that takes one value."""
    parser = arguments.make_parser()
    [modes] = [a for a in parser._actions if isinstance(a.choices, dict)]
    for mode, sub in modes.choices.items():
        for action in sub._actions:
            if isinstance(action, arguments._StoreOnce):
                yield mode, action


SINGLE = list(single_flags())


@pytest.mark.parametrize(("mode", "action"), SINGLE, ids=[f"{m}{a.dest}" for m, a in SINGLE])
def test_a_flag_for_one_value_is_refused_twice(mode, action, capsys):
    flag = action.option_strings[0]
    value = next(iter(action.choices or ()), "3")
    assert arguments.main([mode, f"{flag}={value}", flag, value]) == 2
    said = capsys.readouterr().err
    assert f"{flag} is given twice, " in said and value in said and "usage" not in said
    assert getattr(arguments.parse([mode, f"{flag}={value}"]), action.dest) == (action.type or str)(
        value
    )


def test_every_flag_is_repeatable_or_refused_twice():
    names = {f"{mode} {action.option_strings[0]}" for mode, action in SINGLE}
    known = {"report --table", "report --before", "show --task", "infer --prompt", "eval --limit"}
    assert known <= names and len(names) > 30
    flags = arguments.parse(["report", "--model_dir=a", "--model_dir=b", "--suite=s", "--suite=t"])
    assert flags.model_dir == ["a", "b"] and flags.suite == ["s", "t"]


def test_a_macro_that_is_overruled_is_said(capsys):
    flags = arguments.parse(["train", "--gin.SEED=1", "--gin.SEED=2", "--gin.TRAIN_STEPS=5"])
    assert flags.gin_flags == ["--gin.SEED=1", "--gin.SEED=2", "--gin.TRAIN_STEPS=5"]
    said = capsys.readouterr().err
    assert said == "warning: --gin.SEED is given 2 times (1, 2); the last one counts\n"
    assert arguments.main(["eval", "--limit=5", "--gin.NUM_EVAL_EXAMPLES=6"]) == 2
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["trian"], [], ["show", "--exampels=2"]])
def test_unknown_modes_and_flags_are_status_2(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        arguments.main(argv)
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv,words",
    [
        (["train", "—gin_file=a"], "did you mean --gin_file=a?"),
        (["train", "–gin.SEED=3"], "did you mean --gin.SEED=3?"),
        (["train", "-gin_file=a"], "did you mean --gin_file=a?"),
        (["train", "--gin-file=a"], "did you mean --gin_file=a?"),
        (["train", "a.gin"], "write --gin_file=a.gin"),
        (["train", "--train_steps=3"], "did you mean --gin.TRAIN_STEPS=3?"),
        (["infer", "--model-dir=a"], "did you mean --gin.MODEL_DIR=a?"),
        (["report", "--model-dir=a"], "did you mean --model_dir=a?"),
        (["--gin_file=a", "train"], "flags come after the mode: run.py train --gin_file=a"),
        (["convert", "—from=a"], "did you mean --from=a?"),
        (["serve", "--prompt=hi"], "unrecognized arguments: --prompt=hi\n"),  # not convert's --from
    ],
)
def test_what_an_unknown_argument_was_meant_to_be(argv, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        arguments.main(argv)
    assert stopped.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["report", "--table="],
        ["report", "--out", ""],
        ["train", "--gin.SEED="],
        ["train", "--gin_bindings="],
        ["prepare", "--mixture="],
    ],
)
def test_a_flag_without_a_value_is_not_ignored(argv, capsys):
    assert arguments.main(argv) == 2
    assert "holds no value" in capsys.readouterr().err


def test_numbers_of_flags_fit_into_32_bits(capsys):
    for argv in (["show", f"--examples={2**64}"], ["eval", "--limit", f"-{2**64}"]):
        assert arguments.main(argv) == 2
        assert "the largest number allowed is 4294967295" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv,words",
    [
        (["show", "--mixture=gym.demo", "--n=13"], "--n is for --overlap"),
        (["show", "--task=gym.chain_sum", "--rows=0"], "--rows is for --mixture"),
        (["show", "--examples=1"], "--examples is for --task"),
        (["report", "--scores=a", "--table=b"], "--scores and --table are two reports"),
        (["report", "--table=list", "--out=a"], "but no --out; leave it out"),
        (["check", "--rows=-1"], "--rows=-1"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert arguments.main(argv) == 2
    assert words in capsys.readouterr().err


def test_a_reader_that_goes_away_ends_the_program_quietly(tmp_path):
    code = (
        "import sys, types; from instruct.cli import arguments;"
        "module = types.SimpleNamespace(run=lambda flags: print('x' * 10**6) or 0);"
        "arguments.importlib.import_module = lambda name: module;"
        "sys.exit(arguments.main(['report']))"
    )
    command = f"{sys.executable} -c {shlex.quote(code)} | head -c 1; echo ${{PIPESTATUS[0]}}"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (shown.stdout, shown.stderr) == ("x0\n", "")


@pytest.mark.parametrize(("closed", "answer"), [("2>&-", "9"), ("<&- 2>&-", "9"), (">&-", "")])
def test_closed_standard_streams_are_no_error(closed, answer, tmp_path):
    """A service manager may close them; the next file that is opened would get their number."""
    code = (
        "import os, sys, types; from instruct.cli import arguments\n"
        "def run(flags):\n"
        "    with open('results', 'w') as stream:\n"
        "        os.write(2, b'a line of a library')\n"
        "        sys.stderr.write('a line of ours')\n"
        "        sys.stdout and print(stream.fileno() > 2 and 9)\n"
        "arguments.importlib.import_module = lambda name: types.SimpleNamespace(run=run)\n"
        "sys.argv = ['run.py', 'report']; sys.exit(arguments.run_program())"
    )
    command = f"{sys.executable} -c {shlex.quote(code)} {closed}"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert (done.returncode, done.stdout.strip()) == (0, answer), done.stderr
    assert (tmp_path / "results").read_text() == ""


def test_statuses(monkeypatch, capsys):
    def user_error(_):
        raise UserError("unknown task 'x'.")

    def disk_full(_):
        raise OSError(errno.ENOSPC, "No space left on device", "/runs/a")

    def other(_):
        raise OSError(errno.EIO, "broken disk", "/runs/b")

    def defect(_):
        raise ValueError("a defect")

    def interrupted(_):
        raise KeyboardInterrupt

    assert run_mode(monkeypatch, lambda _: None) == 0
    assert run_mode(monkeypatch, lambda _: 1) == 1
    assert run_mode(monkeypatch, user_error) == 2
    assert capsys.readouterr().err == "error: unknown task 'x'.\n"
    assert run_mode(monkeypatch, disk_full) == 1
    assert "no space left on the disk while writing /runs/a" in capsys.readouterr().err
    assert run_mode(monkeypatch, interrupted) == 1
    assert run_mode(monkeypatch, other) == 1
    message = capsys.readouterr().err
    assert "error: the storage failed at /runs/b: Input/output error (EIO)" in message
    with pytest.raises(ValueError, match="a defect"):
        run_mode(monkeypatch, defect)


def test_help_is_answered_without_importing_anything_heavy():
    code = (
        "import sys; from instruct.cli.arguments import make_parser; make_parser().print_help();"
        "print(sorted({'jax', 'tensorflow', 'seqio', 'gin', 'numpy'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "check" in shown.stdout and "MIXTURE_OR_TASK_NAME" in shown.stdout
    assert shown.stdout.endswith("[]\n")


# A module whose objects take an hour to be taken apart, as TensorFlow's do on a busy machine.
SLOW_TO_LEAVE = """
import atexit, sys, time, types
from instruct.cli import arguments

class Slow:
    def __del__(self):
        time.sleep(3600)

def run(flags):
    atexit.register(print, "cleaned up")
    print("answered")
    {end}

slow = Slow()
arguments.importlib.import_module = lambda name: types.SimpleNamespace(run=run)
sys.argv = ["run.py", *{argv}]
sys.exit(arguments.run_program())
"""


@pytest.mark.parametrize(
    ("argv", "end", "status", "out", "err"),
    [
        (["report"], "return 0", 0, "answered\ncleaned up\n", ""),
        (["report"], "return 1", 1, "answered\ncleaned up\n", ""),
        (["report"], "raise ValueError('a defect')", 1, "answered\ncleaned up\n", "a defect"),
        (["repot"], "return 0", 2, "", "invalid choice: 'repot'"),
        (["--help"], "return 0", 0, "", ""),
    ],
)
def test_the_program_ends_at_once_with_its_status(argv, end, status, out, err):
    code = SLOW_TO_LEAVE.format(argv=argv, end=end)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECS)
    assert done.returncode == status, done.stderr
    assert out in done.stdout and err in done.stderr


@pytest.fixture
def interruptible():
    """SIGINT raises, also below a shell that started this in the background and ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_an_interrupt_that_a_callback_swallowed_is_asked_for_again(interruptible, capsys):
    lost = types.SimpleNamespace(exc_value=KeyboardInterrupt(), exc_traceback=None)
    deadline = time.monotonic() + LIMIT_SECS
    with pytest.raises(KeyboardInterrupt):
        arguments._report_unraisable(lost)
        while time.monotonic() < deadline:  # one long sleep would end before it is interrupted
            time.sleep(0.01)
    assert capsys.readouterr().err == ""
