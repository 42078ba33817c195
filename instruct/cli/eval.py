"""`run.py eval`: evaluates a checkpoint, or all checkpoints of a run."""

import argparse

from instruct import compilation_cache, gin_config
from instruct.cli import settings
from instruct.cli.handshake import agree_on_settings
from instruct.errors import UserError
from instruct.eval import runner
from instruct.fields import check_arguments


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
    compilation_cache.use(**entries[gin_config.COMPILATION_CACHE])
    return runner.evaluate(**arguments, workspace=workspace)
