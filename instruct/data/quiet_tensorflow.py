"""Hides TensorFlow's start-up messages and keeps TensorFlow off accelerators, which belong to JAX.

While it is imported, TensorFlow's C++ libraries log to file descriptor 2 (CPU instructions, missing
drivers) before any log level applies. `keep_quiet` removes these lines and shows all others.

Standard library only: the command line imports this module before anything else.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from instruct.import_hook import around_import

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


@contextlib.contextmanager
def _quiet_import(tensorflow: Any) -> Iterator[None]:
    """Context of TensorFlow's import: no lines of its libraries, and no accelerator for it."""
    with quiet_stderr():
        yield
        with contextlib.suppress(RuntimeError):  # devices are initialized
            tensorflow.config.set_visible_devices([], "GPU")
        tensorflow.constant(0)


def keep_quiet() -> None:
    """Makes the next import of TensorFlow in this process quiet; no effect after its import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    around_import("tensorflow", _quiet_import)
