"""`run.py train`: trains, or goes on where the run in MODEL_DIR stopped."""

import argparse

from instruct import gin_config
from instruct.cli import settings
from instruct.config_types import check_arguments
from instruct.errors import UserError
from instruct.train import loop, session


def run(flags: argparse.Namespace) -> int:
    """Wires `instruct.train.loop.train` from gin and runs it."""
    arguments = settings.load(flags)[gin_config.TRAIN]
    if not arguments:
        raise UserError(
            "nothing configures training; add --gin_file=gin/runs/train.gin or a recipe."
        )
    check_arguments(loop.train, arguments, besides=("model_dir",))  # which the next step opens
    texts = {
        "config.gin": gin_config.config_text(),
        "operative.gin": gin_config.operative_text(),
    }
    with session.open_model_dir(arguments.get("model_dir", "")):
        loop.train(**arguments, texts=texts)
    return 0
