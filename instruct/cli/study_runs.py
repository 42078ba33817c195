"""A study's command line as runs: each one's gin is loaded and checked before anything starts."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from instruct import gin_config
from instruct.cli import check, settings
from instruct.data import registry
from instruct.errors import UserError
from instruct.eval import runner
from instruct.eval.eval_config import EvalConfig
from instruct.fields import check_arguments
from instruct.models.model import AnyConfig
from instruct.study import plan
from instruct.study.runner import PlannedRun
from instruct.train import loop
from instruct.train.program import check_layout
from instruct.workspace import Workspace

# Settings of the command line that runs before the grid get as well: where things are.
_OF_ALL_RUNS = (
    *("MIXTURE_OR_TASK_MODULE", "DATA_DIR", "STORE_DIR", "FLAN_CHECKOUT"),
    *("SKIP_UNAVAILABLE", "COMPILATION_CACHE_DIR"),
)


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """What the command line adds to runs: files, texts of gin, and `--gin.NAME=VALUE`."""

    files: tuple[str, ...]
    bindings: tuple[str, ...]
    flags: tuple[str, ...]

    def of_all_runs(self) -> "RunFlags":
        """Without what only the runs of the grid get."""
        flags = (flag for flag in self.flags if _name(flag) in _OF_ALL_RUNS)
        return RunFlags(self.files, (), tuple(flags))


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A planned run, and what its gin builds: the model and the arguments of both entries."""

    planned: PlannedRun
    workspace: Workspace
    model: AnyConfig
    train: Mapping[str, Any]
    evaluation: Mapping[str, Any]

    @property
    def suites(self) -> dict[str, str]:
        """Folder of results below MODEL_DIR/eval -> the suite's name; {} without evaluation."""
        if plan.EVAL not in self.planned.run.stages:
            return {}
        config: EvalConfig = self.evaluation["config"]
        prefix = f"{config.name}-" if config.name else ""
        return {f"{prefix}{suite}": suite for suite in config.suites}


def _name(flag: str) -> str:
    return flag.removeprefix("--gin.").partition("=")[0].strip()


def _is_of_study(name: str) -> bool:
    return name == "STUDY_DIR" or "Study" in name.split(".")


def read_flags(flags: argparse.Namespace) -> tuple[plan.Study, RunFlags]:
    """The study of the first --gin_file, and what else the command line sets, which is the runs'.

    STUDY_DIR and the fields of `plan.Study` are the study's wherever they stand.
    """
    if not flags.gin_file:
        raise UserError("give a study: --gin_file=gin/ablations/STUDY.gin --gin.STUDY_DIR=DIR.")
    own = [line for line in flags.gin_bindings if _is_of_study(_name(line))]
    own += [flag for flag in flags.gin_flags if _is_of_study(_name(flag))]
    study = plan.read_study(flags.gin_file[:1], own)
    rest = RunFlags(
        tuple(flags.gin_file[1:]),
        tuple(line for line in flags.gin_bindings if line not in own),
        tuple(flag for flag in flags.gin_flags if flag not in own),
    )
    return study, rest


def chosen_runs(study: plan.Study, only: Sequence[str]) -> tuple[plan.StudyRun, ...]:
    """The runs of the grid that --only asks for; several labels of one axis are alternatives."""
    wanted: dict[str, set[str]] = {}
    for text in only:
        axis, equals, label = text.partition("=")
        if not (axis and equals and label):
            raise UserError(f"--only={text}: write --only=AXIS=LABEL, such as --only=SEED=0.")
        plan.check_labels(study, "--only", {axis: label})
        wanted.setdefault(axis, set()).add(label)
    runs = tuple(
        run
        for run in study.runs()
        if all(run.labels[axis] in labels for axis, labels in wanted.items())
    )
    if not runs:
        raise UserError(f"--only={' --only='.join(only)} leaves no run of the study.")
    return runs


def load_run(
    run: plan.StudyRun, study_dir: str, rest: RunFlags, stand_ins: bool = False
) -> LoadedRun:
    """Loads the gin of a run.

    Args:
        stand_ins: settings that must be given and are not are made up, as `check` does.

    Raises:
        UserError: the gin of the run is wrong; the message starts with its name.
    """
    if not run.labels:
        rest = rest.of_all_runs()
    text = run.gin_text(study_dir, rest.files, rest.bindings)
    asked = argparse.Namespace(gin_file=[], gin_bindings=[text], gin_flags=list(rest.flags))
    made_up = check.STAND_INS if stand_ins else {}
    try:
        workspace, entries, _ = settings.load_with_stand_ins(asked, made_up)
        lines = [*rest.bindings, *map(gin_config.binding_from_flag, rest.flags)]
        planned = PlannedRun(
            run, run.gin_text(study_dir, rest.files, lines), gin_config.config_bindings()
        )
        train, evaluation = entries[gin_config.TRAIN], entries[gin_config.EVALUATE]
        loaded = LoadedRun(planned, workspace, check.model_of(entries), train, evaluation)
        _check(loaded, made_up)
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(run.name) else f"{run.name}: {text}") from error
    if plan.TRAIN not in run.stages:
        return loaded
    rows, (inputs, targets) = train["data"].batch_size, train["data"].lengths
    flops = float(loaded.model.train_flops(rows, inputs, targets)) * train["train_steps"]
    planned = dataclasses.replace(planned, steps=train["train_steps"], flops=flops)
    return dataclasses.replace(loaded, planned=planned)


def _check(loaded: LoadedRun, made_up: Mapping[str, Any]) -> None:
    """Raises UserError for what `train` or `eval` would refuse at once."""
    run, train, evaluation = loaded.planned.run, loaded.train, loaded.evaluation
    if plan.TRAIN in run.stages:
        if "data" not in train:
            raise UserError("nothing configures training; include gin/runs/train.gin or a recipe.")
        check_arguments(loop.train, train, except_for=("model_dir",))
        check_layout(loaded.model, train["data"])
        if not made_up:
            registry.check_name(loaded.workspace, train["data"].mixture)
    elif not evaluation.get("checkpoint_path"):
        raise UserError("Study.only_eval evaluates INITIAL_CHECKPOINT_PATH, which is not set.")
    if plan.EVAL in run.stages:
        if "config" not in evaluation:
            raise UserError("nothing configures evaluation; include gin/runs/eval.gin or a recipe.")
        check_arguments(runner.evaluate, evaluation, except_for=("vocabulary",))
        for suite in () if made_up else loaded.suites.values():
            registry.check_name(loaded.workspace, suite)
