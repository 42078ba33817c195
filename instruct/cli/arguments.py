"""Flags of every mode, and the conversion of errors to exit statuses.

Imports only the standard library and light modules: `run.py --help` must answer at once.
"""

import _thread
import argparse
import atexit
import contextlib
import difflib
import importlib
import io
import logging
import os
import pathlib
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from instruct.allocator import keep_freed_memory
from instruct.cli import report_flags
from instruct.data.quiet_tensorflow import keep_quiet, quiet_stderr
from instruct.errors import (
    RunFailed,
    UserError,
    explaining_memory_failures,
    explaining_storage_failures,
)
from instruct.fields import LARGEST

# Word processors replace two hyphens by the second or third of these.
_DASHES = ("-", "–", "—", "−")

_GIN_HELP = """\
gin flags:
  --gin_file=PATH        settings; looked up here, then in the project; repeatable, later ones win
  --gin.NAME=VALUE       sets a macro or parameter: --gin.TRAIN_STEPS=1000 --gin.MODEL_DIR=runs/a
                         (the last value wins; a warning says so)
  --gin_bindings=LINE    the same as a line of gin

macros every run file knows: MODEL_DIR MIXTURE_OR_TASK_NAME MIXTURE_OR_TASK_MODULE
TASK_FEATURE_LENGTHS TRAIN_STEPS BATCH_SIZE LEARNING_RATE DROPOUT_RATE INITIAL_CHECKPOINT_PATH
SEED LANES VOCABULARY DATA_DIR STORE_DIR FLAN_CHECKOUT SKIP_UNAVAILABLE PROFILE_STEPS
COMPILATION_CACHE_DIR
"""

_STUDY_HELP = """\
the first --gin_file is the study (docs/studies.md). Further files and --gin.NAME=VALUE set every
run of its grid; STUDY_DIR and plan.Study.* set the study.
"""

_CONVERT_HELP = """\
formats:
  instruct      this program's checkpoints: a run (MODEL_DIR) or one step's folder
  t5x           T5X's: checkpoint_<step>, legacy layout; Orbax's layout and scanned layers are
                read too. --from may be gs://BUCKET/PATH/checkpoint_<step>
  huggingface   a folder with config.json and safetensors (never *.bin), tokenizer files included
  peft          LoRA adapters alone (adapter_config.json, adapter_model.safetensors), of the model
                that the folder or --base names. Other formats hold them merged, but for instruct
                without --merge

Every key is accounted for in a table: used, copy (the same array twice), ignored (with the
reason), left over, missing, shape differs. Unless all keys fit, nothing is written and the exit
status is 2.

Architecture and vocabulary come from config.json and spiece.model, from run.json, or, of a T5X
checkpoint, from the shapes. What shapes do not tell is taken from --model or --gin_file, and a
T5X checkpoint brings no vocabulary: give --tokenizer.

more examples:
  python run.py convert --from=~/flan-t5-base --describe
  python run.py convert --from=~/flan-t5-base --to=runs/base/checkpoint_0
  python run.py convert --from=gs://t5-data/pretrained_models/t5x/flan_t5_xl/checkpoint_1138000 \\
    --to=~/flan-t5-xl --dtype=bfloat16 --tokenizer=~/flan-t5-base
  python run.py convert --from=runs/a --to=~/my-model --format=huggingface
  python run.py convert --from=runs/lora --to=~/my-adapter --format=peft
  python run.py convert --from=runs/a --to=~/my-model --push=me/my-model
"""

