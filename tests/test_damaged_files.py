"""Damaged and half files, another run's folder, full disks: one message, nothing else is lost."""

import filecmp
import os
import pathlib
import shutil
import subprocess

import pytest

from instruct import peak
from instruct.cli.arguments import main
from instruct.eval.trained_run import TrainedRun
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.train.checkpoint import checkpoint_steps, load_params
from tests.spoilt import MODULE_FLAG, NUM_GOOD, failure, train_flags, write_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """DATA_DIR."""
    folder = tmp_path_factory.mktemp("spoilt")
    write_files(folder)
    return folder


@pytest.fixture(autouse=True)
def _data_is_in(folder, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(folder))
    monkeypatch.setattr(peak, "matmul_peak", lambda *_: 1e9)


@pytest.fixture(scope="module")
def finished_run(folder, tmp_path_factory) -> pathlib.Path:
    """MODEL_DIR of a run with checkpoints 1 and 2. Tests change copies of it."""
    model_dir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUCT_STORE_DIR", str(folder / "stores"))
        patch.setenv("INSTRUCT_DATA_DIR", str(folder))
        patch.setattr(peak, "matmul_peak", lambda *_: 1e9)
        assert main(["train", *train_flags(model_dir)]) == 0
    assert checkpoint_steps(model_dir) == [1, 2]
    return model_dir


@pytest.fixture
def run_copy(finished_run, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(finished_run, tmp_path / "run"))


def same_files(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    if names != sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file()):
        return False
    return not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])


# Stores


def flip_middle(store: pathlib.Path) -> None:
    file = store / "records.array_record"
    content = bytearray(file.read_bytes())
    content[content.index(bytes(1000)) // 2] ^= 0x5A  # what follows the records is padding
    file.write_bytes(content)


def cut_short(store: pathlib.Path) -> None:
    file = store / "records.array_record"
    file.write_bytes(file.read_bytes()[:-100])


def edit_manifest(store: pathlib.Path) -> None:
    file = store / "manifest.json"
    file.write_text(file.read_text().replace(f": {NUM_GOOD},", f": {NUM_GOOD - 1},"))


@pytest.mark.parametrize("damage", [flip_middle, cut_short, edit_manifest])
def test_damaged_stores(damage, tmp_path, capsys, caplog):
    prepare = ["prepare", "--mixture=spoilt.sums", "--verify", "--workers=1", MODULE_FLAG]
    assert main(prepare) == 0
    (store,) = (tmp_path / "stores").glob("spoilt.sums@*/train")
    whole = pathlib.Path(shutil.copytree(store, tmp_path / "whole"))
    damage(store)
    message = failure(capsys, "show", "--task=spoilt.sums", MODULE_FLAG)
    assert all(word in message for word in (str(store), "damaged", "Delete", "prepare")), message
    if damage is edit_manifest:  # rates are read from it, so nothing goes on before it is gone
        shutil.rmtree(store)
    assert main(prepare) == 0
    assert damage is edit_manifest or f"{store} is damaged" in caplog.text
    assert same_files(store, whole)


def test_a_damaged_block_stops_the_feed(tmp_path, capsys):
    assert main(["prepare", "--mixture=spoilt.sums", "--workers=1", MODULE_FLAG]) == 0
    (store,) = (tmp_path / "stores").glob("spoilt.sums@*/train")
    flip_middle(store)
    message = failure(capsys, "show", "--mixture=spoilt.sums", "--rows=1", MODULE_FLAG)
    assert str(store) in message and "damaged" in message


# Checkpoints


def spoil_arrays(checkpoint: pathlib.Path) -> None:
    files = [p for p in (checkpoint / "params").rglob("d/*") if p.is_file()]
    for file in files:
        content = bytearray(file.read_bytes())
        for position in range(0, len(content), 50):
            content[position] ^= 0x5A
        file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        spoil_arrays,
        lambda checkpoint: shutil.rmtree(checkpoint / "params"),
        lambda checkpoint: shutil.rmtree(checkpoint / "training"),
        lambda checkpoint: shutil.rmtree(checkpoint / "input"),
        lambda checkpoint: (checkpoint / "params" / "_METADATA").write_text("{}"),
    ],
    ids=["arrays", "no params", "no training", "no input", "metadata"],
)
def test_damaged_and_half_checkpoints(damage, run_copy, capsys):
    damage(run_copy / "checkpoints" / "2")
    before = shutil.copytree(run_copy, run_copy.parent / "before")
    flags = [*train_flags(run_copy), "--gin.TRAIN_STEPS=3"]
    message = failure(capsys, "train", *flags)
    words = (f"{run_copy}/checkpoints/2", "damaged", "Delete that folder to go on from step 1")
    assert all(word in message for word in words), message
    assert "<bound method" not in message
    assert same_files(run_copy / "checkpoints", before / "checkpoints")


