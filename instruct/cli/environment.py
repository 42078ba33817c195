"""The environment variables of this program; nothing else reads them.

INSTRUCT_DATA_DIR              the user's data sets, else ~/instruct_data
INSTRUCT_STORE_DIR             prepared records, else ~/.cache/instruct/stores
INSTRUCT_STAGE_DIR             copies of the stores of a bucket, else ~/.cache/instruct/staged
INSTRUCT_FLAN_CHECKOUT         a checkout of google-research/FLAN, else none
INSTRUCT_DOWNLOAD              1: sources may fetch data from the network
INSTRUCT_TOXICITY_CLASSIFIER   module:function that scores texts
TFDS_DATA_DIR                  TensorFlow Datasets, else ~/tensorflow_datasets
INSTRUCT_SERVE_TOKEN           the token of `serve`, unless --token_file is given
HF_HUB_CACHE, HF_DATASETS_CACHE, HF_HOME, XDG_CACHE_HOME   the hub's caches, as in its library
"""

import os
from pathlib import Path
from typing import Any

from instruct.errors import UserError, unknown_name
from instruct.files import any_path, local_path
from instruct.workspace import (
    DATA_VARIABLE,
    DOWNLOAD_VARIABLE,
    FLAN_VARIABLE,
    STAGE_VARIABLE,
    STORE_VARIABLE,
    TFDS_VARIABLE,
    TOXICITY_VARIABLE,
    Workspace,
)

_TOKEN_VARIABLE = "INSTRUCT_SERVE_TOKEN"
_FOLDERS = {
    "data_dir": DATA_VARIABLE,
    "store_dir": STORE_VARIABLE,
    "stage_dir": STAGE_VARIABLE,
    "tfds_dir": TFDS_VARIABLE,
    "flan_checkout": FLAN_VARIABLE,
}


def workspace_from_environment(**folders: Path) -> Workspace:
    """The workspace of the environment variables; those of `folders` are not read.

    Raises:
        UserError: a variable is not a path of this machine, or for stores of a bucket, or not 0 or
            1.
    """
    fields: dict[str, Any] = {
        field: (any_path if field == "store_dir" else local_path)(variable, os.environ[variable])
        for field, variable in _FOLDERS.items()
        if os.environ.get(variable) and field not in folders
    }
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = Path(os.environ.get("HF_HOME") or Path(cache) / "huggingface")
    for field, variable, name in (
        ("hub_cache", "HF_HUB_CACHE", "hub"),
        ("datasets_cache", "HF_DATASETS_CACHE", "datasets"),
    ):
        fields[field] = local_path(variable, os.environ.get(variable) or home / name)
    downloads = os.environ.get(DOWNLOAD_VARIABLE, "")
    if downloads not in ("", "0", "1"):
        raise unknown_name("value of the variable " + DOWNLOAD_VARIABLE, downloads, ("0", "1"))
    return Workspace(
        **fields | folders,
        downloads=downloads == "1",
        toxicity_classifier=os.environ.get(TOXICITY_VARIABLE, ""),
    )


def serve_token(path: str | None) -> str | None:
    """The token of `serve`: of a file, else of the environment variable; None if there is none.

    Raises:
        UserError: the file cannot be read, or the token cannot be sent in a header.
    """
    if path is None:
        origin, text = _TOKEN_VARIABLE, os.environ.get(_TOKEN_VARIABLE, "")
        if not text:
            return None
    else:
        origin = f"--token_file={path}"
        try:
            text = local_path("--token_file", path).read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{origin}: cannot be read ({error}).") from error
    token = text.strip()
    if not (token.isascii() and token.isprintable()) or " " in token or not token:
        raise UserError(
            f"{origin}: a token is one line of printable ASCII characters without blanks; "
            "`openssl rand -hex 32` prints one."
        )
    return token
