"""Paths in an emulated bucket, with and without errors of the service; the lock object."""

import json
import os
import pickle
import subprocess
import sys
from typing import Any, cast

import pytest

from instruct import buckets
from instruct.data.vocab import load_vocabulary, model_path
from instruct.errors import UserError, storage_failure
from instruct.files import (
    LineFile,
    UploadedFolder,
    any_path,
    locked,
    make_writable,
    path_of,
    replace_file,
    replacing,
    whole_folder,
)
from instruct.metrics_file import read_metrics
from instruct.results import ResultsWriter, read_rows
from tests.gcs_emulator import KINDS, Faults
from tests.waiting import LIMIT_SECS, wait_until

pytestmark = pytest.mark.slow(secs=0.2)  # seconds together

ROOT = "gs://bucket/runs/[a]"  # brackets are no pattern


@pytest.fixture
def folder(gcs):
    for name in ("run.json", "eval/s/step_1/results.jsonl", "eval/s/step_2/results.jsonl"):
        gcs.put(f"runs/[a]/{name}", name.encode())
    return path_of(ROOT)


def test_a_path_in_a_bucket_reads_like_one_of_a_disk(folder):
    assert folder.is_dir() and (folder / "eval").exists() and not (folder / "eval").is_file()
    assert (folder / "run.json").is_file() and not (folder / "run.json").is_dir()
    assert (folder / "run.json").read_text() == "run.json"
    assert [path.name for path in folder.iterdir()] == ["eval", "run.json"]
    found = [str(path) for path in folder.glob("eval/*/step_*/results.jsonl")]
    assert found == [f"{ROOT}/eval/s/step_{n}/results.jsonl" for n in (1, 2)]
    assert [str(path) for path in folder.glob("*.json")] == [f"{ROOT}/run.json"]
    assert [path.name for path in folder.glob("eval/*")] == ["s"]
    assert folder.absolute() == folder == folder.resolve() and str(folder.parent).endswith("runs")
    assert (folder / "x").is_relative_to(folder) and str((folder / "x").relative_to(folder)) == "x"
    assert pickle.loads(pickle.dumps(folder)) == folder
    with pytest.raises(FileNotFoundError):
        (folder / "absent").read_bytes()
    with pytest.raises(FileNotFoundError):
        list((folder / "absent").iterdir())


def test_files_and_folders_are_renamed_and_deleted(folder, gcs):
    assert (folder / "eval").rename(folder / "old") == folder / "old"
    assert gcs.names("runs/[a]/eval") == []
    assert gcs.content("runs/[a]/old/s/step_2/results.jsonl") == b"eval/s/step_2/results.jsonl"
    (folder / "run.json").unlink()
    (folder / "run.json").unlink(missing_ok=True)
    cast(Any, folder / "old").rmtree()
    assert gcs.names() == []
    with pytest.raises(UserError, match="whole bucket"):
        cast(Any, path_of("gs://bucket")).rmtree()


def test_a_file_is_written_whole_or_not_at_all(folder, gcs):
    replace_file(folder / "a.txt", "é")
    with pytest.raises(KeyboardInterrupt), replacing(folder / "a.txt") as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), (folder / "a.txt").open("w") as text:
        text.write("half")
        raise KeyboardInterrupt
    assert gcs.content("runs/[a]/a.txt") == "é".encode()
    with whole_folder(folder / "part", ".part-", replace=True) as local:
        (local / "records").write_text("1")
        (local / "index").write_text("2")
    with pytest.raises(KeyboardInterrupt), whole_folder(folder / "part", ".part-") as local:
        (local / "records").write_text("3")
        raise KeyboardInterrupt
    with whole_folder(folder / "part", ".part-", replace=True) as local:
        (local / "index").write_text("4")
    assert gcs.names("runs/[a]/part") == ["runs/[a]/part/index"]
    assert gcs.content("runs/[a]/part/index") == b"4"


