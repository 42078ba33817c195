"""The normalised average of Flan-PaLM: one number over MMLU, BBH, TyDiQA and MGSM.

The plain mean of six normalised scores: MMLU and BBH by direct answers and by chain of thought,
TyDiQA by direct answers, MGSM by chain of thought. A score of 0 to 100 is normalised by

    100 * (score - lower bound) / (100 - lower bound)

so that guessing gives 0 and worse than guessing less. BBH is normalised sub-task by sub-task and
then averaged over its 27 sub-tasks, because their bounds differ; a mean over BBH cannot be
normalised afterwards. Chung et al. (arXiv 2210.11416) print the averages but not the bounds; those
below are the ones that give their printed averages from their printed scores. They hold for direct
answers and chains of thought alike, so a two-way question without a readable answer counts -100.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from instruct.errors import UserError

_WAYS = {"three": 33.3, "five": 20.0, "seven": 14.3}
BBH_LOWER_BOUNDS: dict[str, float] = {
    "boolean_expressions": 50.0,
    "causal_judgement": 50.0,
    "date_understanding": 17.2,
    "disambiguation_qa": 33.2,
    "dyck_languages": 1.2,
    "formal_fallacies": 50.0,
    "geometric_shapes": 11.6,
    "hyperbaton": 50.0,
    **{f"logical_deduction_{number}_objects": bound for number, bound in _WAYS.items()},
    "movie_recommendation": 25.0,
    "multistep_arithmetic_two": 0.0,
    "navigate": 50.0,
    "object_counting": 0.0,
    "penguins_in_a_table": 0.0,
    "reasoning_about_colored_objects": 11.9,
    "ruin_names": 25.0,
    "salient_translation_error_detection": 16.7,
    "snarks": 50.0,
    "sports_understanding": 50.0,
    "temporal_sequences": 25.0,
    **{f"tracking_shuffled_objects_{number}_objects": bound for number, bound in _WAYS.items()},
    "web_of_lies": 50.0,
    "word_sorting": 0.0,
}
# Suzgun et al.'s halves of BBH, which Flan-PaLM's table 4 reports. Its algorithmic mean is over
# sub-tasks too: logical deduction and tracking count three times each.
BBH_NLP = (
    *("causal_judgement", "date_understanding", "disambiguation_qa", "formal_fallacies"),
    *("hyperbaton", "movie_recommendation", "penguins_in_a_table"),
    *("reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection"),
    *("snarks", "sports_understanding"),
)
BBH_ALGORITHMIC = tuple(name for name in BBH_LOWER_BOUNDS if name not in BBH_NLP)

TYDIQA_LANGUAGES = ("ar", "bn", "fi", "id", "ko", "ru", "sw", "te")
MGSM_LANGUAGES = ("bn", "de", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")

# The six parts in the order of the papers' tables, with the bound of those that have one for all.
PARTS: dict[str, float | None] = {
    "mmlu_direct": 25.0,
    "mmlu_cot": 25.0,
    "bbh_direct": None,
    "bbh_cot": None,
    "tydiqa": 0.0,
    "mgsm": 0.0,
}
_BY_LANGUAGE = {"tydiqa": TYDIQA_LANGUAGES, "mgsm": MGSM_LANGUAGES}

_ALIASES = {
    "causal_judgment": "causal_judgement",
    "formal_fallacies_syllogisms_negation": "formal_fallacies",
    "multistep_arithmetic": "multistep_arithmetic_two",
    "multi_step_arithmetic": "multistep_arithmetic_two",
    "multi_step_arithmetic_two": "multistep_arithmetic_two",
    "colored_objects": "reasoning_about_colored_objects",
    "salient_translation": "salient_translation_error_detection",
    "disambiguation": "disambiguation_qa",
    "penguins": "penguins_in_a_table",
}
_NUMBER_WORDS = {"3": "three", "5": "five", "7": "seven"}
_SERIES = {
    "logical_deduction": "logical_deduction",
    "tracking_shuffled_objects": "tracking_shuffled_objects",
    "tracking": "tracking_shuffled_objects",
}


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the six scores.

    Attributes:
        raw: 0 to 100 (BBH: the mean of its sub-tasks). normalized: at most 100, may be negative.
        lower_bound: what counts as 0; None for BBH, whose sub-tasks have one each.
        sub_tasks: (raw, lower bound, normalised) by sub-task or language, where given so.
    """

    raw: float
    normalized: float
    lower_bound: float | None
    sub_tasks: dict[str, tuple[float, float, float]]


@dataclasses.dataclass(frozen=True)
class NormalizedAverage:
    """The average and its six parts, by the keys of `PARTS`."""

    value: float
    parts: dict[str, Part]


def normalize(score: float, lower_bound: float) -> float:
    """A score of 0 to 100 on a scale where `lower_bound` is 0.

    >>> normalize(62.5, 25.0)
    50.0
    """
    return 100.0 * (score - lower_bound) / (100.0 - lower_bound)


