"""Metrics, baselines and results-file lines of one task, from the model's outputs.

Uses SeqIO's protocol (`postprocess_fn`, the three kinds of `metric_fns`) without importing SeqIO or
a model: see `Task` and `Example`.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from instruct.eval import metrics
from instruct.eval.scoring.measure import (
    Measured,
    MetricFn,
    is_right,
    mean_stderr,
    measure,
    numbers,
)


class Task(Protocol):
    """The part of `seqio.Task` that evaluation uses."""

    @property
    def predict_metric_fns(self) -> Sequence[MetricFn]: ...

    @property
    def score_metric_fns(self) -> Sequence[MetricFn]: ...

    @property
    def predict_with_aux_metric_fns(self) -> Any: ...  # seqio caches it, which no protocol can say

    def postprocess_fn(self, decoded_model_output: Any, **postprocess_kwargs: Any) -> Any: ...


class Example(Protocol):
    """The part of `instruct.data.feed.examples.EvalExample` that is written down."""

    @property
    def index(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def inputs(self) -> str: ...
    @property
    def targets(self) -> str: ...
    @property
    def template_id(self) -> str: ...
    @property
    def references(self) -> Sequence[str]: ...
    @property
    def seqio_example(self) -> Mapping[str, Any]: ...
    @property
    def options(self) -> Sequence[str]: ...
    @property
    def num_exemplars(self) -> int | None: ...
    @property
    def exemplars_asked(self) -> int | None: ...
    @property
    def truncated(self) -> bool | None: ...


@dataclasses.dataclass(frozen=True)
class ModelOutputs:
    """Model outputs for each example; None where no metric of the task needs them.

    Attributes:
        predictions: decoded texts.
        aux_values: further values by name, one an example, as SeqIO's `aux_values`.
        scores: log-likelihood of each target.
        ranked: (log-likelihoods of the answer options, their numbers of tokens, the right one's
            number) of each example that shows options, else None.
    """

    predictions: Sequence[str] | None = None
    aux_values: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    scores: Sequence[float] | None = None
    ranked: Sequence[tuple[np.ndarray, np.ndarray, int] | None] | None = None


def needs_predictions(task: Task) -> bool:
    """Whether a metric wants generated text; so does a task without metrics (exact match)."""
    return bool(task.predict_metric_fns or task.predict_with_aux_metric_fns) or not needs_scores(
        task
    )


def needs_scores(task: Task) -> bool:
    """Whether a metric wants log-likelihoods of the targets."""
    return bool(task.score_metric_fns)


def measure_task(
    task: Task,
    examples: Sequence[Example],
    outputs: ModelOutputs,
    bootstrap_samples: int = 200,
    seed: int = 0,
    rank_first: bool = False,
) -> dict[str, Measured]:
    """Every metric of the task, its primary one first.

    The task's own come in their order, then rank classification; with `rank_first` before them.
    """
    targets = _targets(task, examples)
    found: dict[str, Measured] = {}

    def add(fns: Sequence[MetricFn], arguments: Mapping[str, Any]) -> None:
        for fn in fns:
            result = measure(fn, targets, arguments, bootstrap_samples, seed)
            for name, measured in result.items():
                # Two functions may give the same name; both are kept.
                taken = sum(known.partition("#")[0] == name for known in found)
                found[f"{name}#{taken + 1}" if taken else name] = measured

    if outputs.predictions is not None:
        predictions = _postprocessed(task, examples, outputs.predictions)
        add(_predict_fns(task), {"predictions": predictions})
        with_aux = {"predictions": predictions, "aux_values": outputs.aux_values}
        add(task.predict_with_aux_metric_fns, with_aux)
    if outputs.scores is not None:
        add(task.score_metric_fns, {"scores": list(outputs.scores)})
    ranks = _rank_metrics(outputs.ranked)
    return ranks | found if rank_first else found | ranks


@dataclasses.dataclass(frozen=True)
class FixedReplies:
    """Replies of baselines, which need no model, in the form that the task parses.

    Attributes:
        majority: the most frequent answer as a reply to each example; () if not known.
        chosen: number of the option that the most frequent answer is, -1 for none of those shown.
        options: the replies that give each of an example's options; () where it shows none.
    """

    majority: Sequence[str]
    chosen: Sequence[int]
    options: Sequence[Sequence[str]]


def baselines(
    task: Task,
    examples: Sequence[Example],
    replies: FixedReplies,
    measured: Mapping[str, Measured],
    ranked: Sequence[tuple | None] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics of always giving the most frequent answer, and of a random option (its mean).

    The first is {} where the most frequent answer is not known. The second has only metrics that
    are means over examples; an example that shows no options is wrong then.
    """
    majority = _majority_values(task, examples, replies, ranked)
    random = _random_values(task, examples, replies, ranked)
    means = {name for name, metric in measured.items() if metric.singles is not None}
    return (
        {name: value for name, value in majority.items() if name in measured},
        {name: value for name, value in random.items() if name in means},
    )


def _majority_values(task, examples, replies, ranked) -> dict[str, float]:
    if not replies.majority or not examples:
        return {}
    values = _predict_values(task, examples, replies.majority)
    rights = [
        100.0 * (option == entry[2])
        for option, entry in zip(replies.chosen, ranked or ())
        if entry is not None
    ]
    return values | (dict.fromkeys(_RANKINGS, float(np.mean(rights))) if rights else {})


