"""Paths of users: what is no path of this machine is refused before anything is made."""

import pathlib

import pytest

from instruct.errors import UserError
from instruct.local_paths import local_path


def test_paths_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("MODEL_DIR", "~/a") == tmp_path / "a"
    for text in ("runs/a", "a:b", "./gs:x", "/gs:/a", "with space", "[x]", "\udcff"):
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
    with pytest.raises(UserError, match="MODEL_DIR is"):
        local_path("MODEL_DIR", value)
