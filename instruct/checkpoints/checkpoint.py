"""Checkpoints on disk: whole or absent, asynchronous, checked when they are read.

    MODEL_DIR/checkpoints/<step>/params     parameters, T5X's names, one layer after another
                                /training   step and optimiser slots, laid out alike
                                /input      JSON: input position and statistics, checksums
                                /records    JSON: run.json and the rows of metrics.jsonl so far

Orbax writes a step into a folder of another name and renames it when all is on disk, so a process
killed at any time leaves no half checkpoint that looks like a whole one. What it does not notice
is a changed byte in the middle of an array: `input` holds a checksum of every array for that, and
a hash of itself. A damaged newest checkpoint becomes `damaged-<step>` when a run resumes from an
older one.
Stacked layers (`scan_layers`) are unstacked here and stacked again on reading, so a checkpoint can
be read by either layout, and under any mesh.
"""

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from instruct.checkpoints.checkpoint_files import (
    PARAMS,
    TRAINING,
    DamagedCheckpoint,
    check_item,
    checkpoint_steps,
    checksums,
    for_orbax,
    node_names,
    none_whole,
    read_document,
    read_item,
    read_records,
    sealed,
    steps_folder,
)
from instruct.checkpoints.train_state import TrainState, state_from_tree, training_tree
from instruct.errors import (
    RunFailed,
    UserError,
    storage_error_number,
    storage_error_path,
    unknown_name,
)
from instruct.fields import bounded, check_fields
from instruct.mesh import tree_paths
from instruct.models.layout import unstack_layers

