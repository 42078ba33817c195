"""Damaged and half files, another run's folder, full disks: one message, nothing else is lost."""

import filecmp
import gc
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable

import pytest

from instruct import peak
from instruct.checkpoints.loading import checkpoint_steps, load_params
from instruct.checkpoints.native import open_checkpoint
from instruct.checkpoints.trained_run import TrainedRun
from instruct.cli.arguments import main
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.results import read_rows
from tests.spoilt import MODULE_FLAG, NUM_GOOD, failure, train_flags, write_files

pytestmark = pytest.mark.slow


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
    message = failure(capsys, "show", "--task=spoilt.sums", "--split=train", MODULE_FLAG)
    assert all(word in message for word in (str(store), "damaged", "Delete", "prepare")), message
    assert main(["show", "--task=spoilt.sums", MODULE_FLAG]) == 0  # the other split
    assert "note: split 'train' is not shown" in capsys.readouterr().err
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


def one_file(name: str, change) -> Callable[[pathlib.Path], None]:
    """A damage of one file of a checkpoint."""

    def damage(checkpoint: pathlib.Path) -> None:
        file = checkpoint / name
        file.write_bytes(change(bytearray(file.read_bytes())))

    return damage


DAMAGES = {
    "arrays": spoil_arrays,
    "no params": lambda checkpoint: shutil.rmtree(checkpoint / "params"),
    "no training": lambda checkpoint: shutil.rmtree(checkpoint / "training"),
    "no input": lambda checkpoint: shutil.rmtree(checkpoint / "input"),
    "metadata": lambda checkpoint: (checkpoint / "params" / "_METADATA").write_text("{}"),
    "empty array_metadatas": one_file("training/array_metadatas/process_0", lambda content: b""),
}


def exact_rows(model_dir: pathlib.Path) -> list[dict]:
    """metrics.jsonl without what depends on the clock."""
    clock = ("real_tokens_per_sec", "step_secs", "peak_share", "goodput/")
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith(clock)} for line in lines
    ]


def arrays(checkpoint: pathlib.Path) -> dict[str, bytes]:
    opened = open_checkpoint(checkpoint, slots=True)
    return {
        name: array.read().tobytes() for name, array in {**opened.arrays, **opened.slots}.items()
    }


def three_steps(model_dir: pathlib.Path) -> list[str]:
    flags = [*train_flags(model_dir), "--gin.TRAIN_STEPS=3", "--gin.loop.train.log_every_steps=1"]
    return ["train", *flags]


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory) -> pathlib.Path:
    """MODEL_DIR of a run of three steps in one go."""
    model_dir = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUCT_STORE_DIR", str(folder / "stores"))
        patch.setenv("INSTRUCT_DATA_DIR", str(folder))
        patch.setattr(peak, "matmul_peak", lambda *_: 1e9)
        assert main(three_steps(model_dir)) == 0
    return model_dir


@pytest.fixture
def run_of_three(undisturbed, tmp_path) -> pathlib.Path:
    """A copy of it whose last step is gone."""
    copy = pathlib.Path(shutil.copytree(undisturbed, tmp_path / "run"))
    shutil.rmtree(copy / "checkpoints" / "3")
    return copy


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_and_half_checkpoints(damage, run_copy, capfd):
    damage(run_copy / "checkpoints" / "2")
    before = pathlib.Path(shutil.copytree(run_copy, run_copy.parent / "before"))
    message = failure(capfd, "train", *train_flags(run_copy), "--gin.TRAIN_STEPS=3", "--strict")
    words = (f"{run_copy}/checkpoints/2", "damaged", "Delete that folder to resume from step 1")
    assert all(word in message for word in words), message
    gc.collect()
    assert "<bound method" not in message and "Traceback" not in capfd.readouterr().err
    assert same_files(run_copy / "checkpoints", before / "checkpoints")


def test_resuming_from_the_newest_whole_checkpoint(undisturbed, run_of_three, capfd):
    newest = run_of_three / "checkpoints" / "2"
    spoil_arrays(newest)
    before = pathlib.Path(shutil.copytree(newest, run_of_three.parent / "before"))
    assert main(three_steps(run_of_three)) == 0
    gc.collect()
    err = capfd.readouterr().err
    assert f"{newest} is damaged" in err and "resumes from step 1" in err, err
    assert "Traceback" not in err and err.count("damaged (") == 1, err
    assert same_files(run_of_three / "checkpoints" / "damaged-2", before)
    assert checkpoint_steps(run_of_three) == [1, 2, 3]
    assert exact_rows(run_of_three) == exact_rows(undisturbed)
    steps = [model_dir / "checkpoints" / "3" for model_dir in (run_of_three, undisturbed)]
    assert arrays(steps[0]) == arrays(steps[1])


def test_all_checkpoints_damaged(run_copy, capsys):
    for step in ("1", "2"):
        spoil_arrays(run_copy / "checkpoints" / step)
    before = pathlib.Path(shutil.copytree(run_copy, run_copy.parent / "before"))
    message = failure(capsys, "train", *train_flags(run_copy), "--gin.TRAIN_STEPS=3")
    assert "every checkpoint in" in message and "is damaged (2: " in message and "; 1: " in message
    assert same_files(run_copy / "checkpoints", before / "checkpoints")


