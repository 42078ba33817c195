"""Checkpoints: exact, in either layout, under another mesh, checked, kept by number and metric."""

import errno
import itertools
import json
import os
import shutil
import subprocess
import time
import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from instruct.checkpoints import checkpoint as store_module
from instruct.checkpoints.checkpoint import CheckpointConfig, CheckpointStore
from instruct.checkpoints.checkpoint_files import (
    FOLDER,
    PINNED,
    DamagedCheckpoint,
    checkpoint_steps,
)
from instruct.checkpoints.loading import find_checkpoint, load_params, step_of
from instruct.checkpoints.train_state import TrainState
from instruct.errors import RunFailed, UserError
from instruct.mesh import MeshConfig, make_mesh, with_shardings
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import unstack_layers
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import abstract_state, state_shardings
from tests.train.batches import tiny_config

pytestmark = pytest.mark.slow

OPTIMIZER = OptimizerConfig(min_factored_size=16)


def made(scan_layers: bool, mesh_config: MeshConfig) -> tuple[TrainState, TrainState]:
    """(a state of random numbers, its abstract twin with shardings)."""
    model = EncoderDecoder(tiny_config(scan_layers=scan_layers))
    optimizer = make_optimizer(OPTIMIZER)
    abstract = abstract_state(model.abstract_params(), optimizer)
    shardings = state_shardings(make_mesh(mesh_config), abstract)
    abstract = with_shardings(abstract, shardings)
    draw = np.random.default_rng(1)
    numbers = jax.tree.map(lambda leaf: draw.random(leaf.shape, np.float32), abstract)
    slots = numbers.opt_state._replace(count=np.int32(7), learning_rate=np.float32(0))
    numbers = numbers._replace(step=np.int32(7), opt_state=slots)
    return jax.device_put(numbers, shardings), abstract


@pytest.fixture(scope="module")
def unrolled():
    return made(False, MeshConfig(data=2, fsdp=2, tensor=2))


@pytest.fixture(scope="module")
def scanned():
    return made(True, MeshConfig(data=4, fsdp=1, tensor=2))


