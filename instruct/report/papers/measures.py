"""Columns of the papers' tables as measures of our results, and a run's score for each.

A measure is the unweighted mean of the primary metrics of a suite's tasks in some prompt modes, at
the latest step that has them. `differences` says how a score departs from the paper's protocol.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from instruct import results
from instruct.files import read_package_toml
from instruct.report.papers import normalized
from instruct.report.read import Run

DIRECT, COT = ("direct",), ("cot",)
_LANGUAGES = {
    **{"arabic": "ar", "bengali": "bn", "finnish": "fi", "indonesian": "id", "korean": "ko"},
    **{"russian": "ru", "swahili": "sw", "telugu": "te", "german": "de", "spanish": "es"},
    **{"french": "fr", "japanese": "ja", "thai": "th", "chinese": "zh", "english": "en"},
}
_HELD_OUT = ("mmlu", "bbh", "tydiqa", "mgsm")
# Our metrics that equal the papers' accuracy and exact match.
_EXACT = {"exact_match", "em", "accuracy", "number_match", "option_match", "rank_accuracy"}


@dataclasses.dataclass(frozen=True)
class Measure:
    """A column of the papers' tables.

    Attributes:
        title: the column's heading.
        family: tasks are `<family>.<sub-task>`, or all tasks of suites of this name.
        modes: prompt modes that count; () for all.
        expected: number of sub-tasks in the paper's mean.
        protocol: how the paper asked, in a few words.
        sub_tasks: names of the sub-tasks; () if they are not fixed.
    """

    title: str
    family: str
    modes: tuple[str, ...]
    expected: int
    protocol: str
    sub_tasks: tuple[str, ...] = ()

    def name_of(self, row: Mapping[str, Any]) -> str:
        """The sub-task of a metric line, as the papers name it."""
        name: str = row["task"].removeprefix(f"{self.family}.")
        if self.family == "bbh":
            return normalized.sub_task_name(name) or name
        return _LANGUAGES.get(name.lower(), name) if self.family in ("tydiqa", "mgsm") else name

    def paper_split(self, mmlu_split: str) -> str:
        """The split that a table reports, given that table's MMLU split."""
        if self.family == "mmlu":
            return mmlu_split
        return "test" if self.family in ("bbh", "mgsm") else "validation"

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a primary metric line counts."""
        if self.modes and row["mode"] not in self.modes:
            return False
        names = (f"{row['suite']}.", row["task"])
        if not any(name.startswith(f"{self.family}.") for name in names):
            return False
        return not self.sub_tasks or self.name_of(row) in self.sub_tasks


def _read_measures() -> dict[str, Measure]:
    measures = {}
    for key, row in read_package_toml("instruct.report.papers", "measures.toml").items():
        sub_tasks = normalized.SUB_TASKS.get(row.pop("sub_tasks", ""), ())
        measures[key] = Measure(modes=tuple(row.pop("modes")), sub_tasks=sub_tasks, **row)
    return measures


MEASURES = _read_measures()
NORMALIZED = "normalized_average"
VOTED = "CoT + self-consistency"
PROMPTINGS = ("direct", "CoT", VOTED)


def is_measure(column: str) -> bool:
    """Whether our results can fill a column of a paper's table."""
    return column == NORMALIZED or column.split(":")[0] in MEASURES


def title_of(column: str) -> str:
    """A column's heading."""
    if column == NORMALIZED:
        return "Norm. avg."
    key, _, part = column.partition(":")
    if key.startswith("bbh") and part:
        return f"{part} {key.split('_')[1]}"
    return part or (MEASURES[key].title if key in MEASURES else column)


def prompted(column: str, prompting: str) -> str | None:
    """The measure of a column in the row of a prompting (`PROMPTINGS`); None if it has none.

    >>> prompted("mmlu", "CoT")
    'mmlu_cot'
    """
    direct = prompting == "direct"
    if column in ("tydiqa", "mgsm"):
        return column if direct == (column == "tydiqa") else None
    if column == "mmlu":
        return "mmlu_direct" if direct else "mmlu_cot"
    return column


