"""`run.py train`: trains, or resumes the run in MODEL_DIR."""

import argparse
import functools

from instruct import compilation_cache, gin_config
from instruct.checkpoints.checkpoint_files import checkpoint_steps
from instruct.cli import settings
from instruct.cli.handshake import agree_on_settings
from instruct.cli.own_data import TASK_FILE
from instruct.data import registry
from instruct.errors import UserError, explaining_storage_failures
from instruct.eval.eval_config import SuitesConfig
from instruct.fields import check_arguments
from instruct.files import any_path, is_address
from instruct.mesh import MeshConfig
from instruct.train import inputs, loop


def run(flags: argparse.Namespace) -> int:
    """Runs `instruct.train.loop.train` with arguments from gin."""
    own = settings.own_task(flags)
    workspace, entries = settings.load(flags, own)
    agree_on_settings(flags, own)
    arguments = entries[gin_config.TRAIN]
    if not arguments:
        raise UserError(
            "nothing configures training; add --gin_file=gin/runs/train.gin or a recipe."
        )
    check_arguments(loop.train, arguments, except_for=("model_dir",))  # `train` checks it
    if "data" in arguments:
        arguments["data"] = registry.with_vocabulary(workspace, arguments["data"])
    texts = {
        "config.gin": gin_config.config_text(),
        "operative.gin": gin_config.operative_text(),
    }
    if own is not None:
        folder = any_path("MODEL_DIR", arguments.get("model_dir", "runs/a"))
        texts[TASK_FILE] = own.to_toml(None if is_address(folder) else folder)
    suites = SuitesConfig(**entries[gin_config.SUITES])
    if suites.every_steps is not None:
        # Its imports take time, and it is needed only then.
        from instruct.eval.suite_evaluator import SuiteEvaluator

        run_of = {name: arguments[name] for name in ("model", "data")}
        mesh = arguments.get("mesh", MeshConfig())
        evaluator = SuiteEvaluator(suites, **run_of, mesh=mesh, workspace=workspace)
        arguments["evaluators"] = [*arguments.get("evaluators", ()), evaluator]
    optimizer_text = gin_config.reference_text(gin_config.TRAIN, "optimizer")
    if flags.strict:
        arguments["strict"] = True
    compilation_cache.use(**entries[gin_config.COMPILATION_CACHE])
    model_dir = arguments.get("model_dir", "")
    open_inputs = functools.partial(inputs.open_inputs, workspace=workspace)
    with explaining_storage_failures(lambda: _saved_state(model_dir)):
        loop.train(**arguments, texts=texts, optimizer_text=optimizer_text, open_inputs=open_inputs)
    return 0


def _saved_state(model_dir: str) -> str:
    try:
        steps = checkpoint_steps(model_dir)
    except OSError:
        return "Finished checkpoints are not touched."
    if not steps:
        return "No checkpoint was finished yet, so the run starts from the beginning."
    return f"The checkpoint of step {steps[-1]:,} is whole and the run resumes from it."
