"""`run.py infer`: one prompt, or a file of JSON lines. Needs no task, hence no TensorFlow."""

import argparse
from typing import Any

from instruct import gin_config
from instruct.errors import UserError
from instruct.eval import infer
from instruct.fields import check_arguments


def run(flags: argparse.Namespace) -> int:
    """Wires `instruct.eval.infer.infer` from gin and runs it."""
    gin_config.load(flags.gin_file, [*flags.gin_bindings, *flags.gin_flags])
    arguments = gin_config.entry_arguments(gin_config.ENTRIES)[gin_config.INFER]
    if not arguments:
        raise UserError("nothing configures inference; add --gin_file=gin/runs/infer.gin.")
    check_arguments(infer.infer, arguments)
    paths = {"prompt": flags.prompt, "input_path": flags.input, "output_path": flags.output}
    given: dict[str, Any] = {name: value for name, value in paths.items() if value is not None}
    if flags.strict:
        given["strict"] = True
    return int(infer.infer(**arguments | given) or 0)
