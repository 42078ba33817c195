"""`prepare` killed by SIGKILL at any moment, twice, ends with the bytes of an undisturbed build.

Real processes. After each kill nothing that is half built passes for a store, and no worker goes
on by itself.
"""

import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

from instruct.data.stores.store import MANIFEST_FILE, RECORDS_FILE, Store
from tests.data.stores.slow_build import NUM_TASKS
from tests.waiting import LIMIT_SECS, wait_until

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[3]


def start(folder, seconds, *hold):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.data.stores.slow_build", str(seconds), *map(str, hold)],
        cwd=ROOT,
        env=os.environ | {"INSTRUCT_STORE_DIR": str(folder), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder):
    process = start(folder, 0)
    output, _ = process.communicate(timeout=LIMIT_SECS)
    assert process.returncode == 0, output
    return json.loads(output.splitlines()[-1])


def stores(folder):
    """Finished stores: whatever has a manifest, held to it byte by byte."""
    found = {}
    for manifest in sorted(folder.glob("*/train/" + MANIFEST_FILE)):
        Store(manifest.parent).verify()
        records = (manifest.parent / RECORDS_FILE).read_bytes()
        name = manifest.parent.parent.name
        found[name] = (manifest.read_text(), hashlib.sha256(records).hexdigest())
    return found


def unfinished(folder):
    return list(folder.glob("*/.train.building-*"))


def kill_amid(folder, num_more, wait):
    """Kills a build a little after it finished so many stores, while others are written."""
    num_finished, held = len(stores(folder)) + num_more, folder.with_name("held")
    held.unlink(missing_ok=True)  # of the build before
    process = start(folder, 0.003, held, num_more + 2)
    try:
        wait_until(lambda: held.exists() and len(stores(folder)) >= num_finished, process)
        time.sleep(wait)
    finally:
        process.kill()
    process.communicate(timeout=LIMIT_SECS)
    wait_until(lambda: not running_workers(unfinished(folder)))  # they end with their parent


def running_workers(folders):
    """Processes that the unfinished folders are named after, while they run."""
    numbers = {folder.name.split("-")[-2] for folder in folders}
    return [n for n in numbers if n.isdecimal() and pathlib.Path(f"/proc/{n}").exists()]


def test_two_kills_end_as_an_undisturbed_build(tmp_path):
    whole = tmp_path / "whole"
    assert finish(whole) == {"built": NUM_TASKS}
    expected = stores(whole)
    assert len(expected) == NUM_TASKS

    seed = random.SystemRandom().randrange(10**6)
    print("seed of the random points:", seed)
    draw = random.Random(seed)
    killed = tmp_path / "killed"
    kill_amid(killed, draw.randrange(1, 3), draw.random() * 0.4)
    first = stores(killed)
    assert 0 < len(first) < NUM_TASKS and unfinished(killed)
    assert first.items() <= expected.items()
    kill_amid(killed, draw.randrange(1, 3), draw.random() * 0.4)
    second = stores(killed)
    assert len(first) < len(second) < NUM_TASKS
    assert first.items() <= second.items() <= expected.items()

    assert finish(killed) == {"built": NUM_TASKS - len(second), "there": len(second)}
    assert stores(killed) == expected
    assert not unfinished(killed)
