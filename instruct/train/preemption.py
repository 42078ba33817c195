"""Graceful stop on SIGTERM and SIGINT: finish the step, save, exit."""

import signal
import types

import jax
from jax.experimental import multihost_utils

from instruct.distributed import watch_preemption


class StopRequest:
    """Context in which the first SIGTERM or SIGINT requests a stop and a second one kills.

    With several processes the signal may reach only one; jax's preemption service makes all stop at
    the same step.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._earlier: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        numbers = (signal.SIGTERM, signal.SIGINT)
        if jax.process_count() > 1:  # jax's own handler must stay, or its service misses the signal
            numbers = ()
            watch_preemption()
        for number in numbers:
            self._earlier[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore_handlers()

    def at(self, step: int) -> bool:
        """Whether to stop after this step; every process gets the same answer."""
        if jax.process_count() > 1:
            stopping = bool(multihost_utils.reached_preemption_sync_point(step))
            if stopping:  # the only signal that the service handles, in any process
                self.signal_name = signal.SIGTERM.name
            return stopping
        return bool(self.signal_name)

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._earlier = {}
