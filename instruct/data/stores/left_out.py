"""File that names the tasks that a mixture leaves out because their data are missing.

    STORE_DIR/left_out/<mixture>.json

`run.py prepare --skip_unavailable` replaces the file each time. Runs with
`DataConfig.skip_unavailable` leave out exactly the tasks that it names; any other missing task is
an error, so a mixture never shrinks unnoticed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.data.config import DataConfig
from instruct.data.sources.json_files import write_json
from instruct.data.stores.jobs import PreparedStore, by_reason
from instruct.errors import UserError
from instruct.json_text import parse_json
from instruct.workspace import Workspace

_FORMAT = 1
_MAX_LINES = 20  # of tasks left out, on the terminal


@dataclasses.dataclass(frozen=True)
class Missing:
    """A missing store; its whole task is left out."""

    task: str
    split: str
    reason: str


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Tasks left out of a mixture.

    Attributes:
        date: of the `prepare` run, UTC.
        left_out: the missing stores; a task may be named several times.
        num_tasks_left: tasks that remain.
        sub_mixtures: child of the mixture -> {"before", "after": its share, "tasks": {task:
            {"before", "after"}}}, all as shares of the whole mixture; of the tasks that remain.
    """

    mixture: str
    date: str
    left_out: tuple[Missing, ...]
    num_tasks_left: int
    sub_mixtures: Mapping[str, Any]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, each once."""
        return tuple(dict.fromkeys(store.task for store in self.left_out))

    def write(self, workspace: Workspace) -> Path:
        """Replaces the mixture's file; returns where it is."""
        path = left_out_path(workspace, self.mixture)
        write_json(path, {"format": _FORMAT, **dataclasses.asdict(self)})
        return path

    def describe(self, path: Path) -> list[str]:
        """Lines to print: the first tasks with reasons, the sub-mixtures, and the file's `path`."""
        count = f"{len(self.tasks)} tasks are left out:" if self.left_out else "nothing is left out"
        reasons = by_reason((store.task, store.split, store.reason) for store in self.left_out)
        lines = [f"{self.mixture}: {count}", *(f"  {line}" for line in reasons[:_MAX_LINES])]
        if len(reasons) > _MAX_LINES:
            lines.append(f"  and {len(reasons) - _MAX_LINES:,} more")
        for name, part in self.sub_mixtures.items() if self.num_tasks_left else ():
            before, after = part["before"], part["after"]
            if not after:
                lines.append(f"  {name} has no task left; its share of {before:.4g} goes to others")
            elif abs(after - before) > 1e-9:
                lines.append(f"  {name}: share {before:.4g} -> {after:.4g}")
        lines.append(f"{self.num_tasks_left} tasks are left; the full list is in {path}")
        return lines


def left_out_path(workspace: Workspace, mixture: str) -> Path:
    """The file of a mixture, whether or not it exists."""
    return workspace.shared_store_dir / "left_out" / f"{mixture}.json"


def read_left_out(workspace: Workspace, mixture: str) -> LeftOut | None:
    """Reads the mixture's file; None if it does not exist.

    Raises:
        UserError: it cannot be read, or is another kind of file.
    """
    path = left_out_path(workspace, mixture)
    try:
        values = parse_json(path.read_bytes())
        if values["format"] != _FORMAT or values["mixture"] != mixture:
            raise ValueError(f"format {values['format']} of mixture {values['mixture']!r}")
        del values["format"]
        values["left_out"] = tuple(Missing(**store) for store in values["left_out"])
        return LeftOut(**values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}, which names the tasks left out of {mixture!r}, cannot be read "
            f"({type(error).__name__}: {error}). Delete it and run `python run.py prepare "
            f"--mixture={mixture} --skip_unavailable` again"
        ) from error


def tasks_left_out(workspace: Workspace, config: DataConfig) -> tuple[str, ...]:
    """The tasks that a run leaves out: none unless `config.skip_unavailable`."""
    if not config.skip_unavailable:
        return ()
    record = read_left_out(workspace, config.mixture)
    return record.tasks if record is not None else ()


def missing_stores(stores: Sequence[PreparedStore], split: str) -> tuple[Missing, ...]:
    """Stores whose tasks are left out: failed ones, and those of `split` without a record."""
    missing = []
    for store in stores:
        if store.status == "failed":
            missing.append(Missing(store.task, store.split, store.message))
        elif store.split == split and not store.records:
            reasons = ", ".join(f"{why}: {n}" for why, n in store.dropped.items())
            reason = "no record" + (f"; rejected rows: {reasons}" if reasons else "")
            missing.append(Missing(store.task, store.split, reason))
    return tuple(missing)
