"""A tiny run with MODEL_DIR and STORE_DIR in an emulated bucket that fails, as on a disk.

`python -m tests.bucket_life` does the same with processes, a kill -9 and 100 errors.
"""

import json
import os

import pytest

from instruct.cli.arguments import main
from instruct.files import path_of
from tests.bucket_life import TASK, check_equal, commands
from tests.gcs_emulator import KINDS, Faults

pytestmark = pytest.mark.slow


def test_a_life_in_a_bucket_is_that_on_a_disk(gcs, monkeypatch, tmp_path, capsys):
    steps, place = 3, "gs://bucket/runs/a"
    quick = "--gin.loop.train.eval_every_steps=None"
    for mode in ("train", "eval"):
        assert main(commands(str(tmp_path / "run"), steps, quick)[mode]) == 0
    gcs.faults = Faults(seed=1, count=8, share=0.04, kinds=KINDS[:-1])
    monkeypatch.setenv("INSTRUCT_STORE_DIR", "gs://bucket/stores")
    monkeypatch.setenv("INSTRUCT_STAGE_DIR", str(tmp_path / "first host"))
    assert main(commands(place)["prepare"]) == 0
    assert main(commands(place, 2, quick)["train"]) == 0
    # What a killed process leaves: a save without its end, rows after it, and a lock.
    unfinished = {"commit_timestamp_nsecs": None}
    gcs.put("runs/a/checkpoints/3/_CHECKPOINT_METADATA", json.dumps(unfinished).encode())
    gcs.put("runs/a/checkpoints/3/params/manifest.ocdbt", b"half")
    gcs.put("runs/a/metrics.jsonl", gcs.content("runs/a/metrics.jsonl") + b'{"step": 3, "lo')
    gcs.put(
        "runs/a/.lock", json.dumps({"host": os.uname().nodename, "process": 2**22 + 1}).encode()
    )
    monkeypatch.setenv("INSTRUCT_STAGE_DIR", str(tmp_path / "second host"))
    capsys.readouterr()
    for mode in ("train", "eval", "report"):
        assert main(commands(place, steps, quick)[mode]) == 0
    shown = capsys.readouterr()
    assert "gs://bucket/runs/a resumes from step 2" in shown.err.replace("\n", " ")
    assert gcs.faults.injected.total() == 8
    check_equal(tmp_path / "run", path_of(place), steps)
    files = {name.removeprefix("runs/a/") for name in gcs.names("runs/a")}
    assert {"run.json", "mixture.json", "report.html", "report.md", "operative.gin"} <= files
    assert f"eval/{TASK}/step_3/results.jsonl" in files and "runs/a/.lock" not in files
    assert any(name.startswith("tensorboard/") for name in files)
