"""Metrics, baselines and results-file lines of one task, from the model's outputs.

Follows SeqIO's protocol (`postprocess_fn`, the three kinds of `metric_fns`) without importing SeqIO
or a model.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from instruct.data.feed.examples import EvalExample
from instruct.eval import metrics
from instruct.eval.scoring.measure import (
    Measured,
    MetricFn,
    is_right,
    mean_stderr,
    measure,
    numbers,
)

# One example: (log-likelihoods of the options, their numbers of tokens, number of the right one).
Ranked = tuple[np.ndarray, np.ndarray, int]


class Task(Protocol):
    """The part of `seqio.Task` that evaluation uses."""

    @property
    def predict_metric_fns(self) -> Sequence[MetricFn]: ...

    @property
    def score_metric_fns(self) -> Sequence[MetricFn]: ...

    @property
    def predict_with_aux_metric_fns(self) -> Any: ...  # seqio caches it, which no protocol can say

    def postprocess_fn(self, decoded_model_output: Any, **postprocess_kwargs: Any) -> Any: ...


@dataclasses.dataclass(frozen=True)
class ModelOutputs:
    """Model outputs of all examples; None where no metric of the task needs them.

    Attributes:
        predictions: decoded texts.
        aux_values: name -> one value per example, as SeqIO's `aux_values`.
        scores: log-likelihoods of the targets.
        ranked: log-likelihoods of the answer options; None for examples without options.
    """

    predictions: Sequence[str] | None = None
    aux_values: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    scores: Sequence[float] | None = None
    ranked: Sequence[Ranked | None] | None = None


def needs_predictions(task: Task) -> bool:
    """Whether a metric uses generated text; a task without metrics does (exact match)."""
    uses_text = bool(task.predict_metric_fns or task.predict_with_aux_metric_fns)
    return uses_text or not needs_scores(task)


def needs_scores(task: Task) -> bool:
    """Whether a metric uses log-likelihoods of the targets."""
    return bool(task.score_metric_fns)


def measure_task(
    task: Task,
    examples: Sequence[EvalExample],
    outputs: ModelOutputs,
    bootstrap_samples: int = 200,
    seed: int = 0,
    rank_first: bool = False,
) -> dict[str, Measured]:
    """Computes every metric of a task, the primary one first.

    Rank classification follows the task's own metrics; with `rank_first` it precedes them.
    """
    targets = _postprocessed(task, examples, [e.targets for e in examples], is_target=True)
    measured: dict[str, Measured] = {}

    def add(fns: Sequence[MetricFn], arguments: Mapping[str, Any]) -> None:
        for fn in fns:
            for name, metric in measure(fn, targets, arguments, bootstrap_samples, seed).items():
                # Two functions may give the same name; both are kept.
                same = sum(known.partition("#")[0] == name for known in measured)
                measured[f"{name}#{same + 1}" if same else name] = metric

    if outputs.predictions is not None:
        predictions = _postprocessed(task, examples, outputs.predictions)
        add(_predict_fns(task), {"predictions": predictions})
        with_aux = {"predictions": predictions, "aux_values": outputs.aux_values}
        add(task.predict_with_aux_metric_fns, with_aux)
    if outputs.scores is not None:
        add(task.score_metric_fns, {"scores": list(outputs.scores)})
    ranks = _rank_metrics(outputs.ranked)
    return ranks | measured if rank_first else measured | ranks


def metric_names(
    task: Task, examples: Sequence[EvalExample], rank: bool, rank_first: bool = False
) -> list[str]:
    """Names of the metrics that `measure_task` returns, by measuring the targets as predictions.

    Raises whatever a metric raises on them.
    """
    zeros = [0.0] * len(examples)
    options = [np.zeros(len(example.options)) for example in examples]
    outputs = ModelOutputs(
        predictions=[e.targets for e in examples] if needs_predictions(task) else None,
        aux_values={"scores": zeros},
        scores=zeros if needs_scores(task) else None,
        ranked=[(zero, zero + 1, 0) if len(zero) else None for zero in options] if rank else None,
    )
    return list(measure_task(task, examples, outputs, bootstrap_samples=0, rank_first=rank_first))


@dataclasses.dataclass(frozen=True)
class FixedReplies:
    """Replies of baselines without a model, in the form that the task parses.

    Attributes:
        majority: the most frequent answer as a reply to each example; () if unknown.
        chosen: option number of the most frequent answer, -1 if it is not among the options.
        options: replies that give each option of an example; () if it shows none.
    """

    majority: Sequence[str]
    chosen: Sequence[int]
    options: Sequence[Sequence[str]]


def baselines(
    task: Task,
    examples: Sequence[EvalExample],
    replies: FixedReplies,
    measured: Mapping[str, Measured],
    ranked: Sequence[Ranked | None] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of always giving the most frequent answer, and expected ones of a random option.

    The first is {} if the most frequent answer is unknown. The second has only metrics that are
    means over examples; an example without options counts as wrong.
    """
    majority: dict[str, float] = {}
    if replies.majority and examples:
        majority = _predict_values(task, examples, replies.majority)
        pairs = zip(replies.chosen, ranked or ())
        rights = [100.0 * (option == entry[2]) for option, entry in pairs if entry is not None]
        majority |= _rank_values(rights)
    by_count: dict[int, list[int]] = {}
    for index, options in enumerate(replies.options):
        by_count.setdefault(len(options), []).append(index)
    by_count.pop(0, None)
    parts = []
    for indices in by_count.values():
        pairs = [(examples[i], reply) for i in indices for reply in replies.options[i]]
        values = _predict_values(task, [e for e, _ in pairs], [reply for _, reply in pairs])
        parts.append({n: value * len(indices) / len(examples) for n, value in values.items()})
    names = set.intersection(*map(set, parts)) if parts else ()
    random = {name: sum(part[name] for part in parts) for name in names}
    random |= _rank_values([100.0 / len(entry[0]) for entry in ranked or () if entry is not None])
    means = {name for name, metric in measured.items() if metric.singles is not None}
    return (
        {name: value for name, value in majority.items() if name in measured},
        {name: value for name, value in random.items() if name in means},
    )


