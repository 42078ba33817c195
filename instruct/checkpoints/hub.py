"""Pushes a finished Hugging Face or PEFT folder to the hub, in one commit.

So a repository never holds half of a model. The token is that of `hf auth login` or HF_TOKEN, the
address that of HF_ENDPOINT, as the library `huggingface_hub` reads them.
"""

import contextlib
import dataclasses
import importlib.util
import pathlib
import re
import shlex
import tempfile
from collections.abc import Iterator
from typing import Any

from instruct.checkpoints.folders import file_inside
from instruct.checkpoints.huggingface import ADAPTER, CARD
from instruct.errors import RunFailed, UserError
from instruct.lineage import read_object

# Weights of an earlier push; those that the pushed folder lacks are deleted with the same commit.
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")


@dataclasses.dataclass(frozen=True)
class Pushed:
    """A push that the hub has.

    Attributes:
        url: of the repository.
        commit: its hash.
        private: whether others cannot see the repository.
        num_files, num_bytes: of the folder.
        notes: for the user.
    """

    url: str
    commit: str
    private: bool
    num_files: int
    num_bytes: int
    notes: tuple[str, ...]


def check_push(name: str) -> None:
    """Raises UserError unless `name` and the token allow a push; RunFailed without network."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError("--push needs huggingface_hub: run `pip install 'instruct[hf]'`.")
    import huggingface_hub
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    example = "write --push=USER/NAME, such as --push=me/flan-t5-base-dialogsum"
    if name.count("/") != 1 or name.startswith("/"):
        raise UserError(f"--push={name}: {example}.")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--push={name}: {error} So {example}.") from error
    token = huggingface_hub.get_token()
    if token is not None and not token.isascii():  # no header can hold it
        raise UserError(
            "--push: the hub's token (HF_TOKEN, else that of `hf auth login`) has "
            "a character that no token has, such as a typographic quote. Copy it again."
        )
    if token is None:
        raise UserError(
            "--push: there is no token of the Hugging Face hub. Make one that may write at "
            "https://huggingface.co/settings/tokens, then run `hf auth login` or set HF_TOKEN."
        )
    with _explaining(name, "Nothing was written."):
        user = huggingface_hub.HfApi().whoami()
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise UserError(
            "--push: the token may only read. Make one that may write at "
            "https://huggingface.co/settings/tokens, then run `hf auth login` or set HF_TOKEN."
        )
    owners = [user["name"], *(one["name"] for one in user.get("orgs", ()))]
    if name.partition("/")[0] not in owners:
        raise UserError(
            f"--push={name}: the token's user may push to {', '.join(owners)}, not to "
            f"{name.partition('/')[0]}."
        )


def push_folder(folder: pathlib.Path, name: str, public: bool = False) -> Pushed:
    """Pushes the files of a whole folder to the repository `name`, which is created if needed.

    A card (README.md) that was edited in the repository stays. Folders inside are left out.

    Args:
        public: of a new repository; one that exists keeps what it is.

    Raises:
        UserError: the hub refuses the token or the name.
        RunFailed: the network or the hub failed; the repository is as it was.
    """
    import huggingface_hub

    api, notes = huggingface_hub.HfApi(), []
    children = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    files = [file_inside(folder, path.name) for path in children if not path.is_dir()]
    if left_out := [path.name for path in children if path.is_dir()]:
        notes.append(f"folders are not pushed: {', '.join(left_out)}")
    if note := _base_of_this_machine(folder):
        notes.append(note)
    command = f"run.py convert --from={shlex.quote(str(folder))} --push={name}"
    again = f"{folder} is whole: push it with `{command}{' --public' if public else ''}`."
    with _explaining(name, again):
        exists = api.repo_exists(name)
        if not exists:
            api.create_repo(name, private=not public, exist_ok=True)
        there = set(api.list_repo_files(name)) if exists else set()
        if CARD in there and (note := _edited_card(api, name, folder / CARD)):
            notes.append(note)
            files = [path for path in files if path.name != CARD]
        names = {path.name for path in files}
        stale = sorted(old for old in there - names if _WEIGHTS.fullmatch(old))
        if stale and any(_WEIGHTS.fullmatch(new) for new in names):
            notes.append(f"weights of an earlier push were deleted: {', '.join(stale)}")
        else:
            stale = []
        commit = api.create_commit(
            name,
            [
                *(huggingface_hub.CommitOperationAdd(path.name, str(path)) for path in files),
                *(huggingface_hub.CommitOperationDelete(old) for old in stale),
            ],
            commit_message="Upload by instruct",
        )
        private = bool(api.model_info(name).private)
    if exists:
        notes.append(f"the repository was there and stays {'private' if private else 'public'}")
    size = sum(path.stat().st_size for path in files)
    url = f"{api.endpoint}/{name}"
    return Pushed(url, commit.oid, private, len(files), size, tuple(notes))


def _base_of_this_machine(folder: pathlib.Path) -> str:
    """A note if adapters name their base by a path, which only this machine has; else ""."""
    if not (folder / ADAPTER).is_file():
        return ""
    base = str(read_object(folder / ADAPTER).get("base_model_name_or_path") or "")
    if not pathlib.PurePath(base).is_absolute():
        return ""
    return (
        f"{ADAPTER} names the base model by a path of this machine, {base}, which others see and "
        "cannot load; convert again with --base=USER/NAME, its name on the hub"
    )


def _edited_card(api: Any, name: str, card: pathlib.Path) -> str:
    """A note if the repository's card is neither this one nor one that `convert` wrote; else ""."""
    from instruct.report.pages.model_card import is_unchanged

    with tempfile.TemporaryDirectory(prefix="instruct-card-") as folder:
        path = pathlib.Path(api.hf_hub_download(name, CARD, local_dir=folder))
        text = path.read_text("utf-8", errors="replace")
    if is_unchanged(text) or (card.is_file() and card.read_text("utf-8") == text):
        return ""
    return (
        f"{CARD} of {name} was edited there and stays; delete it there and push again to have "
        "this one"
    )


@contextlib.contextmanager
def _explaining(name: str, consequence: str) -> Iterator[None]:
    """Converts errors of the hub and of the network; `consequence` says what to do next."""
    try:
        yield
    except (UserError, RunFailed):
        raise
    except Exception as error:
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        status = next((code for code in map(_status, chain) if code), None)
        told = _told(error)
        if status in (401, 404):
            raise UserError(
                f"the hub does not accept the token for {name} ({status}: {told}). Run `hf auth "
                f"login`, or set HF_TOKEN. {consequence}"
            ) from error
        if status == 403:
            raise UserError(
                f"the token may not write to {name} (403: {told}). Give it the right at "
                f"https://huggingface.co/settings/tokens. {consequence}"
            ) from error
        if status in (409, 412):
            raise RunFailed(
                f"{name} was changed by somebody else meanwhile ({status}: {told}). {consequence}"
            ) from error
        if status is not None:
            raise RunFailed(f"the hub refuses {name} ({status}: {told}). {consequence}") from error
        is_file = isinstance(error, OSError) and error.filename is not None
        if is_file or not any(map(_is_network, chain)):
            raise
        raise RunFailed(f"the hub cannot be reached ({told}). {consequence}") from error


def _is_network(error: BaseException) -> bool:
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or package.startswith("http")  # httpx, httpcore


def _status(error: BaseException) -> int | None:
    """Status of the hub's answer that an error stands for; None without one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _told(error: Exception) -> str:
    """What the hub or the library says, on one line."""
    text = getattr(error, "server_message", None) or str(error)
    return " ".join(str(text).split())[:300] or type(error).__name__
