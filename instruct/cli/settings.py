"""Settings shared by all modes that use tasks: the workspace and the task modules."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from instruct import gin_config
from instruct.cli import own_data
from instruct.cli.environment import workspace_from_environment
from instruct.data import registry, task_modules
from instruct.data.own_task import OwnTask
from instruct.data.task_file import read_task_file
from instruct.errors import UserError
from instruct.files import any_folder, any_path, local_folder
from instruct.workspace import Workspace

if TYPE_CHECKING:
    from instruct.models.model import AnyConfig

# Modules that register every family of this project -> the first parts of their names (`gym` of
# `gym.chain_sum`). They are imported when such a name is looked up, before a user's modules all.
TASK_MODULES: Mapping[str, Sequence[str]] = {
    "tasks.gym.mixtures": ("gym",),
    "tasks.lists.mixtures": ("lists",),
    "tasks.cot": ("cot",),
    "tasks.t0": ("t0",),
    "tasks.dialog.family": ("dialog",),
    "tasks.flan2021.family": ("flan2021",),
    "tasks.niv2.family": ("niv2",),
    "tasks.program_synthesis.family": ("program_synthesis",),
    "tasks.mixtures": (
        *("cot", "t0", "dialog*", "flan20*", "flan_tasks_*", "niv2", "program_synthesis"),
        *("muffin", "p3_plus_plus", "scaling_*", "equal*"),
    ),
    "tasks.public": ("public", "gsm8k", "cot_files", "niv2_files"),
    "tasks.published": ("published",),
    "tasks.cot_collection": ("cot_collection",),
    "tasks.suites.mixtures": (
        *("mmlu", "bbh", "tydiqa", "mgsm", "xquad", "gsm8k", "gsm8k_test", "flan_held_out"),
        *("held_in", "held_in_wordings", "cot_eval", "t0_held_out", "dialogsum", "samsum"),
        "bias",
    ),
}
_SETTINGS_FILE = "gin/runs/settings.gin"
_SETTINGS = "instruct.cli.settings.Settings"
_MIXTURE_MACROS: tuple[str, ...] = ("MIXTURE_OR_TASK_NAME", "EVAL_MIXTURES", "EVAL_SUITES")
# Folders that gin may set -> an example for error messages.
_FOLDERS = {"data_dir": "~/instruct_data", "store_dir": "~/stores", "flan_checkout": "~/FLAN"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Task modules and folders; a folder of None is that of the environment (`environment.py`).

    Attributes:
        task_modules: a module that defines tasks, a task file or a table of rates, several with
            commas, or a sequence of them.
        data_dir, store_dir, flan_checkout: see `Workspace`.
    """

    task_modules: str | tuple[str, ...] | None = None
    data_dir: str | None = None
    store_dir: str | None = None
    flan_checkout: str | None = None

    def __post_init__(self) -> None:
        names = self.task_modules
        listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
        if names is not None and not isinstance(names, str) and not listed:
            raise UserError(
                f"MIXTURE_OR_TASK_MODULE is {names!r}; give a module such as my_tasks, or a path "
                "such as my_tasks.py, several with commas."
            )

    def workspace(self) -> Workspace:
        """The folders set here, else those of the environment, else the default folders."""
        folders = {
            name: (any_folder if name == "store_dir" else local_folder)(
                name.upper(), value, example
            )
            for name, example in _FOLDERS.items()
            if (value := getattr(self, name)) not in (None, "")
        }
        return workspace_from_environment(**folders)

    def modules(self) -> list[str]:
        """The user's modules that register tasks."""
        names = self.task_modules or ()
        names = names.split(",") if isinstance(names, str) else names
        return [name.strip() for name in names if name.strip()]


def own_task(flags: argparse.Namespace) -> OwnTask | None:
    """The task of --data and its flags, registered after this project's; None without --data."""
    if getattr(flags, "data", None) is not None:
        declare_project_tasks()
    return own_data.task_of_flags(flags)


def declare_project_tasks() -> None:
    """Declares this project's tasks, whose names a user's tasks may not have."""
    registry.add_on_demand(TASK_MODULES)


def task_of_run(flags: argparse.Namespace) -> OwnTask | None:
    """The task of --data that the run in MODEL_DIR trained on, registered; None without one.

    If it cannot be used, that is an error unless a flag names what to evaluate.
    """
    bindings = [*flags.gin_bindings, *flags.gin_flags]
    gin_config.load(flags.gin_file, bindings, {"str": "{name}"})
    model_dir = gin_config.macros().get("MODEL_DIR")
    if not isinstance(model_dir, str):
        return None
    path = own_data.task_file_of_run(any_path("MODEL_DIR", model_dir))
    if path is None:
        return None
    declare_project_tasks()
    try:
        return own_data.register_task(read_task_file(path))
    except UserError as error:
        names = {text.removeprefix("--gin.").partition("=")[0].strip() for text in bindings}
        if "EVAL_MIXTURES" in names:
            print(f"warning: {error} The run's own task is not known here.", file=sys.stderr)
            return None
        raise UserError(
            f"{error} The run trained on this task; name another one with --data=FILE or "
            "--gin.EVAL_MIXTURES=NAME."
        ) from error


def load(
    flags: argparse.Namespace, own: OwnTask | None = None
) -> tuple[Workspace, dict[str, dict[str, Any]]]:
    """Parses gin flags and imports task modules; (workspace, arguments of every entry).

    Args:
        own: the task that is trained on and evaluated unless a flag names a mixture.
    """
    return load_with_stand_ins(flags, {}, own)[:2]


def load_with_stand_ins(
    flags: argparse.Namespace, stand_ins: Mapping[str, Any], own: OwnTask | None = None
) -> tuple[Workspace, dict[str, dict[str, Any]], list[str]]:
    """As `load`, and the required macros that `gin_config.load` bound to stand-ins."""
    files = [_SETTINGS_FILE, *flags.gin_file]
    mixtures = dict.fromkeys(_MIXTURE_MACROS, own.spec.name) if own else {}
    bindings = [*flags.gin_bindings, *flags.gin_flags]
    assumed = gin_config.load(files, bindings, stand_ins, mixtures)
    arguments = gin_config.entry_arguments((_SETTINGS, *gin_config.ENTRIES))
    settings = Settings(**arguments.pop(_SETTINGS))
    workspace = settings.workspace()
    declare_project_tasks()
    task_modules.load_modules(settings.modules(), own_data.register)
    return workspace, arguments, assumed


def bound_model(entries: Mapping[str, Any]) -> "AnyConfig | None":
    """The model of gin's entries, of `train` or of a model file alone; None if none is bound."""
    from instruct.checkpoints.model_fields import CLASSES  # imports JAX and Flax

    if model := entries[gin_config.TRAIN].get("model"):
        return model
    bound = {name.rpartition(".")[2]: entries[name] for name in gin_config.MODELS if entries[name]}
    if len(bound) > 1:
        raise UserError(f"{' and '.join(bound)} are both bound; include one file of gin/models.")
    return next((CLASSES[name](**fields) for name, fields in bound.items()), None)