_TEMPORARY = "orbax-checkpoint-tmp"
# Random floats shrink by some 7 % when written.
_LEAST_SHARE = 0.9
# A file system's word for a name that it cannot keep.
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep.

    Attributes:
        save_every_steps: a checkpoint at every multiple, and one at the end; None: at the end only.
        keep: newest checkpoints that stay.
        keep_best: best ones by `best_metric` that stay besides; 0 for none. Only a step that was
            evaluated and saved takes part.
        best_metric: name of a metric of the evaluation, as in metrics.jsonl.
        best_is_lowest: a lower `best_metric` is better.
        async_save: write while training goes on.
    """

    save_every_steps: int | None = bounded(1000, least=1)
    keep: int = bounded(3, least=1)
    keep_best: int = bounded(1, least=0)
    best_metric: str = "eval/loss"
    best_is_lowest: bool = True
    async_save: bool = True

    __post_init__ = check_fields

    def check_best_metric(self, names: Sequence[str]) -> None:
        """Raises UserError if the best are kept by none of the metrics that evaluation gives."""
        if self.keep_best and self.best_metric not in names:
            raise unknown_name("CheckpointConfig.best_metric", self.best_metric, names)


class Resumed(NamedTuple):
    """A run at a step.

    Attributes:
        input: what `CheckpointStore.save` got as `input_state`.
        records: see `read_records`.
    """

    step: int
    state: TrainState
    input: dict[str, Any]
    records: dict[str, Any]


def _not_from_a_writer_thread(record: logging.LogRecord) -> bool:
    # Orbax logs a traceback for each of its threads, and raises the error to us all the same.
    return not record.exc_info and "raised an exception" not in record.getMessage()


logging.getLogger("absl").addFilter(_not_from_a_writer_thread)


class CheckpointStore:
    """The checkpoints of one run, for the process that trains it; what killed saves left goes.

    Args:
        folder: made if it is not there.
        config: what is kept.
    """

    def __init__(self, folder: str | pathlib.Path, config: CheckpointConfig | None = None) -> None:
        self.folder = pathlib.Path(folder).absolute()
        self._config = config or CheckpointConfig()
        # Made in the background, a folder that cannot be made would leave threads that wait for it
        # for 20 minutes, and the process with them.
        options = ocp.AsyncOptions(create_directories_asynchronously=False)
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(async_options=options)
        )
        self._writer = (
            ocp.AsyncCheckpointer(handler, async_options=options)
            if self._config.async_save
            else ocp.Checkpointer(handler)
        )
        self._writing: int | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove(self.folder.glob(f"*{_TEMPORARY}*"))

    def steps(self) -> list[int]:
        """Steps of all whole checkpoints on disk, in order."""
        return checkpoint_steps(self.folder)

    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step, or None."""
        return max(self.steps(), default=None)

    def save(
        self,
        step: int,
        state: TrainState,
        input_state: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        records: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves in the background (waits for the save before); the state may be donated after.

        Args:
            step: the state's; nothing happens if it is saved already.
            state: arrays.
            input_state: JSON values of this process.
            metrics: of an evaluation at this step, if there was one.
            records: `run` and `rows`, see `read_records`.

        Raises:
            OSError: the storage failed; older checkpoints are whole.
        """
        self.wait()
        if step in self.steps():
            return
        self._check_space(state)
        params, training, sums = _unrolled_with_sums(state)
        document = {
            "step": step,
            "input": dict(input_state),
            "metrics": dict(metrics or {}),
            "checksums": {path: int(leaf) for path, leaf in tree_paths(sums)},
        }
        records = {"run": {}, "rows": [], **(records or {})}
        with self._disk_errors():
            self._writing = step
            self._write(self.folder / str(step), params, training, document, records)

    def _write(
        self, folder: pathlib.Path, params: Any, training: Any, document: Any, records: Any
    ) -> None:
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            training=ocp.args.StandardSave(training),
            input=ocp.args.JsonSave(sealed(document)),
            records=ocp.args.JsonSave(sealed(records)),
        )
        self._writer.save(for_orbax(folder), args=args)

    def wait(self) -> None:
        """Returns when everything saved so far is on disk, old ones removed. Raises as `save`."""
        if self._writing is None:
            return
        with self._disk_errors():
            self._writing = None
            if isinstance(self._writer, ocp.AsyncCheckpointer):
                self._writer.wait_until_finished()
        kept = self._kept()
        self._remove(self.folder / str(step) for step in self.steps() if step not in kept)

    def check_folder(self) -> None:
        """Writes and opens a checkpoint of one number, so that training begins where it can save.

        Raises:
            UserError: the library of checkpoints cannot use the folder.
            OSError: as `save`.
        """
        probe, number = self.folder / f"probe.{_TEMPORARY}", {"number": jnp.int32(0)}
        try:
            with self._disk_errors():
                sums = {f"{item}/number": 0 for item in (PARAMS, TRAINING)}
                document = {"input": {}, "metrics": {}, "checksums": sums}
                self._write(probe, number, number, document, {"run": {}, "rows": []})
                if isinstance(self._writer, ocp.AsyncCheckpointer):
                    self._writer.wait_until_finished()
            _open(probe, number, number)
        except (ValueError, RuntimeError, UserError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NAME_ERRORS:
                raise
            raise UserError(
                f"{str(self.folder)!r} cannot hold checkpoints: a small one written there cannot "
                f"be opened ({str(error).splitlines()[0][:200]}). Choose another MODEL_DIR, with "
                "a shorter or plainer path."
            ) from error
        finally:
            self._remove(self.folder.glob(f"*{_TEMPORARY}*"))

    def check_saved(self, step: int, abstract_state: TrainState) -> None:
        """Opens a whole checkpoint as `resume` would; names and shapes only, no values.

        Raises:
            RunFailed: it cannot be opened.
        """
        try:
            _open(self.folder / str(step), abstract_state.params, training_tree(abstract_state))
        except UserError as error:
            raise RunFailed(f"step {step} was saved and cannot be opened again: {error}") from error

    def close(self) -> None:
        """Finishes what is being written and stops the threads. Raises as `save`."""
        try:
            self.wait()
        finally:
            self._close_writer()

    def _close_writer(self) -> None:
        # The first call may raise an error of the save that we know already, and closes nothing.
        for _ in range(2):
            with contextlib.suppress(Exception):
                self._writer.close()

    def _kept(self) -> set[int]:
        """Steps that stay: the newest, and the best of those that were evaluated."""
        config, steps = self._config, self.steps()
        kept = set(steps[-config.keep :])
        if config.keep_best:
            values = {}
            for step in steps:
                with contextlib.suppress(UserError):  # an old one is damaged: not the best
                    metrics = read_document(self.folder / str(step))["metrics"]
                    value = metrics.get(config.best_metric, math.nan)
                    if math.isfinite(value):  # NaN has no place in an order
                        values[step] = value
            best_first = sorted(values, key=values.__getitem__, reverse=not config.best_is_lowest)
            kept.update(best_first[: config.keep_best])
        return kept

    def _remove(self, folders: Iterable[pathlib.Path]) -> None:
        """Removes folders; each stops being a checkpoint at once, however long that takes."""
        if jax.process_index() != 0:
            return
        for folder in list(folders):
            if _TEMPORARY not in folder.name:
                folder = folder.rename(folder.with_name(f"{folder.name}.{_TEMPORARY}-removed"))
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
            else:
                folder.unlink(missing_ok=True)

    def resume(
        self, abstract_state: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """All of a run at `step` (the newest): state and input position.

        Args:
            abstract_state: shapes and dtypes with `sharding`s, in either layout.
            step: None for the newest.

        Raises:
            UserError: there is none, it is damaged, or it belongs to another model.
        """
        step = self.latest_step() if step is None else step
        if step is None or step not in self.steps():
            raise UserError(f"no checkpoint of step {step} in {self.folder}; there: {self.steps()}")
        folder = self.folder / str(step)
        document = read_document(folder)
        wanted = training_tree(abstract_state)
        params = read_item(folder, PARAMS, abstract_state.params, document["checksums"])
        training = read_item(folder, TRAINING, wanted, document["checksums"])
        return state_from_tree(training, params, abstract_state), document["input"]

    def resume_newest(
        self, abstract_state: TrainState, strict: bool, say: Callable[[str], None]
    ) -> Resumed:
        """The newest whole checkpoint; newer ones, which are damaged, are moved aside.

        Args:
            abstract_state: see `resume`.
            strict: a damaged newest checkpoint is an error. So it is with several processes,
                which would have to agree on a step.
            say: takes a line for the user about each that is damaged.

        Raises:
            UserError: none is whole; then nothing is moved. Or see `resume`.
        """
        damaged: dict[int, DamagedCheckpoint] = {}
        for step in reversed(self.steps()):
            try:
                state, input_state = self.resume(abstract_state, step)
            except DamagedCheckpoint as error:
                if strict or jax.process_count() > 1:
                    raise
                damaged[step] = error
                continue
            for bad_step, error in damaged.items():
                say(
                    f"{error.problem} It is kept as {self._set_aside(bad_step)}; the run resumes "
                    f"from step {step:,}."
                )
            return Resumed(step, state, input_state, read_records(self.folder / str(step)))
        raise none_whole(self.folder, damaged)

    def _set_aside(self, step: int) -> pathlib.Path:
        """Renames a damaged checkpoint to a name that nothing takes for one, and was not used."""
        names = (f"damaged-{step}" + (f"-{n}" if n > 1 else "") for n in itertools.count(1))
        free = next(self.folder / name for name in names if not (self.folder / name).exists())
        return (self.folder / str(step)).rename(free)

    def recorded_run(self) -> dict[str, Any]:
        """What run.json held when the newest checkpoint that can say so was written; else {}."""
        found = (read_records(self.folder / str(step)) for step in reversed(self.steps()))
        return next((records["run"] for records in found if records.get("run")), {})

    def _check_space(self, state: TrainState) -> None:
        """Raises OSError (ENOSPC) before anything is written if it could not fit."""
        free = shutil.disk_usage(self.folder).free
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if free < _LEAST_SHARE * size:
            raise self._no_space(f"it takes {size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free")

    def _no_space(self, why: str) -> OSError:
        message = f"no space left for a checkpoint ({why}; whole ones: {self._whole()})"
        return OSError(errno.ENOSPC, message, str(self.folder))

    def _whole(self) -> str:
        return ", ".join(str(step) for step in self.steps()) or "none"

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """One clear OSError for a failure of the storage, wherever in the writers it came from."""
        try:
            yield
        except Exception as error:
            number = storage_error_number(error)
            if number is None:
                raise
            # What was half written takes room and helps nobody.
            self._close_writer()
            with contextlib.suppress(OSError):
                self._remove(self.folder.glob(f"*{_TEMPORARY}*"))
            if number == errno.ENOSPC:
                raise self._no_space("it ended while writing") from error
            message = f"a checkpoint could not be written (whole ones: {self._whole()})"
            path = storage_error_path(error) or str(self.folder)
            raise OSError(number, message, path) from error


def _open(folder: pathlib.Path, params: Any, training: Any) -> None:
    """Raises UserError unless all of a checkpoint can be found and has these names and shapes."""
    sums = read_document(folder)["checksums"]
    check_item(folder, PARAMS, params, sums)
    check_item(folder, TRAINING, training, sums)


def load_params(path: str | pathlib.Path, abstract_params: Any, step: int | None = None) -> Any:
    """Parameters only, for evaluation or to start another training from.

    Args:
        path: a MODEL_DIR, its `checkpoints`, or one step's folder.
        abstract_params: shapes and dtypes, with `sharding`s or without (then on one device), in
            either layout.
        step: of a folder with several; None for the newest.

    Raises:
        UserError: there is none, it is damaged, or it belongs to another model.
    """
    folder = find_checkpoint(path, step)
    return read_item(folder, PARAMS, abstract_params, read_document(folder)["checksums"])


def find_checkpoint(path: str | pathlib.Path, step: int | None = None) -> pathlib.Path:
    """Folder of one whole checkpoint at or below `path`; see `load_params`."""
    path = pathlib.Path(path).expanduser().absolute()
    if (path / PARAMS).is_dir():
        return path
    steps = checkpoint_steps(path)
    if not steps or (step is not None and step not in steps):
        raise UserError(
            f"no checkpoint {'' if step is None else f'of step {step} '}in {path}"
            + (f"; there are {', '.join(map(str, steps))}." if steps else ".")
            + " Give a MODEL_DIR that holds `checkpoints/<step>`, or such a step's folder."
        )
    return steps_folder(path) / str(steps[-1] if step is None else step)


def params_fingerprint(folder: pathlib.Path) -> str:
    """Short hash of a checkpoint's parameters: another training at the same path has another."""
    sums = read_document(folder)["checksums"]
    own = sorted((path, value) for path, value in sums.items() if path.startswith(f"{PARAMS}/"))
    return hashlib.sha256(json.dumps(own).encode()).hexdigest()[:16]


def step_of(folder: pathlib.Path) -> int:
    """The step a checkpoint folder is named after; 0 if it has another name."""
    return int(folder.name) if folder.name.isdigit() else 0


def _unrolled_with_sums(state: TrainState) -> tuple[Any, Any, Any]:
    """(parameters, step and slots, checksums), layer by layer."""
    stacked = "layers" in node_names(state.params)
    params, training = (_unstack_jitted if stacked else tuple)((state.params, training_tree(state)))
    sums = checksums({PARAMS: params, TRAINING: training})
    return params, training, jax.device_get(sums)


# One program for all slices, compiled once.
_unstack_jitted = jax.jit(unstack_layers)
