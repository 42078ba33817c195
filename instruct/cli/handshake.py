"""What all processes of a run must share, compared before they compute anything together."""

import argparse
import hashlib
import pathlib
import platform
import sys
from typing import Any

from instruct import distributed, gin_config
from instruct.data.own_task import OwnTask
from instruct.train.session import package_versions

# Flags that each process has its own value of, or that only say how to reach the others.
_OWN_FLAGS = ("process_id", "coordinator", "distributed", "gin_flags", "gin_bindings", "gin_file")
_ROOT = pathlib.Path(__file__).parents[2]


def agree_on_settings(flags: argparse.Namespace, own: OwnTask | None = None) -> None:
    """Ends the run, naming the process and the first difference, unless all have the same start.

    Compared are flags, gin values, package versions, and every file of this program and of the
    modules that define tasks, their tables included. Call it after gin and task modules are loaded.
    """
    if distributed.num_processes() > 1:
        version = {} if own is None else {"version of the task of --data": own.spec.version}
        distributed.agree("settings", _facts(flags) | version)


def _facts(flags: argparse.Namespace) -> dict[str, Any]:
    own = {name: value for name, value in vars(flags).items() if name not in _OWN_FLAGS}
    own["given"] = sorted(set(own["given"]) - set(_OWN_FLAGS))
    return {
        **{f"--{name}": str(value) for name, value in own.items()},
        **{f"gin value {name}": value for name, value in gin_config.config_bindings().items()},
        "Python": platform.python_version(),
        **{f"package {name}": value for name, value in package_versions().items()},
        **{f"file {name}": digest for name, digest in _file_digests().items()},
    }


def _file_digests() -> dict[str, str]:
    """Name of a file of code or tables -> hash of its content."""
    folders = [_ROOT / "instruct", _ROOT / "tasks"]
    files = {p for folder in folders for p in folder.rglob("*") if p.suffix in (".py", ".toml")}
    names = {str(path.relative_to(_ROOT)): path for path in sorted(files)}
    names |= {f"of module {name}": path for name, path in _users_modules().items()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in names.items()
    }


def _users_modules() -> dict[str, pathlib.Path]:
    """Loaded modules below the working folder that are not this program's own."""
    here, found = pathlib.Path.cwd(), {}
    for name, module in sorted(sys.modules.items()):
        path = pathlib.Path(getattr(module, "__file__", None) or "/")
        inside = path.is_relative_to(here) and not path.is_relative_to(_ROOT / "instruct")
        if inside and not {"site-packages", "tasks"} & set(path.relative_to(here).parts):
            found[name] = path
    return found