_MODES = {
    "check": "dry run without an accelerator: sizes, sharding, memory, mixture, one packed row",
    "prepare": "build the record stores of a mixture (restartable)",
    "train": "train; resumes the run in MODEL_DIR if it has a checkpoint",
    "eval": "evaluate a checkpoint, or all of a run, on tasks and mixtures",
    "infer": "JSON lines in, JSON lines out; or one --prompt, or --interactive",
    "serve": "answer HTTP requests (OpenAI-style completions) with a checkpoint",
    "convert": "checkpoints between this program, T5X and Hugging Face, key by key",
    "show": "tasks, mixtures, rates and rendered prompts",
    "report": "results of one or several runs as report.html and report.md",
    "study": "a grid of runs, trained, evaluated and reported together; resumes what is unfinished",
}
_EXAMPLES = {
    "check": "--gin_file=gin/recipes/flan_t5_xxl.gin --topology=v5p-128 --mesh=fsdp=64",
    "prepare": "--mixture=lists.counting --workers=2",
    "train": "--gin_file=gin/recipes/replica_counting.gin --gin.MODEL_DIR=runs/demo",
    "eval": "--gin_file=gin/recipes/replica_counting.gin --gin.MODEL_DIR=runs/demo",
    "infer": "--gin_file=gin/runs/infer.gin --gin.MODEL_DIR=runs/demo "
    "--prompt=$'List: goats, birds, crabs\\nHow many items are there?'",
    "serve": "--gin_file=gin/runs/serve.gin --gin.MODEL_DIR=runs/demo",
    "convert": "--from=~/flan-t5-base --to=runs/flan_t5_base",
    "show": "--task=gym.chain_sum --examples=2",
    "report": "--model_dir=runs/demo",
    "study": "--gin_file=gin/ablations/STUDY.gin --gin.STUDY_DIR=runs/study --dry_run",
}
# What to type after the devices ran out of memory.
_LESS_MEMORY = {
    "train": "Give --gin.loop.train.num_microbatches=4, which changes no result, or start a run "
    "with a smaller --gin.BATCH_SIZE.",
    "eval": "Give a smaller --gin.EVAL_BATCH_SIZE, such as 8.",
    **dict.fromkeys(
        ("infer", "serve"),
        "Give a smaller --gin.BATCH_SIZE, such as 4, or a smaller --gin.MAX_DECODE_STEPS.",
    ),
}
CHECKPOINT_FORMATS = ("instruct", "t5x", "huggingface", "peft")

_SWITCH: dict[str, Any] = {"action": "store_true"}
_WORKERS: dict[str, Any] = {"type": int, "default": os.cpu_count() or 1}


def _text(metavar: str | None = None, **options: Any) -> dict[str, Any]:
    return {"metavar": metavar, **options}


def _texts(metavar: str | None = None) -> dict[str, Any]:
    return {"metavar": metavar, "action": "append", "default": []}


def _number(default: int | None = None) -> dict[str, Any]:
    return {"type": int, "default": default, "metavar": "N"}


# Of every mode that computes.
_CLUSTER_FLAGS: dict[str, tuple[dict[str, Any], str]] = {
    "coordinator": (
        _text("HOST:PORT"),
        "process 0's address, where no cluster is detected; the next port is used too",
    ),
    "num_processes": (_number(), "processes of the run, with --coordinator"),
    "process_id": (_number(), "this process's number, from 0, with --coordinator"),
    "distributed": (
        _text(choices=("auto", "off"), default="auto"),
        "auto: join the processes of Cloud TPU, GKE, SLURM or OpenMPI, if there are several "
        "(default); off: run alone",
    ),
    "startup_secs": (_number(300), "within which all processes must have joined (default 300)"),
    "hang_secs": (
        _number(1800),
        "end the run if no process starts a step or batch for so long (default 1800; 0: never)",
    ),
}

_DATA_FLAGS: dict[str, tuple[dict[str, Any], str]] = {
    "data": (
        _text("FILE"),
        "a task of your own file (JSON lines, JSON, CSV, TSV, Parquet, .gz, .zst), of a folder "
        "with one for each split, or of a task file (.toml); docs/your_data.md",
    ),
    "inputs": (_texts("COLUMN"), "with --data: column that prompts show; several with commas"),
    "targets": (_text("COLUMN"), "with --data: column of the answers"),
    "messages": (_text("COLUMN"), "with --data: column of conversations, for inputs and targets"),
    "template": (_texts("TEXT"), "with --data: a wording, 'Summarize: {dialogue}'; repeatable"),
    "validation": (_text("FILE"), "with --data: the validation split, else rows are held out"),
    "test": (_text("FILE"), "with --data: the test split"),
    "held_out_share": (
        _text("SHARE"),
        "with --data: of the rows, for validation (default 0.05, at least 50 rows or a tenth, at "
        "most 1,000; 0: none)",
    ),
    "metric": (
        _text("NAME"),
        "with --data: accuracy, exact_match, rouge, ... (default: by targets)",
    ),
    "task_name": (_text("NAME"), "with --data: the task's name (default own.FILE)"),
}

