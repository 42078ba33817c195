"""Scalars of a run: `metrics.jsonl` (see `instruct/metrics_file.py`), and TensorBoard.

A resumed run first drops the rows after the step it resumes from, so every step is there once and
the file of an interrupted run equals that of an uninterrupted one. Each checkpoint holds the rows
up to its step, from which a lost or damaged file is restored.
"""

import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from instruct.errors import naming_file
from instruct.files import replace_file
from instruct.metrics_file import read_metrics

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class Summaries:
    """Writes scalars; one process of a run has one.

    Args:
        model_dir: folder of the run, which exists; None: write nothing, as all processes but one.
        resumed_step: the step this process resumes from; later rows are dropped.
        tensorboard: also write TensorBoard's files.
        saved_rows: the rows up to `resumed_step` as the checkpoint holds them; None: it does not,
            and the file is all there is.
        say: takes a line for the user: rows that were lost or restored.

    Attributes:
        rows: every row of the file, for the next checkpoint.
    """

    def __init__(
        self,
        model_dir: str | pathlib.Path | None,
        resumed_step: int = 0,
        tensorboard: bool = True,
        saved_rows: Sequence[dict[str, Any]] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._file, self._board = None, None
        self.rows: list[dict[str, Any]] = []
        if model_dir is None:
            return
        folder = pathlib.Path(model_dir)
        path = folder / METRICS_FILE
        self.rows = _rows_before(path, resumed_step, saved_rows, say)
        replace_file(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            self._board = _Board(folder / TENSORBOARD_FOLDER, resumed_step + 1)

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """One line, on disk when this returns; a number that is not finite is written as null."""
        if self._file is None:
            return
        row = {"step": step} | {name: _plain(value) for name, value in scalars.items()}
        with naming_file(self._file.name):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        self.rows.append(row)
        if self._board is not None:
            self._board.write(step, scalars)

    def close(self) -> None:
        """Flushes and closes both."""
        if self._file is not None:
            with naming_file(self._file.name):
                self._file.close()
        if self._board is not None:
            self._board.close()


class _Board:
    """One of TensorBoard's event files, written in this thread: the caller sees its errors.

    Args:
        folder: made if it is not there.
        purge_step: hides what earlier files hold of this step and later ones, which an
            interrupted run wrote after its last checkpoint.
    """

    def __init__(self, folder: pathlib.Path, purge_step: int) -> None:
        self._folder = folder
        with naming_file(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # Its own suffix: the file's name has whole seconds only.
            self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        now = time.time()
        for name, value in scalars.items():
            self._add(Event(wall_time=now, step=step, summary=scalar(name, float(value))))

    def _add(self, event: Event) -> None:
        with naming_file(self._folder):
            self._events.write_event(event)
            self._events.flush()

    def close(self) -> None:
        with naming_file(self._folder):
            self._events.close()


def _rows_before(
    path: pathlib.Path,
    last_step: int,
    saved_rows: Sequence[dict[str, Any]] | None,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """The rows up to `last_step`; says which were lost or restored.

    Later rows and an unfinished last line are what every interrupted run leaves.
    """
    found = read_metrics(path)
    rows = [row for row in found.rows if row["step"] <= last_step]
    if last_step == 0 and found.rows:
        say(f"{path}: {len(found.rows):,} rows of an earlier start are dropped.")
    if saved_rows is None:
        damaged = found.num_damaged - found.torn
        if damaged or (last_step and not rows):
            say(
                f"{path} was damaged or missing: {damaged:,} damaged lines are dropped, "
                f"{len(rows):,} rows up to step {last_step:,} are left. The checkpoint has no copy."
            )
        return rows
    saved = list(saved_rows)
    same = {row["step"]: row for row in rows}
    restored = sum(same.get(row["step"]) != row for row in saved)
    if restored:
        say(
            f"{path} was damaged or missing: {restored:,} of its {len(saved):,} rows up to step "
            f"{last_step:,} are restored from the checkpoint."
        )
    return saved


def _plain(value: Any) -> int | float | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