@pytest.fixture(scope="module")
def saved(unrolled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    store = CheckpointStore(folder)
    store.save(7, unrolled[0], {"window": 3, "share": 0.1})
    store.close()
    return folder


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_resume_gives_back_every_bit_and_the_input_position(unrolled, saved):
    state, input_state = CheckpointStore(saved).resume(unrolled[1])
    assert_same(state, unrolled[0])
    assert input_state == {"window": 3, "share": 0.1}
    kernel = state.params["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
    assert tuple(kernel.sharding.spec) == ("fsdp", "tensor")


def test_either_layout_and_mesh_reads_the_same_files(unrolled, scanned, saved, tmp_path):
    state, _ = CheckpointStore(saved).resume(scanned[1])
    assert_same(unstack_layers(state.params), unrolled[0].params)
    assert_same(unstack_layers(state.opt_state), unrolled[0].opt_state)
    stacked = state.params["encoder"]["layers"]["mlp"]["wi_0"]["kernel"]
    assert tuple(stacked.sharding.spec) == (None, None, "tensor")
    store = CheckpointStore(tmp_path)
    store.save(7, state, {})
    store.close()
    assert_same(CheckpointStore(tmp_path).resume(unrolled[1])[0], unrolled[0])


def test_load_params_only(unrolled, saved):
    abstract = EncoderDecoder(tiny_config()).abstract_params()
    for path in (saved.parent, saved, saved / "7"):
        assert_same(load_params(path, abstract), unrolled[0].params)
    stacked = EncoderDecoder(tiny_config(scan_layers=True)).abstract_params()
    assert_same(unstack_layers(load_params(saved, stacked)), unrolled[0].params)
    assert checkpoint_steps(saved.parent) == [7] and step_of(find_checkpoint(saved)) == 7
    with pytest.raises(UserError, match=r"no checkpoint of step 8.*there are 7"):
        load_params(saved, abstract, step=8)
    with pytest.raises(UserError, match="Give a MODEL_DIR"):
        load_params(saved / "nowhere", abstract)


def test_kept_by_number_and_by_best_metric(tmp_path):
    store = CheckpointStore(tmp_path, CheckpointConfig(keep=2, keep_best=1))
    state = TrainState(jnp.int32(0), {"scale": jnp.ones(3)}, {"scale": {"v": jnp.ones(3)}})
    losses = {1: float("nan"), 2: 1.0, 3: 2.0, 4: None, 5: 4.0, 6: None}
    for step, loss in losses.items():
        store.save(step, state, {}, None if loss is None else {"eval/loss": loss})
    store.save(6, state, {})  # the last step saved again at the end of a run
    store.close()
    assert store.steps() == [2, 5, 6] and store.latest_step() == 6


def test_the_best_is_the_highest_of_what_is_no_loss(tmp_path):
    store = CheckpointStore(tmp_path, CheckpointConfig(keep=1, best_metric="eval/a/rougeL"))
    for step, value in {1: 5.0, 2: 9.0, 3: 7.0, 4: 8.0}.items():
        store.save(step, small(step), {}, {"eval/a/rougeL": value})
    store.close()
    assert store.evaluated() == {2: 9.0, 4: 8.0} and list(store.evaluated()) == [2, 4]
    for metric in ("eval/loss", "loss/toy", "z_loss"):
        assert CheckpointConfig(best_metric=metric).lowest
    assert CheckpointConfig(best_metric="wer", best_is_lowest=True).lowest
    assert not CheckpointConfig(best_metric="lossless/f1").lowest


def test_multiples_and_pinned_ones_are_kept_for_ever(tmp_path):
    config = CheckpointConfig(save_every_steps=2, keep=1, keep_every_steps=6, keep_best=0)
    store = CheckpointStore(tmp_path, config)
    for step in range(2, 18, 2):
        store.save(step, small(step), {})
        if step == 4:
            store.wait()
            (tmp_path / "4" / PINNED).touch()
    store.close()
    assert store.steps() == [4, 6, 12, 16]
    again = CheckpointStore(tmp_path)
    assert_same(again.resume(small(0), 4)[0], small(4))
    for saved in (4, None):
        with pytest.raises(UserError, match="a multiple of save_every_steps"):
            CheckpointConfig(keep_every_steps=6, save_every_steps=saved)


def failing_saves(store, monkeypatch, number: int, times: int) -> list[int]:
    """The next saves fail in the background after writing; the list gets one entry a failure."""
    failures, write = [], CheckpointStore._wait_for_writer

    def wait(self):
        write(self)
        if self is store and len(failures) < times:
            failures.append(number)
            raise OSError(number, os.strerror(number), "/a/file")

    monkeypatch.setattr(CheckpointStore, "_wait_for_writer", wait)
    return failures


@pytest.mark.parametrize("async_save", [True, False])
def test_a_save_is_retried_with_the_values_it_had(async_save, tmp_path, monkeypatch, caplog):
    store = CheckpointStore(tmp_path, CheckpointConfig(async_save=async_save, first_retry_secs=0))
    failures = failing_saves(store, monkeypatch, errno.ESTALE, times=3)
    # As a training step does, which gets the memory of the state.
    state = small(1)
    donate = jax.jit(lambda state: jax.tree.map(lambda a: a * 0, state), donate_argnums=0)
    store.save(1, state, {"at": 1})
    donate(state)
    store.close()
    assert len(failures) == 3 and store.steps() == [1]
    resumed, position = CheckpointStore(tmp_path).resume(small(0))
    assert_same(resumed, small(1))
    assert position == {"at": 1}
    assert "retry 3 of 5" in caplog.text and "ESTALE" in caplog.text


@pytest.mark.parametrize(("number", "tries"), [(errno.EIO, 3), (errno.EROFS, 1)])
def test_a_lasting_error_stops_with_the_older_checkpoints(number, tries, tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, CheckpointConfig(save_retries=2, first_retry_secs=0))
    store.save(1, small(1), {})
    store.wait()
    failures = failing_saves(store, monkeypatch, number, times=9)
    store.save(2, small(2), {})
    with pytest.raises(OSError, match="/a/file") as caught:
        store.wait()
    store.close()
    assert len(failures) == tries and caught.value.errno == number
    assert_same(CheckpointStore(tmp_path).resume(small(0), 1)[0], small(1))


def test_a_jump_of_the_clock_ends_no_save(tmp_path, monkeypatch):
    hours = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1e9 + 3600.0 * next(hours))
    store = CheckpointStore(tmp_path)
    store.save(1, small(1), {})
    store.close()
    assert store.steps() == [1]


def test_what_a_killed_save_left_is_no_checkpoint_and_goes(tmp_path):
    store = CheckpointStore(tmp_path)
    state = TrainState(jnp.int32(5), {"scale": jnp.ones(3)}, {"scale": {"v": jnp.ones(3)}})
    store.save(5, state, {})
    store.close()
    left = tmp_path / "6.orbax-checkpoint-tmp"
    (left / "params.orbax-checkpoint-tmp").mkdir(parents=True)
    assert checkpoint_steps(tmp_path) == [5]
    assert CheckpointStore(tmp_path).steps() == [5]
    assert not left.exists()


def small(step: int) -> TrainState:
    draw = np.random.default_rng(step)
    params = {"scale": jnp.asarray(draw.random(400, np.float32))}
    return TrainState(jnp.int32(step), params, {"scale": {"v": jnp.ones(400)}})


@pytest.fixture
def three(tmp_path):
    """Checkpoints 1, 2 and 3."""
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3):
        rows = [{"step": n, "loss": n} for n in range(1, step + 1)]
        store.save(step, small(step), {"at": step}, None, {"run": {"a": 1}, "rows": rows})
    store.close()
    return tmp_path


