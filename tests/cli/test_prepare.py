"""`prepare`: builds what is missing, and says what is there."""

import json
import os

import pytest

from instruct import peak
from instruct.cli import arguments, prepare
from instruct.cli.arguments import main
from instruct.data import registry
from instruct.data.sources.tfds import TfdsSource
from instruct.data.stores import disk_estimate
from instruct.errors import UserError
from instruct.prompts.render import Dropped
from tests.data.toy import ToySource, toy_spec
from tests.spoilt import MODULE_FLAG, failure, train_flags, write_files

TASK = "gym.chain_sum.zs_noopt"


@pytest.mark.slow
def test_stores_are_built_once(capsys, tmp_path):
    flags = arguments.parse(["prepare", f"--mixture={TASK}", "--workers=1", "--json"])
    stores = []
    for status in ("built", "there"):
        assert prepare.run(flags) == 0
        stores = json.loads(capsys.readouterr().out)
        assert {store["status"] for store in stores} == {status}
    assert {store["split"] for store in stores} == {"train", "validation", "test"}
    assert all(store["records"] > 0 for store in stores)
    manifests = list((tmp_path / "stores").glob("*/*/manifest.json"))
    assert len(manifests) == len(stores)


@pytest.mark.slow
def test_the_mixture_may_come_from_gin(capsys, tmp_path):
    recipe = ["--gin_file=gin/recipes/gym_demo.gin", "--gin.MODEL_DIR=/not/made"]
    flags = [*recipe, f"--gin.MIXTURE_OR_TASK_NAME={TASK}", "--workers=1"]
    assert prepare.run(arguments.parse(["prepare", *flags])) == 0
    out = capsys.readouterr().out
    assert "gym.chain_sum" in out and str(tmp_path / "stores") in out.replace("\n", "")


