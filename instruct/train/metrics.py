"""Aggregates the metrics of the steps between two logged steps.

Sums are Python floats and are saved with the checkpoint, so that an interrupted run logs the same
numbers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from instruct.errors import RunFailed
from instruct.train.loss import LossTotals
from instruct.train.step import StepMetrics

_SCALARS = ("loss", "z_loss", "accuracy")


class TrainingDiverged(RunFailed):
    """A loss or gradient is not finite; nothing was saved from that state on."""


class IntervalMetrics:
    """Sums since the last logged step, and the examples since step 0.

    `timed_steps` and `timed_tokens` (without padding, encoder and decoder) count only steps of this
    process, as `Goodput.lap` does; `examples` counts those of its rows, everything else the whole
    batch. `group_names` are those of `losses.groups`.
    """

    def __init__(self, group_names: Sequence[str]) -> None:
        self._group_names = tuple(group_names)
        self.examples = 0
        self.clear()

    def clear(self) -> None:
        """Starts a new interval; `examples` stay."""
        self._sums = {name: [0.0, 0.0] for name in (*_SCALARS, "filled", "gradient_norm")}
        self._groups = [[0.0, 0.0] for _ in self._group_names]
        self._learning_rate: float | None = None
        self.timed_steps, self.timed_tokens = 0, 0.0

    def add(
        self, step: int, metrics: StepMetrics, task_counts: Mapping[str, int], num_examples: int
    ) -> None:
        """Adds one update to state `step`, waiting for it to be computed.

        `task_counts`: leaf -> examples of its batch. Raises TrainingDiverged if the loss or the
        gradient is not finite.
        """
        metrics = jax.device_get(metrics)
        losses, filled, rate = metrics.losses, metrics.filled, metrics.learning_rate
        # On the host: `Mean.value` would be four programs of a device in every step.
        total, weight = losses.loss
        loss = float(total / weight) if weight > 0 else 0.0
        norm = float(metrics.gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _diverged(step, loss, norm, task_counts)
        sums = [(self._sums[name], *getattr(losses, name)) for name in _SCALARS]
        sums += [(self._sums["filled"], *filled), (self._sums["gradient_norm"], norm, 1.0)]
        for pair, total, weight in (*sums, *zip(self._groups, *losses.groups)):
            pair[0] += float(total)
            pair[1] += float(weight)
        self._learning_rate = None if rate is None else float(rate)
        self.examples += num_examples
        self.timed_steps += 1
        self.timed_tokens += float(filled.total)

    def scalars(self) -> dict[str, Any]:
        """loss, z_loss, accuracy, learning_rate, gradient_norm, padding_share, examples, groups.

        Weighted means over the interval, without groups that did not occur and without a learning
        rate that the optimiser's state does not hold.
        """
        means = {name: _divide(*sums) for name, sums in self._sums.items()}
        scalars: dict[str, Any] = {name: means[name] for name in _SCALARS}
        if self._learning_rate is not None:
            scalars["learning_rate"] = self._learning_rate
        scalars |= {
            "gradient_norm": means["gradient_norm"],
            "padding_share": 1.0 - means["filled"],
            "examples": self.examples,
        }
        for name, (total, weight) in zip(self._group_names, self._groups):
            if weight > 0:
                scalars[f"loss/{name}"] = _divide(total, weight)
        return scalars

    def state(self) -> dict[str, Any]:
        """JSON values for `restore`."""
        return {
            "examples": self.examples,
            "sums": self._sums,
            "groups": dict(zip(self._group_names, self._groups)),
            "learning_rate": self._learning_rate,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues exactly where `state` was taken."""
        self.examples = int(state["examples"])
        self._sums = {name: list(sums) for name, sums in state["sums"].items()}
        self._groups = [list(state["groups"].get(n, [0.0, 0.0])) for n in self._group_names]
        self._learning_rate = state["learning_rate"]


def eval_names(group_names: Sequence[str]) -> list[str]:
    """All names that `eval_scalars` may return."""
    return ["eval/loss", "eval/accuracy", *(f"eval/loss/{name}" for name in group_names)]


def eval_scalars(totals: LossTotals, group_names: Sequence[str]) -> dict[str, float]:
    """eval/loss, eval/accuracy and eval/loss/<group> of the sums over all evaluation batches."""
    totals = jax.device_get(totals)
    scalars = {
        "eval/loss": _divide(float(totals.loss.total), float(totals.loss.weight)),
        "eval/accuracy": _divide(float(totals.accuracy.total), float(totals.accuracy.weight)),
    }
    for name, total, weight in zip(group_names, *totals.groups):
        if weight > 0:
            scalars[f"eval/loss/{name}"] = _divide(float(total), float(weight))
    return scalars


def _divide(total: float, weight: float) -> float:
    return total / weight if weight > 0 else 0.0


def _diverged(step: int, loss: float, norm: float, counts: Mapping[str, int]) -> TrainingDiverged:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10]
    tasks = ", ".join(f"{name}: {number}" for name, number in most) or "not known"
    more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
    return TrainingDiverged(
        f"training diverged at step {step}: loss {loss}, gradient norm {norm}. "
        f"Examples of that batch by task: {tasks}{more}. Nothing was saved from this step. "
        "Lower the learning rate, set OptimizerConfig.global_norm_clip, or look at those tasks, in "
        "a new MODEL_DIR with INITIAL_CHECKPOINT_PATH set to this one; the same command would "
        "diverge at the same step again."
    )
