"""Runs code around or after the first import of a module, or hides one, without importing it.

Standard library only: the command line imports this module before anything else.
"""

import contextlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

# Module that is executing -> context around its execution.
Around = Callable[[ModuleType], AbstractContextManager[Any]]


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module like Python does, and wraps its loader's execution."""

    def __init__(self, name: str, around: Around) -> None:
        self.name, self.around = name, around
        self._is_searching = False

    def find_spec(self, name: str, *_: Any) -> Any:
        if name != self.name or self._is_searching:
            return None
        self._is_searching = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._is_searching = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_wrapped(module: ModuleType) -> None:
                with self.around(module):
                    execute(module)
                with contextlib.suppress(ValueError):  # a second import after a failed one
                    sys.meta_path.remove(self)

            spec.loader.exec_module = execute_wrapped  # type: ignore[method-assign]
        return spec


def around_import(name: str, around: Around) -> None:
    """Wraps the next import of a module in a context; no effect if it is imported already."""
    asked = any(
        isinstance(f, _Finder) and (f.name, f.around) == (name, around) for f in sys.meta_path
    )
    if name not in sys.modules and not asked:
        sys.meta_path.insert(0, _Finder(name, around))


def after_import(name: str, function: Callable[[], None]) -> None:
    """Calls a function as soon as a module is imported: now, if it is already."""
    if name in sys.modules:
        function()
        return

    @contextlib.contextmanager
    def around(_: ModuleType) -> Iterator[None]:
        yield
        function()

    around_import(name, around)


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """Context in which a package seems not to be installed, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
