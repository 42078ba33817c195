"""Stores are whole or absent, the same bytes every time, and damage is named."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from instruct.data.stores import store
from instruct.data.stores import writing as store_writing
from instruct.data.stores.store import Store, read_manifest, store_path
from instruct.data.stores.writing import StoreWriteError, write_store
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tests.workspaces import workspace

RECORDS = [
    Record(f"r{i}", {"question": f"number {i}?"}, ["even", "odd"][i % 3 % 2]) for i in range(90)
]


def noise(number):
    """Text that does not compress, the same every time."""
    return "".join(hashlib.sha256(f"{number} {i}".encode()).hexdigest() for i in range(3))


def build(name="t@1", split="train", items=RECORDS):
    path = store_path(workspace(), name, split)
    made = write_store(path, items, task="t", kind="records", version="1", source_fingerprint="f")
    return path, made


def test_every_record_comes_back_in_any_order():
    path, _ = build()
    opened = Store(path)
    assert len(opened) == 90
    assert opened[17] == RECORDS[17]
    assert opened.read([89, 0, 44, 0]) == [RECORDS[i] for i in (89, 0, 44, 0)]
    assert opened.read([]) == []
    opened.verify()


def test_manifest_counts_drops_and_the_majority_answer():
    bad = Record("bad", {"question": "lone surrogate \ud800"}, "x")
    path, made = build(items=[*RECORDS, Dropped("empty answer"), Dropped("empty answer"), bad])
    assert made == read_manifest(path)
    assert made.num_records == 90
    assert made.dropped == {"empty answer": 2, "text is not UTF-8": 1}
    assert made.majority_answer == "even"
    assert made.majority_share == pytest.approx(60 / 90, abs=1e-6)


def test_same_records_same_bytes():
    first, one = build("a@1")
    second, two = build("b@1")
    assert one.sha256 == two.sha256
    for name in (store.RECORDS_FILE, store.MANIFEST_FILE):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_failing_source_leaves_nothing_and_keeps_the_old_store():
    def broken():
        yield RECORDS[0]
        raise RuntimeError("the file ends here")

    path = store_path(workspace(), "t@1", "train")
    with pytest.raises(RuntimeError, match="the file ends here"):
        build(items=broken())
    assert list(path.parent.iterdir()) == []
    _, made = build()
    with pytest.raises(RuntimeError):
        build(items=broken())
    assert read_manifest(path) == made
    assert [entry.name for entry in path.parent.iterdir()] == ["train"]
    build(items=RECORDS[:5])
    assert len(Store(path)) == 5


KILLED = """
import os, signal, sys
from instruct.data.stores.store import store_path
from instruct.data.stores.writing import write_store
from tests.data.stores.test_store import RECORDS
from tests.workspaces import workspace
def items():
    yield from RECORDS
    os.kill(os.getpid(), signal.SIGKILL)
write_store(store_path(workspace(), "t@1", "train"), items(), task="t", kind="records", version="1",
            source_fingerprint="f")
