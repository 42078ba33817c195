"""Pair the example lines of two or more models, and test and resample their scores.

Shared by the pages that compare models: `before_after`, `differences`, `forgetting`, `study_page`.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from instruct.report.statistics import (
    RESAMPLES,
    PairedTest,
    paired_bootstrap,
    resampled_sums,
)

Key = tuple[str, str, str, int]  # task, mode, split, index of the record
Example = Mapping[str, Any]


def key_of(line: Example) -> Key:
    """The key that pairs an example line with another model's."""
    return line["task"], line["mode"], line["split"], line["index"]


def same_question(one: Example, other: Example) -> bool:
    """Whether two lines with one key have the same record and target."""
    return (one["id"], one["target"]) == (other["id"], other["target"])


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Scores of the examples that all models have.

    Attributes:
        keys: of the examples, in the first model's order.
        scores: (examples, models).
        counts: scored examples of each model.
    """

    keys: tuple[Key, ...]
    scores: np.ndarray
    counts: tuple[int, ...]

    @property
    def groups(self) -> list[str]:
        """(n,) "task mode" of each example."""
        return [f"{key[0]} {key[1]}".rstrip() for key in self.keys]


def pair_examples(models: Sequence[Iterable[Example]], metric: str = "") -> Pairs:
    """Pair the example lines of two or more models by task, mode, split and index.

    Prompts may differ (they may be what is compared); lines whose id or target differ are no pair.
    Examples without a finite score are left out.

    Args:
        models: the example lines of each.
        metric: a name in the lines' `scores`; "" takes `correct` as 0 or 100, or the first score
            where `correct` is None.
    """
    scored = [
        {
            key_of(line): (float(score), line)
            for line in lines
            if (score := _score(line, metric)) is not None and math.isfinite(score)
        }
        for lines in models
    ]
    first, *others = scored
    keys = [
        key
        for key, (_, line) in first.items()
        if all(key in model and same_question(line, model[key][1]) for model in others)
    ]
    scores = np.array([[model[key][0] for key in keys] for model in scored]).T
    return Pairs(tuple(keys), scores, tuple(map(len, scored)))


def _score(line: Example, metric: str) -> float | None:
    if metric:
        return line["scores"].get(metric)
    if line["correct"] is not None:
        return 100.0 * line["correct"]
    return next(iter(line["scores"].values()), None)


def paired_test(pairs: Pairs, seed: int = 0, resamples: int = RESAMPLES) -> PairedTest | None:
    """Test the second model against the first, all tasks weighted equally; None without a pair."""
    if not pairs.keys:
        return None
    first, second = pairs.scores.T
    return paired_bootstrap(first, second, pairs.groups, seed=seed, resamples=resamples)


def task_tests(pairs: Pairs, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, PairedTest]:
    """Test each "task mode" separately; correct the p-values with `holm` before selecting some."""
    groups = np.array(pairs.groups, object)
    return {
        name: paired_bootstrap(*pairs.scores[groups == name].T, seed=seed, resamples=resamples)
        for name in dict.fromkeys(pairs.groups)
    }


class TaskDraws(NamedTuple):
    """Scores of several models on one task, and their bootstrap resamples.

    Attributes:
        values: (models,).
        drawn: (resamples, models); a resample draws the same examples for every model.
        paired: examples that all models have; 0 where the metric lines' values count.
    """

    values: np.ndarray
    drawn: np.ndarray
    paired: int


def task_draws(
    rows: Sequence[Mapping[str, Any]],
    examples: Sequence[Iterable[Example]],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> TaskDraws:
    """Resample a task's scores, over the common examples if every model has them.

    Where the metric is no mean over examples (corpus BLEU), or no examples can be paired, draws are
    normal with the metric lines' standard errors, independent between models; NaN where unknown.

    Args:
        rows: each model's primary metric line of the task, with a value.
        examples: each model's example lines of the task.
    """
    reported = np.array([row["value"] for row in rows], float)
    pairs = pair_examples(examples, rows[0]["metric"])
    n = len(pairs.keys)
    if n > 1:
        means = pairs.scores.mean(axis=0)
        # A corpus metric is no mean over examples: its metric line counts.
        if np.allclose(means, reported, atol=1e-6) or n < min(pairs.counts):
            return TaskDraws(means, resampled_sums(pairs.scores, resamples, rng) / n, n)
    errors = np.array([np.nan if row["stderr"] is None else row["stderr"] for row in rows])
    return TaskDraws(reported, reported + rng.normal(size=(resamples, len(rows))) * errors, 0)