def test_lines_are_uploaded_whole_and_not_too_often(folder, gcs):
    lines = LineFile(folder / "lines", min_secs=1e6)
    for line in ("a\n", "b\n", "c\n"):
        lines.write(line)
        lines.sync()
    assert gcs.content("runs/[a]/lines") == b"a\n"
    lines.close()
    assert gcs.content("runs/[a]/lines") == b"a\nb\nc\n"
    more = LineFile(folder / "lines")
    more.write("d\n")
    more.sync()
    assert gcs.content("runs/[a]/lines") == b"a\nb\nc\nd\n"
    tensorboard = UploadedFolder(folder / "tensorboard", 1e6)
    (tensorboard.local / "events").write_bytes(b"1")
    tensorboard.sync()
    (tensorboard.local / "events").write_bytes(b"12")
    tensorboard.sync()
    assert gcs.content("runs/[a]/tensorboard/events") == b"1"
    tensorboard.close()
    assert gcs.content("runs/[a]/tensorboard/events") == b"12" and not tensorboard.local.exists()


def test_results_and_metrics_are_read_back(folder):
    header = {"suite": "s", "step": 1, "checkpoint": "c", "settings": {"seed": 1}}
    failure = dict.fromkeys(("suite", "task", "task_version", "family", "category", "mode"), "x")
    failure |= {"kind": "failure", "split": "test", "group": "unknown", "step": 1}
    failure |= {"error": "why", "checkpoint": "c"}
    path = folder / "eval/s/step_9/results.jsonl"
    with ResultsWriter(path, header) as writer:
        writer.write([failure])
        assert [row["kind"] for row in read_rows(path)] == ["header", "failure"]
    with ResultsWriter(path, header):  # a later run tries failed tasks again
        assert [row["kind"] for row in read_rows(path)] == ["header"]
    replace_file(folder / "metrics.jsonl", '{"step": 1, "loss": 2.0}\n')
    assert read_metrics(folder / "metrics.jsonl").rows == [{"step": 1, "loss": 2.0}]


def test_a_vocabulary_in_a_bucket(folder, gcs):
    gcs.put("runs/[a]/spiece.model", model_path("gym").read_bytes())
    vocabulary = load_vocabulary(f"{ROOT}/spiece.model#extra_ids=100")
    assert (
        vocabulary.fingerprint == load_vocabulary(f"{model_path('gym')}#extra_ids=100").fingerprint
    )
    with pytest.raises(UserError, match="cannot read vocabulary 'gs://bucket/absent.model'"):
        load_vocabulary("gs://bucket/absent.model")


