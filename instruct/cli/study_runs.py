"""A study's command line as runs: each one's gin is loaded and checked before anything starts."""

import argparse
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from instruct import gin_config
from instruct.cli import check
from instruct.cli.settings import bound_model, load_with_stand_ins
from instruct.data import registry
from instruct.errors import UserError, unknown_name
from instruct.eval import runner
from instruct.eval.eval_config import EvalConfig
from instruct.fields import check_arguments
from instruct.models.model import AnyConfig
from instruct.report.papers import printed_tables
from instruct.study import plan
from instruct.study.runner import PlannedRun
from instruct.train import loop
from instruct.train.profiling import check_profile_steps
from instruct.train.program import check_layout
from instruct.workspace import Workspace

# Settings of the command line that runs before the grid get as well: where things are.
_OF_ALL_RUNS = (
    *("MIXTURE_OR_TASK_MODULE", "DATA_DIR", "STORE_DIR", "FLAN_CHECKOUT"),
    *("SKIP_UNAVAILABLE", "COMPILATION_CACHE_DIR"),
)
# Files that bind the macros that every run knows.
_EVERY_RUN = ("gin/runs/settings.gin", "gin/runs/train.gin", "gin/runs/eval.gin")
_MACRO = re.compile(r"^(\w+) *=", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """What the command line adds to runs.

    Attributes:
        files: gin files, of all runs.
        settings: lines of gin and `--gin.NAME=VALUE`. One that sets a macro of the study's own
            (`%T5_small`) is for the runs that read it, others are for the runs of the grid.
    """

    files: tuple[str, ...]
    settings: tuple[str, ...]

    def of_run(self, run: plan.StudyRun, runs: Sequence[plan.StudyRun]) -> list[str]:
        """The settings of a run; `runs` are all runs of the study."""
        own = set().union(*(gin_config.macro_names(one.text) for one in runs)) - _common_macros()
        read = gin_config.macro_names(run.text)

        def is_of_run(name: str) -> bool:
            return name in read if name in own else bool(run.labels) or name in _OF_ALL_RUNS

        return [setting for setting in self.settings if is_of_run(_name(setting))]


@functools.cache
def _common_macros() -> frozenset[str]:
    texts = (gin_config.find_gin_file(path).read_text("utf-8") for path in _EVERY_RUN)
    return frozenset(name for text in texts for name in _MACRO.findall(text))


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A planned run, and what its gin builds: the model and the arguments of both entries.

    `made_up` are macros that must be set and are not.
    """

    planned: PlannedRun
    workspace: Workspace
    model: AnyConfig
    train: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    made_up: Sequence[str]

    @property
    def suites(self) -> dict[str, str]:
        """Folder of results below MODEL_DIR/eval -> the suite's name; {} without evaluation."""
        if plan.EVAL not in self.planned.run.stages:
            return {}
        config: EvalConfig = self.evaluation["config"]
        prefix = f"{config.name}-" if config.name else ""
        return {f"{prefix}{suite}": suite for suite in config.suites}


def _name(setting: str) -> str:
    """What a flag or a line of gin sets."""
    return setting.removeprefix("--gin.").partition("=")[0].strip()


def read_flags(flags: argparse.Namespace) -> tuple[plan.Study, RunFlags]:
    """The study of the first --gin_file, and what else the command line sets, which is the runs'.

    The fields of `plan.Study` and the macros that the study's file binds are the study's.
    """
    if not flags.gin_file:
        raise UserError("give a study: --gin_file=gin/ablations/STUDY.gin --gin.STUDY_DIR=DIR.")
    settings = [*flags.gin_bindings, *flags.gin_flags]
    own = [setting for setting in settings if "Study" in _name(setting).split(".")]
    plan.read_study(flags.gin_file[:1], own)
    macros = gin_config.macros()
    own += [setting for setting in settings if _name(setting) in macros]
    study = plan.read_study(flags.gin_file[:1], own)
    rest = tuple(setting for setting in settings if setting not in own)
    for name in study.papers:  # the page, which is written last, reads them
        if name not in printed_tables.all_tables():
            raise unknown_name("table of Study.papers", name, printed_tables.all_tables())
    for name in map(_name, rest):
        values = study.axes.get(name, {})
        if not isinstance(values, Mapping):
            raise UserError(
                f"{name} is set on the command line and is an axis of the study, {values!r}, which "
                f"names the runs. Change the axis, or choose runs: --only={name}={values[0]}."
            )
    return study, RunFlags(tuple(flags.gin_file[1:]), rest)


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


def refuse_equal_runs(loaded: Sequence[LoadedRun]) -> None:
    """Raises UserError if two runs of the grid are one: something overrides their points."""
    names: dict[tuple[tuple[str, ...], frozenset[tuple[str, str]]], str] = {}
    for one in loaded:
        planned = one.planned
        own = {k: v for k, v in planned.settings.items() if k != "MODEL_DIR"}
        name = names.setdefault((planned.run.stages, frozenset(own.items())), planned.name)
        if planned.run.labels and name != planned.name:
            raise UserError(
                f"{name} and {planned.name} have the same settings. Later settings win: the points "
                "in the order of the axes, then other files, then --gin flags. Leave out the one "
                "that overrides these points, or give the labels different gin."
            )


def load_run(
    run: plan.StudyRun,
    study_dir: str,
    files: Sequence[str],
    settings: Sequence[str],
    stand_ins: bool = False,
) -> LoadedRun:
    """Loads the gin of a run.

    Args:
        files, settings: see `RunFlags`; those of this run.
        stand_ins: settings that must be given and are not are made up, as `check` does.

    Raises:
        UserError: the gin of the run is wrong; the message starts with its name.
    """
    text = run.gin_text(study_dir, files, ())
    asked = argparse.Namespace(gin_file=[], gin_bindings=[text, *settings], gin_flags=[])
    values = check.STAND_INS if stand_ins else {}
    try:
        workspace, entries, made_up = load_with_stand_ins(asked, values)
        lines = [
            gin_config.binding_from_flag(setting) if setting.startswith("--gin.") else setting
            for setting in settings
        ]
        planned = PlannedRun(
            run, run.gin_text(study_dir, files, lines), gin_config.config_bindings()
        )
        train, evaluation = entries[gin_config.TRAIN], entries[gin_config.EVALUATE]
        model = bound_model(entries)
        if model is None:
            raise UserError("its gin binds no model; include a file of gin/models or a recipe.")
        loaded = LoadedRun(planned, workspace, model, train, evaluation, made_up)
        _check(loaded)
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(run.name) else f"{run.name}: {text}") from error
    if plan.TRAIN not in run.stages:
        return loaded
    rows, (inputs, targets) = train["data"].batch_size, train["data"].lengths
    flops = float(loaded.model.train_flops(rows, inputs, targets)) * train["train_steps"]
    planned = dataclasses.replace(planned, steps=train["train_steps"], flops=flops)
    return dataclasses.replace(loaded, planned=planned)


def _check(loaded: LoadedRun) -> None:
    """Raises UserError for what `train` or `eval` would refuse at once."""
    run, train, evaluation = loaded.planned.run, loaded.train, loaded.evaluation
    if plan.TRAIN in run.stages:
        if train.get("data") is None:
            raise UserError("nothing configures training; include gin/runs/train.gin or a recipe.")
        check_arguments(loop.train, train, except_for=("model_dir",))
        check_profile_steps(train.get("profile_steps"))
        check_layout(loaded.model, train["data"])
        if check.is_set(train["data"].mixture):
            registry.check_name(loaded.workspace, train["data"].mixture)
    elif not evaluation.get("checkpoint_path"):
        raise UserError("Study.only_eval evaluates INITIAL_CHECKPOINT_PATH, which is not set.")
    if plan.EVAL in run.stages:
        if evaluation.get("config") is None:
            raise UserError("nothing configures evaluation; include gin/runs/eval.gin or a recipe.")
        check_arguments(runner.evaluate, evaluation, except_for=("vocabulary",))
        for suite in filter(check.is_set, loaded.suites.values()):
            registry.check_name(loaded.workspace, suite)