"""


def test_a_killed_build_leaves_no_store_and_its_rest_is_cleared():
    done = subprocess.run([sys.executable, "-c", KILLED], env=dict(os.environ, PYTHONPATH="."))
    assert done.returncode == -9
    path = store_path(workspace(), "t@1", "train")
    assert read_manifest(path) is None
    assert len(list(path.parent.iterdir())) == 1  # the abandoned working folder
    build()
    assert [entry.name for entry in path.parent.iterdir()] == ["train"]


@pytest.mark.parametrize("host", ["node", "node-0", "pod-w-0", "[a]-0-b"])
def test_only_rests_of_this_machine_are_cleared(monkeypatch, host):
    monkeypatch.setattr("socket.gethostname", lambda: host)
    folder = store_path(workspace(), "t@1", "train").parent
    dead = 4_194_305  # above any process number
    kept = {
        f".train.building-{host}-{os.getpid()}-abcd",
        f".train.building-{host}-1-{dead}-abcd",  # of a machine that is called like this one
        f".train.building-{host.replace('0', '1')}x-{dead}-abcd",
        f".test.building-{host}-{dead}-abcd",
    }
    for name in (*kept, f".train.building-{host}-{dead}-abcd"):
        (folder / name).mkdir(parents=True)
    build()
    assert {entry.name for entry in folder.iterdir()} == {"train"} | kept


def test_what_is_replaced_is_cleared_even_if_the_build_is_killed_then(monkeypatch):
    build()
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *_, **__: None)  # as if it never came to that
        build()
    path = store_path(workspace(), "t@1", "train")
    assert any("building" in entry.name for entry in path.parent.iterdir())
    monkeypatch.setattr("instruct.data.stores.writing._is_running", lambda process: False)
    build()
    assert [entry.name for entry in path.parent.iterdir()] == ["train"]


def test_two_processes_may_replace_a_store_at_once(monkeypatch):
    build()
    path = store_path(workspace(), "t@1", "train")
    rename = Path.rename

    def rename_after_the_other(self, target):
        if self == path:  # the other process was quicker, and has finished since
            rename(self, path.parent / "taken")
            try:
                return rename(self, target)
            finally:
                rename(path.parent / "taken", self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_after_the_other)
    build()
    assert Store(path)[0] == RECORDS[0]


def test_full_disk_is_a_clear_error(monkeypatch):
    class Full:
        def __init__(self, *arguments):
            pass

        def write(self, line):
            pass

        def close(self):
            # What array_record raises on a full tmpfs.
            raise RuntimeError("write() failed: No space left on device; writing x; at byte 1")

    monkeypatch.setattr(store_writing, "ArrayRecordWriter", Full)
    with pytest.raises(StoreWriteError, match="no space left on the disk"):
        build()
    assert read_manifest(store_path(workspace(), "t@1", "train")) is None


def test_other_write_errors(monkeypatch):
    def fail(code):
        def write(file, text):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(store_writing, "replace_file", write)

    fail(errno.ENOSPC)
    with pytest.raises(StoreWriteError, match="STORE_DIR"):
        build()
    fail(errno.EACCES)
    with pytest.raises(StoreWriteError, match="Permission denied.*STORE_DIR"):
        build()
    fail(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        build()


def test_no_store_says_how_to_build_one():
    with pytest.raises(UserError, match="prepare"):
        Store(store_path(workspace(), "t@1", "train"))


def damage(path, name, change):
    data = bytearray((path / name).read_bytes())
    change(data)
    (path / name).write_bytes(bytes(data))


def test_damage_is_noticed_and_the_fix_is_named():
    path, _ = build(items=[Record(f"{i}", {"q": noise(i)}, "a") for i in range(400)])

    def flip(data):
        data[70000] ^= 255

    damage(path, store.RECORDS_FILE, flip)
    opened = Store(path)
    with pytest.raises(UserError, match="damaged"):
        opened.verify()

    def cut(data):
        del data[-100:]

    damage(path, store.RECORDS_FILE, cut)
    with pytest.raises(UserError, match=r"damaged.*bytes, expected.*Delete that folder"):
        Store(path)
    (path / store.RECORDS_FILE).unlink()
    with pytest.raises(UserError, match="damaged"):
        Store(path)


@pytest.mark.parametrize("name", [store.MANIFEST_FILE, store.RECORDS_FILE])
def test_a_drive_that_fails_is_no_damage(name, monkeypatch):
    path, _ = build()
    method = "read_text" if name == store.MANIFEST_FILE else "stat"
    real = getattr(type(path), method)

    def fail(self, **options):
        if self.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, **options)

    monkeypatch.setattr(type(path), method, fail)
    with pytest.raises(OSError, match="Input/output") as caught:
        Store(path)
    assert caught.value.filename == str(path / name)


def test_a_damaged_block_is_noticed_when_read():
    path, _ = build(items=[Record(f"{i}", {"q": noise(i)}, "a") for i in range(900)])

    def flip(data):
        used = len(bytes(data).rstrip(b"\0"))
        data[used // 3] ^= 255

    damage(path, store.RECORDS_FILE, flip)
    opened = Store(path)
    with pytest.raises(UserError, match="damaged.*prepare"):
        opened.read(list(range(900)))


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(num_records=3),
        lambda values: values.update(format=99),
        lambda values: values.clear(),
    ],
)
def test_an_edited_manifest_is_noticed(change):
    path, _ = build()
    values = json.loads((path / store.MANIFEST_FILE).read_text())
    change(values)
    (path / store.MANIFEST_FILE).write_text(json.dumps(values))
    with pytest.raises(UserError, match="damaged"):
        Store(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_half_manifest_is_noticed(content):
    path, _ = build()
    (path / store.MANIFEST_FILE).write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_manifest(path)


def test_where_stores_are(tmp_path):
    two = workspace(store_dir=tmp_path / "two")
    assert store_path(two, "t@1", "train") == tmp_path / "two" / "t@1" / "train"
