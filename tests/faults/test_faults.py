"""One fault of some kinds; `python -m tests.faults` draws as many of all kinds as one likes."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.waiting import LIMIT_SECS

pytestmark = pytest.mark.slow(secs=30)

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Those that need no training loop, which no family of models changes.
KINDS = ("kill-save", "kill-prepare", "damage-save", "storage-save", "storage-prepare")


@pytest.mark.parametrize(
    ("family", "kinds", "num_faults"),
    [
        ("encoder_decoder", KINDS, 9),  # at most four in a row are of one kind
        ("decoder", ("kill-train",), 3),  # a kill that came too late is followed by another trial
    ],
)
def test_random_faults_lose_nothing(tmp_path, family, kinds, num_faults):
    if shutil.which("cc") is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux to build the library that fails")
    flags = [f"--family={family}", f"--faults={num_faults}", f"--kinds={','.join(kinds)}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", f"--folder={tmp_path}", "--seed=0", *flags],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * LIMIT_SECS,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    lines = (tmp_path / family / "faults.jsonl").read_text().splitlines()
    faults = [json.loads(line) for line in lines]
    assert len({fault["kind"] for fault in faults} & set(kinds)) >= min(3, len(kinds))
    assert not any(fault["problems"] for fault in faults)
    # Faults that hit nothing would prove nothing.
    assert any("was killed" in fault["victim"] for fault in faults), done.stdout
