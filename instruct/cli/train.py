"""`run.py train`: trains, or resumes the run in MODEL_DIR."""

import argparse
import functools

from instruct import gin_config
from instruct.checkpoints.checkpoint_files import checkpoint_steps
from instruct.cli import settings
from instruct.data import registry
from instruct.errors import UserError, explaining_storage_failures
from instruct.fields import check_arguments
from instruct.train import inputs, loop


def run(flags: argparse.Namespace) -> int:
    """Wires `instruct.train.loop.train` from gin and runs it."""
    workspace, entries = settings.load(flags)
    arguments = entries[gin_config.TRAIN]
    if not arguments:
        raise UserError(
            "nothing configures training; add --gin_file=gin/runs/train.gin or a recipe."
        )
    check_arguments(loop.train, arguments, besides=("model_dir",))  # which train opens
    if "data" in arguments:
        arguments["data"] = registry.with_vocabulary(workspace, arguments["data"])
    texts = {
        "config.gin": gin_config.config_text(),
        "operative.gin": gin_config.operative_text(),
    }
    optimizer_text = gin_config.reference_text(gin_config.TRAIN, "optimizer")
    if flags.strict:
        arguments["strict"] = True
    model_dir = arguments.get("model_dir", "")
    open_inputs = functools.partial(inputs.open_inputs, workspace=workspace)
    with explaining_storage_failures(lambda: _what_is_saved(model_dir)):
        loop.train(**arguments, texts=texts, optimizer_text=optimizer_text, open_inputs=open_inputs)
    return 0


def _what_is_saved(model_dir: str) -> str:
    try:
        steps = checkpoint_steps(model_dir)
    except OSError:
        return "Checkpoints that were finished are not touched."
    if not steps:
        return "No checkpoint was finished yet, so it starts anew."
    return f"The checkpoint of step {steps[-1]:,} is whole and the run resumes from it."