def spoil(folder) -> None:
    (folder / "params" / "manifest.ocdbt").write_bytes(b"")


def test_the_newest_whole_checkpoint_is_resumed_from(three):
    for step in (3, 2):
        spoil(three / str(step))
    (three / "damaged-3").mkdir()  # of an earlier time
    said = []
    store = CheckpointStore(three)
    resumed = store.resume_newest(small(0), False, said.append)
    assert resumed.step == 1 and resumed.input == {"at": 1}
    assert resumed.records["run"] == {"a": 1} and resumed.records["goodput"] == {}
    assert resumed.records["rows"] == [{"step": 1, "loss": 1}]
    assert_same(resumed.state, small(1))
    assert len(said) == 2 and all("resumes from step 1" in line for line in said)
    assert f"{three}/3 is damaged" in said[0] and "damaged-3-2" in said[0]
    assert f"{three}/2 is damaged" in said[1] and str(three / "damaged-2") in said[1]
    assert sorted(path.name for path in three.iterdir()) == [
        "1",
        "damaged-2",
        "damaged-3",
        "damaged-3-2",
    ]
    store.save(3, small(3), {})
    store.close()
    assert store.steps() == checkpoint_steps(three) == [1, 3]


@pytest.mark.parametrize("left", ["folder", "file", "link"])
def test_a_step_that_lost_all_its_files_is_damage(tmp_path, left):
    store = CheckpointStore(tmp_path / FOLDER)
    for step in (1, 2):
        store.save(step, small(step), {"at": step})
    store.wait()
    newest = store.folder / "2"
    shutil.rmtree(newest)
    if left == "folder":
        newest.mkdir()
    elif left == "file":
        newest.write_text("lost+found")
    else:
        newest.symlink_to(tmp_path / "unmounted")
    (store.folder / "02").mkdir()  # no name that a checkpoint has
    assert store.steps() == checkpoint_steps(tmp_path) == [1, 2]
    said = []
    assert store.resume_newest(small(0), False, said.append).step == 1
    assert f"{newest} is damaged" in said[0]
    store.save(2, small(2), {"at": 2})
    store.close()
    assert store.resume(small(0), 2)[1] == {"at": 2}


