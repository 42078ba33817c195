"""Loads what registers tasks: modules, users' `.py` files, task files and tables of rates."""

import importlib
import importlib.machinery
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from instruct.data import rate_tables, registry
from instruct.data.task_file import ENDING
from instruct.errors import UserError
from instruct.files import local_path


def load_modules(
    names: Iterable[str], register_task_file: Callable[[Path], None] | None = None
) -> None:
    """Imports a user's modules that register tasks (MIXTURE_OR_TASK_MODULE).

    Modules on demand (`registry.add_on_demand`) are imported before a user's Python module, which
    may use or repeat any of their names.

    Args:
        names: dotted module names, paths of `.py` files, of task files (`.toml`, task_file.py), or
            of tables of rates (rate_tables.py).
        register_task_file: registers the task of a task file; None if none is among the names.

    Raises:
        UserError: a module is not found, or raises an exception when imported.
    """
    for name in names:
        try:
            if name.endswith(ENDING) and register_task_file is not None:
                register_task_file(local_path("MIXTURE_OR_TASK_MODULE", name, "my_task.toml"))
            elif name.endswith(rate_tables.ENDINGS):
                rate_tables.register(name)
            else:
                registry.import_all()
                with registry.forgetting_failed_imports():
                    _import(name)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and (name == missing or name.startswith(missing + ".")):
                folders = list(dict.fromkeys(folder or "." for folder in sys.path))
                raise UserError(
                    f"cannot find module {name!r} (MIXTURE_OR_TASK_MODULE). Searched: "
                    f"{', '.join(folders[:4])}, ... Set PYTHONPATH, or give the path of a .py file"
                ) from error
            raise UserError(
                f"module {name} (MIXTURE_OR_TASK_MODULE) cannot be imported: "
                f"{type(error).__name__}: {error}{_location(error)}"
            ) from error


def _location(error: BaseException) -> str:
    """File and line where an error arose; "" for a SyntaxError, whose text has them."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return ""
    return f" ({frames[-1].filename}, line {frames[-1].lineno})"


def _import(name: str) -> None:
    if name.endswith(".py"):
        _load_file(local_path("MIXTURE_OR_TASK_MODULE", name, "my_tasks.py"))
    else:
        importlib.import_module(name)


def _load_file(path: Path) -> None:
    # The module is named like the file, so that worker processes can import what it defines.
    name = path.stem
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin and path.exists() and Path(origin).resolve() == path.resolve():
            return
        raise UserError(
            f"module file {path} (MIXTURE_OR_TASK_MODULE) has the name of the module {name!r}, "
            f"which is loaded already{f' from {origin}' if origin else ''}; rename the file"
        )
    if not path.is_file():
        raise UserError(f"cannot find module file {path} (MIXTURE_OR_TASK_MODULE)")
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # no half-imported module for a later import
        raise
