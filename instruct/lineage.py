"""Tasks that a model was trained on, in its run and in the runs of its initial checkpoints.

A run records its mixture (`mixture.json`) and where it started (`initial_checkpoint_path` in
`run.json`). Both are followed from run to run. A checkpoint of another program, or one without
these files, says nothing of its training.
"""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from instruct.json_text import parse_json

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Lineage:
    """The training behind a model.

    Attributes:
        tasks: that it was trained on, in all runs of the chain; None if its own run does not say.
        unknown: the checkpoint at the end of the chain if its training is not recorded, else "".
    """

    tasks: frozenset[str] | None
    unknown: str


def unrecorded(lineage: Lineage) -> str:
    """The caveat for held-in and held-out scores where the training is not fully recorded."""
    if lineage.tasks is None:
        return f"what {lineage.unknown} was trained on is not recorded: tasks have no group."
    return (
        f"what the initial checkpoint {lineage.unknown} was trained on is not recorded: held-out "
        "tasks are those that the known runs did not train on."
    )


def read_object(path: pathlib.Path, warn: Callable[[str], object] | None = None) -> dict[str, Any]:
    """A JSON object; {} where the file is missing or damaged.

    Args:
        warn: is called with "missing" or "damaged"; None: a damaged file is logged.
    """
    state = "damaged"
    try:
        if isinstance(value := parse_json(path.read_bytes()), dict):
            return value
    except (FileNotFoundError, NotADirectoryError):
        state = "missing"
    except (OSError, ValueError):
        pass
    if warn is not None:
        warn(state)
    elif state == "damaged":
        _log.warning("%s is damaged; what it says is not known", path)
    return {}


def read_lineage(model_dir: str | os.PathLike[str]) -> Lineage:
    """Follows the initial checkpoints of a run, or of the run that a checkpoint lies in."""
    folder = run_folder(model_dir)
    tasks = None if folder is None else _tasks(folder)
    if folder is None or tasks is None:
        return Lineage(None, os.fspath(model_dir))
    seen = {folder}
    while True:
        config = read_object(folder / "run.json").get("config")
        initial = config.get("initial_checkpoint_path") if isinstance(config, Mapping) else None
        if not initial:
            return Lineage(frozenset(tasks), "")
        start = run_folder(str(initial), folder)
        more = None if start is None else _tasks(start)
        if start is None or more is None:
            return Lineage(frozenset(tasks), str(initial))
        if start in seen:
            return Lineage(frozenset(tasks), "")
        seen.add(start)
        tasks |= more
        folder = start


def run_folder(
    checkpoint: str | os.PathLike[str], beside: pathlib.Path | None = None
) -> pathlib.Path | None:
    """The MODEL_DIR that a checkpoint lies in, or is; None where there is no record of a run.

    Args:
        checkpoint: MODEL_DIR, `checkpoints/<step>` in it, or what lies in that.
        beside: a run that names it. A relative path is looked for from the working folder, then
            from the folders above that run: training may have begun elsewhere.
    """
    location = pathlib.Path(checkpoint).expanduser()
    bases = [pathlib.Path.cwd(), *(beside.parents if beside is not None else ())]
    for base in bases:
        path = (base / location).resolve()
        above = [p.parent for p in (path, *path.parents[:2]) if p.name == "checkpoints"]
        for folder in (path, *above):
            if any((folder / name).is_file() for name in ("mixture.json", "run.json")):
                return folder
    return None


def _tasks(folder: pathlib.Path) -> set[str] | None:
    leaves = read_object(folder / "mixture.json").get("leaves")
    if not isinstance(leaves, list):
        return None
    return {str(leaf.get("task")) for leaf in leaves if isinstance(leaf, Mapping)}