def test_inference_and_evaluation_from_a_damaged_checkpoint(run_copy, capsys):
    infer = ["infer", "--gin_file=gin/runs/infer.gin", f"--gin.MODEL_DIR={run_copy}", "--prompt=a"]
    assert main([*infer, "--gin.STEP=1"]) == 0
    answer = capsys.readouterr().out
    spoil_arrays(run_copy / "checkpoints" / "2")
    before = pathlib.Path(shutil.copytree(run_copy, run_copy.parent / "before"))
    damaged = f"{run_copy}/checkpoints/2 is damaged"
    assert main(infer) == 0
    out, err = capsys.readouterr()
    assert out == answer and damaged in err and "step 1 is used instead" in err
    assert same_files(run_copy, before)
    assert damaged in failure(capsys, *infer, "--strict")
    assert damaged in failure(capsys, *infer, "--gin.STEP=2")
    message = failure(capsys, *infer, "--gin.STEP=7")
    assert "no checkpoint of step 7" in message and "1, 2" in message

    evaluate = ["eval", "--gin_file=gin/runs/eval.gin", f"--gin.MODEL_DIR={run_copy}", "--limit=2"]
    evaluate += [MODULE_FLAG, "--gin.EVAL_MIXTURES=spoilt.sums"]
    assert damaged in failure(capsys, *evaluate, "--strict")
    assert main(evaluate) == 0
    err = capsys.readouterr().err
    assert damaged in err and "step 1 is used instead" in err
    (found,) = (run_copy / "eval").rglob("results.jsonl")
    assert found.parent.name == "step_1" and {r["step"] for r in read_rows(found)} == {1}
    shutil.rmtree(run_copy / "eval")
    for several in ("all", "(2, 1)"):
        assert main([*evaluate, f"--gin.EVAL_CHECKPOINTS={several}"]) == 1
        assert f"{damaged} (" in (err := capsys.readouterr().err) and "is not evaluated" in err
        assert [path.name for path in (run_copy / "eval").rglob("step_*")] == ["step_1"]
        assert damaged in failure(
            capsys, *evaluate, f"--gin.EVAL_CHECKPOINTS={several}", "--strict"
        )
    assert damaged in failure(capsys, *evaluate, "--gin.EVAL_CHECKPOINTS=2")
    assert checkpoint_steps(run_copy) == [1, 2]

    spoil_arrays(run_copy / "checkpoints" / "1")
    for mode in (infer, evaluate):
        message = failure(capsys, *mode)
        assert "is damaged (2: " in message and "; 1: " in message and "Delete" not in message


def test_conversion_compares_checksums(run_copy, capsys):
    opened = open_checkpoint(run_copy / "checkpoints" / "2")
    document = run_copy / "checkpoints" / "2" / "input" / "metadata"
    sums = json.loads(document.read_text())
    del sums["sha256"]  # as an earlier version wrote it
    name = next(iter(opened.arrays))
    sums["checksums"][f"params/{name}"] ^= 1
    document.write_text(json.dumps(sums))
    target = run_copy.parent / "checkpoint_2"
    message = failure(capsys, "convert", f"--from={run_copy}", f"--to={target}", "--format=t5x")
    assert "is damaged" in message and "not what was written" in message
    assert not target.exists()


# The other files of a run


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", None),
        ("run.json", b'{"config": 3'),
        ("metrics.jsonl", b""),
        ("mixture.json", b"\x00\xff"),
    ],
)
def test_a_damaged_record_of_the_run(name, content, undisturbed, run_of_three, capsys):
    file = run_of_three / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    if name == "run.json" and content is None:
        infer = ["infer", "--gin_file=gin/runs/infer.gin", f"--gin.MODEL_DIR={run_of_three}"]
        assert main([*infer, "--prompt=a"]) == 0
        message = failure(capsys, *three_steps(run_of_three), "--gin.SEED=3")
        assert "seed: 0 there, 3 now" in message
        file.unlink()  # the refused start has restored it
    capsys.readouterr()
    assert main(three_steps(run_of_three)) == 0
    err = capsys.readouterr().err
    if name != "mixture.json":
        assert err.count(f"{file} ") == 1 and "restored from the" in err, err
    assert exact_rows(run_of_three) == exact_rows(undisturbed)
    if name == "run.json":
        kept, expected = (json.loads((d / name).read_text()) for d in (run_of_three, undisturbed))
        assert kept["config"] == expected["config"] and kept["start"] == expected["start"]
        assert len(kept["sessions"]) == 2
    elif name == "mixture.json":
        assert file.read_bytes() == (undisturbed / name).read_bytes()


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
    flags += [f"--input={prompts}", f"--output={answers}"]
    message = failure(capsys, "infer", *flags, "--strict")
    assert all(word in message for word in [*words, prompts.name]), message
    assert not answers.exists()
    assert main(["infer", *flags]) == 1  # the other line is answered
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert len(answers.read_text().splitlines()) == 1


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
    assert "STORE_DIR" in out and "finished stores are kept" in out
    (kept,) = disk.glob("spoilt.sums@*/*")
    assert kept.name == "train"  # and nothing half done beside it
    assert main(["show", "--task=spoilt.sums", "--examples=1", *flags[2:]]) == 0


def test_a_full_disk_while_saving(finished_run, mount_disk, capsys):
    pages = sum(-(-p.stat().st_size // 4096) + 1 for p in finished_run.rglob("*"))
    disk = mount_disk(int(4 * pages * 1.3))  # two checkpoints are there, a third does not fit
    run = pathlib.Path(shutil.copytree(finished_run, disk / "run"))
    flags = [*train_flags(run), "--gin.TRAIN_STEPS=5", "--gin.checkpoint.CheckpointConfig.keep=9"]
    message = failure(capsys, "train", *flags, status=1)
    # The checkpoint is written in the background: whichever file finds the disk full is named.
    assert "no space left on the disk" in message and f"{run}/" in message
    for step in ("1", "2"):
        assert same_files(run / "checkpoints" / step, finished_run / "checkpoints" / step)
    shapes = EncoderDecoder(TrainedRun.read(finished_run).model()).abstract_params()
    for step in checkpoint_steps(run):
        load_params(run, shapes, step)  # compares checksums