def test_inference_from_a_damaged_checkpoint(run_copy, capsys):
    spoil_arrays(run_copy / "checkpoints" / "2")
    flags = ["--gin_file=gin/runs/infer.gin", f"--gin.MODEL_DIR={run_copy}", "--prompt=a"]
    message = failure(capsys, "infer", *flags)
    assert f"{run_copy}/checkpoints/2 is damaged" in message
    message = failure(capsys, "infer", *flags, "--gin.STEP=7")
    assert "no checkpoint of step 7" in message and "1, 2" in message


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--gin.LEARNING_RATE=0.5", ["optimizer.learning_rate: 0.0005 there, 0.5 now"]),
        ("--gin.ModelConfig.d_ff=128", ["model.d_ff: 64 there, 128 now"]),
        ("--gin.MIXTURE_OR_TASK_NAME=spoilt.blank", ["data.mixture", "'spoilt.sums' there"]),
    ],
)
def test_going_on_with_other_settings(flag, words, finished_run, tmp_path, capsys):
    before = shutil.copytree(finished_run, tmp_path / "before")
    flags = train_flags(finished_run)
    message = failure(capsys, "train", *flags, "--gin.TRAIN_STEPS=3", flag)
    words = [*words, str(finished_run), "new MODEL_DIR", "INITIAL_CHECKPOINT_PATH"]
    assert all(word in message for word in words), message
    assert same_files(finished_run, before)


def test_starting_from_a_checkpoint_of_another_size(finished_run, tmp_path, capsys):
    flags = train_flags(tmp_path / "other")
    flags += [f"--gin.INITIAL_CHECKPOINT_PATH={finished_run}", "--gin.ModelConfig.d_ff=128"]
    message = failure(capsys, "train", *flags)
    assert "another model" in message and "(32, 64), the model's (32, 128)" in message


# Prompts


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"inputs": ', ["line 2", "not JSON", '{"inputs"']),
        (b'["a"]', ["line 2", "list", "object"]),
        (b'{"text": "a"}', ["line 2", "`inputs`", "`prompt`", "text"]),
        (b'{"inputs": 3}', ["line 2", "`inputs` is 3", "text"]),
        (b'{"inputs": "a", "prediction": "b"}', ["line 2", "`prediction`", "rename"]),
        (b'{"inputs": "\xff"}', ["line 2", "not UTF-8"]),
    ],
)
def test_wrong_lines_of_prompts(line, words, finished_run, tmp_path, capsys):
    prompts, answers = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    prompts.write_bytes(b'{"inputs": "a"}\n' + line + b"\n")
    flags = ["--gin_file=gin/runs/infer.gin", f"--gin.MODEL_DIR={finished_run}"]
    message = failure(capsys, "infer", *flags, f"--input={prompts}", f"--output={answers}")
    assert all(word in message for word in [*words, str(prompts)]), message
    assert not answers.exists()


def test_wrong_files_of_prompts(finished_run, tmp_path, capsys):
    prompts = tmp_path / "prompts.jsonl"
    flags = ["infer", "--gin_file=gin/runs/infer.gin", f"--gin.MODEL_DIR={finished_run}"]
    answers = f"--output={tmp_path}/answers.jsonl"
    assert "nothing to answer" in failure(capsys, *flags)
    assert "not both" in failure(capsys, *flags, "--prompt=a", f"--input={prompts}", answers)
    assert str(prompts) in failure(capsys, *flags, f"--input={prompts}", answers)
    prompts.write_text('{"inputs": "a"}\n')
    message = failure(capsys, *flags, f"--input={prompts}", "--output=/dev/null/answers.jsonl")
    assert "/dev/null/answers.jsonl" in message and "--output" in message


# Full disks


@pytest.fixture
def mount_disk(tmp_path):
    """mount(KiB) -> an empty folder on a file system of that size, as long as the test lasts."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kib: int) -> pathlib.Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def test_a_full_disk_while_preparing(mount_disk, capsys):
    disk = mount_disk(200)  # room for one store of 128 KiB
    flags = ["--mixture=spoilt.sums", "--workers=1", f"--gin.STORE_DIR={disk}"]
    flags.append(MODULE_FLAG)
    assert main(["prepare", *flags]) == 1
    out = capsys.readouterr().out
    assert "failed: spoilt.sums (validation): no space left on the disk" in out
    assert "STORE_DIR" in out and "what is finished stays" in out
    (kept,) = disk.glob("spoilt.sums@*/*")
    assert kept.name == "train"  # and nothing half done beside it
    assert main(["show", "--task=spoilt.sums", "--examples=1", *flags[2:]]) == 0


def test_a_full_disk_while_saving(finished_run, mount_disk, capsys):
    pages = sum(-(-p.stat().st_size // 4096) + 1 for p in finished_run.rglob("*"))
    disk = mount_disk(int(4 * pages * 1.3))  # two checkpoints are there, a third does not fit
    run = pathlib.Path(shutil.copytree(finished_run, disk / "run"))
    flags = [*train_flags(run), "--gin.TRAIN_STEPS=5", "--gin.CheckpointConfig.keep=9"]
    message = failure(capsys, "train", *flags, status=1)
    # The checkpoint is written in the background: whichever file finds the disk full is named.
    assert "no space left on the disk" in message and f"{run}/" in message
    for step in ("1", "2"):
        assert same_files(run / "checkpoints" / step, finished_run / "checkpoints" / step)
    shapes = EncoderDecoder(TrainedRun.read(finished_run).model()).abstract_params()
    for step in checkpoint_steps(run):
        load_params(run, shapes, step)  # compares checksums
