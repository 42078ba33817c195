"""Keeps off the screen what TensorFlow prints while it is loaded, whoever imports it first.

Its C++ libraries write lines about themselves to file descriptor 2 (which instructions they use,
which drivers they miss) before any log level counts. `keep_quiet` arranges that such lines are left
out, and all else that was written meanwhile is shown. TensorFlow reads data here and nothing else,
so it is kept off accelerators, which belong to JAX, in the same go: asking for them is what it
reports as an error where there are none.

Standard library only, as the command line imports it before anything else.
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

# Lines of absl's and TensorFlow's logs that are no more than information, warnings and errors of
# the libraries about the machine; a failed import shows them all.
_LIBRARY_LINE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IWE]\d{4} [\d:.]+\s+\d+ [\w./-]+:\d+\]"
    rb"|\d{4}-\d\d-\d\d [\d:.]+: [IWE] [\w./-]+:\d+\]"
    rb"|To enable the following instructions: .*rebuild TensorFlow"
)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what is written to file descriptor 2, then shows it without the libraries' lines.

    All of it is shown if the block raises.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            held.seek(0)
            for line in held:
                if failed or not _LIBRARY_LINE.match(line):
                    os.write(kept, line)
            os.close(kept)


class _QuietImport(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as Python does, and has it loaded quietly."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        del path, target
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_quietly(module: Any) -> None:
                with quiet_stderr():
                    load(module)
                    with contextlib.suppress(RuntimeError):  # devices are in use already
                        module.config.set_visible_devices([], "GPU")
                    module.constant(0)

            spec.loader.exec_module = load_quietly  # type: ignore[method-assign]
        return spec


def keep_quiet() -> None:
    """Has TensorFlow loaded quietly in this process; nothing if it is loaded already."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" not in sys.modules and not any(
        isinstance(finder, _QuietImport) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _QuietImport())
