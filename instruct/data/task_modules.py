"""Imports the modules that register tasks: by dotted name, or from a user's `.py` file."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from instruct.errors import UserError
from instruct.files import local_path


def load_modules(names: Iterable[str]) -> None:
    """Imports the modules that register tasks (MIXTURE_OR_TASK_MODULE).

    Args:
        names: dotted module names, or paths of `.py` files.

    Raises:
        UserError: not found (the message says where was looked), or it raises when imported.
    """
    for name in names:
        try:
            if name.endswith(".py"):
                _load_file(local_path("MIXTURE_OR_TASK_MODULE", name, "my_tasks.py"))
            else:
                importlib.import_module(name)
        except UserError:
            raise
        except Exception as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and (name == missing or name.startswith(missing + ".")):
                looked = dict.fromkeys(folder or "." for folder in sys.path)
                raise UserError(
                    f"cannot find module {name!r} (MIXTURE_OR_TASK_MODULE). Looked in: "
                    f"{', '.join(list(looked)[:4])}, ... Set PYTHONPATH, or give the path of a "
                    ".py file"
                ) from error
            raise UserError(
                f"module {name} (MIXTURE_OR_TASK_MODULE) cannot be imported: "
                f"{type(error).__name__}: {error}{_place(error)}"
            ) from error


def _place(error: Exception) -> str:
    """Where in the imported code an error arose; a SyntaxError says so itself."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return ""
    return f" ({frames[-1].filename}, line {frames[-1].lineno})"


def _load_file(path: Path) -> None:
    # The file's own name is the module's, so that worker processes can import what it defines.
    name = path.stem
    if name in sys.modules:
        there = getattr(sys.modules[name], "__file__", None)
        if there and path.exists() and Path(there).resolve() == path.resolve():
            return
        raise UserError(
            f"module file {path} (MIXTURE_OR_TASK_MODULE) has the name of the module {name!r}, "
            f"which is loaded already{f' from {there}' if there else ''}; rename the file"
        )
    if not path.is_file():
        raise UserError(f"cannot find module file {path} (MIXTURE_OR_TASK_MODULE)")
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # half a module must not pass for a whole one later
        raise
