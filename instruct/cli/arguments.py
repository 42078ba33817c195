"""Flags of every mode, and the one place where errors become exit statuses.

Imports only the standard library, and modules that do the same, at module level: `run.py --help`
must answer at once.
"""

import _thread
import argparse
import atexit
import contextlib
import difflib
import importlib
import logging
import os
import pathlib
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from instruct.cli import convert_flags, report_flags
from instruct.data.quiet_tensorflow import keep_quiet, quiet_stderr
from instruct.errors import RunFailed, UserError, explaining_storage_failures
from instruct.fields import LARGEST

# Word processors make the second and third of two hyphens.
_DASHES = ("-", "–", "—", "−")

_GIN_HELP = """\
gin flags:
  --gin_file=PATH        settings, found from here or from the project; repeatable, later ones win
  --gin.NAME=VALUE       sets a macro or parameter: --gin.TRAIN_STEPS=1000 --gin.MODEL_DIR=runs/a
                         (given twice, the last one wins and a warning says so)
  --gin_bindings=LINE    the same as a line of gin

macros every run file knows: MODEL_DIR MIXTURE_OR_TASK_NAME MIXTURE_OR_TASK_MODULE
TASK_FEATURE_LENGTHS TRAIN_STEPS BATCH_SIZE LEARNING_RATE DROPOUT_RATE INITIAL_CHECKPOINT_PATH
SEED VOCABULARY DATA_DIR STORE_DIR FLAN_CHECKOUT SKIP_UNAVAILABLE
"""

_MODES = {
    "check": "dry run without an accelerator: sizes, sharding, memory, mixture, one packed row",
    "prepare": "build the record stores of a mixture (restartable)",
    "train": "train; resumes by itself where MODEL_DIR holds a checkpoint",
    "eval": "evaluate a checkpoint, or all of a run, on tasks and mixtures",
    "infer": "JSON lines in, JSON lines out; or one --prompt",
    "convert": "checkpoints between this program, T5X and Hugging Face, key by key",
    "show": "tasks, mixtures, rates and rendered prompts",
    "report": "results of one or several runs as report.html and report.md",
}

_MODE_HELP = {"convert": convert_flags.HELP + "\n"}
_EXAMPLES = {
    "check": "python run.py check --gin_file=gin/models/t5_1_1_xxl.gin --mesh=4x64",
    "prepare": "python run.py prepare --mixture=gym.demo --workers=2",
    "train": "python run.py train --gin_file=gin/recipes/gym_demo.gin --gin.MODEL_DIR=runs/demo",
    "eval": "python run.py eval --gin_file=gin/recipes/gym_demo.gin --gin.MODEL_DIR=runs/demo",
    "infer": "python run.py infer --gin_file=gin/runs/infer.gin --gin.MODEL_DIR=runs/demo "
    '--prompt="How many legs do 3 cats have?"',
    "convert": "python run.py convert --from=~/flan-t5-base --to=runs/flan_t5_base",
    "show": "python run.py show --task=gym.chain_sum --examples=2",
    "report": "python run.py report --model_dir=runs/demo",
}


