"""`run.py eval`: evaluates a checkpoint, or all checkpoints of a run, or a run before and after."""

import argparse
import dataclasses
from collections.abc import Mapping
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
from instruct.workspace import Workspace

BEFORE = "before"  # folder of MODEL_DIR: results of the checkpoint that training started from


def run(flags: argparse.Namespace) -> int:
    """Runs `instruct.eval.runner.evaluate` with arguments from gin."""
    if flags.limit is not None:
        if any(flag.startswith("--gin.NUM_EVAL_EXAMPLES=") for flag in flags.gin_flags):
            raise UserError("--limit and --gin.NUM_EVAL_EXAMPLES set the same; give one of them.")
        flags.gin_flags.append(f"--gin.NUM_EVAL_EXAMPLES={flags.limit}")
    own = settings.own_task(flags)
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
    if before is not None:
        return _before_and_after(before, arguments, workspace)
    return runner.evaluate(**arguments, workspace=workspace)


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


def _before_and_after(
    before: dict[str, Any], arguments: dict[str, Any], workspace: Workspace
) -> int:
    """Evaluates both checkpoints and writes the page MODEL_DIR/before_after.html."""
    for one in (before, arguments):
        if status := runner.evaluate(**one, workspace=workspace):
            return status
    if distributed.is_first_process():
        config = arguments["config"]
        suite = f"{config.name}-{config.suites[0]}" if config.name else config.suites[0]
        folder = any_path("MODEL_DIR", arguments["model_dir"])
        after = folder / "eval" / suite / f"step_{config.steps[0]}" if config.steps else folder
        compared = CompareConfig(suite=suite)
        page, numbers = write_comparison(before["model_dir"], str(after), folder, compared)
        for text in numbers.get("warnings", ()):
            print(f"note: {text}")
        print(f"report: {page}")
    return 0
