"""Scalars of a run: `metrics.jsonl`, one JSON object a logged step, and TensorBoard.

metrics.jsonl is the one that reports read: {"step": 100, "loss": 2.5, ...}. A resumed run first
drops what was logged after the step it goes on from, so every step is there once and the file of
an interrupted run equals that of an uninterrupted one.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tensorboardX import SummaryWriter

from instruct.errors import naming_file
from instruct.json_text import parse_json

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class Summaries:
    """Writes scalars; one process of a run has one.

    Args:
        model_dir: folder of the run, which exists; None: write nothing, as all processes but one.
        resumed_step: the step this process goes on from; later lines are dropped.
        tensorboard: also write TensorBoard's files.
    """

    def __init__(
        self, model_dir: str | pathlib.Path | None, resumed_step: int = 0, tensorboard: bool = True
    ) -> None:
        self._file, self._board = None, None
        if model_dir is None:
            return
        folder = pathlib.Path(model_dir)
        path = folder / METRICS_FILE
        truncate_metrics(path, resumed_step)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            # purge_step hides what an interrupted run wrote after its last checkpoint.
            self._board = SummaryWriter(
                str(folder / TENSORBOARD_FOLDER), purge_step=resumed_step + 1, flush_secs=30
            )

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """One line, on disk when this returns; a number that is not finite is written as null."""
        if self._file is None:
            return
        row = {"step": step} | {name: _plain(value) for name, value in scalars.items()}
        with naming_file(self._file.name):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, float(value), step)

    def close(self) -> None:
        """Flushes and closes both."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def truncate_metrics(path: pathlib.Path, last_step: int) -> None:
    """Drops lines after `last_step` and a last line that a killed process left unfinished."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("step", math.inf) <= last_step:
            kept.append(line + "\n")
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)


def _plain(value: Any) -> int | float | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
