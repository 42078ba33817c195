"""A metric's value on a task, its standard error, and its value on each single example.

Works for any SeqIO `metric_fn`. If the metric is the mean over single examples (accuracy, ROUGE),
the standard error is sd / sqrt(n); otherwise (corpus BLEU, a median) that of a seeded bootstrap.
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
        stderr: None for one example, or if the metric fails on resamples.
        singles: the metric of each single example; None if it fails there or is not their mean.
    """

    value: float
    stderr: float | None
    singles: tuple[float, ...] | None


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Numeric values that a metric returned, SeqIO's `Scalar`s included; no texts and images."""
    scalars = {}
    for name, value in result.items():
        value = getattr(value, "value", value)
        is_scalar = getattr(value, "shape", None) == () and not isinstance(value, np.character)
        if isinstance(value, int | float | np.number) or is_scalar:
            scalars[str(name)] = float(value)
    return scalars


def measure(
    metric_fn: MetricFn,
    targets: Sequence[Any],
    outputs: Outputs,
    bootstrap_samples: int = 200,
    seed: int = 0,
) -> dict[str, Measured]:
    """Computes a metric on all examples, with standard errors and values of single examples.

    Args:
        metric_fn: called with keywords, as SeqIO does.
        targets: postprocessed, at least one.
        outputs: its other arguments.
        bootstrap_samples: resamples if a bootstrap is needed; 0 for no standard error then.
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
    return {
        name: Measured(value, mean_stderr(singles[name]), tuple(singles[name]))
        if is_mean[name]
        else Measured(value, resampled.get(name), None)
        for name, value in whole.items()
    }


def mean_stderr(values: Sequence[float]) -> float | None:
    """Standard error of a mean, sd / sqrt(n) with n - 1 degrees of freedom; None below two."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def is_right(singles: Sequence[float], index: int) -> bool | None:
    """Whether an example has the full score (100, or 1 of 1) or 0; None in between."""
    top = 1.0 if 0.0 < max(singles) <= 1.0 else 100.0
    value = singles[index]
    return True if value >= top else False if value == 0.0 else None


def part(outputs: Outputs, indices: Sequence[int]) -> dict[str, Any]:
    """Outputs of some examples; `aux_values` is a mapping of lists."""
    return {
        name: part(value, indices) if isinstance(value, Mapping) else [value[i] for i in indices]
        for name, value in outputs.items()
    }


def _singles(
    metric_fn: MetricFn, targets: Sequence[Any], outputs: Outputs
) -> dict[str, list[float]]:
    """Metric -> one value per example, for metrics that every example has; {} if one fails."""
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
        except Exception:  # such as a correlation of a sample without variance
            return {}
        for name, value in result.items():
            drawn.setdefault(name, []).append(value)
    return {name: float(np.std(values, ddof=1)) for name, values in drawn.items()}
