"""`PROFILE_STEPS`: traces some training steps for TensorBoard's profiler or XProf."""

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax

from instruct.errors import UserError
from instruct.files import replace_file

PROFILE_FOLDER = "profile"


class StepProfiler:
    """Context that traces steps `first` to `first + number - 1` into `folder`.

    Args:
        folder: MODEL_DIR/profile.
        steps: (first, number), as `check_profile_steps` allows; None: no trace.
        start: the step that the run starts or resumes from.
        last: the run's last step.
        say: takes a line for the user.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        steps: Sequence[int] | None,
        start: int,
        last: int,
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._say = folder, say
        self._first, number = steps or (0, 0)
        self._last = self._first + number - 1
        self._tracing, self._active = contextlib.ExitStack(), False
        if steps and not start < self._first <= last:
            say(
                f"PROFILE_STEPS={tuple(steps)}: no trace, since step {self._first:,} is not among "
                f"steps {start + 1:,} to {last:,} of this start."
            )

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(self, *exception: object) -> None:
        self._active = False
        self._tracing.close()

    def begin(self, step: int) -> None:
        """Call it before `step` is dispatched."""
        if step == self._first:
            local = self._tracing.enter_context(tempfile.TemporaryDirectory())
            jax.profiler.start_trace(local)
            self._tracing.callback(self._write, pathlib.Path(local))
            self._active = True
        if self._active:
            self._annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
            self._annotation.__enter__()

    def end(self, step: int, results: Any) -> None:
        """Call it after `step` was dispatched; waits for the `results` of the last traced one."""
        if self._active:
            self._annotation.__exit__(None, None, None)
            if step == self._last:
                jax.block_until_ready(results)
                self.__exit__()

    def _write(self, local: pathlib.Path) -> None:
        """Stops the trace and copies its files from this machine's disk to the run's folder."""
        jax.profiler.stop_trace()
        for file in sorted(path for path in local.rglob("*") if path.is_file()):
            target = self._folder / file.relative_to(local).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, file.read_bytes())
        self._say(
            f"a trace of the first process from step {self._first:,} on is in {self._folder}; "
            f"open it with: xprof --logdir={self._folder} (or TensorBoard with its profile plugin)"
        )


def check_profile_steps(steps: Any) -> None:
    """Raises UserError unless `steps` is None or (first step, number of steps)."""
    if steps is None:
        return
    pair = steps if isinstance(steps, list | tuple) else ()
    if len(pair) != 2 or not all(type(one) is int and one >= 1 for one in pair):
        raise UserError(
            f"train.profile_steps is {steps!r} (PROFILE_STEPS); give the first step to trace and "
            "the number of steps, such as (20, 5), or None."
        )