def _rank_values(values: Sequence[float]) -> dict[str, float]:
    """Their mean as the value of both rank metrics; {} without values."""
    return dict.fromkeys(_RANKINGS, float(np.mean(values))) if values else {}


def _predict_values(
    task: Task, examples: Sequence[EvalExample], texts: Sequence[str]
) -> dict[str, float]:
    """Metrics of generated text if it were `texts`; {} if one cannot be computed."""
    values: dict[str, float] = {}
    try:
        targets = _postprocessed(task, examples, [e.targets for e in examples], is_target=True)
        predictions = _postprocessed(task, examples, texts)
        for fn in _predict_fns(task):
            values = numbers(fn(targets=targets, predictions=predictions)) | values
    except Exception:  # a user's metric may fail on an answer that its task never expects
        return {}
    return values


def rows_of_task(
    shared: Mapping[str, Any],
    metric_fields: Mapping[str, Any],
    examples: Sequence[EvalExample],
    outputs: ModelOutputs,
    measured: Mapping[str, Measured],
    majority_baselines: Mapping[str, float],
    random_baselines: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Example lines with the `shared` fields, then metric lines with `metric_fields` as well."""
    # Rank classification may cover only some of the examples.
    complete = {
        name: metric.singles
        for name, metric in measured.items()
        if metric.singles is not None and len(metric.singles) == len(examples)
    }
    primary = complete.get(next(iter(measured), ""))
    rows = []
    for number, example in enumerate(examples):
        record = example.seqio_example.get("record")  # a plain SeqIO task has none
        source = "" if record is None else "\n".join(json.loads(record)["fields"].values())
        row = {"kind": "example", **shared, "template": example.template_id}
        row |= {"index": int(example.index), "id": example.id, "prompt": example.inputs}
        row |= {"target": example.targets}
        row |= {"prediction": outputs.predictions[number] if outputs.predictions else ""}
        row |= {"source": source, "references": list(example.references)}
        row |= {"exemplars": example.num_exemplars, "exemplars_asked": example.exemplars_asked}
        row |= {"truncated": example.truncated}
        row |= {"correct": None if primary is None else is_right(primary, number)}
        rows.append(row | {"scores": {name: values[number] for name, values in complete.items()}})
    metric_fields = {**metric_fields, **prompt_counts(examples)}
    for name, metric in measured.items():
        n = len(examples if metric.singles is None else metric.singles)
        row = {"kind": "metric", **shared, "metric": name, "value": metric.value, "n": n}
        row |= {"stderr": metric.stderr, "baseline": majority_baselines.get(name)}
        rows.append(row | {"random_baseline": random_baselines.get(name), **metric_fields})
    return rows


def prompt_counts(examples: Sequence[EvalExample]) -> dict[str, Any]:
    """Exemplars and truncation of a task's prompts, for metric lines; None if unknown."""
    shown = [e.num_exemplars for e in examples if e.num_exemplars is not None]
    asked = [e.exemplars_asked for e in examples if e.exemplars_asked is not None]
    known = bool(examples) and len(shown) == len(asked) == len(examples)
    cut = [e.truncated for e in examples]
    return {
        "exemplars_mean": float(np.mean(shown)) if known else None,
        "exemplars_min": min(shown) if known else None,
        "exemplars_asked": float(np.mean(asked)) if known else None,
        "truncated": None if None in cut else sum(map(bool, cut)),
    }


def _predict_fns(task: Task) -> Sequence[MetricFn]:
    if task.predict_metric_fns or task.predict_with_aux_metric_fns or task.score_metric_fns:
        return task.predict_metric_fns
    return (metrics.exact_match,)


def _postprocessed(
    task: Task, examples: Sequence[EvalExample], texts: Sequence[str], is_target: bool = False
) -> list[Any]:
    return [
        task.postprocess_fn(text, example=example.seqio_example, is_target=is_target)
        for example, text in zip(examples, texts)
    ]


_RANKINGS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "rank_accuracy": lambda total, lengths: total,
    "rank_accuracy_per_token": lambda total, lengths: total / lengths,
}


def _rank_metrics(ranked: Sequence[Ranked | None] | None) -> dict[str, Measured]:
    """Accuracy of the option with the highest log-likelihood, as a sum and per token.

    A model that has diverged (NaN) names no option; the first one is not the highest.
    """
    entries = [entry for entry in ranked or () if entry is not None]
    measured = {}
    for name, score in _RANKINGS.items() if entries else ():
        singles = tuple(
            100.0 * (int(np.argmax(score(total, lengths))) == right and not np.isnan(total).any())
            for total, lengths, right in entries
        )
        measured[name] = Measured(float(np.mean(singles)), mean_stderr(singles), singles)
    return measured
