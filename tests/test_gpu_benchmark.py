"""benchmarks/gpu.sh at tiny size on a CPU; its time limits; what counts as wrong."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import gpu
from instruct.capacity.chips import chips

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_prepared_script_runs(tmp_path):
    environment = os.environ | {"OUT": str(tmp_path), "PYTHON": sys.executable}
    environment["XLA_FLAGS"] += " --xla_force_host_platform_device_count=1"  # the last one counts
    done = subprocess.run(
        [ROOT / "benchmarks" / "gpu.sh", "--tiny"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=475,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [result["cell"] for result in results] == [cell.name() for cell in gpu.cells(tiny=True)]
    by_kind = {}
    for result in results:
        by_kind.setdefault((result["kind"], result["attention"]), result)
    parity = by_kind["parity", ""]
    assert parity["status"] == "ok" and parity["first_loss_error"] < 1e-5
    decode, train = by_kind["decode", "einsum"], by_kind["train", "einsum"]
    assert decode["status"] == "ok" and decode["new_tokens_per_sec"] > 0
    assert train["status"] == "ok" and train["step_secs"] > 0 < train["program_gib"]
    assert 0 < train["share_of_measured_peak"] < 1.5 and train["mfu"] is None  # no data sheet
    cudnn = by_kind["train", "cudnn"]
    assert cudnn["status"] in ("failed", "skipped") and "cuDNN" in cudnn["reason"]
    flash = by_kind["gradients", "flash"]  # einsum on a CPU
    assert flash["status"] == "ok" and flash["bias_gradient_error"] < 1e-4
    page = (tmp_path / "gpu.md").read_text()
    assert page in done.stdout and page.count("| ok |") >= 3


def test_every_cell_of_a_gpu_is_listed_within_eight_minutes():
    cells = gpu.cells(tiny=False)
    train = {(c.size, c.inputs, c.targets, c.attention) for c in cells if c.kind == "train"}
    lengths = ((512, 128), (2048, 512))
    expected = {(s, *n, a) for s in ("base", "large", "xl") for n in lengths for a in gpu.ATTENTION}
    assert train == expected
    assert {chips()[name].matmul_flops for name in gpu.CHIPS.values()} == {989e12, 312e12}
    assert "timeout --kill-after=5 475" in (ROOT / "benchmarks" / "gpu.sh").read_text()


class FakeWorker:
    """Answers with the cell's size; dies of the size 'bad'."""

    started = 0

    def __init__(self, *arguments: str) -> None:
        type(self).started += 1

    def compute(self, cell, limit_secs):
        self.limit = limit_secs
        return None if cell.size == "bad" else {"status": "ok", "limit": limit_secs}

    def kill(self) -> None:
        pass


def test_a_cell_that_kills_its_process_leaves_the_others(monkeypatch):
    monkeypatch.setattr(gpu, "WorkerProcess", FakeWorker)
    monkeypatch.setattr(FakeWorker, "started", 0)
    listed = [gpu.Cell("train", 9, size) for size in ("base", "bad", "large", "xl")]
    recorded = []
    gpu.measure(listed, (), 100, recorded.append)
    assert [r["status"] for r in recorded] == ["ok", "failed", "ok", "ok"]
    assert recorded[1]["reason"] == "the process died" and FakeWorker.started == 2
    # A fresh process may take longer.
    assert [r.get("limit") for r in recorded] == [39, None, 39, 9]


def test_what_the_budget_does_not_hold_is_said(monkeypatch):
    monkeypatch.setattr(gpu, "WorkerProcess", FakeWorker)
    recorded = []
    gpu.measure([gpu.Cell("train", 9, "base")], (), 4, recorded.append)
    assert recorded[0]["status"] == "skipped" and recorded[0]["reason"] == "the budget of 4 s"


def test_a_process_that_takes_too_long_is_killed(tmp_path):
    worker = gpu.WorkerProcess(str(tmp_path), "float32")
    assert worker.compute(gpu.Cell("parity", 1), 0.05) is None
    assert worker._process.returncode is not None
    assert worker.compute(gpu.Cell("parity", 1), 5) is None  # dead: no answer, no wait


def test_errors_are_of_the_largest_element_of_an_array():
    exact = {"a": np.array([1.0, -4.0]), "relpos_bias": np.array([0.5])}
    found = {"a": np.array([1.0, -3.0]), "relpos_bias": np.array([0.45])}
    assert gpu.largest_error(found, exact) == (0.25, "a")
    assert gpu.largest_error(found, exact, "relpos_bias")[0] == pytest.approx(0.1)
    assert gpu.largest_error({"a": np.array([np.nan])}, {"a": np.ones(1)})[0] == np.inf
