"""A storage that fails in the middle of a save: one clear error, and nothing saved is lost."""

import errno
import json
import os
import pathlib
import subprocess
import sys

import pytest

from instruct.errors import storage_failure
from tests.failing_storage import FAULTS_A_KIND, KINDS, compiled
from tests.waiting import LIMIT_SECS

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_any_call_of_a_save_may_fail(tmp_path):
    library = compiled(tmp_path)
    if library is None:
        pytest.skip("needs a C compiler on Linux to build the library that fails")
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}  # one device will do
    done = subprocess.run(
        [sys.executable, "-m", "tests.failing_storage", str(tmp_path / "runs")],
        cwd=ROOT,
        env=environment | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "shutting down" not in done.stderr, done.stderr
    faults = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(faults) == len(KINDS) * FAULTS_A_KIND
    for fault in faults:
        assert fault["same"] and fault["newest"] in (1, 2), fault
        if fault["error"] == "NoneType":  # a call whose failure the libraries may ignore
            assert fault["newest"] == 2, fault
            continue
        assert fault["error"] in ("OSError", "PermissionError", "FileNotFoundError"), fault
        error = OSError(fault["errno"], fault["text"], fault["filename"])
        message = storage_failure(error)
        assert message is not None and str(tmp_path / "runs") in message, fault
        assert errno.errorcode[fault["errno"]] == fault["name"], fault
    assert sum(fault["error"] != "NoneType" for fault in faults) > len(faults) / 2
