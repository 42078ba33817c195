"""Runs a study's runs in child processes: states, locks, resuming, failures, progress.

    STUDY_DIR/<run>/run.gin           what `run.py train` and `run.py eval` are started with
    STUDY_DIR/<run>/study_run.json    how far the run is, and the settings that it was made with
    STUDY_DIR/<run>/output.log        what its processes print

Several processes may work on one study: each run belongs to the one that holds the lock of its
output.log. Children inherit the lock, so a killed study's child keeps its run until it has ended.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from instruct.allocator import only_cpus
from instruct.errors import UserError
from instruct.files import is_address, locked, replace_file
from instruct.lineage import FAILED as TRAINING_FAILED
from instruct.lineage import FINISHED, STOPPED_EARLY, read_object
from instruct.metrics_file import read_metrics
from instruct.study.plan import RUN_GIN, TRAIN, StudyRun

STATE_FILE, LOG_FILE = "study_run.json", "output.log"
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
State = Literal["waiting", "running", "done", "failed"]

_POLL_SECS, _LOCK_SECS, _PROGRESS_SECS = 0.1, 2.0, 30.0
_REPLACED = "replaced"  # folder of runs that were done again
_LONGEST_ERROR = 500
_FAILED_ELSEWHERE = "the output of its job says why"
# What run.py prints of an error, and of a task that `eval` could not evaluate.
_ERROR = re.compile(r"^error: |\) failed: ")
# Bindings that say where files are, and speed: they may change between a run's stages.
_PLACE_OR_SPEED = re.compile(
    r"(MODEL_DIR|STUDY_DIR|DATA_DIR|STORE_DIR|COMPILATION_CACHE_DIR|PROFILE_STEPS|EVAL_BATCH_SIZE)$"
    r"|(mesh\.MeshConfig|batching\.BatchConfig|compilation_cache\.use)\."
    # `trained_run.SPEED_ONLY`, of any model's configuration
    r"|.*\.(scan_layers|remat|attention|workers|prefetch_windows|chunk_logits)$"
)

Say = Callable[[str], None]
_log = logging.getLogger(__name__)
# Of the entries of study_run.json, see `RunState`.
_STATE_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("labels", "settings"), dict),
    **dict.fromkeys(("state", "stage", "error", "code"), str),
    **{"seconds": int | float, "finished": list},
}


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run, ready to start.

    Attributes:
        gin: content of run.gin.
        settings: every binding of the run as source, `loop.train.seed` -> `%SEED`.
        steps: of training; 0 of a run that is only evaluated.
        flops: of all its steps.
    """

    run: StudyRun
    gin: str
    settings: Mapping[str, str]
    steps: int = 0
    flops: float = 0.0

    @property
    def name(self) -> str:
        """The run's name and folder."""
        return self.run.name


@dataclasses.dataclass(frozen=True)
class RunState:
    """The content of study_run.json.

    Attributes:
        stage: the stage that runs, failed or comes next; "" once the run is done.
        error: why it failed, else "".
        seconds: that all processes of the run took so far.
        finished: stages that are finished.
        settings: those of `PlannedRun` when the run last started; STUDY_DIR stands for the folder.
        code: `code_version.code_hash()` of that start.
    """

    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    state: State = WAITING
    stage: str = ""
    error: str = ""
    seconds: float = 0.0
    finished: tuple[str, ...] = ()
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    code: str = ""


def read_state(folder: pathlib.Path) -> RunState:
    """The state of a run's folder; that of a waiting run if its file is missing or damaged."""
    document = read_object(folder / STATE_FILE)
    fields: dict[str, Any] = {n: document[n] for n in _STATE_TYPES if n in document}
    if not all(isinstance(value, _STATE_TYPES[name]) for name, value in fields.items()) or (
        fields.get("state", WAITING) not in (WAITING, RUNNING, DONE, FAILED)
    ):
        _log.warning("%s is damaged and is ignored", folder / STATE_FILE)
        return RunState()
    fields["finished"] = tuple(fields.get("finished", ()))
    return RunState(**fields)


def write_state(folder: pathlib.Path, state: RunState) -> None:
    """Replaces study_run.json."""
    replace_file(folder / STATE_FILE, json.dumps(dataclasses.asdict(state), indent=1) + "\n")


