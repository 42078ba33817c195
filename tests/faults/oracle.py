"""What files hold, read without the program: json, TensorStore and hashes only."""

import hashlib
import json
import pathlib
import re
import zlib
from typing import Any

import tensorstore

# Beginnings of names of metrics.jsonl whose values depend on the clock.
SPEEDS = ("real_tokens_per_sec", "step_secs", "peak_share", "goodput/")
# All files that a run may have; anything else is a leftover.
_RUN_FILES = re.compile(
    r"config\.gin|operative\.gin|run\.json|metrics\.jsonl|mixture\.json|tensorboard/events\S*|"
    r"checkpoints/\d+/\S+|checkpoints/damaged-\d+(-\d+)?/\S+|"
    r"eval/[\w.-]+/step_\d+/results\.jsonl"
)
_STORE_FILES = re.compile(
    r"[\w.-]+@\S+/\w+/(records\.array_record|manifest\.json)|reports/[\w.-]+\.json"
)
# A run's folder in a text of JSON, whichever copy of the undisturbed life it is in.
_RUN_FOLDER = re.compile(r'"[^"]*/(?:whole|life)/run/')


def steps(folder: pathlib.Path) -> list[int]:
    """Names that are numbers: the checkpoints of a folder."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def arrays(checkpoint: pathlib.Path) -> dict[str, str]:
    """Name -> hash of dtype, shape and values of every array of a checkpoint."""
    found = {}
    for item in ("params", "training"):
        store = {"driver": "ocdbt", "base": f"file://{checkpoint / item}/"}
        keys = [key.decode() for key in tensorstore.KvStore.open(store).result().list().result()]
        for name in sorted(key.removesuffix("/.zarray") for key in keys if key.endswith(".zarray")):
            spec = {"driver": "zarr", "kvstore": {**store, "path": f"{name}/"}}
            values = tensorstore.open(spec, open=True).result().read().result()
            described = f"{values.dtype.str} {values.shape} ".encode() + values.tobytes()
            found[f"{item}/{name}"] = hashlib.sha256(described).hexdigest()
    assert found, f"{checkpoint} holds no array"
    return found


def input_position(checkpoint: pathlib.Path) -> Any:
    document = json.loads((checkpoint / "input" / "metadata").read_text())
    return document["input"]


def whole_checkpoint(checkpoint: pathlib.Path) -> Any:
    """All of a checkpoint that decides what a run computes next; what is wrong with it, as text."""
    try:
        return [arrays(checkpoint), input_position(checkpoint)]
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def metrics(run: pathlib.Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without speeds."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if not name.startswith(SPEEDS)} for row in rows]


def mixture(run: pathlib.Path) -> Any:
    return json.loads((run / "mixture.json").read_text())


def results(run: pathlib.Path) -> dict[str, list[Any]]:
    """File -> its lines, with the run's folder replaced, of all evaluations."""
    return {
        str(path.relative_to(run)): [
            json.loads(_RUN_FOLDER.sub('"RUN/', _checked(line)))
            for line in path.read_text().splitlines()
        ]
        for path in sorted((run / "eval").rglob("results.jsonl"))
    }


def _checked(line: str) -> str:
    """A line without its checksum, which must be right."""
    text, crc = line[:-1].rsplit(", ", 1)
    assert json.loads(f"{{{crc}}}") == {"crc32": f"{zlib.crc32(f'{text}}}'.encode()):08x}"}, line
    return f"{text}}}"


def hashes(folder: pathlib.Path, pattern: str = "*") -> dict[str, str]:
    """File -> hash of all files below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }


def stores(folder: pathlib.Path) -> dict[str, str]:
    """Hashes of all finished stores; reports beside them have dates."""
    return {name: value for name, value in hashes(folder).items() if "@" in name}


def leftovers(folder: pathlib.Path, allowed: re.Pattern[str]) -> list[str]:
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()]
    return sorted(name for name in names if not allowed.fullmatch(name))


def run_leftovers(run: pathlib.Path) -> list[str]:
    return leftovers(run, _RUN_FILES)


def store_leftovers(folder: pathlib.Path) -> list[str]:
    return leftovers(folder, _STORE_FILES)
