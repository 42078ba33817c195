"""One fault of some kinds; `python -m tests.faults` draws as many of all kinds as one likes."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Those that need no training loop.
KINDS = ("kill-save", "kill-prepare", "damage-save", "storage-save", "storage-prepare")
FAULTS = 9  # at most four in a row are of one kind


def test_random_faults_lose_nothing(tmp_path):
    if shutil.which("cc") is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux to build the library that fails")
    command = [sys.executable, "-m", "tests.faults", f"--folder={tmp_path}", "--seed=0"]
    done = subprocess.run(
        [*command, f"--faults={FAULTS}", f"--kinds={','.join(KINDS)}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    faults = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert len({fault["kind"] for fault in faults} & set(KINDS)) >= 3
    assert not any(fault["problems"] for fault in faults)
    # Faults that hit nothing would prove nothing.
    assert any("was killed" in fault["victim"] for fault in faults), done.stdout
