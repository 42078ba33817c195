"""The normalised average of Flan-PaLM: one number over MMLU, BBH, TyDiQA and MGSM.

The unweighted mean of six normalised scores: MMLU and BBH by direct answers and by chain of
thought, TyDiQA by direct answers, MGSM by chain of thought. A score of 0 to 100 is normalised by

    100 * (score - lower bound) / (100 - lower bound)

so that guessing gives 0 and anything worse is negative. BBH is normalised sub-task by sub-task and
then averaged over its 27 sub-tasks: their bounds differ, so a mean over BBH cannot be normalised.
Chung et al. (arXiv 2210.11416) print the averages but not the bounds; the bounds below reproduce
the printed averages from the printed scores. They hold for direct answers and chains of thought
alike, so a two-way question without a readable answer scores -100.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from instruct.errors import UserError
from instruct.files import read_package_toml

_TABLES = read_package_toml("instruct.report.papers", "normalized.toml")
BBH_LOWER_BOUNDS: dict[str, float] = _TABLES["bbh_lower_bounds"]
# Of a suite, or of Suzgun et al.'s halves of BBH.
SUB_TASKS = {
    **{name: tuple(names) for name, names in _TABLES["sub_tasks"].items()},
    "bbh": tuple(BBH_LOWER_BOUNDS),
    "bbh_algorithmic": tuple(
        name for name in BBH_LOWER_BOUNDS if name not in _TABLES["sub_tasks"]["bbh_nlp"]
    ),
}

# The six parts in the order of the papers' tables, with the lower bound where sub-tasks share one.
PARTS: dict[str, float | None] = {
    "mmlu_direct": 25.0,
    "mmlu_cot": 25.0,
    "bbh_direct": None,
    "bbh_cot": None,
    "tydiqa": 0.0,
    "mgsm": 0.0,
}

_NUMBER_WORDS = {"3": "three", "5": "five", "7": "seven"}


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the six scores.

    Attributes:
        raw: 0 to 100 (BBH: the mean of its sub-tasks). normalized: at most 100, may be negative.
        lower_bound: the score that normalises to 0; None for BBH, where each sub-task has its own.
        sub_tasks: the same three by sub-task or language, if given one by one.
    """

    raw: float
    normalized: float
    lower_bound: float | None
    sub_tasks: dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class NormalizedAverage:
    """The average and its six parts, by the keys of `PARTS`."""

    value: float
    parts: dict[str, Part]


def normalize(score: float, lower_bound: float) -> float:
    """Rescale a score of 0 to 100 so that `lower_bound` becomes 0.

    >>> normalize(62.5, 25.0)
    50.0
    """
    return 100.0 * (score - lower_bound) / (100.0 - lower_bound)


def sub_task_name(name: str) -> str | None:
    """The file name of a BBH sub-task, from a title or a usual variant; None if it is unknown.

    >>> sub_task_name("Tracking Shuffled Objects (three objects)")
    'tracking_shuffled_objects_three_objects'
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower().removeprefix("bbh.")).strip("_")
    counted = re.fullmatch(
        r"(logical_deduction|tracking)(?:_shuffled_objects)?_(3|5|7|three|five|seven)(?:_objects?)?",
        plain,
    )
    if counted:
        series = counted[1].replace("tracking", "tracking_shuffled_objects")
        return f"{series}_{_NUMBER_WORDS.get(counted[2], counted[2])}_objects"
    return plain if plain in BBH_LOWER_BOUNDS else _TABLES["bbh_aliases"].get(plain)


def normalized_average(scores: Mapping[str, Any]) -> NormalizedAverage:
    """Compute the normalised average of six scores of 0 to 100.

    Args:
        scores: `mmlu_direct`, `mmlu_cot`, `tydiqa`, `mgsm`: one number each (the last two also as
            {language: score}); `bbh_direct`, `bbh_cot`: {sub-task: score} with all 27 sub-tasks.
            Other keys are ignored.

    Raises:
        UserError: a part or sub-task is missing, unknown or given twice, or a score is not a number
            from 0 to 100.
    """
    if missing := [name for name in PARTS if name not in scores]:
        others = [repr(name) for name in scores if name not in PARTS]
        unknown = f" Unknown keys, perhaps misspelled: {', '.join(others)}." if others else ""
        raise UserError(
            f"scores lack {', '.join(missing)}. The normalised average needs {', '.join(PARTS)}, "
            f"spelled like this.{unknown}"
        )
    parts = {name: _part(name, scores[name], bound) for name, bound in PARTS.items()}
    return NormalizedAverage(sum(part.normalized for part in parts.values()) / len(parts), parts)


def _part(name: str, values: Any, bound: float | None) -> Part:
    bounds = BBH_LOWER_BOUNDS if bound is None else dict.fromkeys(SUB_TASKS.get(name, ()), bound)
    if bound is not None and not isinstance(values, Mapping):
        score = _score(name, values)
        return Part(score, normalize(score, bound), bound, {})
    if not bounds:
        raise UserError(f"{name} is {dict(values)!r}, expected one number, the mean of subjects.")
    if not isinstance(values, Mapping):
        raise UserError(
            f"{name} is {values!r}, expected {{sub-task: score}} with all 27 scores: the sub-tasks "
            "of BBH have different lower bounds, so their mean cannot be normalised."
        )
    scores: dict[str, float] = {}
    for title, value in values.items():
        key = str(title) if bound is not None else sub_task_name(str(title)) or str(title)
        if key not in bounds:
            raise UserError(f"{name}: {title!r} does not count. Allowed: {', '.join(bounds)}.")
        if key in scores:
            raise UserError(f"{name}: {key} is given twice (also as {title!r}). Keep one.")
        scores[key] = _score(f"{name}, {title}", value)
    if missing := [key for key in bounds if key not in scores]:
        raise UserError(
            f"{name} lacks {len(missing)} of {len(bounds)}: {', '.join(missing)}. The mean is over "
            "all of them; evaluate the rest."
        )
    sub_tasks = {
        key: {"raw": scores[key], "lower_bound": lower, "normalized": normalize(scores[key], lower)}
        for key, lower in bounds.items()
    }
    raw, normalized = (
        sum(values[name] for values in sub_tasks.values()) / len(sub_tasks)
        for name in ("raw", "normalized")
    )
    return Part(raw, normalized, bound, sub_tasks)


def _score(where: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 100:  # also excludes NaN
        raise UserError(f"{where} is {value!r:.60}, expected a number from 0 to 100 (per cent).")
    return float(value)


def as_json(average: NormalizedAverage) -> dict[str, Any]:
    """The average, and the fields of its parts that are known."""
    return {"normalized_average": average.value} | {
        name: {field: value for field, value in vars(part).items() if value not in (None, {})}
        for name, part in average.parts.items()
    }