def record_left(folder: pathlib.Path, stages: Sequence[str], finished: Sequence[str]) -> None:
    """Records what another program left of a run, unless a process here holds the run.

    Args:
        folder: of the run; `prepare` wrote its state.
        stages: of the run.
        finished: stages that are finished.

    A training that says in run.json that it failed makes the run a failed one.
    """
    state, log = read_state(folder), folder / LOG_FILE
    if state.state == DONE or not state.settings:
        return
    with contextlib.ExitStack() as stack, contextlib.suppress(UserError):
        if log.exists():
            stack.enter_context(locked(log, folder.name))
        following = next((stage for stage in stages if stage not in finished), "")
        fields = {"finished": tuple(finished), "stage": following}
        failed = read_object(folder / "run.json").get("outcome") == TRAINING_FAILED
        if not following:
            fields |= {"state": DONE, "error": ""}
        elif following == TRAIN and failed and state.state != FAILED:
            fields |= {"state": FAILED, "error": _FAILED_ELSEWHERE}
        elif state.error == _FAILED_ELSEWHERE and not failed:
            fields |= {"state": WAITING, "error": ""}
        elif state.state == RUNNING:  # its lock is free: the study was killed, and its child too
            fields |= {"state": WAITING}
        if (changed := dataclasses.replace(state, **fields)) != state:
            write_state(folder, changed)


def changed_settings(
    before: Mapping[str, str], planned: PlannedRun, study_dir: pathlib.Path
) -> list[str]:
    """Settings that differ, as 'TRAIN_STEPS was 100, is 200'; places and speed do not count."""
    now = _portable(planned.settings, study_dir)

    def in_full(value: str | None) -> str | None:  # earlier versions wrote STUDY_DIR_2 of a path
        return value and value.replace("STUDY_DIR", str(study_dir))

    names = sorted(
        name
        for name in before.keys() | now.keys()
        if in_full(before.get(name)) != in_full(now.get(name)) and not _PLACE_OR_SPEED.match(name)
    )
    return [
        f"{name} was {before.get(name, 'unset')}, is {now.get(name, 'unset')}" for name in names
    ]


def _portable(settings: Mapping[str, str], study_dir: pathlib.Path) -> dict[str, str]:
    """Settings that stay the same if the study's folder is moved."""
    # The folder and what is in it: in gin's text a path starts after its quote, and no other
    # folder counts, such as /runs/study_2 beside /runs/study, or /data/runs/study.
    folder = re.compile(rf"(?<=['\"]){re.escape(str(study_dir))}(?=[/'\"])")
    return {name: folder.sub("STUDY_DIR", value) for name, value in settings.items()}


def prepare(
    study_dir: pathlib.Path,
    runs: Sequence[PlannedRun],
    code: str,
    force_rerun: bool,
    say: Say,
    others: Sequence[StudyRun] = (),
) -> None:
    """Writes run.gin and study_run.json of runs that are not done.

    Args:
        runs: earlier ones first.
        code: a hash of this program.
        force_rerun: move runs whose settings changed to `replaced`, with those that start from
            them, to be run again.
        say: takes what is worth knowing: changed settings of unfinished runs, runs by other code.
        others: runs of the study that are not asked for. If they start from a run that is moved,
            they are moved as well.

    Raises:
        UserError: the settings of finished runs changed.
    """
    changes: dict[str, list[str]] = {}
    states = {planned.name: read_state(study_dir / planned.name) for planned in runs}
    for planned in runs:
        state = states[planned.name]
        if state.settings:
            changed = changed_settings(state.settings, planned, study_dir)
            changed += [f"{name} is trained again" for name in planned.run.needs if name in changes]
            if changed:
                changes[planned.name] = changed
    if force_rerun:
        for run in others:
            trained_again = [name for name in run.needs if name in changes]
            if trained_again and (study_dir / run.name).exists():
                changes[run.name] = [f"{name} is trained again" for name in trained_again]
        for name in changes:
            _move_aside(study_dir, name)
            again = " and run again" if name in states else ", to be run again"
            say(f"{name}: {'; '.join(changes[name])}; moved to {_REPLACED}/{again}")
            states[name] = RunState()
    elif finished := [name for name in changes if states[name].state == DONE]:
        shown = "\n".join(f"  {name}: {'; '.join(changes[name])}" for name in finished)
        raise UserError(
            f"the settings of {len(finished)} finished runs changed:\n{shown}\nSet them back, give "
            "another --gin.STUDY_DIR, or --force_rerun to run these again."
        )
    done = {name: state for name, state in states.items() if state.state == DONE}
    other = [name for name, state in done.items() if state.code not in (code, "")]  # "": by a job
    if other:
        say(
            f"note: other code than this made {len(other)} of the finished runs, such as {other[0]}"
        )
    for planned in runs:
        state = states[planned.name]
        if state.state == DONE:
            continue
        folder = study_dir / planned.name
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            if planned.name in changes and not force_rerun:
                say(f"{planned.name} resumes with new settings: {'; '.join(changes[planned.name])}")
                (folder / LOG_FILE).touch()
                stack.enter_context(locked(folder / LOG_FILE, f"the run {planned.name}"))
                state = dataclasses.replace(state, finished=())  # `train` compares its own settings
            replace_file(folder / RUN_GIN, planned.gin)
            if not (planned.name in changes or is_address(folder)):
                # Another study may have started it, or even finished it, since its state was read.
                (folder / LOG_FILE).touch()
                try:
                    stack.enter_context(locked(folder / LOG_FILE, planned.name))
                except UserError:
                    continue
                state = read_state(folder)
            if state.state not in (RUNNING, DONE) or planned.name in changes:
                settings = _portable(planned.settings, study_dir)
                labels, stage = dict(planned.run.labels), _next_stage(planned, state)
                state = dataclasses.replace(state, labels=labels, stage=stage, settings=settings)
                write_state(folder, state)


