"""What a column of the papers' tables means in results of ours, and a run's score for it.

A measure is the unweighted mean of the primary metrics of a suite's tasks in some prompt modes, at
the latest step that has them. `differences` says what sets them apart from the paper's protocol.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from instruct import results
from instruct.report.papers import normalized
from instruct.report.read import Run

DIRECT, COT = ("direct",), ("cot",)
_ZERO = ("zs_direct", "zs_opt", "zs_noopt")
_LANGUAGES = {
    **{"arabic": "ar", "bengali": "bn", "finnish": "fi", "indonesian": "id", "korean": "ko"},
    **{"russian": "ru", "swahili": "sw", "telugu": "te", "german": "de", "spanish": "es"},
    **{"french": "fr", "japanese": "ja", "thai": "th", "chinese": "zh", "english": "en"},
}
_HELD_OUT = ("mmlu", "bbh", "tydiqa", "mgsm")
# Metrics that the papers' accuracy and exact match may be called.
_EXACT = {"exact_match", "em", "accuracy", "number_match", "option_match", "rank_accuracy"}


@dataclasses.dataclass(frozen=True)
class Measure:
    """A column of the papers' tables.

    Attributes:
        title: the column's heading.
        family: tasks are `<family>.<sub-task>`, or whatever is in suites of this name.
        modes: prompt modes that count; () for all.
        expected: how many sub-tasks the paper averages over.
        split: the split that the paper reports.
        protocol: how the paper asked, in a few words.
        sub_tasks: names of the sub-tasks; () if they are not fixed.
    """

    title: str
    family: str
    modes: tuple[str, ...]
    expected: int
    split: str
    protocol: str
    sub_tasks: tuple[str, ...] = ()

    def name_of(self, row: Mapping[str, Any]) -> str:
        """The sub-task of a line, as the papers name it."""
        name: str = row["task"].removeprefix(f"{self.family}.")
        if self.family == "bbh":
            return normalized.sub_task_name(name) or name
        return _LANGUAGES.get(name.lower(), name) if self.family in ("tydiqa", "mgsm") else name

    def paper_split(self, mmlu_split: str) -> str:
        """The split that a table reports, given MMLU's."""
        return mmlu_split if self.family == "mmlu" else self.split

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a primary metric line counts."""
        suite = row["suite"]
        inside = suite == self.family or suite.startswith(f"{self.family}.")
        named = row["task"].startswith(f"{self.family}.")
        if not (named or inside) or (self.modes and row["mode"] not in self.modes):
            return False
        return not self.sub_tasks or self.name_of(row) in self.sub_tasks


def _mmlu(title: str, modes: tuple[str, ...], protocol: str = "5 exemplars") -> Measure:
    return Measure(title, "mmlu", modes, 57, "validation", protocol)


def _bbh(
    title: str,
    modes: tuple[str, ...],
    protocol: str = "3 exemplars",
    names: Iterable[str] = normalized.BBH_LOWER_BOUNDS,
) -> Measure:
    chosen = tuple(names)
    return Measure(title, "bbh", modes, len(chosen), "test", protocol, chosen)


def _held_in(title: str, modes: tuple[str, ...]) -> Measure:
    return Measure(title, "held_in", modes, 8, "validation", "exact match, eight sets")


def _cot_eval(title: str, modes: tuple[str, ...]) -> Measure:
    return Measure(title, "cot_eval", modes, 5, "validation", "reasoned answers, five sets")


MEASURES: dict[str, Measure] = {
    "mmlu_direct": _mmlu("MMLU direct", DIRECT),
    "mmlu_cot": _mmlu("MMLU CoT", COT, "5 exemplars with reasoning"),
    "bbh_direct": _bbh("BBH direct", DIRECT),
    "bbh_cot": _bbh("BBH CoT", COT, "3 exemplars with reasoning"),
    "tydiqa": Measure(
        *("TyDiQA", "tydiqa", DIRECT, 8, "validation", "1 exemplar, gold passage, exact match"),
        normalized.TYDIQA_LANGUAGES,
    ),
    "mgsm": Measure(
        *("MGSM", "mgsm", COT, 10, "test", "8 exemplars with reasoning in the language itself"),
        normalized.MGSM_LANGUAGES,
    ),
    "held_in": _held_in("Held-In", ()),
    "cot_eval": _cot_eval("CoT", ()),
    "mmlu_direct@zero": _mmlu("MMLU 0-shot", _ZERO, "no exemplars"),
    "mmlu_direct@few": _mmlu("MMLU few-shot", DIRECT),
    "bbh_direct@zero": _bbh("BBH 0-shot", _ZERO, "no exemplars"),
    "bbh_direct@few": _bbh("BBH few-shot", DIRECT),
    "bbh_cot@zero": _bbh("BBH-CoT 0-shot", ("zs_cot",), "no exemplars, reasoned"),
    "bbh_cot@few": _bbh("BBH-CoT few-shot", COT, "3 exemplars with reasoning"),
    "held_in@zero": _held_in("Held-In 0-shot", _ZERO),
    "held_in@few": _held_in("Held-In few-shot", ("direct", "fs_opt", "fs_noopt")),
    "cot_eval@zero": _cot_eval("CoT 0-shot", ("zs_cot",)),
    "cot_eval@few": _cot_eval("CoT few-shot", ("cot", "fs_cot")),
    # With a prompting: see `prompted`.
    "mmlu": _mmlu("MMLU", DIRECT),
    "bbh_nlp": _bbh("BBH-nlp", DIRECT, names=normalized.BBH_NLP),
    "bbh_algorithmic": _bbh("BBH-alg", DIRECT, names=normalized.BBH_ALGORITHMIC),
}
NORMALIZED = "normalized_average"
VOTED = "CoT + self-consistency"
PROMPTINGS = ("direct", "CoT", VOTED)


def is_measure(column: str) -> bool:
    """Whether results of ours can fill a column of a paper's table."""
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
    """The column of a table whose rows differ in prompting (`PROMPTINGS`), or None.

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
        column: key, with a part of the suite after a colon.
        value, stderr: 0-100; None where not known. n: examples.
        tasks, expected: sub-tasks that are in it, and those of the paper.
        rows: the metric lines it is the mean of.
        step: of the checkpoint.
        limit: most examples a task that the evaluation was set to, or None for all.
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
        """Whether no sub-task of the paper lacks."""
        return self.tasks >= self.expected


def score(
    run: Run, column: str, step: int | None = None, modes: Sequence[str] = (), voted: bool = False
) -> Score | None:
    """A run's score of a column at a step (None: the latest that has it), or None.

    Args:
        column: `mmlu_direct`, `tydiqa:ko`, `normalized_average`, ...
        modes: prompt modes instead of the measure's own.
        voted: of self-consistency, which counts nowhere else.
    """
    if column == NORMALIZED:
        return _normalized_score(run, step)
    key, _, part = column.partition(":")
    measure = MEASURES[key]
    if modes:
        measure = dataclasses.replace(measure, modes=tuple(modes))
    by_step: dict[int, dict[tuple[str, str], Mapping[str, Any]]] = {}
    limits: dict[int, list[int]] = {}
    # "<name>-<suite>" holds results of settings with a name of their own: only where no others are.
    for evaluation in sorted(run.evaluations, key=lambda e: "-" in e.suite):
        if step not in (None, evaluation.step):
            continue
        for row in evaluation.metrics:
            is_part = not part or measure.name_of(row) == part
            if measure.takes(row) and is_part and _is_voted(row) == voted:
                rows_of_step = by_step.setdefault(evaluation.step, {})
                if rows_of_step.setdefault((row["task"], row["mode"]), row) is row:
                    limit = evaluation.settings.get("num_examples")
                    limits.setdefault(evaluation.step, []).extend([limit] if limit else [])
    if not by_step:
        return None
    latest = max(by_step)
    rows = tuple(by_step[latest].values())
    mean = results.aggregate(rows)
    return Score(
        column=column,
        value=mean.value,
        stderr=mean.stderr,
        n=mean.examples,
        tasks=len({measure.name_of(row) for row in rows}),
        expected=1 if part else measure.expected,
        rows=rows,
        step=latest,
        limit=min(limits[latest], default=None),
    )


def _is_voted(row: Mapping[str, Any]) -> bool:
    """Whether a metric line is of self-consistency, as evaluation names its decoding."""
    return row["decode"].endswith(" majority")


def steps_of(run: Run, column: str) -> list[int]:
    """The steps at which a run has a score of the column, in order."""
    steps = sorted({evaluation.step for evaluation in run.evaluations})
    return [step for step in steps if score(run, column, step) is not None]


def _normalized_score(run: Run, step: int | None) -> Score | None:
    """The normalised average of a run whose six parts are whole, with its standard error."""
    parts = {name: score(run, name, step) for name in normalized.PARTS}
    complete = {name: part for name, part in parts.items() if part is not None and part.complete}
    valued = all(row["value"] is not None for part in complete.values() for row in part.rows)
    if len(complete) < len(parts) or not valued:
        return None
    scores: dict[str, Any] = {}
    variance = 0.0
    for name, part in complete.items():
        by_task = {MEASURES[name].name_of(row): row for row in part.rows}
        bound = normalized.PARTS[name]
        by_itself = {task: row["value"] for task, row in by_task.items()}
        scores[name] = by_itself if bound is None else part.value
        for task, row in by_task.items():
            slope = 100 / (100 - (normalized.BBH_LOWER_BOUNDS[task] if bound is None else bound))
            error = math.nan if row["stderr"] is None else row["stderr"]
            variance += (error * slope / (len(by_task) * len(complete))) ** 2
    limits = [part.limit for part in complete.values() if part.limit]
    return Score(
        column=NORMALIZED,
        value=normalized.normalized_average(scores).value,
        stderr=math.sqrt(variance) if math.isfinite(variance) else None,
        n=sum(part.n for part in complete.values()),
        tasks=len(complete),
        expected=len(parts),
        rows=tuple(row for part in complete.values() for row in part.rows),
        step=max(part.step for part in complete.values()),
        limit=min(limits, default=None),
    )


def differences(scores: Iterable[Score], mmlu_split: str) -> list[tuple[str, str]]:
    """(suite's title, what sets our score apart from the paper's), each once."""
    pairs: dict[tuple[str, str], None] = {}
    for score in scores:
        if score.column != NORMALIZED:
            key, _, part = score.column.partition(":")
            marks = _marks(score, MEASURES[key], part, mmlu_split)
            pairs |= {(MEASURES[key].title, mark): None for mark in marks}
    return list(pairs)


def _marks(score: Score, measure: Measure, part: str, mmlu_split: str) -> Iterator[str]:
    """What sets a score apart: sub-tasks, split, metric, decoding, prompts, training data."""

    def values_of(field: str) -> set[str]:
        return {row[field] for row in score.rows}

    split = measure.paper_split(mmlu_split)
    if not part and not score.complete:
        yield f"{score.tasks} of the paper's {score.expected} sub-tasks"
    if others := sorted(values_of("split") - {split}):
        yield f"our split is {', '.join(others)}, the paper's {split}"
    if metrics := sorted(values_of("metric") - _EXACT):
        yield f"our metric is {', '.join(metrics)}, the paper's exact match"
    if score.limit:
        yield f"at most {score.limit:,} examples a task, the paper's all"
    decodings = {decode.partition(" ")[0] for decode in values_of("decode")}
    if decodings - {"greedy"} and not all(map(_is_voted, score.rows)):
        yield f"our decoding is {', '.join(sorted(decodings))}, the paper's greedy"
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
    """`differences` as sentences, one a thing: "BBH direct, BBH CoT: 13 of ..."."""
    titles: dict[str, dict[str, None]] = {}
    for title, what in pairs:
        titles.setdefault(what, {})[title] = None
    return [f"{', '.join(names)}: {what}." for what, names in titles.items()]


def protocols(columns: Iterable[str], mmlu_split: str) -> list[str]:
    """How the paper measured the columns, one phrase a suite."""
    measures = [MEASURES[key] for c in columns if (key := c.split(":")[0]) in MEASURES]
    phrases = (f"{m.title}: {m.protocol}, {m.paper_split(mmlu_split)} split" for m in measures)
    return list(dict.fromkeys(phrases))


def conditions(scores: Iterable[Score]) -> list[str]:
    """Under what our scores were measured: exemplars, step, decoding, template sets, versions."""
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
