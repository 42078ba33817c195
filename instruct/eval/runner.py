"""`evaluate`: checkpoints x suites x tasks -> results files and a table.

    MODEL_DIR/eval/<suite>/step_<n>/results.jsonl      (instruct/results.py)

Each task is written when it is finished, and an interrupted evaluation resumes with the next task.
Batches never cross tasks: results depend neither on other tasks nor on interruptions. A task that
fails gets a failure line, and the others are evaluated.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from rich.console import Console

from instruct.checkpoints.checkpoint_files import DamagedCheckpoint
from instruct.checkpoints.loading import (
    checkpoint_steps,
    find_checkpoint,
    load_newest,
    load_params,
    params_fingerprint,
    partly_adapted,
    step_of,
    trained_run,
)
from instruct.data import registry
from instruct.data.vocab import check_embedding_rows, load_vocabulary
from instruct.distributed import gather_json, num_processes
from instruct.eval.decoding.batching import BatchConfig
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.eval_config import EvalConfig, decode_strategy, trained_data
from instruct.eval.model_outputs import ModelRunner
from instruct.eval.suite_run import SuiteRun, leaf_examples, prepare_suites
from instruct.files import absolute_path, any_path
from instruct.lineage import read_lineage, unrecorded
from instruct.mesh import MeshConfig, make_mesh, param_shardings, with_shardings
from instruct.models.model import AnyConfig, make_model
from instruct.workspace import Workspace


def evaluate(
    model_dir: str,
    config: EvalConfig,
    *,
    checkpoint_path: str | None = None,
    model: AnyConfig | None = None,
    vocabulary: str | None = None,
    feature_lengths: Mapping[str, int] | None = None,
    chat_template: bool | None = None,
    decode: DecodeConfig | None = None,
    batching: BatchConfig | None = None,
    mesh: MeshConfig | None = None,
    strict: bool = False,
    workspace: Workspace = Workspace(),  # noqa: B008 (frozen)
    on_results: Callable[[pathlib.Path], object] = lambda path: None,
) -> int:
    """Evaluates checkpoints on suites, writes results under `model_dir`, prints tables.

    Args:
        model_dir: the run; its run.json sets the defaults of the arguments below.
        config: suites, examples, checkpoints.
        checkpoint_path: another run or checkpoint to evaluate (this program's, T5X's or Hugging
            Face's).
        model: architecture; None: as trained.
        vocabulary: see instruct/data/vocab.py; None: as trained.
        feature_lengths: {"inputs": S, "targets": T}; None: as trained.
        chat_template: prompts as turns of the vocabulary's chat template; None: as trained.
        decode: strategy; None: greedy with the length of the targets. EOS is the vocabulary's. With
            several samples the majority answer counts (instruct/eval/scoring/self_consistency.py).
        batching: rows and shapes; affects speed only.
        mesh: over all devices.
        strict: a damaged checkpoint is an error; otherwise "latest" is the newest whole one, and
            damaged ones among several are skipped.
        workspace: where data and stores are.
        on_results: called with each results file, when its suite is finished.

    Returns:
        The exit status: 1 if one of several checkpoints is damaged or a task failed (the others
        were evaluated), else 0.

    Raises:
        UserError: a wrong setting, no checkpoint, or existing results of other settings.
    """
    folder = any_path("MODEL_DIR", model_dir).absolute()
    if checkpoint_path is not None:
        any_path("CHECKPOINT_PATH", checkpoint_path)
    source = checkpoint_path or str(folder)
    trained = trained_run(folder, source, "runner.evaluate")
    vocabulary = vocabulary or trained.setting("vocabulary")
    lengths = feature_lengths or trained.feature_lengths()
    network = make_model(model or trained.model())
    layout = network.config.layout
    mixture = config.suites[0]
    data = trained_data(trained, layout, vocabulary, lengths, chat_template, mixture)
    check_embedding_rows(load_vocabulary(vocabulary), network.config.vocab_size)
    strategy = decode_strategy(decode, data)
    resolved = {suite: registry.resolve(workspace, suite).straight() for suite in config.suites}
    checkpoints = _checkpoints(source, config)

    console = Console(stderr=True, quiet=jax.process_index() != 0, highlight=False)

    def say(line: str) -> None:
        console.print(line, style="yellow", markup=False, soft_wrap=True)

    device_mesh = make_mesh(mesh or MeshConfig())
    models = ModelRunner.of_model(network, strategy, batching, device_mesh, data)
    abstract = network.abstract_params()
    placed = with_shardings(abstract, param_shardings(device_mesh, abstract))
    problems = prepare_suites(workspace, resolved.values(), config, data, console)
    lineage = read_lineage(source)
    if lineage.tasks is None:  # another program's checkpoint, perhaps of this run
        lineage = read_lineage(folder)
    if lineage.unknown:
        say(unrecorded(lineage))
    failed = False
    for checkpoint in checkpoints:
        try:
            if config.checkpoints == "latest" and num_processes() == 1:
                checkpoint, params = load_newest(source, placed, strict=strict, say=say)
            else:
                params = load_params(checkpoint, placed)
        except DamagedCheckpoint as error:
            if strict or len(checkpoints) == 1 or num_processes() > 1:
                raise
            say(f"{error.problem} It is not evaluated.")
            failed = True
            continue
        if config.base_checkpoint_path is not None:
            base = load_params(config.base_checkpoint_path, placed)
            params = partly_adapted(base, params, config.adaptation)
            del base
        for suite, mixture in resolved.items():
            run = SuiteRun(
                suite=f"{config.name}-{suite}" if config.name else suite,
                folder=folder,
                step=step_of(checkpoint),
                checkpoint=checkpoint,
                parameters=_parameters(checkpoint, config),
                description=registry.description_of(mixture.name),
                config=config,
                data=data,
                decode=models.decode,
                trained_tasks=None if lineage.tasks is None else set(lineage.tasks),
                problems=problems,
                workspace=workspace,
                examples_fn=functools.partial(leaf_examples, workspace, config, data, console),
            )
            failed |= run.evaluate(mixture, models, params, console)
            run.print_table()
            on_results(run.path)
        del params  # A device may hold only one set of parameters.
    return int(failed)


def _parameters(checkpoint: pathlib.Path, config: EvalConfig) -> dict[str, Any]:
    """Settings that tell parameters from others of the same place."""
    base = config.base_checkpoint_path
    adapted: dict[str, Any] = {}
    if base is not None:
        parameters = params_fingerprint(find_checkpoint(base))
        adapted = {"adaptation": config.adaptation, "base_parameters": parameters}
    return {"parameters": params_fingerprint(checkpoint), **adapted}


def _checkpoints(source: str, config: EvalConfig) -> list[pathlib.Path]:
    """Folders of the checkpoints to evaluate, in the order of their steps."""
    steps = checkpoint_steps(source) if config.checkpoints == "all" else sorted(set(config.steps))
    found = [find_checkpoint(source, step) for step in steps] or [find_checkpoint(source)]
    # A training beside it may save and remove while the processes look.
    first = gather_json({"checkpoints": [str(folder) for folder in found]})[0]
    return [absolute_path(folder) for folder in first["checkpoints"]]
