"""SIGTERM and SIGINT ask for an orderly stop: finish the step, save, leave."""

import signal
import types

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Context in which the first SIGTERM or SIGINT is remembered and a second one kills.

    With several processes the signal may reach only one; all agree on the step at which they stop
    (jax's preemption service).
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._earlier: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        # Several processes: jax's own handler must stay, or its service never hears of the signal.
        numbers = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else ()
        for number in numbers:
            self._earlier[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        self._give_back()

    def at(self, step: int) -> bool:
        """Whether to stop after this step; every process gets the same answer."""
        if jax.process_count() > 1:
            stopping = bool(multihost_utils.reached_preemption_sync_point(step))
            if stopping:  # the one signal that the service hears, in whichever process
                self.signal_name = signal.SIGTERM.name
            return stopping
        return bool(self.signal_name)

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._earlier = {}