@dataclasses.dataclass(frozen=True)
class Score:
    """A run's value of a column.

    Attributes:
        column: key of `MEASURES`, with a sub-task after a colon.
        value, stderr: 0-100; None if unknown. n: examples.
        tasks, expected: number of sub-tasks in it, and in the paper.
        rows: the metric lines that it averages.
        step: of the checkpoint.
        limit: the evaluation's limit of examples a task; None for all.
    """

    column: str
    value: float | None
    stderr: float | None
    n: int
    tasks: int
    expected: int
    rows: tuple[Mapping[str, Any], ...]
    step: int
    limit: int | None

    @property
    def complete(self) -> bool:
        """Whether it has all sub-tasks of the paper."""
        return self.tasks >= self.expected


def score(
    run: Run, column: str, step: int | None = None, modes: Sequence[str] = (), voted: bool = False
) -> Score | None:
    """A run's score of a column at a step (None: the latest that has it), or None.

    Args:
        column: `mmlu_direct`, `tydiqa:ko`, `normalized_average`, ...
        modes: prompt modes instead of the measure's own.
        voted: count results of self-consistency, and only those.
    """
    if column == NORMALIZED:
        return _normalized_score(run, step)
    key, _, part = column.partition(":")
    measure = MEASURES[key]
    if modes:
        measure = dataclasses.replace(measure, modes=tuple(modes))
    # Step -> (task, mode) -> metric line and limit of examples. Suites "<name>-<suite>" come from
    # evaluations under a name of their own: they count only where no other has the task.
    steps: dict[int, dict[tuple[str, str], tuple[Mapping[str, Any], int | None]]] = {}
    for evaluation in sorted(run.counted(), key=lambda e: "-" in e.suite):
        for row in evaluation.metrics if step in (None, evaluation.step) else ():
            is_part = not part or measure.name_of(row) == part
            if measure.takes(row) and is_part and _is_voted(row) == voted:
                entry = (row, evaluation.settings.get("num_examples"))
                lines = steps.setdefault(evaluation.step, {})
                lines.setdefault((row["task"], row["mode"]), entry)
    if not steps:
        return None
    rows, limits = zip(*steps[max(steps)].values())
    mean = results.aggregate(rows)
    return Score(
        column=column,
        value=mean.value,
        stderr=mean.stderr,
        n=mean.examples,
        tasks=len({measure.name_of(row) for row in rows}),
        expected=1 if part else measure.expected,
        rows=rows,
        step=max(steps),
        limit=min(filter(None, limits), default=None),
    )


def _is_voted(row: Mapping[str, Any]) -> bool:
    """Whether a metric line is of self-consistency, by the name of its decoding."""
    return row["decode"].endswith(" majority")


def steps_of(run: Run, column: str) -> list[int]:
    """The steps at which a run has a score of the column, in order."""
    steps = sorted({evaluation.step for evaluation in run.counted()})
    return [step for step in steps if score(run, column, step) is not None]


def _normalized_score(run: Run, step: int | None) -> Score | None:
    """The normalised average and its standard error; None unless all six parts are complete."""
    parts = {name: part for name in normalized.PARTS if (part := score(run, name, step))}
    rows = tuple(row for part in parts.values() for row in part.rows)
    complete = all(part.complete for part in parts.values())
    if len(parts) < len(normalized.PARTS) or not complete or None in [r["value"] for r in rows]:
        return None
    scores: dict[str, Any] = {}
    variance = 0.0
    for name, part in parts.items():
        by_task = {MEASURES[name].name_of(row): row for row in part.rows}
        bound = normalized.PARTS[name]
        values = {task: row["value"] for task, row in by_task.items()}
        scores[name] = values if bound is None else part.value
        for task, row in by_task.items():
            slope = 100 / (100 - (normalized.BBH_LOWER_BOUNDS[task] if bound is None else bound))
            error = math.nan if row["stderr"] is None else row["stderr"]
            variance += (error * slope / (len(by_task) * len(parts))) ** 2
    return Score(
        column=NORMALIZED,
        value=normalized.normalized_average(scores).value,
        stderr=math.sqrt(variance) if math.isfinite(variance) else None,
        n=sum(part.n for part in parts.values()),
        tasks=len(parts),
        expected=len(parts),
        rows=rows,
        step=max(part.step for part in parts.values()),
        limit=min((part.limit for part in parts.values() if part.limit), default=None),
    )


