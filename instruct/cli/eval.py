"""`run.py eval`: evaluates a checkpoint, or all checkpoints of a run, or a run before and after."""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instruct import compilation_cache, distributed, gin_config
from instruct.checkpoints.trained_run import TrainedRun
from instruct.cli import own_data, settings
from instruct.cli.handshake import agree_on_settings
from instruct.errors import UserError
from instruct.eval import runner
from instruct.fields import check_arguments
from instruct.files import any_path
from instruct.lineage import initial_path
from instruct.report.pages.before_after import CompareConfig, write_comparison

BEFORE = "before"  # folder of MODEL_DIR: results of the checkpoint that training started from


def run(
    flags: argparse.Namespace, on_results: Callable[[pathlib.Path], object] = lambda path: None
) -> int:
    """Runs `instruct.eval.runner.evaluate` with arguments from gin."""
    if flags.limit is not None:
        if any(flag.startswith("--gin.NUM_EVAL_EXAMPLES=") for flag in flags.gin_flags):
            raise UserError("--limit and --gin.NUM_EVAL_EXAMPLES set the same; give one of them.")
        flags.gin_flags.append(f"--gin.NUM_EVAL_EXAMPLES={flags.limit}")
    own = settings.own_task(flags) or settings.task_of_run(flags)
    workspace, entries = settings.load(flags, own)
    agree_on_settings(flags, own)
    arguments = entries[gin_config.EVALUATE]
    if not arguments:
        raise UserError("nothing configures evaluation; add --gin_file=gin/runs/eval.gin.")
    check_arguments(runner.evaluate, arguments, except_for=("vocabulary",))
    if flags.strict:
        arguments["strict"] = True
    if own is not None and distributed.is_first_process():
        own_data.warn_of_other_version(own, any_path("MODEL_DIR", arguments["model_dir"]))
    before = _arguments_before(arguments) if flags.before else None
    compilation_cache.use(**entries[gin_config.COMPILATION_CACHE])
    files: list[pathlib.Path] = []

    def note(path: pathlib.Path) -> None:
        files.append(path)
        on_results(path)

    status = 0
    for one in (before, arguments):
        if one is not None:
            status |= runner.evaluate(**one, workspace=workspace, on_results=note)
    if before is not None and distributed.is_first_process():
        _write_page(files, any_path("MODEL_DIR", arguments["model_dir"]))
    return status


def _arguments_before(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that evaluate what the run started from as they evaluate the run.

    Raises:
        UserError: the run started from random parameters, or one suite and step are not asked for.
    """
    folder, config = any_path("MODEL_DIR", arguments["model_dir"]), arguments["config"]
    trained = TrainedRun.read(folder)
    initial = trained.config().get("initial_checkpoint_path")
    if arguments.get("checkpoint_path") is not None or not initial:
        problem = f"{folder} does not record a checkpoint that its training started from"
        if initial:
            problem = "CHECKPOINT_PATH names the checkpoint to evaluate"
        raise UserError(
            f"--before compares a run with the checkpoint that its training started from, but "
            f"{problem}. Leave --before out, or compare two runs with `run.py report --before`."
        )
    if len(config.suites) > 1 or not (config.checkpoints == "latest" or len(config.steps) == 1):
        raise UserError(
            f"--before compares one checkpoint on one suite, not {config.checkpoints!r} on "
            f"{', '.join(config.suites)}; give one of each."
        )
    recorded = {
        "model": trained.model,
        "vocabulary": lambda: trained.setting("vocabulary"),
        "feature_lengths": trained.feature_lengths,
        "chat_template": lambda: trained.config().get("data.chat_template", False),
    }
    return {
        **arguments,
        **{n: value_fn() for n, value_fn in recorded.items() if arguments.get(n) is None},
        "model_dir": str(folder / BEFORE),
        "checkpoint_path": initial_path(initial, folder),
        "config": dataclasses.replace(config, checkpoints="latest"),
    }


def _write_page(files: Sequence[pathlib.Path], folder: pathlib.Path) -> None:
    """Writes the page before_after.html of two results files into `folder`."""
    before, after = files
    page, numbers = write_comparison(str(before), str(after), folder, CompareConfig())
    for text in numbers["left_out"]:
        print(f"note: {text}")
    print(f"report: {page}")
