"""Tasks that a model was trained on, in its run and in the runs of its initial checkpoints.

A run records its mixture (`mixture.json`) and its initial checkpoint (`initial_checkpoint_path` in
`run.json`). A checkpoint without these files, such as another program's, has unknown training.
"""

import dataclasses
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from instruct.errors import UserError
from instruct.files import is_address, path_of
from instruct.json_text import parse_json, unsealed

# Ends the address of a checkpoint of T5X, which belongs to no run.
_T5X_NAME = re.compile(r"checkpoint_\d+/*$")
# `outcome` in run.json. The first two are of complete runs; the second is followed by the reason.
FINISHED, STOPPED_EARLY, FAILED = "finished", "stopped early", "failed"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Lineage:
    """The training behind a model.

    Attributes:
        tasks: of all runs of the chain; None if the model's own run does not record them.
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
    """Reads a JSON object; {} if the file is missing or damaged.

    Args:
        warn: called with "missing" or "damaged"; by default damaged files are logged.
    """
    state = "damaged"
    try:
        if isinstance(value := parse_json(path.read_bytes()), dict):
            return unsealed(value)
    except (FileNotFoundError, NotADirectoryError):
        state = "missing"
    except (OSError, ValueError):
        pass
    if warn is not None:
        warn(state)
    elif state == "damaged":
        _log.warning("%s is damaged and is ignored", path)
    return {}


def read_lineage(model_dir: str | os.PathLike[str]) -> Lineage:
    """Follows the initial checkpoints of a run, or of the run of a checkpoint."""
    folder, seen = run_folder(model_dir), set()
    tasks = _tasks(folder)
    if folder is None or tasks is None:
        return Lineage(None, os.fspath(model_dir))
    while folder not in seen:
        seen.add(folder)
        config = read_object(folder / "run.json").get("config")
        initial = config.get("initial_checkpoint_path") if isinstance(config, Mapping) else None
        if not initial:
            break
        start = run_folder(str(initial), folder)
        earlier = _tasks(start)
        if start is None or earlier is None:
            return Lineage(frozenset(tasks), str(initial))
        tasks |= earlier
        folder = start
    return Lineage(frozenset(tasks), "")


def run_folder(
    checkpoint: str | os.PathLike[str], beside: pathlib.Path | None = None
) -> pathlib.Path | None:
    """The MODEL_DIR of a checkpoint; None if it does not belong to a run.

    Args:
        checkpoint: MODEL_DIR, `checkpoints/<step>` in it, or a path inside that.
        beside: the run that names the checkpoint. A relative path is resolved against the working
            folder, then the parents of that run, which may have started in another folder.
    """
    if is_address(checkpoint):
        try:
            return None if _T5X_NAME.search(str(checkpoint)) else _run_above(path_of(checkpoint))
        except (OSError, UserError) as error:  # no network, no access, an unknown scheme
            _log.warning("the run of checkpoint %s is not found: %s", checkpoint, error)
            return None
    runs = map(_run_above, _places(checkpoint, beside))
    return next((run for run in runs if run is not None), None)


def initial_path(recorded: str, run: pathlib.Path) -> str:
    """The initial checkpoint that a run records, found as `run_folder` finds its run."""
    if is_address(recorded):
        return recorded
    return next((str(path) for path in _places(recorded, run) if path.exists()), recorded)


def _places(
    checkpoint: str | os.PathLike[str], beside: pathlib.Path | None
) -> Iterator[pathlib.Path]:
    location = pathlib.Path(checkpoint).expanduser()
    parents = () if beside is None or is_address(beside) else beside.absolute().parents
    return ((base / location).resolve() for base in (pathlib.Path.cwd(), *parents))


def _run_above(path: pathlib.Path) -> pathlib.Path | None:
    above = [p.parent for p in (path, *path.parents[:2]) if p.name == "checkpoints"]
    for folder in (path, *above):
        if any((folder / name).is_file() for name in ("mixture.json", "run.json")):
            return folder
    return None


def _tasks(folder: pathlib.Path | None) -> set[str] | None:
    leaves = read_object(folder / "mixture.json").get("leaves") if folder is not None else None
    if not isinstance(leaves, list):
        return None
    return {str(leaf.get("task")) for leaf in leaves if isinstance(leaf, Mapping)}