@pytest.fixture
def partly_there(tmp_path, monkeypatch):
    """A mixture of a good file, one without a good line, and one that is missing."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_files(folder)
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(folder))
    monkeypatch.setattr(peak, "matmul_peak", lambda *_: 1e9)
    registry_names = ("spoilt.sums", "spoilt.blank", "spoilt.absent")
    # The module registers its tasks when it is first imported, whoever asks.
    main(["prepare", "--mixture=spoilt.sums", "--workers=1", "--report_examples=0", MODULE_FLAG])
    if "spoilt_partly" not in registry.mixture_names():
        registry.add_mixture("spoilt_partly", dict.fromkeys(registry_names, 1))
    return "spoilt_partly"


@pytest.mark.slow
def test_what_is_not_there_is_left_out_on_record_and_training_goes_on(
    partly_there, tmp_path, capsys
):
    command = ["prepare", f"--mixture={partly_there}", "--workers=1", MODULE_FLAG]
    capsys.readouterr()
    assert main(command) == 1
    out = capsys.readouterr().out
    assert "failed: spoilt.absent (train, validation): " in out
    assert "--skip_unavailable" in out and "--download" in out
    assert not (tmp_path / "stores" / "left_out").exists()

    assert main([*command, "--skip_unavailable"]) == 0
    out = capsys.readouterr().out
    assert "2 tasks are left out" in out and "1 tasks are left" in out
    assert "spoilt.blank (train): no record; rejected rows: empty answer: 1" in out
    path = tmp_path / "stores" / "left_out" / f"{partly_there}.json"
    record = json.loads(path.read_text())
    assert {m["task"] for m in record["left_out"]} == {"spoilt.blank", "spoilt.absent"}
    good = record["sub_mixtures"]["spoilt.sums"]
    assert (good["before"], good["after"]) == (pytest.approx(1 / 3), 1.0)

    # Without the flag the record stays, and is pointed to.
    assert main(command) == 1
    assert f"{path} of 20" in capsys.readouterr().out.replace("\n", "")

    flags = [*train_flags(tmp_path / "run"), f"--gin.MIXTURE_OR_TASK_NAME={partly_there}"]
    assert main(["check", *flags, "--gin.SKIP_UNAVAILABLE=True"]) == 0
    out = capsys.readouterr().out.replace("\n", " ")
    assert "2 tasks are left out" in out and "spoilt.absent" not in out
    assert "absent.jsonl" in failure(capsys, "train", *flags)
    assert main(["train", *flags, "--gin.SKIP_UNAVAILABLE=True"]) == 0
    mixture = json.loads((tmp_path / "run" / "mixture.json").read_text())
    assert mixture["left_out"] == ["spoilt.blank", "spoilt.absent"]
    assert [leaf["asked"] for leaf in mixture["leaves"]] == [1.0]
    operative = (tmp_path / "run" / "operative.gin").read_text()
    assert "SKIP_UNAVAILABLE = True" in operative
    message = failure(capsys, "train", *flags, "--gin.TRAIN_STEPS=4")
    assert "skip_unavailable" in message


def test_nothing_left_is_a_failure(partly_there, capsys):
    command = ["prepare", "--mixture=spoilt.absent", "--skip_unavailable", MODULE_FLAG]
    assert main([*command, "--workers=1"]) == 1
    assert "0 tasks are left" in capsys.readouterr().out


class FullDisk(ToySource):
    """A source in whose time the disk fills up."""

    def records(self, workspace, split):
        yield Dropped("one row")
        raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_no_task_out(tmp_path, capsys):
    spec = registry.add_task(toy_spec(FullDisk("full")))
    command = ["prepare", f"--mixture={spec.name}", "--skip_unavailable", "--workers=1"]
    assert main(command) == 1
    out = capsys.readouterr().out
    assert "Nothing is left out for that" in out and "no space left" in out
    assert not (tmp_path / "stores" / "left_out").exists()


def test_downloads_are_allowed_by_a_flag_or_a_variable_only(monkeypatch, capsys):
    monkeypatch.setenv("INSTRUCT_DOWNLOAD", "")
    monkeypatch.setenv("TFDS_DATA_DIR", "/not/there")
    allowed = []

    def download(self, workspace):
        allowed.append(workspace.downloads)
        raise UserError("no network")

    monkeypatch.setattr(TfdsSource, "download", download)
    spec = registry.add_task(toy_spec(TfdsSource("toy_words:1.0.0", {"train": "train"}, print)))
    common = ["prepare", f"--mixture={spec.name}", "--workers=1", "--report_examples=0"]
    assert main(common) == 1 and not allowed
    assert main([*common, "--download"]) == 1 and allowed == [True]
    assert "INSTRUCT_DOWNLOAD" in os.environ and not os.environ["INSTRUCT_DOWNLOAD"]
    monkeypatch.setenv("INSTRUCT_DOWNLOAD", "1")
    assert main(common) == 1 and allowed == [True, True]


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(monkeypatch, capsys, tmp_path):
    spec = registry.add_task(toy_spec(num_examples={"train": 10**9}))
    usage = type("Usage", (), {"free": 10**9})
    monkeypatch.setattr(disk_estimate.shutil, "disk_usage", lambda _: usage)
    command = ["prepare", f"--mixture={spec.name}", "--workers=1"]
    assert "--ignore_disk_estimate" in failure(capsys, *command)
    assert not (tmp_path / "stores").exists()
    assert main([*command, "--ignore_disk_estimate"]) == 0
    out = capsys.readouterr().out
    assert "2 stores to build: 1,000,000,000 known rows" in out


@pytest.mark.slow
def test_every_task_is_reported(capsys, tmp_path):
    command = ["prepare", f"--mixture={TASK}", "--workers=1", "--report_examples=20"]
    assert main([*command, "--report"]) == 0
    out = capsys.readouterr().out
    assert "too long" in out and "sha256" in out
    report = json.loads((tmp_path / "stores" / "reports" / f"{TASK}.json").read_text())
    (task,) = report["tasks"]
    assert task["lengths"]["examples"] == 20 and task["lengths"]["input_tokens"] > 5
    assert {len(store["sha256"]) for store in task["stores"]} == {64}
    assert main(command) == 0
    assert "sha256" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--runner=dirct"], "Did you mean 'direct'"),
        (["--beam_option=a=b"], "--runner"),
        (["--runner=direct", "--beam_option=a"], "KEY=VALUE"),
        (["--report_examples=-1"], "--report_examples=-1"),
        (["--workers=0"], "--workers=0"),
    ],
)
def test_wrong_flags_are_named(flags, words):
    with pytest.raises(UserError, match=words):
        prepare.run(arguments.parse(["prepare", f"--mixture={TASK}", *flags]))
