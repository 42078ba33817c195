"""Where the scalars of a run go: `Tracker`, `metrics.jsonl` and TensorBoard.

A resumed run first drops the rows of `metrics.jsonl` after the step it resumes from, so every step
is there once and the file of an interrupted run equals that of an uninterrupted one. Each
checkpoint holds the rows up to its step, from which a lost or damaged file is restored.
"""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tensorboardX.summary import text as text_summary

from instruct.errors import UserError, naming_file
from instruct.files import replace_file
from instruct.metrics_file import read_metrics

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


@runtime_checkable
class Tracker(Protocol):
    """Takes what a run logs. Only the first process of a run calls its trackers.

    A subclass overrides what it needs; the other methods do nothing. gin builds a tracker in every
    mode, `check` and `eval` included, so files and connections belong in `open`, not `__init__`.
    """

    def open(self, folder: pathlib.Path, step: int) -> None:
        """Called once before the others: the run's folder, and the step it starts or resumes at."""

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers of a logged step: {"loss": 2.5, "eval/loss": 2.7, ...}."""

    def text(self, name: str, text: str) -> None:
        """A text of the run, such as `config.gin`, when it starts or resumes."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table as it is now, such as `mixture`: asked and realised shares of every task."""

    def close(self) -> None:
        """Called once, also after an error."""


class JsonLines(Tracker):
    """`metrics.jsonl`, which every run has: resuming and reports read it.

    Args:
        saved_rows: the rows up to the step of `open` as the checkpoint holds them; None: it does
            not, and the file is all there is.
        say: takes a line for the user: rows that were lost or restored.

    Attributes:
        rows: every row of the file, for the next checkpoint.
    """

    def __init__(
        self,
        saved_rows: Sequence[dict[str, Any]] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._saved_rows, self._say = saved_rows, say
        self.rows: list[dict[str, Any]] = []

    def open(self, folder: pathlib.Path, step: int) -> None:
        path = folder / METRICS_FILE
        self.rows = _rows_before(path, step, self._saved_rows, self._say)
        replace_file(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        self._file = path.open("a", encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """One line, on disk when this returns; a number that is not finite is written as null."""
        row = {"step": step} | {name: _plain(value) for name, value in values.items()}
        with naming_file(self._file.name):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        self.rows.append(row)

    def close(self) -> None:
        with naming_file(self._file.name):
            self._file.close()


class TensorBoard(Tracker):
    """TensorBoard's event files, written in the caller's thread: the caller sees their errors.

    Each start of a run has a file of its own, which hides what earlier files hold of later steps:
    an interrupted run wrote those after its last checkpoint.
    """

    def __repr__(self) -> str:
        return "TensorBoard()"

    def open(self, folder: pathlib.Path, step: int) -> None:
        self._folder = folder / TENSORBOARD_FOLDER
        with naming_file(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            # Its own suffix: the file's name has whole seconds only.
            self._events = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}")
        start = SessionLog(status=SessionLog.START)
        self._step = step
        self._add(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        now = time.time()
        for name, value in values.items():
            self._add(Event(wall_time=now, step=step, summary=scalar(name, float(value))))

    def text(self, name: str, text: str) -> None:
        summary = text_summary(name, "".join(f"    {line}\n" for line in text.splitlines()))
        self._add(Event(wall_time=time.time(), step=self._step, summary=summary))

    def _add(self, event: Event) -> None:
        with naming_file(self._folder):
            self._events.write_event(event)
            self._events.flush()

    def close(self) -> None:
        with naming_file(self._folder):
            self._events.close()


class TrackerGroup(Tracker):
    """`metrics.jsonl` and further trackers as one.

    Args:
        trackers: the further ones.
        json_lines: `metrics.jsonl`; None: call no tracker, as in all processes but the first.

    Raises:
        UserError: one of `trackers` is no `Tracker`.
    """

    def __init__(self, trackers: Sequence[Tracker], json_lines: JsonLines | None) -> None:
        for tracker in trackers:
            if isinstance(tracker, type) or not isinstance(tracker, Tracker):
                raise UserError(
                    f"train.trackers holds {tracker!r}, which is no Tracker; bind objects with the "
                    "methods open, scalars, text, table and close, such as [@my_module.Mine()] of "
                    "a subclass of instruct.train.trackers.Tracker."
                )
        self._all: Sequence[Tracker] = [json_lines, *trackers] if json_lines else ()
        self._json_lines = json_lines
        self._opened = contextlib.ExitStack()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every row of `metrics.jsonl`."""
        return self._json_lines.rows if self._json_lines else []

    def open(self, folder: pathlib.Path, step: int) -> None:
        for tracker in self._all:
            tracker.open(folder, step)
            self._opened.callback(tracker.close)

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        for tracker in self._all:
            tracker.scalars(step, values)

    def text(self, name: str, text: str) -> None:
        for tracker in self._all:
            tracker.text(name, text)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for tracker in self._all:
            tracker.table(name, rows)

    def close(self) -> None:
        """Closes each that was opened, whatever the others raise."""
        self._opened.close()


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