def _random_values(task, examples, replies, ranked) -> dict[str, float]:
    by_count: dict[int, list[int]] = {}
    for place, given in enumerate(replies.options):
        by_count.setdefault(len(given), []).append(place)
    by_count.pop(0, None)
    parts = []
    for places in by_count.values():
        every = [(examples[place], reply) for place in places for reply in replies.options[place]]
        values = _predict_values(task, [e for e, _ in every], [reply for _, reply in every])
        parts.append({n: v * len(places) / len(examples) for n, v in values.items()})
    names = set.intersection(*map(set, parts)) if parts else ()
    found = {name: sum(part[name] for part in parts) for name in names}
    chances = [100.0 / len(entry[0]) for entry in ranked or () if entry is not None]
    return found | (dict.fromkeys(_RANKINGS, float(np.mean(chances))) if chances else {})


def _predict_values(
    task: Task, examples: Sequence[Example], texts: Sequence[str]
) -> dict[str, float]:
    """The metrics of generated text if these were the texts; {} if one cannot be computed."""
    found: dict[str, float] = {}
    try:
        targets = _targets(task, examples)
        predictions = _postprocessed(task, examples, texts)
        for fn in _predict_fns(task):
            found = numbers(fn(targets=targets, predictions=predictions)) | found
    except Exception:  # a user's metric may choke on an answer its task never expects
        return {}
    return found


def rows_of_task(
    shared: Mapping[str, Any],
    metric_fields: Mapping[str, Any],
    examples: Sequence[Example],
    outputs: ModelOutputs,
    measured: Mapping[str, Measured],
    majority_baselines: Mapping[str, float],
    random_baselines: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Example lines, then metric lines, in the format of `instruct.results`.

    Args:
        shared: the fields that both kinds have.
        metric_fields: the fields that all metric lines have besides.
        examples, outputs, measured, majority_baselines, random_baselines: of this task, see above.
    """
    first = next(iter(measured), "")
    # Rank classification may cover only some of the examples.
    complete = {n: m.singles for n, m in measured.items() if m.singles is not None}
    complete = {n: singles for n, singles in complete.items() if len(singles) == len(examples)}
    rows = []
    for place, example in enumerate(examples):
        scores = {n: singles[place] for n, singles in complete.items()}
        prediction = "" if outputs.predictions is None else outputs.predictions[place]
        row = {"kind": "example", **shared, "template": example.template_id}
        row |= {"index": int(example.index), "id": example.id, "prompt": example.inputs}
        row |= {"target": example.targets, "prediction": prediction}
        row |= {"source": _source(example), "references": list(example.references)}
        row |= {"exemplars": example.num_exemplars, "exemplars_asked": example.exemplars_asked}
        row |= {"truncated": example.truncated}
        correct = is_right(complete[first], place) if first in complete else None
        rows.append(row | {"correct": correct, "scores": scores})
    metric_fields = {**metric_fields, **prompt_counts(examples)}
    for name, one in measured.items():
        n = len(examples) if one.singles is None else len(one.singles)
        row = {"kind": "metric", **shared, "metric": name, "value": one.value, "n": n}
        row |= {"stderr": one.stderr, "baseline": majority_baselines.get(name)}
        rows.append(row | {"random_baseline": random_baselines.get(name), **metric_fields})
    return rows


def prompt_counts(examples: Sequence[Example]) -> dict[str, Any]:
    """Exemplars and truncation of a task's prompts, for metric lines; None where not known."""
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


def _source(example: Example) -> str:
    """The texts of the example's record, one below the other; "" for a plain SeqIO task."""
    record = example.seqio_example.get("record")
    return "" if record is None else "\n".join(json.loads(record)["fields"].values())


def _predict_fns(task: Task) -> Sequence[MetricFn]:
    if task.predict_metric_fns or task.predict_with_aux_metric_fns or task.score_metric_fns:
        return task.predict_metric_fns
    return (metrics.exact_match,)


def _targets(task: Task, examples: Sequence[Example]) -> list[Any]:
    return [
        task.postprocess_fn(example.targets, example=example.seqio_example, is_target=True)
        for example in examples
    ]


def _postprocessed(task: Task, examples: Sequence[Example], texts: Sequence[str]) -> list[Any]:
    return [
        task.postprocess_fn(text, example=example.seqio_example, is_target=False)
        for example, text in zip(examples, texts)
    ]


_RANKINGS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "rank_accuracy": lambda total, lengths: total,
    "rank_accuracy_per_token": lambda total, lengths: total / lengths,
}


def _rank_metrics(ranked: Sequence[tuple | None] | None) -> dict[str, Measured]:
    """Accuracy of the option with the highest log-likelihood, as a sum and per token."""
    given = [entry for entry in ranked or () if entry is not None]
    if not given:
        return {}
    found = {}
    for name, score in _RANKINGS.items():
        singles = tuple(
            100.0 * (int(np.argmax(score(total, lengths))) == right)
            for total, lengths, right in given
        )
        found[name] = Measured(float(np.mean(singles)), mean_stderr(singles), singles)
    return found