_ONLY = "repeatable, `*` stands for anything"
# Mode -> flag -> (options of argparse, help). Those of `report` are in `report_flags`.
_FLAGS: dict[str, dict[str, tuple[dict[str, Any], str]]] = {
    "check": {
        "mesh": (_text("MESH"), "DATAxTENSOR such as 4x64, or data=4,fsdp=8,tensor=8; no device"),
        "rows": (_number(1), "packed rows to print (default 1)"),
        "topology": (
            _text(),
            "compile for these chips, which need not be there: v5p:4x4x8, v5e-16, '2x v5e-256', "
            "a100:64; exit status 1 if it does not fit",
        ),
        "eval": (_SWITCH, "with --topology: compile decoding and scoring too"),
        "quick": (
            _SWITCH,
            "with --topology: compile in a third of the time with the compiler's least effort; "
            "its program needs more memory and overlaps less than the one that trains",
        ),
        "price": (
            _text("NUMBER"),
            "with --topology: of a chip-hour, in any currency; prints the cost of the whole recipe",
        ),
        "examples_per_row": (
            _text("NUMBER", default="1"),
            "with --topology: examples that packing puts into a row, as `show --rows` or a run "
            "tells (default 1)",
        ),
        "json": (_text("FILE"), "with --topology: write the report as JSON"),
        "hlo": (
            _text("PREFIX"),
            "with --topology: write the programs' texts to PREFIX.train.hlo and so on",
        ),
    },
    "prepare": {
        "mixture": (_texts(), "mixture or task; repeatable"),
        "workers": (_WORKERS, "processes (default: one per core)"),
        "verify": (_SWITCH, "read every byte of finished stores and compare hashes"),
        "download": (_SWITCH, "let sources fetch data that is not on this machine"),
        "skip_unavailable": (_SWITCH, "continue without tasks that cannot be built; record them"),
        "ignore_disk_estimate": (_SWITCH, "start even if the stores will hardly fit on the disk"),
        "runner": (
            _text("RUNNER", default="local"),
            "local (processes, the default), or of Apache Beam: direct, dataflow, flink, spark",
        ),
        "beam_option": (_texts("KEY=VALUE"), "an option of Apache Beam; repeatable"),
        "report": (_SWITCH, "print every task's numbers, not only totals"),
        "report_examples": (
            _number(200),
            "examples of each task to measure (default 200; 0: none)",
        ),
        "json": (_SWITCH, "print the summary as JSON"),
    },
    "train": {
        "strict": (
            _SWITCH,
            "stop if the newest checkpoint is damaged, instead of moving it aside and resuming "
            "from the newest whole one",
        ),
    },
    "eval": {
        "limit": (_number(), "evaluate N examples of each task; as --gin.NUM_EVAL_EXAMPLES=N"),
        "before": (
            _SWITCH,
            "evaluate the checkpoint that training started from as well, and write the page "
            "MODEL_DIR/before_after.html",
        ),
        "strict": (
            _SWITCH,
            "stop at a damaged checkpoint, instead of using the newest whole one (or, of several, "
            "skipping it)",
        ),
    },
    "infer": {
        "prompt": (_text(), "answer this one prompt and exit"),
        "input": (
            _text("FILE"),
            "JSON lines with `inputs` or `prompt`, also compressed (.gz, .zst); - for standard "
            "input",
        ),
        "output": (_text("FILE"), "JSON lines; resumed if unfinished; - for standard output"),
        "interactive": (
            _SWITCH,
            "answer what you type, token by token; with a chat template turns are kept",
        ),
        "strict": (
            _SWITCH,
            "refuse prompts that are too long (else truncated), bad lines (else left out) and a "
            "damaged newest checkpoint (else the newest whole one answers)",
        ),
    },
    "serve": {
        "token_file": (
            _text("FILE"),
            "the token that clients must send (default $INSTRUCT_SERVE_TOKEN, else none); "
            "required if HOST is not this machine's own",
        ),
        "strict": (
            _SWITCH,
            "stop at a damaged newest checkpoint (else the newest whole one answers)",
        ),
    },
    "convert": {
        "from": (_text("PATH", dest="source"), "checkpoint of any kind; required"),
        "to": (_text("PATH", dest="target"), "new folder to write"),
        "format": (
            _text(choices=CHECKPOINT_FORMATS),
            "what to write (default: t5x if --to ends in checkpoint_<step>, huggingface from t5x "
            "and instruct, instruct from huggingface)",
        ),
        "step": (_number(), "of several checkpoints (default: the newest)"),
        "dtype": (
            _text(default="float32", choices=("float32", "bfloat16")),
            "of the written weights (default float32; instruct keeps float32 only)",
        ),
        "model": (_text("NAME"), "architecture: a file of gin/models such as t5_1_1_base"),
        "slots": (
            _SWITCH,
            "also convert Adafactor's state and the step, between t5x and instruct; the result is "
            "a MODEL_DIR that training resumes",
        ),
        "tokenizer": (_text("PATH"), "folder with tokenizer files, or a vocabulary file, to add"),
        "vocab_rows": (
            _number(),
            "cut or add (zeros) padding rows of the embedding and the output",
        ),
        "map": (
            _texts("MODEL=CHECKPOINT"),
            "a parameter (regular expression) that has another name in the checkpoint; repeatable",
        ),
        "allow_left_over": (_SWITCH, "drop arrays that the model has no use for"),
        "base": (
            _text("PATH"),
            "the model of a PEFT adapter (default: the one that --from records)",
        ),
        "merge": (_SWITCH, "write LoRA adapters merged into their kernels as instruct too"),
        "push": (
            _text("USER/NAME"),
            "push the written huggingface or peft folder to the Hugging Face hub; without --to, "
            "the folder --from",
        ),
        "public": (_SWITCH, "with --push: a new repository is public (default: private)"),
        "describe": (_SWITCH, "describe --from, and write nothing"),
        "all_keys": (_SWITCH, "one line for each key, not for each group"),
        "json": (_SWITCH, "print the table as JSON"),
    },
    "show": {
        "mixture": (_text(), "print this mixture's shares, by sub-mixture if it is large"),
        "task": (_text(), "print this task and rendered examples of it"),
        "family": (_texts("PATTERN"), f"only tasks of this family; {_ONLY}"),
        "category": (_texts("PATTERN"), f"only tasks of this category; {_ONLY}"),
        "dataset": (_texts("PATTERN"), f"only tasks over this data set; {_ONLY}"),
        "license": (_texts("PATTERN"), f"only tasks under this licence; {_ONLY}"),
        "leaves": (_SWITCH, "print every leaf, task or pair"),
        "draws": (_number(100_000), "examples that shares are counted over (default 100,000)"),
        "licenses": (_SWITCH, "print licences and what is under each"),
        "examples": (_number(1), "rendered examples per mode (default 1)"),
        "split": (_text(), "of the examples (default: train, else validation, test or any other)"),
        "rows": (_number(0), "packed rows of the mixture to print"),
        "vocabulary": (
            _text("NAME"),
            "with --task or --mixture: count tokens by this vocabulary, and characters that it "
            "cannot spell (default: --gin_file's)",
        ),
        "overlap": (_SWITCH, "text that prepared tasks share"),
        "against": (_text("MIXTURE"), "--overlap with the test sets of this mixture"),
        "against_split": (_text("SPLIT"), "its split (default test, else validation)"),
        "n": (_number(13), "words in a row that count as overlap (default 13)"),
        "pairs": (_number(3), "pairs of examples to name (default 3)"),
        "workers": (_WORKERS, "processes of --overlap (default: one per core)"),
        "json": (_SWITCH, "print JSON"),
    },
}
_FLAGS["study"] = {
    "dry_run": (_SWITCH, "print the runs, their parameters, steps, tokens and FLOPs; run nothing"),
    "topology": (
        _text(),
        "with --dry_run: chip-hours on these chips, such as v5p-64, of steps compiled as "
        "`check --topology` does, or with --mfu of FLOPs",
    ),
    "mfu": (_text("SHARE"), "with --topology: the share of the chips' peak to assume, such as 0.4"),
    "price": (_text("NUMBER"), "with --topology: of a chip-hour, in any currency"),
    "only": (_texts("AXIS=LABEL"), "runs with this label; repeatable: labels of an axis add up"),
    "workers": (_number(1), "runs side by side on this machine (default 1)"),
    "force_rerun": (
        _SWITCH,
        "run those again whose settings changed; what they were is moved to STUDY_DIR/replaced",
    ),
    "write_jobs": (
        _text(choices=("slurm", "xpk", "skypilot")),
        "write STUDY_DIR/jobs, whose submit.sh starts every run on a cluster; run nothing",
    ),
    "collect": (_SWITCH, "read what the jobs left and write the page; run nothing"),
}
for _mode in ("train", "eval", "infer"):
    _FLAGS[_mode] |= _CLUSTER_FLAGS
