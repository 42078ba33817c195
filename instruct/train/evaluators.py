"""`Evaluator`: periodic evaluation of the parameters, such as the teacher-forced loss."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax

from instruct.distributed import report_progress
from instruct.errors import UserError
from instruct.mesh import shard_batch
from instruct.train.loss import LossTotals
from instruct.train.metrics import eval_scalars

Table = Sequence[Mapping[str, Any]]  # rows


@runtime_checkable
class Evaluator(Protocol):
    """Called at every multiple of `every_steps` and at the last step, in every process.

    `params` are global arrays: read them, do not donate them. The mesh is set (`jax.set_mesh`). The
    scalars are logged with those of the step, and `CheckpointConfig.best_metric` may name one; so
    are tables, lists of rows, which trackers get.

    An evaluator may also have `open(folder, step) -> names`, called in every process before the
    first step with the run's folder and the step that it starts or resumes at. It returns the names
    of all scalars, by which misspelt ones are refused, or None if it does not know them.
    """

    every_steps: int

    def __call__(self, params: Any, step: int) -> Mapping[str, float | Table]: ...


@dataclasses.dataclass
class ValidationLoss:
    """Teacher-forced loss and accuracy of fixed batches: eval/loss, eval/accuracy, by group."""

    every_steps: int
    eval_step: Callable[[Any, Any], LossTotals]  # (params, batch) -> sums, jitted
    mesh: jax.sharding.Mesh  # of the parameters
    batches: Sequence[Mapping[str, Any]]  # this process's rows; at least one batch
    group_names: Sequence[str]  # of `LossTotals.groups`

    def __call__(self, params: Any, step: int) -> Mapping[str, float]:
        totals: list[LossTotals] = []
        for batch in self.batches:
            newest = self.eval_step(params, shard_batch(self.mesh, batch))
            report_progress()
            # One batch late, and added on the host: otherwise one of the CPU's fake devices may
            # reach its limit of 32 programs in flight, and the others wait for it forever.
            totals[-1:] = jax.device_get(totals[-1:])
            totals.append(newest)
        totals = jax.device_get(totals)
        return eval_scalars(functools.reduce(LossTotals.add, totals), self.group_names)


def check_evaluators(evaluators: Sequence[Evaluator]) -> None:
    """Raises UserError unless each is an `Evaluator`."""
    for evaluator in evaluators:
        every = getattr(evaluator, "every_steps", None)
        is_object = callable(evaluator) and not isinstance(evaluator, type)
        if not is_object or type(every) is not int or every < 1:
            raise UserError(
                f"train.evaluators holds {evaluator!r}, which is no Evaluator; bind objects such "
                "as [@my_module.Mine()] with `every_steps`, a whole number of at least 1, and "
                "`__call__(params, step)`, which returns {name: number}."
            )


def open_evaluators(
    evaluators: Sequence[Evaluator], folder: pathlib.Path, step: int
) -> set[str] | None:
    """Opens those that can be opened; names of the scalars of all, None if one does not tell."""
    names: set[str] | None = set()
    for evaluator in evaluators:
        open_one = getattr(evaluator, "open", lambda folder, step: None)
        of_one = open_one(folder, step)
        names = None if names is None or of_one is None else names | set(of_one)
    return names


def evaluate(
    evaluators: Sequence[Evaluator],
    params: Any,
    step: int,
    mesh: jax.sharding.Mesh,
    logged: Iterable[str] = (),
) -> tuple[dict[str, float], dict[str, Table]]:
    """Scalars and tables of all `evaluators`; raises UserError for a name used twice or `logged`.

    Of tables with the same name the last counts.
    """
    scalars: dict[str, float] = {}
    tables: dict[str, Table] = {}
    for evaluator in evaluators:
        with jax.set_mesh(mesh):
            returned = evaluator(params, step)
        values, of_one = {}, {}
        for name, value in returned.items():
            if isinstance(value, Sequence):
                of_one[name] = value
            else:
                values[name] = float(value)
        if taken := sorted({"step", *scalars, *logged} & values.keys()):
            source = type(evaluator).__name__
            raise UserError(
                f"{source} gives a scalar called {taken[0]!r}, which the run logs already; give it "
                f"another name, such as 'eval/{source}'."
            )
        scalars |= values
        tables |= of_one
    return scalars, tables
