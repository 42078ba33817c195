"""Loggers of a run's scalars: `Tracker`, `metrics.jsonl` and TensorBoard.

A resumed run first drops the rows of `metrics.jsonl` after the step it resumes from, so the file of
an interrupted run equals that of an uninterrupted one. Each checkpoint holds the rows up to its
step, from which a lost or damaged file is restored.
"""

import contextlib
import functools
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax

from instruct.errors import UserError, naming_file
from instruct.files import UPLOAD_SECS, LineFile, UploadedFolder, is_address, replace_file
from instruct.import_hook import hidden
from instruct.metrics_file import read_metrics

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


@runtime_checkable
class Tracker(Protocol):
    """Logs a run. Only the first process of a run calls its trackers.

    A subclass overrides the methods it needs; the others do nothing. gin builds a tracker in every
    mode, `check` and `eval` included, so open files and connections in `open`, not in `__init__`.
    """

    def check(self) -> None:
        """Called before anything is built; raises UserError if the tracker cannot work here."""

    def open(self, folder: pathlib.Path, step: int) -> None:
        """Called once before the others: the run's folder, and the step it starts or resumes at."""

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers of a logged step: {"loss": 2.5, "eval/loss": 2.7, ...}."""

    def text(self, name: str, text: str) -> None:
        """A text of the run, such as `config.gin`, when it starts or resumes."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """The current state of a table; called after `scalars` of the same step.

        `mixture`: asked and realised shares of every task. From evaluators, of one step each:
        `eval/metrics` (step, suite, task, mode, split, metric, value, stderr, n, baseline) and
        `eval/samples` (step, suite, task, mode, prompt, target, prediction; texts, cut).
        """

    def close(self) -> None:
        """Called once, also after an error."""


class JsonLines(Tracker):
    """`metrics.jsonl`, which every run has: resuming and reports read it.

    Args:
        saved_rows: the checkpoint's copy of the rows up to the step of `open`; None: it has none.
        say: takes a line for the user about lost or restored rows.
    """

    def __init__(
        self,
        saved_rows: Sequence[dict[str, Any]] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._saved_rows, self._say = saved_rows, say
        self.rows: list[dict[str, Any]] = []  # of the file, for the next checkpoint

    def open(self, folder: pathlib.Path, step: int) -> None:
        """Keeps the rows up to `step`; reports lost and restored ones.

        Every interrupted run leaves later rows and an unfinished last line.
        """
        path = folder / METRICS_FILE
        file = read_metrics(path)
        self.rows = [row for row in file.rows if row["step"] <= step]
        if step == 0 and file.rows:
            self._say(f"{path}: {len(file.rows):,} rows of an earlier start are dropped.")
        damaged = file.num_damaged - file.torn
        problem = f"{path} was damaged or missing"
        if self._saved_rows is not None:
            by_step = {row["step"]: row for row in self.rows}
            self.rows = list(self._saved_rows)
            restored = sum(by_step.get(row["step"]) != row for row in self.rows)
            if restored:
                self._say(
                    f"{problem}: {restored:,} of its {len(self.rows):,} rows up to step {step:,} "
                    "are restored from the checkpoint."
                )
        elif damaged or (step and not self.rows):
            self._say(
                f"{problem}: {damaged:,} damaged lines are dropped, {len(self.rows):,} rows up to "
                f"step {step:,} are left. The checkpoint has no copy."
            )
        replace_file(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        self._file = LineFile(path, UPLOAD_SECS)

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes one line and flushes it; a number that is not finite becomes null.

        In a bucket the file is uploaded at most once in `UPLOAD_SECS`, and when it is closed.
        """
        row = {"step": step} | {name: _plain(value) for name, value in values.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.sync(durable=False)
        self.rows.append(row)

    def close(self) -> None:
        self._file.close()


class TensorBoard(Tracker):
    """TensorBoard's event files, written in the caller's thread, which gets their errors.

    Each start of a run writes its own file, which hides later steps in earlier files, written after
    the last checkpoint. In a bucket the file is written on this machine and uploaded at most once
    in `UPLOAD_SECS`, and when it is closed.
    """

    def __repr__(self) -> str:
        return "TensorBoard()"

    def open(self, folder: pathlib.Path, step: int) -> None:
        self._folder = folder / TENSORBOARD_FOLDER
        self._upload: UploadedFolder | None = None
        if is_address(self._folder):
            self._upload = UploadedFolder(self._folder, UPLOAD_SECS)
            self._folder = self._upload.local
        with naming_file(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            # A suffix, since the file's name has whole seconds only.
            self._events = self._board.event_file_writer.EventsWriter(
                str(self._folder / "events"), f".{time.time_ns()}"
            )
        log = self._board.proto.event_pb2.SessionLog
        self._step = step
        self._add(step + 1, session_log=log(status=log.START))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._add(step, summary=self._board.summary.scalar(name, float(value)))

    def text(self, name: str, text: str) -> None:
        lines = "".join(f"    {line}\n" for line in text.splitlines())
        self._add(self._step, summary=self._board.summary.text(name, lines))

    @functools.cached_property
    def _board(self) -> Any:
        """The package, imported by the first process of a run that trains and by no other.

        Without PyTorch, which it would import where that is installed, for tensors that nobody
        gives it: seconds, and hundreds of megabytes.
        """
        with hidden("torch"):
            import tensorboardX
            import tensorboardX.event_file_writer
            import tensorboardX.proto.event_pb2
            import tensorboardX.summary
        return tensorboardX

    def _add(self, step: int, **content: Any) -> None:
        """Writes an event with a `summary` or a `session_log`."""
        event = self._board.proto.event_pb2.Event(wall_time=time.time(), step=step, **content)
        with naming_file(self._folder):
            self._events.write_event(event)
            self._events.flush()
        if self._upload is not None:
            self._upload.sync()

    def close(self) -> None:
        with naming_file(self._folder):
            self._events.close()
        if self._upload is not None:
            self._upload.close()


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Raises UserError unless each is a `Tracker` that can work here."""
    for tracker in trackers:
        if isinstance(tracker, type) or not isinstance(tracker, Tracker):
            raise UserError(
                f"train.trackers holds {tracker!r}, which is no Tracker; bind objects with the "
                "methods check, open, scalars, text, table and close, such as [@my_module.Mine()] "
                "of a subclass of instruct.train.trackers.Tracker."
            )
        if jax.process_index() == 0:  # which alone calls it
            tracker.check()


@contextlib.contextmanager
def open_trackers(
    trackers: Sequence[Tracker], folder: pathlib.Path, step: int
) -> Iterator[Sequence[Tracker]]:
    """Context: the trackers that this process calls, opened; none but in the first process.

    Each that was opened is closed at the end, whatever the others raise.
    """
    own = trackers if jax.process_index() == 0 else ()
    with contextlib.ExitStack() as stack:
        for tracker in own:
            tracker.open(folder, step)
            stack.callback(tracker.close)
        yield own


def _plain(value: Any) -> int | float | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
