"""`run.py train`: trains, or goes on where the run in MODEL_DIR stopped."""

import argparse

from instruct import gin_config
from instruct.cli import settings
from instruct.data import registry
from instruct.errors import UserError
from instruct.train import loop


def run(flags: argparse.Namespace) -> int:
    """Wires `instruct.train.loop.train` from gin and runs it."""
    arguments = settings.load(flags)[gin_config.TRAIN]
    if not arguments:
        raise UserError(
            "nothing configures training; add --gin_file=gin/runs/train.gin or a recipe."
        )
    if "data" in arguments:
        arguments["data"] = registry.with_vocabulary(arguments["data"])
    texts = {
        "config.gin": gin_config.config_text(),
        "operative.gin": gin_config.operative_text(),
    }
    return int(loop.train(**arguments, texts=texts) or 0)
