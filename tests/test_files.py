"""Paths of users, whole writes, locks."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest

from instruct.errors import UserError
from instruct.files import (
    LineFile,
    absolute_path,
    any_folder,
    any_path,
    is_address,
    local_folder,
    local_path,
    locked,
    make_writable,
    path_of,
    remove_leftovers,
    replace_file,
    replacing,
    whole_folder,
)


def test_paths_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("MODEL_DIR", "~/a") == tmp_path / "a"
    for text in (".", "/", "runs/a", "a:b", "./gs:x", "/gs:/a", "with space", "[x]", "\udcff"):
        assert local_path("MODEL_DIR", text) == pathlib.Path(text)


@pytest.mark.parametrize(
    "value", ["gs://bucket/a", "s3://b", "hdfs://h/a", "http://x/a", "file:///a", "gs:/bucket/a"]
)
def test_addresses_are_refused_where_a_file_is_needed(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"VOCABULARY is '{value}'.*not supported here.*such as"):
        local_path("VOCABULARY", value)
    assert not list(tmp_path.iterdir())


def test_paths_and_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, address in (("a", False), ("a:b", False), ("gs://b/a", True), ("gs:/b/a", True)):
        assert is_address(text) is address
    assert path_of("a") == pathlib.Path("a") and absolute_path("a") == tmp_path / "a"
    assert any_path("MODEL_DIR", "runs/a") == pathlib.Path("runs/a")
    assert any_folder("STORE_DIR", "stores") == pathlib.Path("stores")
    for path in (path_of("gs://b/a"), absolute_path("gs://b/a"), any_folder("S", "gs://b/a")):
        assert str(path) == "gs://b/a" and is_address(path)


def test_nobody_waits_for_the_packages_of_buckets():
    code = "import sys; from instruct import files, results, workspace; files.any_path('a', 'b')"
    code += "; assert not {'etils', 'tensorstore', 'instruct.buckets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lines_are_appended(tmp_path):
    path = tmp_path / "lines"
    path.write_text("a\n")
    lines = LineFile(path)
    lines.write("é\n")
    lines.sync()
    assert path.read_text() == "a\né\n"
    lines.write("c\n")
    lines.close()
    assert path.read_text() == "a\né\nc\n"


@pytest.mark.parametrize("value", [3, None, "", True, ["a"], "a\0b", "~nobody-of-that-name/a"])
def test_what_is_no_path(value):
    with pytest.raises(UserError, match="MODEL_DIR is "):
        local_path("MODEL_DIR", value)


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(UserError, match="STORE_DIR is .*file is a file; give a folder"):
            local_folder("STORE_DIR", tmp_path / place)
        with pytest.raises(UserError, match=r"--out .* cannot be written: .*Choose a folder"):
            make_writable("--out", tmp_path / place)
    assert local_folder("STORE_DIR", tmp_path / "new") == tmp_path / "new"
    make_writable("--out", tmp_path / "new" / "a")
    assert not list((tmp_path / "new" / "a").iterdir())


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "a.txt"
    replace_file(path, "é")
    ordinary = tmp_path / "b.txt"
    ordinary.write_text("")
    assert path.read_bytes() == "é".encode()
    assert path.stat().st_mode == ordinary.stat().st_mode
    with pytest.raises(KeyboardInterrupt), replacing(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    replace_file(ordinary, b"new")
    assert (path.read_text(), ordinary.read_text()) == ("é", "new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_a_file_of_the_longest_name_is_replaced_too(tmp_path):
    path = tmp_path / ("語" * 84 + ".x")  # 254 bytes
    replace_file(path, "new")
    assert path.read_text() == "new"
    (tmp_path / f".{'語' * 33}.{'0' * 12}.tmp").touch()
    remove_leftovers(tmp_path, path.name)
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_a_replaced_file_names_it(tmp_path):
    with pytest.raises(OSError) as caught:
        replace_file(tmp_path, "text")
    assert caught.value.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST)
    assert caught.value.filename == os.fspath(tmp_path)


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "below" / "folder"
    ordinary = tmp_path / "ordinary"
    ordinary.mkdir()
    for text in ("first", "second"):
        with whole_folder(path, ".part-", replace=True) as folder:
            (folder / "a").write_text(text)
    assert path.stat().st_mode == ordinary.stat().st_mode
    with pytest.raises(OSError), whole_folder(path, ".part-") as folder:
        (folder / "a").write_text("third")
    with pytest.raises(KeyboardInterrupt), whole_folder(path, ".part-", replace=True) as folder:
        raise KeyboardInterrupt
    assert (path / "a").read_text() == "second"
    assert [entry.name for entry in path.parent.iterdir()] == ["folder"]


HOLD = """
import os, sys
from instruct.files import locked
with locked(sys.argv[1], "it"):
    if os.fork() == 0:
        print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_free_again_when_its_holder_was_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    refused = pytest.raises(UserError, match="MODEL_DIR a is being written by another process")
    with refused, locked(tmp_path, "MODEL_DIR a"):
        raise AssertionError("two have it")
    holder.kill()
    holder.wait()
    with locked(tmp_path, "it"):  # though the child that it forked still runs
        assert not list(tmp_path.iterdir())
    with locked(tmp_path, "it"):
        pass
    assert holder.stdin is not None
    holder.stdin.close()
