"""A push reaches a hub whole, in one commit, or not at all; tests/cli/test_convert.py has the mode.

The hub is `hub_stub.HubStub`: the library's own requests over HTTP, no hub of Hugging Face's.
"""

import pathlib

import pytest
from huggingface_hub import constants

from instruct.checkpoints import hub as pushing
from instruct.errors import RunFailed, UserError
from instruct.report.pages.model_card import model_card
from tests.checkpoints.hub_stub import HubStub
from tests.report.pages.test_model_card import FACTS

pytestmark = pytest.mark.slow(secs=0.2)  # seconds together


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubStub() as stub:
        use_hub(monkeypatch, stub, tmp_path)
        yield stub


def use_hub(monkeypatch, stub, folder):
    """What HF_ENDPOINT, HF_TOKEN and HF_HUB_DISABLE_XET do before the library is imported."""
    template = f"{stub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", stub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # tests/conftest.py sets it
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no_token"))
    monkeypatch.setenv("HF_TOKEN", stub.token)
    monkeypatch.setattr("time.sleep", lambda secs: None)  # between the library's own attempts


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "my-model", {"model.safetensors": b"weights" * 1000})


def write_folder(folder: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    (folder / "README.md").write_text(model_card(FACTS))
    return folder


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("public", [False, True])
def test_a_folder_arrives_byte_for_byte_in_one_commit(hub, folder, public):
    (folder / ".cache").mkdir()
    (folder / "logs").mkdir()
    pushing.check_push("lab/my-model")
    pushed = pushing.push_folder(folder, "lab/my-model", public)
    repo = hub.repos["lab/my-model"]
    assert repo["files"] == contents(folder) and len(repo["files"]) == 3
    assert repo["private"] == pushed.private == (not public)
    assert repo["commits"] == [pushed.commit] and pushed.url == f"{hub.url}/lab/my-model"
    assert pushed.num_bytes == sum(map(len, contents(folder).values())) and pushed.num_files == 3
    assert pushed.notes == ("folders are not pushed: logs",)
    (put,) = [path for method, path in hub.requests if method == "PUT"]
    assert put.startswith("/lfs/")


def test_a_second_push_replaces_weights_and_card_and_keeps_other_files(hub, folder, tmp_path):
    pushing.push_folder(folder, "me/my-model")
    hub.repos["me/my-model"]["files"]["notes.txt"] = b"mine"
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    shards = {name: name.encode() for name in (*names, "model.safetensors.index.json")}
    second = write_folder(tmp_path / "second", shards)
    pushed = pushing.push_folder(second, "me/my-model", public=True)
    assert hub.repos["me/my-model"]["files"] == contents(second) | {"notes.txt": b"mine"}
    assert pushed.private and len(hub.repos["me/my-model"]["commits"]) == 2
    assert pushed.notes == (
        "weights of an earlier push were deleted: model.safetensors",
        "the repository was there and stays private",
    )


def test_a_card_that_was_edited_on_the_hub_stays(hub, folder):
    pushing.push_folder(folder, "me/my-model")
    hub.repos["me/my-model"]["files"]["README.md"] += b"My words.\n"
    (folder / "config.json").write_text('{"model_type": "mt5"}')
    pushed = pushing.push_folder(folder, "me/my-model")
    files = hub.repos["me/my-model"]["files"]
    assert files["README.md"].endswith(b"My words.\n") and b"mt5" in files["config.json"]
    assert "README.md of me/my-model was edited there and stays" in pushed.notes[0]


@pytest.mark.parametrize(
    ("failures", "error", "message"),
    [
        ({"repos/create": 403}, UserError, "may not write to me/my-model (403"),
        ({"/preupload/": 401}, UserError, "does not accept the token"),
        ({"/lfs/": 500}, RunFailed, "the hub refuses me/my-model (500"),
        ({"/commit/": 503}, RunFailed, "the hub refuses me/my-model (503"),
        ({"/commit/": 412}, RunFailed, "was changed by somebody else meanwhile (412"),
        ({"validate-yaml": 400}, RunFailed, "the hub refuses me/my-model (400: Invalid metadata"),
    ],
)
def test_what_the_hub_refuses_leaves_nothing_half_and_says_how_to_go_on(
    hub, folder, failures, error, message
):
    hub.failures = failures
    with pytest.raises(error) as raised:
        pushing.push_folder(folder, "me/my-model")
    said = str(raised.value)
    assert message in said
    assert f"push it with `run.py convert --from={folder} --push=me/my-model`" in said
    assert not hub.repos.get("me/my-model", {"files": {}})["files"]
    hub.failures = {}
    pushing.push_folder(folder, "me/my-model")
    assert hub.repos["me/my-model"]["files"] == contents(folder)


def test_no_network_is_said(hub, folder, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(RunFailed, match=r"the hub cannot be reached \(.*refused.*Nothing was"):
        pushing.check_push("me/my-model")
    with pytest.raises(RunFailed, match="the hub cannot be reached"):
        pushing.push_folder(folder, "me/my-model")


@pytest.mark.parametrize(
    "name", ["my-model", "/a", "me/", "a/b/c", "me/my--model", "me/a b", "é/a"]
)
def test_bad_names_are_refused_without_a_request(hub, name):
    with pytest.raises(UserError, match="write --push=USER/NAME"):
        pushing.check_push(name)
    assert hub.requests == []


def test_tokens_are_checked_first(hub, monkeypatch):
    with pytest.raises(UserError, match="may push to me, lab, not to others"):
        pushing.check_push("others/my-model")
    hub.role = "read"
    with pytest.raises(UserError, match="the token may only read"):
        pushing.check_push("me/my-model")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(UserError, match=r"does not accept the token for me/my-model \(401"):
        pushing.check_push("me/my-model")
    monkeypatch.setenv("HF_TOKEN", "\u201chf_stub\u201d")
    with pytest.raises(UserError, match="such as a typographic quote"):
        pushing.check_push("me/my-model")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="there is no token"):
        pushing.check_push("me/my-model")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'instruct\[hf\]'"):
        pushing.check_push("me/my-model")


def test_a_link_out_of_the_folder_is_not_pushed(hub, folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "extra.json").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="is a symbolic link to"):
        pushing.push_folder(folder, "me/my-model")
    assert hub.requests == []


def test_a_base_that_only_this_machine_has_is_noted(hub, folder):
    for base, number in (("/homes/me/t5", 1), ("google/flan-t5-base", 0)):
        (folder / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{base}"}}')
        notes = [note for note in pushing.push_folder(folder, "me/a").notes if base in note]
        assert len(notes) == number


def test_the_command_to_push_again_is_the_same(hub, tmp_path):
    folder = write_folder(tmp_path / "my model", {"model.safetensors": b"x"})
    hub.failures = {"/commit/": 503}
    with pytest.raises(RunFailed, match=r"--from='.*/my model' --push=me/a --public`"):
        pushing.push_folder(folder, "me/a", public=True)