class _StoreOnce(argparse.Action):
    """Stores a value, as argparse does, and refuses a second one, which argparse would keep."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault("given_once", set())
        if self.dest in given:
            raise UserError(
                f"{self.option_strings[0]} is given twice, {getattr(namespace, self.dest)!r} and "
                f"{values!r}; it takes one value. Leave one out."
            )
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def make_parser() -> argparse.ArgumentParser:
    """One sub-parser a mode; the flags common to all take gin settings."""
    parser = argparse.ArgumentParser(
        prog="instruct" if pathlib.Path(sys.argv[0]).name == "instruct" else "run.py",
        description="Instruction tuning in JAX: prepare, train, evaluate, report.",
        epilog=_GIN_HELP + "\n`run.py MODE --help` has the flags and an example of each mode.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    modes = parser.add_subparsers(dest="mode", metavar="MODE", required=True)
    for mode, help_text in _MODES.items():
        sub = modes.add_parser(
            mode,
            help=help_text,
            description=help_text[0].upper() + help_text[1:] + ".",
            epilog=f"example:\n  {_EXAMPLES[mode]}\n\n{_MODE_HELP.get(mode, '')}{_GIN_HELP}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.register("action", None, _StoreOnce)  # of every flag that names no other action
        sub.add_argument("--gin_file", action="append", default=[], metavar="PATH")
        sub.add_argument("--gin_bindings", action="append", default=[], metavar="LINE")
        _MODE_FLAGS.get(mode, lambda _: None)(sub)
    return parser


def _check_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mesh",
        metavar="MESH",
        help="DATAxTENSOR such as 4x64, or data=4,fsdp=8,tensor=8; no device is needed",
    )
    parser.add_argument("--rows", type=int, default=1, help="packed rows to print (default 1)")


def _prepare_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mixture", action="append", default=[], help="mixture or task; repeatable"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read every byte of finished stores and compare hashes",
    )
    add = parser.add_argument
    add("--download", action="store_true", help="let sources fetch what is not on this machine")
    add(
        "--skip_unavailable",
        action="store_true",
        help="go on without tasks that cannot be built, and put on record which they are",
    )
    add(
        "--ignore_disk_estimate",
        action="store_true",
        help="begin although the stores will hardly fit on the disk",
    )
    add(
        "--runner",
        default="local",
        metavar="RUNNER",
        help="local (processes, the default), or of Apache Beam: direct, dataflow, flink, spark",
    )
    add(
        "--beam_option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of Beam's; repeatable",
    )
    add("--report", action="store_true", help="print every task's numbers, not only totals")
    add(
        "--report_examples",
        type=int,
        default=200,
        metavar="N",
        help="examples of each task to measure (default 200; 0: none)",
    )
    add("--json", action="store_true", help="print the summary as JSON")


def _train_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop if the newest checkpoint is damaged, instead of moving it aside and resuming "
        "from the newest whole one",
    )


def _eval_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="evaluate N examples of each task; the same as --gin.NUM_EVAL_EXAMPLES=N",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at a damaged checkpoint, instead of taking the newest whole one (or, of "
        "several, the others)",
    )


def _infer_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", help="answer this one prompt and exit")
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="JSON lines with `inputs` or `prompt`, also packed (.gz, .zst); - for standard input",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="JSON lines; an unfinished file is continued; - for standard output",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse prompts that are too long (else cut), bad lines (else left out) and a damaged "
        "newest checkpoint (else the newest whole one answers)",
    )


def _show_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--mixture", help="print this mixture's shares, by sub-mixture if it is large")
    add("--task", help="print this task and rendered examples of it")
    for name, what in (
        ("family", "of this family"),
        ("category", "of this category"),
        ("dataset", "over this data set"),
        ("license", "under this licence"),
    ):
        add(
            f"--{name}",
            action="append",
            default=[],
            metavar="PATTERN",
            help=f"only tasks {what}; repeatable, `*` stands for anything",
        )
    add("--leaves", action="store_true", help="print every leaf, task or pair")
    add("--draws", type=int, default=100_000, help="examples that shares are counted over")
    add("--licenses", action="store_true", help="print licences and what is under each")
    add("--examples", type=int, default=1, help="rendered examples a mode (default 1)")
    add(
        "--split",
        help="split to take examples from (default train, else validation, test or what there is)",
    )
    add("--rows", type=int, default=0, help="packed rows of the mixture to print")
    add("--overlap", action="store_true", help="text that prepared tasks share")
    add("--against", metavar="MIXTURE", help="--overlap with the test sets of this mixture")
    add("--against_split", metavar="SPLIT", help="its split (default test, else validation)")
    add("--n", type=int, default=13, help="words in a row that count as overlap (default 13)")
    add("--pairs", type=int, default=3, help="pairs of examples to name (default 3)")
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes of --overlap (default: one a core)",
    )
    add("--json", action="store_true", help="print JSON")


_MODE_FLAGS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "check": _check_flags,
    "prepare": _prepare_flags,
    "train": _train_flags,
    "eval": _eval_flags,
    "infer": _infer_flags,
    "convert": convert_flags.add_flags,
    "show": _show_flags,
    "report": report_flags.add_flags,
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Flags as a namespace; `--gin.NAME=VALUE` are collected as lines of gin, in order.

    `given` holds the names of the flags that were written, as against those of a default.

    Raises:
        UserError: a flag has no value, or a number that is too large.
        SystemExit: a mode or flag is not known (status 2, with the usage), or help was asked for.
    """
    plain, gin_flags = [], []
    for position, argument in enumerate(argv):
        if argument.startswith("--gin.") and "=" not in argument:
            raise UserError(
                f"{argument!r}: write --gin.NAME=VALUE with an equals sign"
                + (
                    f", such as {argument}={argv[position + 1]}."
                    if position + 1 < len(argv)
                    else "."
                )
            )
        if not argument or (argument.startswith("--") and argument.find("=") == len(argument) - 1):
            raise UserError(f"{argument!r} holds no value; give one, or leave it out.")
        (gin_flags if argument.startswith("--gin.") else plain).append(argument)
    parser = make_parser()
    flags, unknown = parser.parse_known_args(plain)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{_hint(unknown[0], flags)}")
    vars(flags).pop("given_once", None)
    _say_overruled(gin_flags)
    flags.gin_flags = gin_flags
    flags.given = {word.partition("=")[0].removeprefix("--") for word in plain}
    for name, value in vars(flags).items():
        if type(value) is int and abs(value) > LARGEST:
            raise UserError(f"--{name} is {value}; the largest number allowed is {LARGEST}.")
    return flags


