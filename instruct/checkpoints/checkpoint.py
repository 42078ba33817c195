"""Checkpoints of a run: atomic, asynchronous, with checksums that every read verifies.

    MODEL_DIR/checkpoints/<step>/params     parameters, T5X's names, one layer after another
                                /training   step and optimiser slots, laid out alike
                                /input      JSON: input position and statistics, checksums
                                /records    JSON: run.json, rows of metrics.jsonl, goodput so far
                                /pinned     never remove this checkpoint; made by the user, or
                                            where another metric chooses the best from now on

Orbax writes a step into a temporary folder and renames it when everything is on disk, so a process
killed at any time leaves no partial checkpoint that looks complete. Orbax does not detect a changed
byte in the middle of an array: `input` holds a checksum of every array, and a hash of itself. A
damaged newest checkpoint becomes `damaged-<step>` when a run resumes from an older one.
In a bucket (gs://) Orbax writes the step in its place and marks it as committed with its last
object; a step without that mark does not count and is deleted when the run starts again. A removed
checkpoint loses the mark first. `damaged-<step>` is a copy there, and free space is not checked.
Stacked layers (`scan_layers`) are unstacked for saving and stacked again on reading, so either
layout reads a checkpoint, under any mesh.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import functools
import itertools
import logging
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from instruct.checkpoints.checkpoint_files import (
    PARAMS,
    PINNED,
    TRAINING,
    checkpoint_steps,
    checksums,
    for_orbax,
    has_stacked_layers,
    is_unfinished,
    read_document,
    read_item,
    read_newest,
    read_records,
    remove_from_bucket,
)
from instruct.checkpoints.train_state import TrainState, state_from_tree, training_tree
from instruct.distributed import barrier
from instruct.errors import (
    TRANSIENT,
    RunFailed,
    UserError,
    errno_words,
    storage_error_number,
    storage_error_path,
)
from instruct.fields import bounded, check_fields
from instruct.files import absolute_path, is_address
from instruct.json_text import sealed
from instruct.models.layout import unstack_layers

_log = logging.getLogger(__name__)

_TEMPORARY = "orbax-checkpoint-tmp"
# Random floats shrink by some 7 % when written.
_LEAST_SHARE = 0.9
# Largest share of the available memory that the state may take for it to be copied: while it is
# copied there are up to three, with Orbax's own.
_COPY_SHARE = 0.25
# Errors of a name that a file system cannot keep.
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_FOR_EVER_SECS, _A_DAY_SECS = 4 * 10**9, 24 * 3600
# One program for all slices, compiled once.
_unstack_jitted = jax.jit(unstack_layers)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep.

    Attributes:
        save_every_steps: save at every multiple and at the end; None: at the end only.
        keep: number of newest checkpoints to keep. Pinned ones are kept as well (see `PINNED`).
        keep_every_steps: keep every multiple of it as well; a multiple of `save_every_steps`.
        keep_best: number of best ones by `best_metric` to keep as well, among steps that were both
            evaluated and saved; 0 for none.
        best_metric: name of a metric of the evaluation, as in metrics.jsonl.
        best_is_lowest: a lower `best_metric` is better; None: by its name (`is_lowest_best`).
        async_save: write while training continues.
        save_retries: times that a save is tried again after an error that storage may recover from
            (`instruct.errors.TRANSIENT`). Retries need a copy of the state in host memory: there
            are none if it would take more than a quarter of what is available. Several processes
            do not retry: each would have to know of the others' errors.
        first_retry_secs: seconds before the first retry; twice as long before each later one.
    """

    save_every_steps: int | None = bounded(1000, least=1)
    keep: int = bounded(3, least=1)
    keep_every_steps: int | None = bounded(None, least=1)
    keep_best: int = bounded(1, least=0)
    best_metric: str = "eval/loss"
    best_is_lowest: bool | None = None
    async_save: bool = True
    save_retries: int = bounded(5, least=0, most=20)
    first_retry_secs: float = bounded(2.0, least=0.0, most=600.0)

    @property
    def lowest(self) -> bool:
        """Whether a lower `best_metric` is better."""
        by_name = is_lowest_best(self.best_metric)
        return by_name if self.best_is_lowest is None else self.best_is_lowest

    def __post_init__(self) -> None:
        check_fields(self)
        every, saved = self.keep_every_steps, self.save_every_steps
        if every is not None and (saved is None or every % saved):
            raise UserError(
                f"CheckpointConfig.keep_every_steps is {every}, and save_every_steps {saved}: give "
                "a multiple of save_every_steps, since only saved steps can be kept."
            )


def is_lowest_best(metric: str) -> bool:
    """Whether a lower value of a metric is better, by its name: true of losses only."""
    return any(part in ("loss", "z_loss") for part in metric.split("/"))