def _next_stage(planned: PlannedRun, state: RunState) -> str:
    return next((stage for stage in planned.run.stages if stage not in state.finished), "")


def _move_aside(study_dir: pathlib.Path, name: str) -> None:
    if is_address(study_dir):
        raise UserError("--force_rerun moves folders, which a bucket has not; delete them there.")
    with contextlib.ExitStack() as stack:
        log = study_dir / name / LOG_FILE
        if log.exists():
            stack.enter_context(locked(log, f"the run {name}"))
        (study_dir / _REPLACED).mkdir(exist_ok=True)
        number = next(n for n in range(1, 1 << 30) if not _replaced(study_dir, name, n).exists())
        (study_dir / name).rename(_replaced(study_dir, name, number))


def _replaced(study_dir: pathlib.Path, name: str, number: int) -> pathlib.Path:
    return study_dir / _REPLACED / f"{name}.{number}"


class _ActiveRun:
    """A run whose lock this process holds, and the child process of its current stage."""

    def __init__(
        self,
        folder: pathlib.Path,
        planned: PlannedRun,
        code: str,
        command: Sequence[str],
        cores: frozenset[int],
    ) -> None:
        """Raises UserError if another process holds the run. `cores`: those of its processes."""
        self.planned, self.folder, self.cores = planned, folder, cores
        self._command, self._stack = command, contextlib.ExitStack()
        (folder / LOG_FILE).touch()
        self._lock = self._stack.enter_context(locked(folder / LOG_FILE, planned.name))
        self.state, self._code = read_state(folder), code
        self.process: subprocess.Popen[bytes] | None = None
        self.num_signals = 0  # that the process got

    def start_stage(self) -> None:
        """Starts the next stage."""
        stage = _next_stage(self.planned, self.state)
        self._change(state=RUNNING, stage=stage, error="", code=self._code)
        command = [*self._command, stage, f"--gin_file={self.folder / RUN_GIN}"]
        with (self.folder / LOG_FILE).open("ab") as log:
            log.write(f"\n$ {shlex.join(command)}\n".encode())
            log.flush()
            self._log_start = log.tell()
            # A session of its own: Ctrl-C in a terminal reaches the study alone, which passes it on
            # once; a second signal would kill a training that is saving.
            with _on_cores(self.cores):
                self.process = subprocess.Popen(
                    [*command, "--distributed=off"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=() if self._lock is None else (self._lock,),
                )
        self._started = time.monotonic()
        self._first_step: tuple[float, int] | None = None

    def signal(self, num_signals: int) -> None:
        """Sends the process SIGTERM unless it had this many."""
        if self.process is not None and self.num_signals < num_signals:
            self.process.terminate()
            self.num_signals = num_signals

    def finish_stage(self, status: int, stopping: bool) -> None:
        """Records how the child process ended; RUNNING: the next stage can start."""
        seconds = self.state.seconds + time.monotonic() - self._started
        stage, self.process, self.num_signals = self.state.stage, None, 0
        unfinished = stage == TRAIN and status == 0 and not is_trained(self.folder)
        if status == 0 and not unfinished:
            finished = (*self.state.finished, stage)
            following = _next_stage(
                self.planned, dataclasses.replace(self.state, finished=finished)
            )
            state = (WAITING if stopping else RUNNING) if following else DONE
            self._change(state=state, stage=following, finished=finished, seconds=seconds)
        elif stopping:
            self._change(state=WAITING, seconds=seconds)
        else:
            error = "it was stopped before its last step" if unfinished else self._error(status)
            self._change(state=FAILED, error=error, seconds=seconds)

    def fail(self, error: str) -> None:
        """Records that the run cannot start."""
        self._change(state=FAILED, stage=_next_stage(self.planned, self.state), error=error)

    def close(self) -> None:
        """Ends the child process if it still runs, and gives the lock back."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        self._stack.close()

    def _change(self, **fields: Any) -> None:
        self.state = dataclasses.replace(self.state, **fields)
        write_state(self.folder, self.state)

    def _error(self, status: int) -> str:
        with (self.folder / LOG_FILE).open("rb") as log:
            log.seek(self._log_start)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
        lines = [line for line in lines if line]
        errors = [line for line in lines if _ERROR.search(line)] or lines
        last = errors[-1].removeprefix("error: ")[:_LONGEST_ERROR] if errors else "(none)"
        if status < 0:
            return f"killed by {signal.Signals(-status).name}; its last line: {last}"
        return last

    def progress(self) -> str:
        """'train, step 40 of 100, loss 1.234, 0:01:10 left'."""
        text, steps = self.state.stage, self.planned.steps
        if self.state.stage != TRAIN:
            return f"{text}, {duration(time.monotonic() - self._started)} so far"
        rows = read_metrics(self.folder / "metrics.jsonl").rows
        if not rows:
            return f"{text}, starting"
        step, now = rows[-1]["step"], time.monotonic()
        text += f", step {step:,} of {steps:,}"
        if isinstance(loss := rows[-1].get("loss"), int | float):
            text += f", loss {loss:.4g}"
        if self._first_step is None:
            self._first_step = (now, step)
        since, first = self._first_step
        if step > first:
            text += f", {duration((now - since) / (step - first) * (steps - step))} left"
        return text


@contextlib.contextmanager
def _on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Processes that are started here run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _shares_of_cores(workers: int) -> list[frozenset[int]]:
    """The cores of each worker: a share of its own where JAX computes on CPUs.

    Runs that all use every core wait for each other's threads: two of them on two cores took 1.12
    times as long.
    """
    cores = sorted(os.sched_getaffinity(0))
    if workers > len(cores) or not only_cpus():
        return [frozenset(cores)] * workers
    return [frozenset(cores[worker::workers]) for worker in range(workers)]


def _alone(runs: Sequence[PlannedRun]) -> frozenset[str]:
    """Names of the runs that no other one can run beside: all others need them or are needed.

    By the plan, not by what is left: the number of cores changes last bits, and an interrupted
    study has to give the results of an undisturbed one.
    """
    earlier: dict[str, set[str]] = {}  # those that must be done before it
    for planned in runs:
        needs = [name for name in planned.run.needs if name in earlier]
        earlier[planned.name] = {*needs, *(name for need in needs for name in earlier[need])}
    return frozenset(
        name
        for name in earlier
        if all(
            name in earlier[other] or other in earlier[name] for other in earlier.keys() - {name}
        )
    )


def is_trained(folder: pathlib.Path) -> bool:
    """Whether a run's training reached its last step, or stopped early as its settings say."""
    outcome = read_object(folder / "run.json").get("outcome")
    return str(outcome).startswith((FINISHED, STOPPED_EARLY))


def last_step(folder: pathlib.Path, steps: int) -> int:
    """The last step of a run that is to train for `steps`: an earlier one if it stopped early."""
    info = read_object(folder / "run.json")
    stopped_early = str(info.get("outcome")).startswith(STOPPED_EARLY)
    return int(info.get("step", steps)) if stopped_early else steps


def duration(seconds: float) -> str:
    """'1:02:03' hours, minutes, seconds."""
    minutes, secs = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{secs:02d}"


class StudyRunner:
    """Runs the runs of a study, some side by side, and records each one's state.

    Args:
        study_dir: a folder of this machine; `prepare` was called.
        runs: earlier ones first.
        command: of this program; a mode and its flags are added.
        code: a hash of this program.
        workers: runs side by side.
        say: takes lines of progress.
    """

    def __init__(
        self,
        study_dir: pathlib.Path,
        runs: Sequence[PlannedRun],
        command: Sequence[str],
        code: str,
        workers: int,
        say: Say,
    ) -> None:
        self._folder, self._runs, self._command = study_dir, runs, command
        self._code, self._say = code, say
        self._workers = min(workers, max(1, len(runs)))  # no share of cores that no run would use
        self._free_cores = _shares_of_cores(self._workers)
        self._all_cores, self._alone = frozenset().union(*self._free_cores), _alone(runs)
        self._pending = list(runs)
        self._active: list[_ActiveRun] = []
        self._shares: dict[str, frozenset[int]] = {}  # of cores, of active runs
        self._ended: dict[str, State] = {}
        self._look_again: dict[str, float] = {}  # run of another process -> when to try it
        self._signals: list[str] = []
        self._shown_at = time.monotonic()

    @property
    def stopped_by(self) -> str:
        """Name of the signal that stopped the study, else ""."""
        return self._signals[0] if self._signals else ""

    def run(self) -> dict[str, RunState]:
        """Runs all; SIGINT and SIGTERM stop the children, which save. Returns name -> state."""
        with self._noting_signals():
            try:
                while self._active or (self._pending and not self._signals):
                    self._start_runs()
                    self._look_at_children()
                    self._show_progress()
                    time.sleep(_POLL_SECS)
            finally:  # also after an error of this process, such as a full disk
                for active in self._active:
                    active.close()
        return {planned.name: read_state(self._folder / planned.name) for planned in self._runs}

    @contextlib.contextmanager
    def _noting_signals(self) -> Iterator[None]:
        def note(number: int, frame: types.FrameType | None) -> None:
            self._signals.append(signal.Signals(number).name)

        earlier = {
            number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _start_runs(self) -> None:
        """Starts runs whose earlier runs have ended, until all workers have one."""
        for planned in list(self._pending):
            if self._signals or len(self._active) >= self._workers:
                return
            waits = time.monotonic() < self._look_again.get(planned.name, 0.0)
            if not waits and all(name in self._ended for name in planned.run.needs):
                self._start(planned)

    def _start(self, planned: PlannedRun) -> None:
        try:
            folder, alone = self._folder / planned.name, planned.name in self._alone
            cores = self._all_cores if alone else self._free_cores[-1]
            active = _ActiveRun(folder, planned, self._code, self._command, cores)
        except UserError:
            if planned.name not in self._look_again:
                self._say(f"{planned.name} is run by another process; it is waited for")
            self._look_again[planned.name] = time.monotonic() + _LOCK_SECS
            return
        self._pending.remove(planned)
        self._active.append(active)
        self._shares[planned.name] = self._free_cores.pop()
        failed = [name for name in planned.run.needs if self._ended[name] != DONE]
        if active.state.state == DONE:
            self._leave(active)
        elif failed:
            active.fail(f"{failed[0]}, which it starts from, is not done")
            self._leave(active)
        else:
            active.start_stage()
            number = self._runs.index(planned) + 1
            self._say(f"[{number} of {len(self._runs)}] {planned.name}: {active.state.stage}")

    def _look_at_children(self) -> None:
        for active in list(self._active):
            active.signal(len(self._signals))
            status = active.process.poll() if active.process is not None else None
            if status is None:
                continue
            active.finish_stage(status, bool(self._signals))
            if active.state.state == RUNNING:
                active.start_stage()
                self._say(f"{active.planned.name}: {active.state.stage}")
            else:
                self._leave(active)

    def _leave(self, active: _ActiveRun) -> None:
        active.close()
        self._active.remove(active)
        self._free_cores.append(self._shares.pop(active.planned.name))
        name, state = active.planned.name, active.state
        self._ended[name] = state.state
        if state.state == FAILED:
            self._say(f"{name} failed in {state.stage}: {state.error} ({active.folder / LOG_FILE})")
        elif state.state == DONE:
            self._say(f"{name}: done, {duration(state.seconds)}")
        else:
            self._say(f"{name}: stopped; the same command resumes it")

    def _show_progress(self) -> None:
        if time.monotonic() < self._shown_at + _PROGRESS_SECS:
            return
        self._shown_at = time.monotonic()
        for active in self._active:
            self._say(f"{active.planned.name}: {active.progress()}")
        done = [planned for planned in self._runs if self._ended.get(planned.name) == DONE]
        text = f"{len(done)} of {len(self._runs)} runs done"
        if flops := sum(planned.flops for planned in done):
            trained = (planned for planned in done if planned.flops)
            secs = sum(read_state(self._folder / planned.name).seconds for planned in trained)
            left = sum(planned.flops for planned in self._runs if planned.name not in self._ended)
            rest = duration(secs / flops * left / self._workers)
            text += f"; {rest} left, if the others need as long for each FLOP"
        self._say(text)
