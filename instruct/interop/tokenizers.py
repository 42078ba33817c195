"""Tokenizer files of a Hugging Face folder: carried along, or made from a vocabulary of ours."""

import json
import pathlib
from typing import Any

from instruct.data.vocab import DEFAULT_EXTRA_IDS, model_path, parse_spec
from instruct.interop.folders import file_inside, read_json

PIECES = "spiece.model"
SETTINGS = "tokenizer_config.json"
TOKENIZER_FILES = (
    PIECES,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
)


def vocabulary_of(folder: pathlib.Path) -> str | None:
    """Our specification of a folder's vocabulary; None if it has no SentencePiece model.

    Sentinels: as many as `extra_ids` of tokenizer_config.json says; without that, as many
    `<extra_id_n>` as it lists, else T5's 100.
    """
    settings: dict[str, Any] = {}
    if (folder / SETTINGS).exists():
        settings = read_json(file_inside(folder, SETTINGS))
    if "ByT5" in str(settings.get("tokenizer_class", "")):
        return f"bytes#extra_ids={_extra_ids(settings, 125)}"
    if not (folder / PIECES).exists():
        return None
    path = file_inside(folder, PIECES)
    return f"{path}#extra_ids={_extra_ids(settings, DEFAULT_EXTRA_IDS)}"


def _extra_ids(settings: dict[str, Any], default: int) -> int:
    explicit = settings.get("extra_ids")
    if type(explicit) is int and 0 <= explicit <= 100_000:
        return explicit
    listed = settings.get("additional_special_tokens")
    if isinstance(listed, list) and listed:
        return sum("extra_id_" in json.dumps(token) for token in listed)
    return default


def tokenizer_files(vocabulary: str | None) -> dict[str, bytes]:
    """Name -> content of a tokenizer's files, made from our specification; {} for None."""
    if vocabulary is None:
        return {}
    found = {}
    name, extra_ids = parse_spec(vocabulary)
    tokenizer = "ByT5Tokenizer"
    if name != "bytes":
        tokenizer = "T5Tokenizer"
        found[PIECES] = model_path(vocabulary).read_bytes()
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    sentinels = [f"<extra_id_{number}>" for number in range(extra_ids)]
    special_map = special | {"additional_special_tokens": sentinels}
    found["special_tokens_map.json"] = _json(special_map)
    found[SETTINGS] = _json(special_map | {"extra_ids": extra_ids, "tokenizer_class": tokenizer})
    return found


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
