"""Which kind lies where, and what is said where none does."""

import shutil

import numpy as np
import pytest

from instruct.checkpoints import huggingface, native, t5x_writing
from instruct.checkpoints.detect import Found, detect, open_checkpoint
from instruct.errors import UserError
from tests.checkpoints.conftest import random_arrays


@pytest.mark.slow
def test_each_kind_is_found(tiny, tmp_path):
    arrays, float32 = random_arrays(tiny), np.dtype(np.float32)
    for step in (3, 20):
        folder = tmp_path / "t5x" / f"checkpoint_{step}"
        t5x_writing.write_checkpoint(folder, arrays, float32, step=step)
    newest = str(tmp_path / "t5x" / "checkpoint_20")
    assert detect(tmp_path / "t5x") == detect(newest) == Found("t5x", newest)
    assert detect(newest + "/checkpoint").place == newest
    assert detect(tmp_path / "t5x", step=3).place.endswith("checkpoint_3")
    with pytest.raises(UserError, match="no checkpoint of step 4 .*there are 3, 20"):
        detect(tmp_path / "t5x", step=4)
    single = tmp_path / "t5x" / "checkpoint_20"
    assert detect(single, step=20) == detect(single)
    with pytest.raises(UserError, match="checkpoint_20 is one checkpoint.* leave step 3 out"):
        detect(single, step=3)
    huggingface.write_checkpoint(tmp_path / "hf", arrays, tiny, float32)
    for path in ("hf", "hf/model.safetensors", "hf/config.json"):
        assert detect(tmp_path / path) == Found("huggingface", str(tmp_path / "hf"))
    native.write_checkpoint(tmp_path / "ours", arrays, tiny, info={})
    slots = {f"{path}/v": array for path, array in arrays.items()}
    native.write_checkpoint(tmp_path / "run", arrays, tiny, info={}, slots=slots, step=5)
    assert detect(tmp_path / "ours") == Found("instruct", str(tmp_path / "ours"))
    for path in ("run", "run/checkpoints", "run/checkpoints/5"):
        assert detect(tmp_path / path).place == str(tmp_path / "run" / "checkpoints" / "5")
    with pytest.raises(UserError, match="no optimiser's state"):
        open_checkpoint(tmp_path / "hf", slots=True)


def test_in_a_bucket(gcs):
    for step in (7, 1138000):
        gcs.put(f"t5x/a/checkpoint_{step}/checkpoint", b"index")
    gcs.put("hf/config.json", b"{}")
    found = Found("t5x", "gs://bucket/t5x/a/checkpoint_1138000")
    assert detect("gs://bucket/t5x/a/checkpoint_1138000/") == found == detect("gs://bucket/t5x/a")
    assert detect("gs://bucket/t5x/a", step=7).place == "gs://bucket/t5x/a/checkpoint_7"
    with pytest.raises(UserError, match="no checkpoint of step 8"):
        detect("gs://bucket/t5x/a", step=8)
    with pytest.raises(UserError, match="Hugging Face folder.*download it first"):
        detect("gs://bucket/hf")
    with pytest.raises(UserError, match="no checkpoint in gs://t5-data/x .no such folder"):
        detect("gs://t5-data/x")


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no such folder.*Hugging Face folder"):
        detect(tmp_path / "absent")
    with pytest.raises(UserError, match="it is empty"):
        detect(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="no checkpoint in .*notes.txt"):
        detect(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no checkpoint in"):
        detect(tmp_path)


def test_a_model_in_hugging_faces_cache(tiny, tmp_path):
    cached = tmp_path / "models--google--flan-t5-small"
    snapshots = [cached / "snapshots" / revision for revision in ("0fc9", "aa12")]
    for folder in snapshots:
        folder.parent.mkdir(parents=True, exist_ok=True)
        huggingface.write_checkpoint(folder, random_arrays(tiny), tiny, np.dtype(np.float32))
    with pytest.raises(UserError, match=r"several revisions \(0fc9, aa12\); give .*/snapshots/ONE"):
        detect(cached)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("aa12")
    assert detect(cached) == Found("huggingface", str(snapshots[1]))
    shutil.rmtree(snapshots[1])
    assert detect(cached) == Found("huggingface", str(snapshots[0]))


@pytest.mark.parametrize("name", ["google/flan-t5-small", "t5-small"])
def test_the_name_of_a_repository_is_answered_with_a_download(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"no such folder.*`hf download {name} --local-dir FOLDER`"):
        detect(name)
    for path in ("runs/a/b", "/absent", "~/absent"):
        with pytest.raises(UserError) as caught:
            detect(path)
        assert "hf download" not in str(caught.value)