def sub_task_name(name: str) -> str | None:
    """The name of a BBH sub-task as its file has it, or None if it is not one of the 27.

    Titles and usual variants are understood: `Logical Deduction (5)`, `causal judgment`.

    >>> sub_task_name("Tracking Shuffled Objects (three objects)")
    'tracking_shuffled_objects_three_objects'
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower().removeprefix("bbh.")).strip("_")
    if plain in BBH_LOWER_BOUNDS:
        return plain
    counted = re.fullmatch(r"(\w+?)_(3|5|7|three|five|seven)(?:_objects?)?", plain)
    if counted and counted[1] in _SERIES:
        number = _NUMBER_WORDS.get(counted[2], counted[2])
        return f"{_SERIES[counted[1]]}_{number}_objects"
    return _ALIASES.get(plain)


def normalized_average(scores: Mapping[str, Any]) -> NormalizedAverage:
    """The normalised average of six scores of 0 to 100.

    Args:
        scores: `mmlu_direct`, `mmlu_cot`, `tydiqa`, `mgsm`: a number each (the last two also as
            {language: score}); `bbh_direct`, `bbh_cot`: {sub-task: score} with all 27 sub-tasks.
            Other keys are not used.

    Raises UserError for a part or sub-task that is missing, a sub-task that is unknown or given
    twice, and scores that are no numbers from 0 to 100.
    """
    missing = [name for name in PARTS if name not in scores]
    if missing:
        others = [repr(name) for name in scores if name not in PARTS]
        unknown = f" Not known, perhaps another spelling: {', '.join(others)}." if others else ""
        raise UserError(
            f"scores lack {', '.join(missing)}. The normalised average is over {', '.join(PARTS)}; "
            f"give them all, spelled like this.{unknown}"
        )
    parts = {name: _part(name, scores[name], bound) for name, bound in PARTS.items()}
    return NormalizedAverage(sum(part.normalized for part in parts.values()) / len(parts), parts)


def _part(name: str, values: Any, bound: float | None) -> Part:
    bounds = BBH_LOWER_BOUNDS if bound is None else dict.fromkeys(_BY_LANGUAGE.get(name, ()), bound)
    if not isinstance(values, Mapping):
        if bound is None:
            raise UserError(
                f"{name} is {values!r}, expected {{sub-task: score}}: BBH's sub-tasks have "
                "different lower bounds, so that their mean cannot be normalised. Give all 27 "
                "scores."
            )
        score = _score(name, values)
        return Part(score, normalize(score, bound), bound, {})
    if not bounds:
        raise UserError(f"{name} is {dict(values)!r}, expected one number, the mean of subjects.")
    scores = dict(values) if bound is not None else _bbh_scores(name, values)
    if unknown := [repr(key) for key in scores if key not in bounds]:
        raise UserError(
            f"{name}: {', '.join(unknown)} does not count. Allowed: {', '.join(bounds)}."
        )
    if missing := [key for key in bounds if key not in scores]:
        raise UserError(
            f"{name} lacks {len(missing)} of {len(bounds)}: {', '.join(missing)}. The mean is over "
            "all of them; evaluate the rest."
        )
    sub_tasks = {}
    for key, lower in bounds.items():
        score = _score(f"{name}, {key}", scores[key])
        sub_tasks[key] = (score, lower, normalize(score, lower))
    raw = sum(score for score, _, _ in sub_tasks.values()) / len(sub_tasks)
    normalized = sum(value for _, _, value in sub_tasks.values()) / len(sub_tasks)
    return Part(raw, normalized, bound, sub_tasks)


def _bbh_scores(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Scores by the names of the sub-tasks' files."""
    scores: dict[str, Any] = {}
    for title, score in values.items():
        sub_task = sub_task_name(str(title))
        if sub_task is None:
            raise UserError(
                f"{name}: {title!r} is no sub-task of BBH. They are: {', '.join(BBH_LOWER_BOUNDS)}."
            )
        if sub_task in scores:
            raise UserError(f"{name}: {sub_task} is given twice (also as {title!r}). Keep one.")
        scores[sub_task] = score
    return scores


def _score(where: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 100:  # as is NaN
        raise UserError(f"{where} is {value!r:.60}, expected a number from 0 to 100 (per cent).")
    return float(value)


def as_json(average: NormalizedAverage) -> dict[str, Any]:
    """The average and, by part, its raw and normalised score and those of its sub-tasks."""
    entries: dict[str, Any] = {"normalized_average": average.value}
    for name, part in average.parts.items():
        entries[name] = {"raw": part.raw, "normalized": part.normalized}
        if part.lower_bound is not None:
            entries[name]["lower_bound"] = part.lower_bound
        if part.sub_tasks:
            entries[name]["sub_tasks"] = {
                key: {"raw": raw, "lower_bound": lower, "normalized": normalized}
                for key, (raw, lower, normalized) in part.sub_tasks.items()
            }
    return entries
