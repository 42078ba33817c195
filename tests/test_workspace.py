import pathlib
import pickle

from instruct.workspace import Workspace


def test_it_can_be_sent_and_compared():
    workspace = Workspace(data_dir=pathlib.Path("data"), downloads=True)
    sent = pickle.loads(pickle.dumps(workspace))
    assert sent == workspace and hash(sent) == hash(workspace)
    assert sent != Workspace()


def test_paths_are_expanded_and_made_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(data_dir=pathlib.Path("~/data"), store_dir=pathlib.Path("stores"))
    assert workspace.data_dir == tmp_path / "data"
    assert workspace.store_dir == pathlib.Path("stores")
    assert workspace.absolute().store_dir == tmp_path / "stores"
    assert workspace.absolute().flan_checkout is None
