"""Paths of users: what is no path of this machine is refused before anything is made."""

import pathlib

import pytest

from instruct.errors import UserError
from instruct.local_paths import local_folder, local_path, writable_folder


def test_paths_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("MODEL_DIR", "~/a") == tmp_path / "a"
    for text in (".", "/", "runs/a", "a:b", "./gs:x", "/gs:/a", "with space", "[x]", "\udcff"):
        assert local_path("MODEL_DIR", text) == pathlib.Path(text)


@pytest.mark.parametrize(
    "value", ["gs://bucket/a", "s3://b", "hdfs://h/a", "http://x/a", "file:///a", "gs:/bucket/a"]
)
def test_addresses_are_refused(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"STORE_DIR is '{value}'.*not supported yet.*such as"):
        local_path("STORE_DIR", value)
    assert not list(tmp_path.iterdir())


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
            writable_folder("--out", tmp_path / place)
    assert local_folder("STORE_DIR", tmp_path / "new") == tmp_path / "new"
    assert writable_folder("--out", tmp_path / "new" / "a").is_dir()
    assert not list((tmp_path / "new" / "a").iterdir())
