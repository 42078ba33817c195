"""Checkpoints in an emulated bucket: whole or not there, with errors of the service."""

import json

import pytest

from instruct.checkpoints import convert, loading
from instruct.checkpoints.checkpoint import CheckpointConfig, CheckpointStore
from instruct.checkpoints.checkpoint_files import checkpoint_steps
from instruct.files import path_of
from instruct.mesh import MeshConfig
from tests.checkpoints.test_checkpoint import assert_same, made
from tests.gcs_emulator import KINDS, Faults
from tests.train.batches import tiny_config

pytestmark = pytest.mark.slow

FOLDER = "runs/a/checkpoints"
ADDRESS = f"gs://bucket/{FOLDER}"


@pytest.fixture(scope="module")
def state():
    return made(True, MeshConfig(data=2, fsdp=2, tensor=2))


def steps_there(gcs):
    return sorted({name.split("/")[3] for name in gcs.names(FOLDER)})


def test_checkpoints_are_saved_and_resumed_despite_errors(gcs, state):
    gcs.faults = Faults(seed=1, count=5, share=0.2, kinds=KINDS[:-1])
    store = CheckpointStore(path_of(ADDRESS), CheckpointConfig(keep=2, keep_best=0))
    store.check_folder()
    for step in (1, 2, 3):
        store.save(step, state[0], {"window": step})
    store.close()
    assert gcs.faults.injected.total() == 5
    assert store.steps() == [2, 3] and steps_there(gcs) == ["2", "3"]
    store.check_saved(3, state[1])
    again = CheckpointStore(path_of(ADDRESS))
    resumed = again.resume_newest(state[1], strict=True, say=print)
    assert_same(resumed.state, state[0])
    assert (resumed.step, resumed.input) == (3, {"window": 3})
    params = loading.load_params("gs://bucket/runs/a", state[1].params)
    assert_same(params, state[0].params)
    folder, params = loading.load_newest("gs://bucket/runs/a", state[1].params)
    assert str(folder) == f"{ADDRESS}/3" and loading.step_of(folder) == 3
    lines = []
    model = tiny_config(scan_layers=True)
    loading.load_initial("gs://bucket/runs/a", state[1].params, model, say=lines.append)
    assert lines == [f"starts from a checkpoint of this program, {ADDRESS}/3"]


def test_what_was_not_finished_does_not_count_and_is_deleted(gcs, state):
    store = CheckpointStore(path_of(ADDRESS))
    store.save(1, state[0], {})
    store.save(2, state[0], {})
    store.close()
    # A save that was killed: no commit file, no time of it.
    del gcs.objects["bucket", f"{FOLDER}/2/commit_success.txt"]
    name = f"{FOLDER}/2/_CHECKPOINT_METADATA"
    metadata = json.loads(gcs.content(name))
    # A checkpoint of an Orbax that writes no commit file to a disk, copied by its user.
    assert checkpoint_steps("gs://bucket/runs/a") == [1, 2]
    gcs.put(name, json.dumps({**metadata, "commit_timestamp_nsecs": None}).encode())
    assert checkpoint_steps("gs://bucket/runs/a") == [1]
    assert CheckpointStore(path_of(ADDRESS)).steps() == [1] and steps_there(gcs) == ["1"]


def test_a_damaged_one_is_set_aside(gcs, state):
    store = CheckpointStore(path_of(ADDRESS))
    for step in (1, 2):
        store.save(step, state[0], {"window": step})
    store.wait()
    sizes = {name: len(gcs.content(name)) for name in gcs.names(f"{FOLDER}/2/params/")}
    name = max(sizes, key=sizes.__getitem__)
    content = bytearray(gcs.content(name))
    content[len(content) // 2] ^= 1
    gcs.put(name, bytes(content))
    lines = []
    resumed = store.resume_newest(state[1], strict=False, say=lines.append)
    assert resumed.step == 1 and steps_there(gcs) == ["1", "damaged-2"]
    assert f"It is kept as {ADDRESS}/damaged-2" in lines[0]
    store.save(2, state[0], {"window": 2})  # in its place
    store.close()
    assert steps_there(gcs) == ["1", "2", "damaged-2"]


def test_a_run_of_a_disk_goes_on_in_a_bucket_and_is_converted_there(gcs, state, tmp_path):
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    store.save(7, state[0], {"window": 7}, records={"run": {}, "rows": []})
    store.close()
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            gcs.put(f"runs/a/{path.relative_to(tmp_path / 'run').as_posix()}", path.read_bytes())
    moved = CheckpointStore(path_of(ADDRESS))
    assert moved.steps() == [7]
    assert_same(moved.resume(state[1])[0], state[0])
    source = "gs://bucket/runs/a"
    model = tiny_config(scan_layers=True)
    t5x = "gs://bucket/t5x/checkpoint_7"
    convert.convert(source, t5x, "t5x", model=model, slots=True)
    convert.convert(t5x, "gs://bucket/runs/b", "instruct", model=model, slots=True)
    assert checkpoint_steps("gs://bucket/runs/b") == [7]
    assert_same(loading.load_params("gs://bucket/runs/b", state[1].params), state[0].params)
    assert convert.describe("gs://bucket/runs/b").kind == "instruct"
