"""Processes that build: one that is killed takes nothing along, orphans end, first comes first."""

import io
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from instruct.data import registry
from instruct.data.stores.jobs import store_jobs
from instruct.data.stores.prepare import prepare
from instruct.data.stores.processes import map_in_processes
from instruct.data.stores.store import leaf_manifest
from tests.data.stores.worker_functions import double
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.waiting import is_running, wait_until
from tests.workspaces import workspace

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[3]


class KillingSource(ToySource):
    """Its process dies without a word, as the kernel ends one that takes too much memory."""

    def records(self, workspace, split):
        yield from super().records(workspace, split)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_source_that_kills_its_process_fails_alone():
    sources = [ToySource(f"s{i}") for i in range(7)]
    sources[2] = KillingSource("kills")
    name, out = fresh_name("mix"), io.StringIO()
    registry.add_mixture(name, {registry.add_task(toy_spec(s)).name: 1 for s in sources})
    resolved, config = registry.resolve(workspace(), name), toy_config(name)
    console = Console(file=out)
    done = prepare(workspace(), resolved, config, ("train",), workers=2, console=console)
    found = [store.status for store in done.stores]
    assert found == ["built", "built", "failed", "built", "built", "built", "built"]
    assert done.stores[2].machine and "killed" in done.stores[2].message
    assert leaf_manifest(workspace(), resolved.leaves[2], "train", config)[0] is None
    assert "7/7 stores" in out.getvalue()


def test_only_the_item_that_kills_its_process_has_no_result():
    results = dict(map_in_processes(double, list(range(8)), 2))
    assert results == {number: None if number == 3 else 2 * number for number in range(8)}


PARENT = """
from instruct.data.stores.processes import map_in_processes
from tests.data.stores.worker_functions import write_own_number_and_wait
import sys
if __name__ == "__main__":
    list(map_in_processes(write_own_number_and_wait, [sys.argv[1] + "/a", sys.argv[1] + "/b"], 2))
"""


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    files = [tmp_path / "a", tmp_path / "b"]
    try:
        wait_until(lambda: all(file.exists() and file.read_text() for file in files), process)
    finally:
        process.kill()
        process.wait()
    numbers = [int(file.read_text()) for file in files]
    wait_until(lambda: not any(is_running(number) for number in numbers))


def test_jobs_name_every_store_once():
    spec = registry.add_task(
        toy_spec(modes={"zs_noopt": 1, "fs_noopt": 1}, num_examples={"train": 12})
    )
    name = fresh_name("mix")
    registry.add_mixture(name, {spec.name: 1})
    jobs = list(
        store_jobs(
            workspace(),
            registry.resolve(workspace(), name),
            toy_config(name),
            ("validation", "test"),
        )
    )
    assert [(job.split, job.rows) for job in jobs] == [("validation", None), ("train", 12)]
    assert {job.task for job in jobs} == {spec.name}