def test_an_old_step_that_is_no_folder_goes_when_its_turn_comes(tmp_path):
    store = CheckpointStore(tmp_path / FOLDER, CheckpointConfig(keep=1))
    (store.folder / "1").write_text("")
    store.save(2, small(2), {})
    store.close()
    assert [path.name for path in store.folder.iterdir()] == ["2"]


def test_old_ones_that_a_run_left_are_removed_when_the_next_one_asks(three):
    store = CheckpointStore(three, CheckpointConfig(keep=2, keep_best=0))
    assert store.resume_newest(small(0), False, print).step == 3
    assert len(list(three.iterdir())) == 3
    store.remove_old()
    store.close()
    assert sorted(path.name for path in three.iterdir()) == ["2", "3"]


def test_strict_and_all_damaged_move_nothing(three):
    spoil(three / "3")
    store = CheckpointStore(three)
    with pytest.raises(DamagedCheckpoint, match=r"/3 is damaged .* resume from step 2"):
        store.resume_newest(small(0), True, print)
    for step in (1, 2):
        spoil(three / str(step))
    with pytest.raises(
        UserError, match=r"every checkpoint .* is damaged \(3: .*; 2: .*; 1: .*Nothing"
    ):
        store.resume_newest(small(0), False, print)
    assert sorted(path.name for path in three.iterdir()) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("before", "after"),
    [('"at": 3', '"at": 2'), ('"step": 3', '"step": 7'), ('params/scale": ', 'params/scale": 1')],
)
def test_a_changed_digit_of_the_input_position_is_damage(before, after, three):
    file = three / "3" / "input" / "metadata"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    assert CheckpointStore(three).resume_newest(small(0), False, print).step == 2


def test_another_steps_files_are_damage(three):
    shutil.rmtree(three / "3")
    shutil.copytree(three / "2", three / "3")
    said = []
    assert CheckpointStore(three).resume_newest(small(0), False, said.append).step == 2
    assert "it holds step 2" in said[0]


def test_damaged_records_cost_no_step(three, caplog):
    file = three / "3" / "records" / "metadata"
    file.write_text(file.read_text().replace('"loss": 2', '"loss": 4'))
    resumed = CheckpointStore(three).resume_newest(small(0), False, print)
    assert resumed.step == 3 and resumed.records == {} and "are damaged" in caplog.text
    assert CheckpointStore(three).recorded_run() == {"a": 1}  # of step 2
    shutil.rmtree(three / "3" / "records")  # as an earlier version wrote it
    assert CheckpointStore(three).resume_newest(small(0), True, print).records == {}


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EROFS])
@pytest.mark.parametrize("names", [("/a/file",), ()])
def test_a_storage_that_cannot_be_read_is_no_damage(number, names, three, monkeypatch):
    def fail(*unused):
        raise OSError(number, os.strerror(number), *names)

    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", fail)
    with pytest.raises(OSError, match=names[0] if names else str(three / "3")) as caught:
        CheckpointStore(three).resume_newest(small(0), False, print)
    assert caught.value.errno == number and checkpoint_steps(three) == [1, 2, 3]


def test_full_disk_is_one_clear_error_and_older_checkpoints_stay(tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], stderr=subprocess.DEVNULL
    )
    if not mounted:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        store = CheckpointStore(disk / "run", CheckpointConfig(keep=1))
        numbers = jax.random.normal(jax.random.key(0), (100_000,))
        state = TrainState(jnp.int32(1), {"scale": numbers}, {"scale": {"v": numbers}})
        store.save(1, state, {})
        store.wait()
        with pytest.raises(OSError, match="no space left") as caught:
            store.save(2, state, {})
            store.close()
        assert caught.value.errno == errno.ENOSPC and "complete checkpoints: 1" in str(caught.value)
        assert "takes 0.8 MB" in str(caught.value)
        # Room enough by the figures, gone while writing.
        monkeypatch.setattr(store_module, "_LEAST_SHARE", 0.0)
        with pytest.raises(OSError, match=r"filled up while writing \(complete checkpoints: 1"):
            store = CheckpointStore(disk / "run", CheckpointConfig(keep=1))
            store.save(2, state, {})
            store.close()
        again = CheckpointStore(disk / "run")
        assert again.steps() == [1]
        assert_same(again.resume(state)[0], state)
        assert not list((disk / "run").glob("*tmp*"))
    finally:
        subprocess.call(["umount", "-l", disk])


