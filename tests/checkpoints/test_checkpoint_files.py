"""Reading one checkpoint: damage and other models are told apart, and the fix is named."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from instruct.checkpoints.checkpoint import CheckpointStore
from instruct.checkpoints.checkpoint_files import DamagedCheckpoint, checksums
from instruct.checkpoints.loading import load_params
from instruct.checkpoints.train_state import TrainState
from instruct.errors import UserError
from instruct.models.encoder_decoder import EncoderDecoder
from tests.train.batches import tiny_config


def test_another_model_is_named(tmp_path):
    params = EncoderDecoder(tiny_config()).abstract_params()
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
    store = CheckpointStore(tmp_path)
    store.save(7, TrainState(jnp.int32(7), params, {}), {})
    store.close()
    other = EncoderDecoder(tiny_config(d_ff=48)).abstract_params()
    with pytest.raises(UserError, match=r"wi_0/kernel is \(16, 32\), the model's \(16, 48\)"):
        load_params(tmp_path, other)
    fewer = EncoderDecoder(tiny_config(num_decoder_layers=1)).abstract_params()
    with pytest.raises(UserError, match=r"layers_1.* is not in the model"):
        load_params(tmp_path, fewer)


def changed_files(content: bytearray) -> dict[str, bytes | None]:
    """One file's content after each kind of damage; None: it is gone."""
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 0x10
    return {
        "missing": None,
        "empty": b"",
        "cut": bytes(content[: len(content) // 2]),
        "zeros": bytes(len(content)),
        "flipped": bytes(flipped),
    }


# What follows from an error that was raised, see `cli.arguments._report_unraisable`.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_any_one_damaged_file_is_noticed_or_does_not_matter(tmp_path):
    """Every file, every kind of damage: the same values, or the error; nothing else."""
    params = {"scale": jax.random.normal(jax.random.key(0), (400,)), "bias": jnp.ones(3)}
    state = TrainState(jnp.int32(5), params, {"scale": {"v": jnp.ones(400)}})
    store = CheckpointStore(tmp_path)
    store.save(5, state, {"position": 12345})
    store.close()
    noticed = 0
    for file in sorted(path for path in (tmp_path / "5").rglob("*") if path.is_file()):
        content = bytearray(file.read_bytes())
        for how, changed in changed_files(content).items():
            file.unlink()
            if changed is not None:
                file.write_bytes(changed)
            try:
                found, position = CheckpointStore(tmp_path).resume(state)
            except DamagedCheckpoint as error:
                noticed += 1
                assert str(error).startswith(f"checkpoint {tmp_path}/5 is damaged ("), how
            else:
                jax.tree.map(np.testing.assert_array_equal, found, state)
                assert position == {"position": 12345}, (file, how)
            file.write_bytes(content)
        file.unlink()
        file.mkdir()
        try:
            CheckpointStore(tmp_path).resume(state)
        except DamagedCheckpoint:
            noticed += 1
        file.rmdir()
        file.write_bytes(content)
    assert noticed > 40


def damage(folder: pathlib.Path, how: str) -> None:
    files = [f for f in (folder / "params").rglob("*") if f.is_file() and f.parent.name == "d"]
    largest = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 0x55
        largest.write_bytes(content)
    elif how == "cut":
        largest.write_bytes(content[: len(content) // 2])
    elif how == "gone":
        largest.unlink()
    else:
        next(iter((folder / "input").glob("metadata"))).write_text("{")


@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "json"])
def test_damage_is_noticed_and_the_fix_is_named(tmp_path, how):
    store = CheckpointStore(tmp_path)
    params = {"scale": jax.random.normal(jax.random.key(0), (400,))}
    state = TrainState(jnp.int32(5), params, {"scale": {"v": jnp.ones(400)}})
    for step in (4, 5):
        store.save(step, state, {})
    store.close()
    damage(tmp_path / "5", how)
    with pytest.raises(UserError, match=r"5 is damaged .*Delete that folder to resume from step 4"):
        CheckpointStore(tmp_path).resume(state)
    found, _ = CheckpointStore(tmp_path).resume(state, step=4)
    jax.tree.map(np.testing.assert_array_equal, found, state)


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), (RuntimeError, "RESOURCE_EXHAUSTED")),
        (MemoryError("no memory"), (MemoryError, "no memory")),
        (PermissionError(13, "no"), (UserError, "may not be read")),
    ],
)
def test_what_is_not_damage_advises_no_deletion(tmp_path, monkeypatch, why, expected):
    params = {"scale": jnp.ones(4)}
    store = CheckpointStore(tmp_path)
    store.save(5, TrainState(jnp.int32(5), params, {}), {})
    store.close()

    def fail(*unused):
        raise why

    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", fail)
    with pytest.raises(expected[0], match=expected[1]):
        load_params(tmp_path, params)


def test_checksums_see_every_bit_and_no_mesh():
    tree = {"a": np.arange(12, dtype=np.float32), "b": np.ones(3, jnp.bfloat16), "c": np.int32(7)}
    plain = checksums(tree)
    rows = jax.sharding.NamedSharding(
        jax.make_mesh((4,), ("rows",)), jax.sharding.PartitionSpec("rows")
    )
    split = tree | {"a": jax.device_put(tree["a"], rows)}
    assert checksums(split) == plain
    changed = tree | {"a": tree["a"].copy()}
    changed["a"][5] = np.nextafter(changed["a"][5], np.float32(9))
    assert checksums(changed)["a"] != plain["a"]
