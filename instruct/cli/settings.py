"""What every mode sets before it touches a task: the workspace and the modules of tasks."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from instruct import gin_config
from instruct.cli.environment import workspace_from_environment
from instruct.data import task_modules
from instruct.errors import UserError
from instruct.files import local_folder
from instruct.workspace import Workspace

# Register every family of this project; a user's own modules come on top.
TASK_MODULES = (
    *("tasks.gym.mixtures", "tasks.mixtures", "tasks.public", "tasks.published"),
    "tasks.suites.mixtures",
)
_SETTINGS_FILE = "gin/runs/settings.gin"
_SETTINGS = "instruct.cli.settings.Settings"
# Folders that gin may set -> an example for messages.
_FOLDERS = {"data_dir": "~/instruct_data", "store_dir": "~/stores", "flan_checkout": "~/FLAN"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where things are. None takes the environment variable, then the default folder.

    Attributes:
        task_modules: a module, several with commas, or a sequence of them, each defining tasks.
        data_dir: the user's data sets; else $INSTRUCT_DATA_DIR, else ~/instruct_data.
        store_dir: prepared records; else $INSTRUCT_STORE_DIR, else ~/.cache/instruct/stores.
        flan_checkout: a checkout of google-research/FLAN, whose wordings take the place of this
            project's; else $INSTRUCT_FLAN_CHECKOUT, else none.
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
        for name in _FOLDERS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise UserError(
                    f"{name.upper()} is {value!r}; give a folder as text, or leave it out."
                )

    def workspace(self) -> Workspace:
        """The folders set here, else those of the environment, else the default ones."""
        folders = {
            name: local_folder(name.upper(), value, example)
            for name, example in _FOLDERS.items()
            if (value := getattr(self, name))
        }
        return workspace_from_environment(**folders)

    def load_modules(self) -> None:
        """Imports the modules that register tasks."""
        given = self.task_modules or ()
        names = given.split(",") if isinstance(given, str) else list(given)
        task_modules.load_modules(
            [*TASK_MODULES, *(name.strip() for name in names if name.strip())]
        )


def load(flags: argparse.Namespace) -> tuple[Workspace, dict[str, dict[str, Any]]]:
    """Parses the gin flags and imports the task modules.

    Returns:
        The workspace, and the arguments of every entry.
    """
    return load_with_stand_ins(flags, {})[:2]


def load_with_stand_ins(
    flags: argparse.Namespace, stand_ins: Mapping[str, Any]
) -> tuple[Workspace, dict[str, dict[str, Any]], list[str]]:
    """What `load` returns, and the macros that must be set and have a stand-in instead.

    Args:
        stand_ins: see `instruct.gin_config.load`.
    """
    files = [_SETTINGS_FILE, *flags.gin_file]
    assumed = gin_config.load(files, gin_config.flag_bindings(flags), stand_ins)
    arguments = gin_config.entry_arguments((_SETTINGS, *gin_config.ENTRIES))
    settings = Settings(**arguments.pop(_SETTINGS))
    workspace = settings.workspace()
    settings.load_modules()
    return workspace, arguments, assumed