def test_no_space_reported_by_the_writer_is_understood(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)

    def fail(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: write failed: No space left on device")

    monkeypatch.setattr(store._writer, "save", fail)
    state = TrainState(jnp.int32(1), {"scale": jnp.ones(3)}, {"scale": {"v": jnp.ones(3)}})
    with pytest.raises(OSError, match="complete checkpoints: none") as caught:
        store.save(1, state, {})
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path)


def test_document_is_plain_json(saved):
    document = json.loads((saved / "7" / "input" / "metadata").read_text())
    assert document["input"]["window"] == 3
    assert "params/encoder/layers_0/mlp/wi_0/kernel" in document["checksums"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep": 0},
        {"save_every_steps": 0},
        {"keep_best": -1},
        {"save_retries": 21},
        {"first_retry_secs": -1.0},
    ],
)
def test_bad_values_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        CheckpointConfig(**wrong)


# What a shell, a pattern, a URL, a format, a gin file or a file system may give a meaning.
FOLDER_NAMES = [
    *(
        "[proj]",
        "[!a]*?",
        "x[1:2]",
        "a**b",
        "a b",
        " lead and trail ",
        "it's",
        'say "hi"',
        "#1",
        "?q",
    ),
    *("%20", "%s%d", "{}", "{a:b}", "~", "x~", "-dash", "dot.", "new\nline", "\U0001f600", "$HOME"),
    *(
        "a=b,c:d",
        "@4",
        "20261128",
        "1e5",
        "None",
        "a;b|c&d<e>",
        "tab\tx",
        "checkpoint_5",
        "n" * 255,
    ),
    *(unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")),
]


@pytest.mark.parametrize("name", FOLDER_NAMES, ids=ascii)
def test_a_folder_may_have_any_name(tmp_path, name):
    state = TrainState(jnp.int32(5), {"scale": jnp.arange(3.0)}, {"scale": {"v": jnp.ones(3)}})
    folder = tmp_path / name / "checkpoints"
    store = CheckpointStore(folder, CheckpointConfig(async_save=False))
    store.check_folder()
    assert list(folder.iterdir()) == []
    store.save(5, state, {"window": 3})
    store.close()
    store.check_saved(5, state)
    found, input_state = CheckpointStore(folder).resume(state)
    assert_same(found, state)
    assert input_state == {"window": 3}
    assert_same(load_params(tmp_path / name, state.params), state.params)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("back\\slash", "has a backslash"),
        ("caf\udce9", "is not UTF-8"),
        ("gs:", "cannot hold checkpoints"),
        ("/".join(["d" * 200] * 20), "cannot hold checkpoints"),
    ],
    ids=["backslash", "latin-1", "bucket", "long"],
)
def test_a_folder_that_cannot_be_used_is_refused_before_anything_is_lost(tmp_path, name, message):
    # 4,095 bytes are a path's limit on Linux, and files of a checkpoint lie some levels deeper.
    folder = tmp_path / name[: 4000 - len(str(tmp_path))] / "checkpoints"
    with pytest.raises(UserError, match=message):
        CheckpointStore(folder, CheckpointConfig(async_save=False)).check_folder()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("lost", ["params/manifest.ocdbt", "training", "input/metadata"])
def test_a_checkpoint_that_cannot_be_opened_is_noticed(tmp_path, lost):
    state = TrainState(jnp.int32(5), {"scale": jnp.arange(3.0)}, {"scale": {"v": jnp.ones(3)}})
    store = CheckpointStore(tmp_path)
    store.save(5, state, {})
    store.close()
    path = tmp_path / "5" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(RunFailed, match="step 5 was saved and cannot be opened again"):
        store.check_saved(5, state)