def _hint(argument: str, flags: argparse.Namespace) -> str:
    """What an argument that no flag takes was probably meant to be; "" if nothing is near."""
    if argument.endswith(".gin") and not argument.startswith(_DASHES):
        return f" (write --gin_file={argument})"
    name, equals, value = argument.partition("=")
    word = name.lstrip("".join(_DASHES)).replace("-", "_")
    known = ["from", "to", *vars(flags)]
    known.remove("mode")
    if word not in known and word.upper() in _GIN_HELP.split():
        return f" (did you mean --gin.{word.upper()}={value}?)"
    near = [word] if word.startswith("gin.") else difflib.get_close_matches(word, known, n=1)
    meant = f"--{near[0]}{equals}{value}" if near else ""
    if meant == argument:
        return f" (flags come after the mode: run.py {flags.mode} {argument})"
    return f" (did you mean {meant}?)" if meant else ""


def _say_overruled(gin_flags: Sequence[str]) -> None:
    """Warns of macros that are set more than once: later ones win, so that scripts may append."""
    values: dict[str, list[str]] = {}
    for name, _, value in (flag.partition("=") for flag in gin_flags):
        values.setdefault(name, []).append(value)
    for name, given in values.items():
        if len(set(given)) > 1:
            print(
                f"warning: {name} is given {len(given)} times ({', '.join(given)}); "
                "the last one counts",
                file=sys.stderr,
            )


def _report_unraisable(unraisable: Any) -> None:
    """`sys.unraisablehook`, silent about what follows from an error that is reported already.

    When one array of a checkpoint cannot be read, Orbax raises that at once. TensorStore's reads
    of the others then fail as well, or find their event loop closed, each with a traceback.
    """
    error = unraisable.exc_value
    if isinstance(error, KeyboardInterrupt):
        # It fell into a callback of the garbage collection, where Python drops it: ask once more.
        with contextlib.suppress(RuntimeError):  # at the end of the program no thread can start
            threading.Timer(0.05, _thread.interrupt_main).start()
        return
    if isinstance(error, RuntimeError) and str(error) == "Event loop is closed":
        return
    frames = (frame for frame, _ in traceback.walk_tb(unraisable.exc_traceback))
    if not any(frame.f_globals.get("__name__", "").startswith("orbax.") for frame in frames):
        sys.__unraisablehook__(unraisable)


def run_program() -> int:
    """`main` for a process of its own, which ends when this has returned.

    Clean-up that was asked for is done: threads, worker processes, `atexit`. What Python would do
    then is left out: taking TensorFlow and JAX apart object by object lasts seconds, and minutes
    on a busy machine, with nothing left to save.
    """
    status: Any = 1

    def leave() -> None:
        code = status
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except (OSError, ValueError):
                code = code or 1
        os._exit(code)

    atexit.register(leave)  # the first that is registered is the last to be called
    try:
        status = main()
    except SystemExit as error:
        status = error.code
        raise
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one mode. Returns the exit status: 0 done, 1 failed, 2 bad use."""
    sys.path.insert(1, os.getcwd())  # so that a user's own task module is found
    keep_quiet()
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns of its own older formats
    sys.unraisablehook = _report_unraisable
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        flags = parse(sys.argv[1:] if argv is None else argv)
        with quiet_stderr():
            mode = importlib.import_module(f"instruct.cli.{flags.mode}")
        with explaining_storage_failures():
            status = int(mode.run(flags) or 0)
            if sys.stdout is not None:  # None: closed by whoever started the program
                sys.stdout.flush()  # so that a reader that went away is noticed here
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