def test_errors_of_the_service_are_repeated(folder, gcs):
    gcs.faults = Faults(seed=2, count=20, share=0.4, kinds=KINDS[:-1])
    contents = {f"{number}.txt": os.urandom(3000) for number in range(30)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    assert {path.name: path.read_bytes() for path in folder.glob("*.txt")} == contents
    assert set(gcs.faults.injected) == set(KINDS[:-1]) and gcs.faults.injected.total() == 20
    gcs.faults = Faults(count=1, share=1.0, kinds=("slow",))
    assert (folder / "7.txt").read_bytes() == contents["7.txt"] and gcs.faults.injected["slow"]


def test_a_service_that_stays_away_is_a_failure_of_the_storage(folder, gcs, monkeypatch):
    monkeypatch.setattr(buckets, "_RETRIES", {"max_retries": 2, "initial_delay": "1ms"})
    buckets._open_bucket.cache_clear()
    gcs.faults = Faults(count=1000, share=1.0, kinds=("503",))
    with pytest.raises(OSError, match="the bucket failed.*2 retry attempts") as caught:
        replace_file(folder / "run.json", "new")
    assert "gs://bucket/runs/[a]/run.json" in str(storage_failure(caught.value))
    gcs.faults.count = 0
    assert (folder / "run.json").read_text() == "run.json"
    buckets._open_bucket.cache_clear()


def test_a_bucket_that_is_not_there_or_not_ours(gcs):
    with pytest.raises(UserError, match="there is no bucket gs://nowhere.*Create it"):
        make_writable("MODEL_DIR", path_of("gs://nowhere/runs/a"))
    assert not path_of("gs://nowhere/runs/a").exists()
    gcs.token = "somebody else's"
    with pytest.raises(UserError, match=r"gs://bucket/.*credentials.*gcloud auth"):
        make_writable("MODEL_DIR", path_of("gs://bucket/runs/a"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hdfs://host/a", r"MODEL_DIR is 'hdfs://host/a'.*not known.*gs://, s3://, az://, hf://"),
        ("gs:/bucket/a", r"MODEL_DIR is 'gs:/bucket/a'.*not known"),
        ("gs://", r"MODEL_DIR is 'gs://'.*write gs://BUCKET/PATH"),
        ("gs://bucket/a//b", "cannot hold '//'"),
        ("az://container/a", r"az:// needs a package that is not installed \(.*adlfs"),
    ],
)
def test_addresses_that_cannot_be_used(address, message):
    with pytest.raises(UserError, match=message):
        any_path("MODEL_DIR", address)


def test_other_schemes_go_through_fsspec(monkeypatch):
    """The memory of fsspec stands for its packages, none of which is a dependency."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    backend = buckets.epath_backend.fsspec_backend
    plain = lambda path: "/" + str(path).rpartition("://")[2].strip("/")  # noqa: E731
    memory_with_addresses = type(
        "Memory", (type(memory),), {"_strip_protocol": staticmethod(plain), "protocol": "az"}
    )(skip_instance_cache=True)
    monkeypatch.setattr(type(backend), "fs", lambda self, path: memory_with_addresses)
    path = path_of("az://container/a")
    (path / "b" / "c.txt").write_text("é")
    assert (path / "b" / "c.txt").read_text() == "é" and (path / "b").is_dir()
    assert buckets.read_range(cast(Any, path / "b" / "c.txt"), 0, 1) == "é".encode()[:1]


def test_one_process_at_a_time_holds_a_folder(folder, gcs, monkeypatch):
    monkeypatch.setattr(buckets, "HEARTBEAT_SECS", 0.2)
    monkeypatch.setattr(buckets, "STALE_SECS", LIMIT_SECS)  # however late the next heartbeat is
    with locked(folder, "MODEL_DIR a"):
        assert json.loads(gcs.content("runs/[a]/.lock"))["process"] == os.getpid()
        refused = pytest.raises(UserError, match=f"MODEL_DIR a is being .* process {os.getpid()} ")
        with refused, locked(folder, "MODEL_DIR a"):
            raise AssertionError("two have it")
    assert gcs.names("runs/[a]/.lock") == []


HOLD = """
import sys, threading
from instruct import buckets
from instruct.files import locked, path_of
with locked(path_of(sys.argv[1]), "it"):
    print("held", flush=True)
    threading.Event().wait()
"""


def test_the_lock_of_a_killed_process_is_free_at_once(folder, gcs):
    command = [sys.executable, "-c", HOLD, str(folder)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    finally:
        holder.kill()
        holder.wait()
    assert gcs.names("runs/[a]/.lock")
    with locked(folder, "MODEL_DIR a"):
        assert json.loads(gcs.content("runs/[a]/.lock"))["process"] == os.getpid()


def test_the_lock_of_a_silent_host_is_taken_and_its_holder_notices(
    folder, gcs, monkeypatch, caplog
):
    monkeypatch.setattr(buckets, "STALE_SECS", 1.0)
    monkeypatch.setattr(buckets, "HEARTBEAT_SECS", 0.1)
    gcs.put("runs/[a]/.lock", b'{"host": "elsewhere", "process": 7}')
    with locked(folder, "MODEL_DIR a"):
        assert "MODEL_DIR a is locked by process 7 of elsewhere; waiting up to 1 s" in caplog.text
        gcs.put("runs/[a]/.lock", b'{"host": "elsewhere", "process": 8, "id": "x"}')
        wait_until(lambda: "was taken by another process" in caplog.text)
    assert json.loads(gcs.content("runs/[a]/.lock"))["process"] == 8
