"""`run.py serve`: answers HTTP requests with a checkpoint. Needs no tasks and no TensorFlow."""

import argparse
from typing import Any

from instruct import compilation_cache, gin_config
from instruct.cli.environment import serve_token
from instruct.errors import UserError
from instruct.fields import check_arguments


def run(flags: argparse.Namespace) -> int:
    """Runs `instruct.serve.server.serve` with arguments from gin and the token of the flags."""
    server = _server()
    gin_config.load(flags.gin_file, [*flags.gin_bindings, *flags.gin_flags])
    entries = gin_config.entry_arguments(gin_config.ENTRIES)
    arguments = entries[gin_config.SERVE]
    if not arguments:
        raise UserError("nothing configures the server; add --gin_file=gin/runs/serve.gin.")
    if "token" in arguments:
        raise UserError("gin files are copied and printed; give the token by --token_file.")
    arguments["token"] = serve_token(flags.token_file)
    check_arguments(server.serve, arguments)
    if flags.strict:
        arguments["strict"] = True
    compilation_cache.use(**entries[gin_config.COMPILATION_CACHE])
    return server.serve(**arguments)


def _server() -> Any:
    """The module of the server; raises UserError without the extra that it needs."""
    try:
        from instruct.serve import server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UserError(
            f"serving needs {error.name}, which is not installed. Run "
            "`pip install 'instruct[serve]'`."
        ) from error
    return server