def differences(scores: Iterable[Score], mmlu_split: str) -> list[tuple[str, str]]:
    """Distinct pairs (suite's title, how our score departs from the paper's protocol)."""
    pairs: dict[tuple[str, str], None] = {}
    for score in scores:
        if score.column != NORMALIZED:
            measure = MEASURES[score.column.split(":")[0]]
            pairs |= {
                (measure.title, text): None for text in _departures(score, measure, mmlu_split)
            }
    return list(pairs)


def _departures(score: Score, measure: Measure, mmlu_split: str) -> Iterator[str]:
    """Sub-tasks, split, metric, decoding, prompts and training that differ from the paper."""

    def values_of(field: str) -> set[str]:
        return {row[field] for row in score.rows}

    split = measure.paper_split(mmlu_split)
    if not score.complete:
        yield f"{score.tasks} of the paper's {score.expected} sub-tasks"
    if count := sum(row["value"] is None for row in score.rows):
        yield f"our mean is over fewer: {results.without_value_text(count, len(score.rows))}"
    if others := sorted(values_of("split") - {split}):
        yield f"our split is {', '.join(others)}, the paper's {split}"
    if metrics := sorted(values_of("metric") - _EXACT):
        yield f"our metric is {', '.join(metrics)}, the paper's exact match"
    if score.limit:
        yield f"at most {score.limit:,} examples a task, the paper's all"
    decodings = {decode.partition(" ")[0] for decode in values_of("decode")}
    if decodings - {"greedy"} and not all(map(_is_voted, score.rows)):
        yield f"our decoding is {', '.join(sorted(decodings))}, the paper's greedy"
    if any(" weights=int8" in decode for decode in values_of("decode")):
        yield "our kernels are rounded to int8 for decoding"
    shown = results.exemplars_of(score.rows)
    if shown is not None and not shown.complete:
        yield f"our prompts show fewer exemplars: {shown}"
    if count := sum(row.get("truncated") or 0 for row in score.rows):
        yield f"{count:,} of our {score.n:,} prompts lost the end of their passage"
    if count := sum(row.get("left_out") or 0 for row in score.rows):
        yield f"{count:,} examples are left out, because they do not fit the inputs' length"
    if shown is None:
        yield "how many exemplars our prompts show is not known (an earlier evaluation)"
    if "held_in" in values_of("group") and measure.family in _HELD_OUT:
        yield "tasks of it were trained on; the paper's were held out"


def sentences(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """`differences` as sentences, titles grouped: "BBH direct, BBH CoT: 13 of ..."."""
    titles: dict[str, dict[str, None]] = {}
    for title, what in pairs:
        titles.setdefault(what, {})[title] = None
    return [f"{', '.join(names)}: {what}." for what, names in titles.items()]


def protocols(columns: Iterable[str], mmlu_split: str) -> list[str]:
    """The paper's protocol for each column, as phrases."""
    measures = [MEASURES[key] for c in columns if (key := c.split(":")[0]) in MEASURES]
    phrases = (f"{m.title}: {m.protocol}, {m.paper_split(mmlu_split)} split" for m in measures)
    return list(dict.fromkeys(phrases))


def conditions(scores: Iterable[Score]) -> list[str]:
    """Exemplars, steps, decoding, template sets and task versions behind our scores."""
    scores = list(scores)
    texts = []
    counts = [(s.column, results.exemplars_of(s.rows)) for s in scores if s.column in MEASURES]
    if shown := dict.fromkeys(f"{title_of(column)} {count}" for column, count in counts if count):
        texts.append(f"exemplars shown: {', '.join(shown)}")
    for field in ("step", "decode", "template_set", "task_version"):
        values = sorted({str(row[field]) for score in scores for row in score.rows})
        if values:
            title = "decoding" if field == "decode" else field.replace("_", " ")
            more = f" and {len(values) - 4} more" if len(values) > 4 else ""
            texts.append(f"{title} {', '.join(values[:4])}{more}")
    return texts