class Resumed(NamedTuple):
    """A run at a step; `input` and `records` are what `CheckpointStore.save` got."""

    step: int
    state: TrainState
    input: dict[str, Any]
    records: dict[str, Any]


def _not_from_a_writer_thread(record: logging.LogRecord) -> bool:
    # Orbax logs a traceback for each of its threads, and raises the error to us all the same.
    return not record.exc_info and "raised an exception" not in record.getMessage()


logging.getLogger("absl").addFilter(_not_from_a_writer_thread)


class CheckpointStore:
    """The checkpoints of one run, for the process that trains it.

    Args:
        folder: created if needed; leftovers of interrupted saves are deleted.
        config: what to keep.
    """

    def __init__(self, folder: str | pathlib.Path, config: CheckpointConfig | None = None) -> None:
        self.folder = absolute_path(folder)
        self._in_bucket = is_address(folder)
        self._config = config or CheckpointConfig()
        self._writer = self._open_writer()
        self._threads = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._saving: concurrent.futures.Future[None] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        barrier("leftovers removed")  # the others must not see a checkpoint that goes

    def _open_writer(self) -> ocp.Checkpointer:
        # If a folder cannot be created in the background, threads wait for it for 20 minutes, and
        # the process waits for them.
        # Orbax reads the wall clock, which may jump by hours when it is set. Of several processes
        # one that dies ends the others without a time-out (`instruct.distributed`).
        alone = jax.process_count() == 1
        options = ocp.AsyncOptions(
            timeout_secs=_FOR_EVER_SECS if alone else _A_DAY_SECS,
            create_directories_asynchronously=False,
        )
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(async_options=options)
        )
        if self._config.async_save:
            return ocp.AsyncCheckpointer(handler, async_options=options)
        return ocp.Checkpointer(handler)

    def steps(self) -> list[int]:
        """Steps of all checkpoints on disk, in order."""
        return checkpoint_steps(self.folder)

    def latest_step(self) -> int | None:
        """The newest checkpoint's step, or None."""
        return max(self.steps(), default=None)

    def save(
        self,
        step: int,
        state: TrainState,
        input_state: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        records: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves in the background, after the previous save; `state` may be donated afterwards.

        Does nothing if `step` is saved already. `input_state` holds JSON values, `metrics` those of
        an evaluation at this step, `records` those of `read_records`. Raises OSError if the storage
        failed, and in all retries too; older checkpoints are intact.
        """
        self.wait()
        if step in self.steps():
            return
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if not self._in_bucket:
            self._check_free_space(size)
        items = {PARAMS: state.params, TRAINING: training_tree(state)}
        if has_stacked_layers(state.params):
            items = _unstack_jitted(items)
        document = {
            "step": step,
            "input": dict(input_state),
            "metrics": dict(metrics or {}),
            "checksums": checksums(items),
        }
        records = {"run": {}, "rows": [], **(records or {})}
        write = functools.partial(
            self._write, self.folder / str(step), document=document, records=records
        )
        can_retry = jax.process_count() == 1 and size < _COPY_SHARE * _available_memory()
        retries = self._config.save_retries if can_retry else 0
        copies = jax.tree.map(np.array, jax.device_get(items)) if retries else {}
        error = _error_of(functools.partial(write, items))
        retry = functools.partial(write, copies)
        self._saving = self._threads.submit(self._finish, step, error, retry, retries)
        if error is not None or not self._config.async_save:
            self.wait()

    def _finish(
        self, step: int, error: Exception | None, retry: Callable[[], None], retries: int
    ) -> None:
        """Waits until a save is on disk; retries it after errors that may pass. Raises as `save`.

        Args:
            error: what starting the save raised.
            retry: starts the same save again, into a folder of its own: after a failed `fsync` the
                files of the first one cannot be trusted.
            retries: most calls of `retry`.
        """
        for number in itertools.count(1):
            try:
                with self._naming_disk_errors():
                    if error is not None:
                        raise error
                    self._wait_for_writer()
                return
            except OSError as failure:
                if failure.errno is None or failure.errno not in TRANSIENT or number > retries:
                    raise
                secs = self._config.first_retry_secs * 2 ** (number - 1)
                why = f"{errno_words(failure.errno)} at {failure.filename}"
                _log.warning(
                    "the checkpoint of step %d could not be written (%s); retry %d of %d in %g s",
                    *(step, why, number, retries, secs),
                )
            time.sleep(secs)
            self._writer = self._open_writer()
            # An error after the last rename leaves a checkpoint that nobody knows to be whole.
            folder = self.folder / str(step)
            left = [folder] if folder.exists() else []
            error = _error_of(lambda left=left: (self._remove(left), retry()))

    def _wait_for_writer(self) -> None:
        if isinstance(self._writer, ocp.AsyncCheckpointer):
            self._writer.wait_until_finished()

    def _check_free_space(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < _LEAST_SHARE * size:
            why = f"it takes {size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
            raise self._save_error(errno.ENOSPC, f"no space left for a checkpoint: {why}")

    def _write(
        self, folder: pathlib.Path, items: Mapping[str, Any], document: Any, records: Any
    ) -> None:
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(items[PARAMS]),
            training=ocp.args.StandardSave(items[TRAINING]),
            input=ocp.args.JsonSave(sealed(document)),
            records=ocp.args.JsonSave(sealed(records)),
        )
        self._writer.save(for_orbax(folder), args=args)

    def wait(self) -> None:
        """Waits until every save is on disk, then removes old ones. Raises as `save`."""
        saving, self._saving = self._saving, None
        if saving is None:
            return
        saving.result()
        self.remove_old()

    def remove_old(self) -> None:
        """Removes checkpoints that `config` does not keep, as after every save.

        A run that ended between its last save and their removal left some.
        """
        kept = self._steps_to_keep()
        try:
            self._remove(self.folder / str(step) for step in self.steps() if step not in kept)
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            _log.warning("old checkpoints are removed after the next save (%s)", error)

    def check_folder(self) -> None:
        """Writes and opens a checkpoint of one number, so that training starts where it can save.

        Raises UserError if Orbax cannot use the folder, OSError as `save`.
        """
        probe = self.folder / f"probe.{_TEMPORARY}"
        everywhere = NamedSharding(Mesh(np.array(jax.devices()), "all"), PartitionSpec())
        number = {"number": jax.make_array_from_callback((), everywhere, lambda _: np.int32(0))}
        try:
            with self._naming_disk_errors():
                sums = {f"{item}/number": 0 for item in (PARAMS, TRAINING)}
                document = {"input": {}, "metrics": {}, "checksums": sums}
                items = {PARAMS: number, TRAINING: number}
                self._write(probe, items, document, {"run": {}, "rows": []})
                self._wait_for_writer()
            _open(probe, number, number)
            barrier("probe opened")  # process 0 deletes it
        except (ValueError, RuntimeError, UserError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NAME_ERRORS:
                raise
            raise UserError(
                f"{str(self.folder)!r} cannot hold checkpoints: a small one written there cannot "
                f"be opened ({str(error).splitlines()[0][:200]}). Choose another MODEL_DIR, with "
                "a shorter or plainer path."
            ) from error
        finally:
            self._remove_leftovers()

    def check_saved(self, step: int, abstract_state: TrainState) -> None:
        """Raises RunFailed if a checkpoint cannot be opened or has other names or shapes."""
        try:
            _open(self.folder / str(step), abstract_state.params, training_tree(abstract_state))
        except UserError as error:
            raise RunFailed(f"step {step} was saved and cannot be opened again: {error}") from error

    def close(self) -> None:
        """Finishes the current save and stops the threads. Raises as `save`."""
        try:
            self.wait()
        finally:
            self._threads.shutdown()
            self._close_writer()

    def _close_writer(self) -> None:
        # The first call may only raise the save's error again, and close nothing.
        for _ in range(2):
            with contextlib.suppress(Exception):
                self._writer.close()

    def _steps_to_keep(self) -> set[int]:
        """The newest steps, multiples, pinned ones, and the best of those that were evaluated."""
        config, steps = self._config, self.steps()
        kept = set(steps[-config.keep :])
        kept.update(step for step in steps if (self.folder / str(step) / PINNED).exists())
        if config.keep_every_steps:
            kept.update(step for step in steps if step % config.keep_every_steps == 0)
        if config.keep_best:
            kept.update(list(self.evaluated())[: config.keep_best])
        return kept

    def pin_best(self, earlier: CheckpointConfig) -> list[int]:
        """Pins the best by the metric of an earlier configuration; their steps."""
        best = list(self.evaluated(earlier))[: self._config.keep_best]
        if jax.process_index() == 0:
            for step in best:
                (self.folder / str(step) / PINNED).touch()
        return best

    def evaluated(self, config: CheckpointConfig | None = None) -> dict[int, float]:
        """Step -> `best_metric` of the checkpoints that have it, the best first."""
        config, values = config or self._config, {}
        for step in self.steps():
            with contextlib.suppress(UserError):  # a damaged one is not the best
                metrics = read_document(self.folder / str(step))["metrics"]
                value = metrics.get(config.best_metric, math.nan)
                if math.isfinite(value):
                    values[step] = value
        best_first = sorted(values, key=values.__getitem__, reverse=not config.lowest)
        return {step: values[step] for step in best_first}

    def _remove(self, folders: Iterable[pathlib.Path]) -> None:
        """Removes folders; each stops being a checkpoint at once, however long deleting takes."""
        if jax.process_index() != 0:
            return
        for folder in list(folders):
            if self._in_bucket:
                remove_from_bucket(folder)
                continue
            if _TEMPORARY not in folder.name:
                folder = folder.rename(folder.with_name(f"{folder.name}.{_TEMPORARY}-removed"))
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
            else:
                folder.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        leftovers = list(self.folder.glob(f"*{_TEMPORARY}*"))
        if self._in_bucket and self.folder.is_dir():
            leftovers += [f for f in self.folder.iterdir() if f.name.isdigit() and is_unfinished(f)]
        self._remove(leftovers)

    def resume(
        self, abstract_state: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """State and input position of a run at `step`; None: the newest.

        `abstract_state` has shapes and dtypes with `sharding`s, in either layout. Raises UserError
        if there is no such checkpoint, it is damaged, or it belongs to another model.
        """
        step = self.latest_step() if step is None else step
        if step is None or step not in self.steps():
            raise UserError(f"no checkpoint of step {step} in {self.folder}; there: {self.steps()}")
        folder = self.folder / str(step)
        document = read_document(folder)
        sums, wanted = document["checksums"], training_tree(abstract_state)
        params = read_item(folder, PARAMS, abstract_state.params, sums)
        training = read_item(folder, TRAINING, wanted, sums)
        return state_from_tree(training, params, abstract_state), document["input"]

    def resume_newest(
        self, abstract_state: TrainState, strict: bool, say: Callable[[str], None]
    ) -> Resumed:
        """Resumes from the newest intact checkpoint; renames newer, damaged ones.

        Args:
            abstract_state: see `resume`.
            strict: a damaged newest checkpoint is an error. Several processes are always strict:
                they would have to agree on a step.
            say: takes a line for the user about each damaged checkpoint.

        Raises:
            UserError: all are damaged; then nothing is renamed. Or see `resume`.
        """
        step, (state, input_state), damaged = read_newest(
            self.folder,
            reversed(self.steps()),
            lambda step: self.resume(abstract_state, step),
            strict or jax.process_count() > 1,
        )
        for bad_step, error in damaged.items():
            say(
                f"{error.problem} It is kept as {self._set_aside(bad_step)}; the run resumes from "
                f"step {step:,}."
            )
        return Resumed(step, state, input_state, read_records(self.folder / str(step)))

    def _set_aside(self, step: int) -> pathlib.Path:
        """Renames a damaged checkpoint to `damaged-<step>`, or `damaged-<step>-2` and so on."""
        names = (f"damaged-{step}" + (f"-{n}" if n > 1 else "") for n in itertools.count(1))
        free = next(self.folder / name for name in names if not (self.folder / name).exists())
        return (self.folder / str(step)).rename(free)

    def recorded_run(self) -> dict[str, Any]:
        """The contents of run.json that the newest checkpoint with a copy holds; {} without any."""
        records = (read_records(self.folder / str(step)) for step in reversed(self.steps()))
        return next((record["run"] for record in records if record.get("run")), {})

    def _save_error(self, number: int, problem: str, path: str = "") -> OSError:
        steps = ", ".join(map(str, self.steps())) or "none"
        message = f"{problem} (complete checkpoints: {steps})"
        return OSError(number, message, path or str(self.folder))

    @contextlib.contextmanager
    def _naming_disk_errors(self) -> Iterator[None]:
        """Raises one clear OSError for a storage failure, wherever in the writers it occurred."""
        try:
            yield
        except Exception as error:
            number = storage_error_number(error)
            if number is None and isinstance(error, TimeoutError):  # Orbax's, of several processes
                number = errno.ETIMEDOUT
            if number is None:
                raise
            # A partial checkpoint takes space and helps nobody.
            self._close_writer()
            with contextlib.suppress(OSError):
                self._remove_leftovers()
            if number == errno.ENOSPC:
                problem = "no space left for a checkpoint: the disk filled up while writing"
                raise self._save_error(number, problem) from error
            path = storage_error_path(error)
            if not os.path.isabs(path):  # of a folder that was being deleted
                path = ""
            raise self._save_error(number, "a checkpoint could not be written", path) from error


def _error_of(function: Callable[[], object]) -> Exception | None:
    """What a function raises."""
    try:
        function()
    except Exception as error:
        return error
    return None


def _available_memory() -> float:
    """Bytes that Linux, or the limit of a container, leaves; unlimited where neither says."""
    found = [math.inf]
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(float(line.split()[1]) * 1024)
    group = pathlib.Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # "max": no limit
        limit = float((group / "memory.max").read_text())
        found.append(limit - float((group / "memory.current").read_text()))
    return min(found)


def _open(folder: pathlib.Path, params: Any, training: Any) -> None:
    """Raises UserError unless a checkpoint opens and has these names and shapes."""
    sums = read_document(folder)["checksums"]
    read_item(folder, PARAMS, params, sums, values=False)
    read_item(folder, TRAINING, training, sums, values=False)
