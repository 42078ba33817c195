"""A metric's value on a task, its standard error, and its value on every example alone.

Works for any SeqIO `metric_fn`. Where the value of the whole is the mean of the values of single
examples (accuracy, ROUGE, ...), the standard error is sd / sqrt(n); otherwise (corpus BLEU, a
median, ...) it is that of a seeded bootstrap over examples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MetricFn = Callable[..., Mapping[str, Any]]
Outputs = Mapping[str, Any]  # argument name of the metric -> a list, or a mapping of lists


class Measured(NamedTuple):
    """One metric of one task.

    Attributes:
        value: as the metric returns it.
        stderr: None if it cannot be known (one example, or a metric that fails on resamples).
        singles: the value of each example by itself; None if the metric refuses single examples or
            its value is not their mean.
    """

    value: float
    stderr: float | None
    singles: tuple[float, ...] | None


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """The numeric part of what a metric returned; SeqIO's `Scalar`s count, texts and images not."""
    found = {}
    for name, value in result.items():
        value = getattr(value, "value", value)
        if isinstance(value, int | float | np.number) or getattr(value, "shape", None) == ():
            found[str(name)] = float(value)
    return found


def measure(
    metric_fn: MetricFn,
    targets: Sequence[Any],
    outputs: Outputs,
    bootstrap_samples: int = 200,
    seed: int = 0,
) -> dict[str, Measured]:
    """Calls a metric as SeqIO does, with keywords, on the whole and on parts.

    Args:
        metric_fn: (targets, predictions), (targets, scores) or (targets, predictions, aux_values).
        targets: postprocessed, at least one.
        outputs: the other arguments.
        bootstrap_samples: resamples where a bootstrap is needed; 0 for no standard error there.
        seed: of the bootstrap.
    """
    whole = numbers(metric_fn(targets=list(targets), **outputs))
    singles = _singles(metric_fn, targets, outputs)
    is_mean = {
        name: name in singles and math.isclose(np.mean(singles[name]), value, abs_tol=1e-6)
        for name, value in whole.items()
    }
    resampled = {}
    if not all(is_mean.values()) and bootstrap_samples > 1 and len(targets) > 1:
        resampled = _bootstrap(metric_fn, targets, outputs, bootstrap_samples, seed)
    found = {}
    for name, value in whole.items():
        if is_mean[name]:
            found[name] = Measured(value, mean_stderr(singles[name]), tuple(singles[name]))
        else:
            found[name] = Measured(value, resampled.get(name), None)
    return found


def mean_stderr(values: Sequence[float]) -> float | None:
    """Standard error of a mean, sd / sqrt(n) with n - 1 degrees of freedom; None below two."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def is_right(singles: Sequence[float], index: int) -> bool | None:
    """Whether an example's own value is full (100, or 1 of 1) or 0; None for anything between."""
    top = 1.0 if 0.0 < max(singles) <= 1.0 else 100.0
    value = singles[index]
    return True if value >= top else False if value == 0.0 else None


def part(outputs: Outputs, indices: Sequence[int]) -> dict[str, Any]:
    """The outputs of some examples; `aux_values` is a mapping of lists."""
    return {
        name: part(value, indices) if isinstance(value, Mapping) else [value[i] for i in indices]
        for name, value in outputs.items()
    }


def _singles(
    metric_fn: MetricFn, targets: Sequence[Any], outputs: Outputs
) -> dict[str, list[float]]:
    """Metric -> one value an example; only metrics that every example has, {} if one fails."""
    rows = []
    for index in range(len(targets)):
        try:
            rows.append(numbers(metric_fn(targets=[targets[index]], **part(outputs, [index]))))
        except Exception:  # a user's metric may need more than one example
            return {}
    names = set(rows[0]).intersection(*rows)
    return {name: [row[name] for row in rows] for name in names}


def _bootstrap(
    metric_fn: MetricFn, targets: Sequence[Any], outputs: Outputs, samples: int, seed: int
) -> dict[str, float]:
    """Metric -> standard deviation over resamples; {} if the metric fails on one."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(samples):
        indices = rng.integers(len(targets), size=len(targets)).tolist()
        try:
            result = numbers(
                metric_fn(targets=[targets[i] for i in indices], **part(outputs, indices))
            )
        except Exception:  # for example a correlation of a sample without variance
            return {}
        for name, value in result.items():
            drawn.setdefault(name, []).append(value)
    return {name: float(np.std(values, ddof=1)) for name, values in drawn.items()}
