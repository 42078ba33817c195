"""Environment variables that the command line reads."""

import pathlib

import pytest

from instruct.cli.environment import serve_token, workspace_from_environment
from instruct.errors import UserError
from instruct.workspace import Workspace


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        *("INSTRUCT_DATA_DIR", "INSTRUCT_STORE_DIR", "TFDS_DATA_DIR", "INSTRUCT_FLAN_CHECKOUT"),
        *("INSTRUCT_DOWNLOAD", "INSTRUCT_TOXICITY_CLASSIFIER"),
        *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"),
    ):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_without_any_the_folders_are_the_default_ones(home, monkeypatch):
    found = workspace_from_environment()
    assert found == Workspace()
    assert found.data_dir == home / "instruct_data"
    assert found.store_dir == home / ".cache/instruct/stores"
    assert found.tfds_dir == home / "tensorflow_datasets"
    assert found.hub_cache == home / ".cache/huggingface/hub"
    assert found.flan_checkout is None and not found.downloads
    monkeypatch.setenv("INSTRUCT_DATA_DIR", "")
    assert workspace_from_environment() == found


def test_each_folder_has_its_variable(home, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", "~/elsewhere")
    monkeypatch.setenv("INSTRUCT_STORE_DIR", "/stores")
    monkeypatch.setenv("TFDS_DATA_DIR", "/tfds")
    monkeypatch.setenv("INSTRUCT_FLAN_CHECKOUT", "/FLAN")
    found = workspace_from_environment()
    assert found.data_dir == home / "elsewhere" and found.store_dir == pathlib.Path("/stores")
    assert (found.tfds_dir, found.flan_checkout) == (pathlib.Path("/tfds"), pathlib.Path("/FLAN"))
    given = workspace_from_environment(store_dir=pathlib.Path("/given"))
    assert given.store_dir == pathlib.Path("/given") and given.data_dir == found.data_dir


def test_the_hubs_caches_are_found_as_its_library_finds_them(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert workspace_from_environment().hub_cache == pathlib.Path("/cache/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/hf")
    found = workspace_from_environment()
    assert (str(found.hub_cache), str(found.datasets_cache)) == ("/hf/hub", "/hf/datasets")
    monkeypatch.setenv("HF_HUB_CACHE", "/a")
    monkeypatch.setenv("HF_DATASETS_CACHE", "/b")
    found = workspace_from_environment()
    assert (str(found.hub_cache), str(found.datasets_cache)) == ("/a", "/b")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("INSTRUCT_DOWNLOAD", "true", "INSTRUCT_DOWNLOAD 'true'.*Allowed: 0, 1"),
        ("HF_HUB_CACHE", "~nobody_of_this_name/hub", "HF_HUB_CACHE.*there is no such user"),
    ],
)
def test_a_wrong_value_is_refused_by_name(home, monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=said):
        workspace_from_environment()


def test_downloads_must_be_asked_for(home, monkeypatch):
    for value, allowed in (("0", False), ("", False), ("1", True)):
        monkeypatch.setenv("INSTRUCT_DOWNLOAD", value)
        assert workspace_from_environment().downloads is allowed


def test_stores_may_be_in_a_bucket(home, monkeypatch):
    monkeypatch.setenv("INSTRUCT_STORE_DIR", "gs://bucket/stores")
    workspace = workspace_from_environment()
    assert str(workspace.shared_store_dir) == "gs://bucket/stores"
    assert workspace.store_dir == home / ".cache/instruct/staged/gs/bucket/stores"
    monkeypatch.setenv("INSTRUCT_STAGE_DIR", str(home / "disk"))
    assert workspace_from_environment().store_dir == home / "disk/gs/bucket/stores"
    monkeypatch.setenv("INSTRUCT_DATA_DIR", "gs://bucket/data")
    with pytest.raises(UserError, match=r"INSTRUCT_DATA_DIR .*a bucket may be mounted there"):
        workspace_from_environment()


def test_the_token_of_serve(monkeypatch, tmp_path):
    monkeypatch.delenv("INSTRUCT_SERVE_TOKEN", raising=False)
    assert serve_token(None) is None
    monkeypatch.setenv("INSTRUCT_SERVE_TOKEN", "abc")
    assert serve_token(None) == "abc"
    (tmp_path / "token").write_text("def\n")
    assert serve_token(str(tmp_path / "token")) == "def"
    with pytest.raises(UserError, match=r"--token_file=.*none: cannot be read"):
        serve_token(str(tmp_path / "none"))
    for text in ("", "two words", "two\nlines"):
        (tmp_path / "token").write_text(text)
        with pytest.raises(UserError, match="one line of printable ASCII"):
            serve_token(str(tmp_path / "token"))
