"""Goodput: the share of a run's wall time spent in training steps, and what took the rest."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import jax

# Of JAX's durations: one compilation by XLA, or one read of its persistent cache instead.
_COMPILATION_EVENT = "/jax/core/compile/backend_compile_duration"
# What a second of wall time is counted as, one of these at a time.
Kind = Literal[
    "steps", "input_wait", "compilation", "checkpoints", "evaluation", "restarts", "other"
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Goodput:
    """Context that counts every second of a run's wall time as one of `KINDS`.

    The seconds are those of this process, since the context was entered. A resumed run continues
    the count of its checkpoint (`restore`); the time from that checkpoint to the first step of this
    process is a restart, whatever the earlier process still computed in it.
    """

    def __init__(self) -> None:
        self._secs = dict.fromkeys(KINDS, 0.0)
        self._lap_start = 0.0
        self._kind: Kind = "other"
        self._since = time.perf_counter()
        self._thread = threading.get_ident()

    def __enter__(self) -> "Goodput":
        jax.monitoring.register_event_duration_secs_listener(self._add_compilation)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._add_compilation)

    def switch(self, kind: Kind) -> Kind:
        """Counts time as `kind` from now on; returns the kind before."""
        now, before = time.perf_counter(), self._kind
        self._secs[before] += now - self._since
        self._kind, self._since = kind, now
        return before

    @contextlib.contextmanager
    def spent(self, kind: Kind) -> Iterator[None]:
        """Context whose time counts as `kind`, but for what is counted otherwise inside of it."""
        outer = self.switch(kind)
        try:
            yield
        finally:
            self.switch(outer)

    @contextlib.contextmanager
    def waiting_for_input(self, running: Any) -> Iterator[None]:
        """Context that fetches a batch: an input wait from when the devices have nothing to do.

        `running`: results of the last step that was dispatched, None if they were read already.
        Until they are computed, the time counts as before, since the devices are busy.
        """
        ready: list[float] = []

        def watch() -> None:
            # Its error is raised where the results are read.
            with contextlib.suppress(Exception):
                jax.block_until_ready(running)
            ready.append(time.perf_counter())

        start = time.perf_counter()
        if running is None:
            ready.append(start)
        else:
            # A daemon, so that devices that hang do not keep the process from ending.
            threading.Thread(target=watch, name="goodput", daemon=True).start()
        yield
        if ready:
            self._move("input_wait", time.perf_counter() - ready[0])

    def lap(self) -> float:
        """Seconds of steps and of their input waits since the last lap."""
        self.switch(self._kind)
        total = self._secs["steps"] + self._secs["input_wait"]
        secs, self._lap_start = total - self._lap_start, total
        return secs

    def scalars(self) -> dict[str, float]:
        """{"goodput/steps": 0.93, ...}: shares of the run's wall time, which sum to 1."""
        self.switch(self._kind)
        total = sum(self._secs.values())
        # What was moved away may leave a rounding error below zero.
        return {f"goodput/{kind}": max(0.0, self._secs[kind]) / total for kind in KINDS}

    def state(self, finished: bool) -> dict[str, Any]:
        """JSON values for `restore`, of a checkpoint that is about to be written.

        `finished`: it is the run's last one, so the time until somebody raises TRAIN_STEPS is no
        restart.
        """
        self.switch(self._kind)
        return {"secs": dict(self._secs), "until": None if finished else time.time()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues the count of a checkpoint; {} for one without a count.

        Call it before the first step: what this process did so far is part of the restart.
        """
        if state.get("until"):
            self.switch("restarts")
            self._secs = dict.fromkeys(KINDS, 0.0)
            # The clock may have been set back meanwhile.
            self._secs["restarts"] = max(0.0, time.time() - state["until"])
        for kind, secs in state.get("secs", {}).items():
            self._secs[kind] += secs
        self._lap_start = self._secs["steps"] + self._secs["input_wait"]

    def _add_compilation(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILATION_EVENT and threading.get_ident() == self._thread:
            self._move("compilation", duration_secs)

    def _move(self, kind: Kind, secs: float) -> None:
        """Counts the last `secs` seconds as `kind` instead of the current kind."""
        self._secs[self._kind] -= secs
        self._secs[kind] += secs
