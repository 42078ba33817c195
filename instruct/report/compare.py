"""Examples of models held against each other: the common ones, and tests of their scores.

What the pages that compare models share: `before_after`, `differences` and `forgetting`.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from instruct.report.statistics import RESAMPLES, PairedTest, paired_bootstrap

Key = tuple[str, str, str, int]  # task, mode, split, number of the record
Example = Mapping[str, Any]


def key_of(line: Example) -> Key:
    """What names an example line."""
    return line["task"], line["mode"], line["split"], line["index"]


def same_question(one: Example, other: Example) -> bool:
    """Whether two lines of a key are of the same record and expect the same."""
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
    """Pairs the example lines of two or more models by task, mode, split and index.

    Args:
        models: the example lines of each.
        metric: a name in the lines' `scores`; "" takes `correct` as 0 or 100 and, where that is
            None, the first score.

    Examples whose prompts differ are still pairs (prompts may be what is compared); those whose id
    or target differ are not. Examples without the metric are left out.
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
    """Tests the second model against the first, tasks weighing the same; None without a pair."""
    if not pairs.keys:
        return None
    first, second = pairs.scores.T
    return paired_bootstrap(first, second, pairs.groups, seed=seed, resamples=resamples)


def task_tests(pairs: Pairs, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, PairedTest]:
    """Tests each "task mode" separately. Correct the p-values with `holm` before picking some."""
    groups = np.array(pairs.groups, object)
    tests = {}
    for name in dict.fromkeys(pairs.groups):
        first, second = pairs.scores[groups == name].T
        tests[name] = paired_bootstrap(first, second, seed=seed, resamples=resamples)
    return tests
