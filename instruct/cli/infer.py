"""`run.py infer`: one prompt, a file of JSON lines, or a conversation.

Needs no tasks and no TensorFlow.
"""

import argparse

from instruct import compilation_cache, gin_config
from instruct.cli.handshake import agree_on_settings
from instruct.errors import UserError
from instruct.eval import infer
from instruct.fields import check_arguments


def run(flags: argparse.Namespace) -> int:
    """Runs `instruct.eval.infer.infer` with arguments from gin."""
    gin_config.load(flags.gin_file, [*flags.gin_bindings, *flags.gin_flags])
    agree_on_settings(flags)
    entries = gin_config.entry_arguments(gin_config.ENTRIES)
    arguments = entries[gin_config.INFER]
    if not arguments:
        raise UserError("nothing configures inference; add --gin_file=gin/runs/infer.gin.")
    check_arguments(infer.infer, arguments)
    paths = {"prompt": flags.prompt, "input_path": flags.input, "output_path": flags.output}
    arguments |= {name: value for name, value in paths.items() if value is not None}
    switches = {"strict": flags.strict, "interactive": flags.interactive}
    arguments |= {name: value for name, value in switches.items() if value}
    compilation_cache.use(**entries[gin_config.COMPILATION_CACHE])
    return infer.infer(**arguments)
