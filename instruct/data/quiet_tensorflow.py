"""Hides TensorFlow's start-up messages and keeps TensorFlow off accelerators, which belong to JAX.

While it is imported, TensorFlow's C++ libraries log to file descriptor 2 (CPU instructions, missing
drivers) before any log level applies. `keep_quiet` removes these lines and shows all others.

Standard library only: the command line imports this module before anything else.
"""

import contextlib
import importlib.abc
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

# Messages of absl and TensorFlow about the machine; a failed import shows them all.
_LIBRARY_LINE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IWE]\d{4} [\d:.]+\s+\d+ [\w./-]+:\d+\]"
    rb"|\d{4}-\d\d-\d\d [\d:.]+: [IWE] [\w./-]+:\d+\]"
    rb"|To enable the following instructions: .*rebuild TensorFlow"
)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Removes the libraries' lines from what the block writes to file descriptor 2.

    The other lines are shown after the block; all lines if it raises.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            buffer.seek(0)
            for line in buffer:
                if failed or not _LIBRARY_LINE.match(line):
                    os.write(stderr, line)
            os.close(stderr)


class _QuietImport(importlib.abc.MetaPathFinder):
    """Finds TensorFlow like Python does, and wraps its loader in `quiet_stderr`."""

    def find_spec(self, name: str, *_: Any) -> Any:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_quietly(module: Any) -> None:
                with quiet_stderr():
                    load(module)
                    with contextlib.suppress(RuntimeError):  # devices are initialized
                        module.config.set_visible_devices([], "GPU")
                    module.constant(0)

            spec.loader.exec_module = load_quietly  # type: ignore[method-assign]
        return spec


def keep_quiet() -> None:
    """Makes the next import of TensorFlow in this process quiet; no effect after its import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" not in sys.modules and not any(
        isinstance(finder, _QuietImport) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _QuietImport())