for _mode in ("check", "prepare", "train", "eval", "show"):
    _FLAGS[_mode] |= _DATA_FLAGS
_FLAGS["show"]["save_task"] = (_text("FILE"), "with --data: write the task as a task file (.toml)")
# Smallest number that a flag of a mode allows.
_LEAST = {
    "check": {"rows": 0},
    "prepare": {"workers": 1, "report_examples": 0},
    "convert": {"vocab_rows": 1},
    "study": {"workers": 1},
    "show": {"draws": 1, "n": 1, "workers": 1, "pairs": 0, "examples": 0, "rows": 0},
}


class _StoreOnce(argparse.Action):
    """Stores a value and refuses a second one, which argparse would silently take instead."""

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
    """The parser of all modes, one sub-parser each; every mode has the gin flags."""
    parser = argparse.ArgumentParser(
        prog="instruct" if pathlib.Path(sys.argv[0]).name == "instruct" else "run.py",
        description="Instruction tuning in JAX: prepare, train, evaluate, report.",
        epilog=_GIN_HELP + "\n`run.py MODE --help` has the flags and an example of each mode.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    modes = parser.add_subparsers(dest="mode", metavar="MODE", required=True)
    for mode, help_text in _MODES.items():
        more = {"convert": f"{_CONVERT_HELP}\n", "study": f"{_STUDY_HELP}\n"}.get(mode, "")
        sub = modes.add_parser(
            mode,
            help=help_text,
            description=help_text[0].upper() + help_text[1:] + ".",
            epilog=f"example:\n  python run.py {mode} {_EXAMPLES[mode]}\n\n{more}{_GIN_HELP}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.register("action", None, _StoreOnce)  # of every flag that names no other action
        sub.add_argument("--gin_file", action="append", default=[], metavar="PATH")
        sub.add_argument("--gin_bindings", action="append", default=[], metavar="LINE")
        for name, (options, text) in _FLAGS.get(mode, {}).items():
            sub.add_argument(f"--{name}", help=text, **options)
        if mode == "report":
            report_flags.add_flags(sub)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses flags. `gin_flags` has those as `--gin.NAME=VALUE`, in order.

    `given` has the names of the flags on the command line, without those of a default.

    Raises:
        UserError: a flag has no value, or a number out of range.
        SystemExit: an unknown mode or flag (status 2, with the usage), or --help.
    """
    plain, gin_flags = [], []
    for argument, following in zip(argv, [*argv[1:], "VALUE"]):
        if argument.startswith("--gin.") and "=" not in argument:
            raise UserError(
                f"{argument!r}: write --gin.NAME=VALUE with an equals sign, such as "
                f"{argument}={following}."
            )
        if not argument or (argument.startswith("--") and argument.find("=") == len(argument) - 1):
            raise UserError(f"{argument!r} holds no value; give one, or leave it out.")
        (gin_flags if argument.startswith("--gin.") else plain).append(argument)
    parser = make_parser()
    flags, unknown = parser.parse_known_args(plain)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{_hint(unknown[0], flags)}")
    vars(flags).pop("given_once", None)
    _warn_of_repeated(gin_flags)
    flags.gin_flags = gin_flags
    flags.given = {word.partition("=")[0].removeprefix("--") for word in plain}
    for name, value in vars(flags).items():
        if type(value) is int and abs(value) > LARGEST:
            raise UserError(f"--{name}={value}: the largest number allowed is {LARGEST}.")
        least = _LEAST.get(flags.mode, {}).get(name)
        if least is not None and value is not None and value < least:
            raise UserError(f"--{name}={value}: the smallest number allowed is {least}.")
    return flags


def _hint(argument: str, flags: argparse.Namespace) -> str:
    """Suggests what an unknown argument was meant to be; "" without a suggestion."""
    if argument.endswith(".gin") and not argument.startswith(_DASHES):
        return f" (write --gin_file={argument})"
    name, equals, value = argument.partition("=")
    word = name.lstrip("".join(_DASHES)).replace("-", "_")
    known = [*_FLAGS.get(flags.mode, {}), *vars(flags)]  # convert's --from is stored as `source`
    known.remove("mode")
    if word not in known and word.upper() in _GIN_HELP.split():
        return f" (did you mean --gin.{word.upper()}={value}?)"
    near = [word] if word.startswith("gin.") else difflib.get_close_matches(word, known, n=1)
    meant = f"--{near[0]}{equals}{value}" if near else ""
    if meant == argument:
        return f" (flags come after the mode: run.py {flags.mode} {argument})"
    return f" (did you mean {meant}?)" if meant else ""


def _warn_of_repeated(gin_flags: Sequence[str]) -> None:
    """Warns of settings with several values. The last one wins, so scripts may append flags."""
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
    """`sys.unraisablehook` that hides consequences of an error that Orbax raised already.

    When Orbax cannot read one array of a checkpoint, TensorStore's reads of the others fail as
    well, or find their event loop closed, each with a traceback.
    """
    error = unraisable.exc_value
    if isinstance(error, KeyboardInterrupt):
        # Raised in a callback of the garbage collector, where Python drops it: interrupt again.
        with contextlib.suppress(RuntimeError):  # no thread can start while the program exits
            threading.Timer(0.05, _thread.interrupt_main).start()
        return
    if isinstance(error, RuntimeError) and str(error) == "Event loop is closed":
        return
    frames = (frame for frame, _ in traceback.walk_tb(unraisable.exc_traceback))
    if not any(frame.f_globals.get("__name__", "").startswith("orbax.") for frame in frames):
        sys.__unraisablehook__(unraisable)


def _open_standard_streams() -> None:
    """Opens /dev/null for the standard streams that the parent process closed.

    Files that are opened later would get their numbers, to which libraries write. `sys.stderr` is
    never None then; the others stay None, so that a mode can say that it needs them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def run_program() -> int:
    """Runs `main`, then exits without tearing down the interpreter.

    Threads, worker processes and `atexit` functions are finished. Destroying TensorFlow's and JAX's
    objects after that would take seconds, and minutes on a busy machine, for nothing.
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

    _open_standard_streams()
    atexit.register(leave)  # the first one registered is the last one called
    keep_freed_memory()
    try:
        status = main()
    except SystemExit as error:
        status = error.code
        raise
    except BaseException:
        if _is_joined():
            traceback.print_exc()
            leave()
        raise
    if status and _is_joined():  # the others have gone: nothing that waits for them may run
        leave()
    return status


def _is_joined() -> bool:
    """Whether this is one of several processes; imports nothing."""
    distributed = sys.modules.get("instruct.distributed")
    return distributed is not None and distributed.num_processes() > 1


@contextlib.contextmanager
def _joined(flags: argparse.Namespace) -> Iterator[None]:
    """Context: this process is one of the run's processes, if there are several."""
    if "coordinator" not in flags:
        yield
        return
    from instruct import distributed  # imports JAX

    distributed.start(
        distributed.ClusterConfig(
            coordinator=flags.coordinator,
            num_processes=flags.num_processes,
            process_id=flags.process_id,
            detect=flags.distributed != "off",
            startup_secs=flags.startup_secs,
            hang_secs=flags.hang_secs,
        )
    )
    if distributed.num_processes() > 1:
        _keep_standard_output()
    try:
        yield
    except BaseException as error:
        known = isinstance(error, UserError | RunFailed | OSError)
        distributed.leave(1, str(error) if known else f"{type(error).__name__}: {error}")
        raise
    distributed.barrier("end")
    distributed.leave(0)


def _keep_standard_output() -> None:
    """Leaves standard output to Python: gloo prints its connections there, in midst of answers."""
    if sys.stdout is not None:
        sys.stdout.flush()
        own = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = io.TextIOWrapper(
            io.FileIO(own, "w"), sys.stdout.encoding, sys.stdout.errors, line_buffering=True
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one mode. Returns the exit status: 0 done, 1 failed, 2 bad use."""
    sys.path.insert(1, os.getcwd())  # for a user's own task module
    keep_quiet()
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns of its own older formats
    sys.unraisablehook = _report_unraisable
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        flags = parse(sys.argv[1:] if argv is None else argv)
        with quiet_stderr():
            mode = importlib.import_module(f"instruct.cli.{flags.mode}")
        less = _LESS_MEMORY.get(flags.mode, "Use devices with more memory, or more of them.")
        with explaining_storage_failures(), _joined(flags), explaining_memory_failures(less):
            status = int(mode.run(flags) or 0)
            if sys.stdout is not None:  # None: closed by the parent process
                sys.stdout.flush()  # raises BrokenPipeError here rather than at exit
        return status
    except (UserError, RunFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of the output has exited, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno() if sys.stdout else 1)
        return 0
