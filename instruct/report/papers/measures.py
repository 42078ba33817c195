"""What a column of the papers' tables means in results of ours, and a run's score for it.

A measure is the unweighted mean of the primary metrics of a suite's tasks in some prompt modes, at
the latest step that has them. What differs from the paper's protocol is told by `differences`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def _as_it_is(name: str) -> str:
    return name


def _language(name: str) -> str:
    return _LANGUAGES.get(name.lower(), name)


def _bbh(name: str) -> str:
    return normalized.sub_task_name(name) or name


@dataclasses.dataclass(frozen=True)
class Measure:
    """A column of the papers' tables.

    Attributes:
        title: the column's heading.
        family: tasks are `<family>.<sub-task>`, or whatever is in suites of this name.
        modes: prompt modes that count; () for all.
        sub_tasks: those the paper averages over; () if their names are not fixed.
        expected: how many they are.
        split: the split that the paper reports.
        protocol: how the paper asked, in a few words.
        canonical: from our name of a sub-task to the one in `sub_tasks`.
    """

    title: str
    family: str
    modes: tuple[str, ...]
    expected: int
    split: str
    protocol: str
    sub_tasks: tuple[str, ...] = ()
    canonical: Callable[[str], str] = _as_it_is

    def name_of(self, row: Mapping[str, Any]) -> str:
        """The sub-task of a metric line."""
        return self.canonical(row["task"].removeprefix(f"{self.family}."))

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a primary metric line counts."""
        suite = row["suite"]
        inside = suite == self.family or suite.startswith(f"{self.family}.")
        named = row["task"].startswith(f"{self.family}.")
        if not (named or inside) or (self.modes and row["mode"] not in self.modes):
            return False
        return not self.sub_tasks or self.name_of(row) in self.sub_tasks


def _mmlu(title: str, modes: tuple[str, ...], protocol: str) -> Measure:
    return Measure(title, "mmlu", modes, 57, "validation", protocol)


def _bbh_measure(
    title: str, modes: tuple[str, ...], protocol: str, names: Iterable[str]
) -> Measure:
    chosen = tuple(names)
    return Measure(title, "bbh", modes, len(chosen), "test", protocol, chosen, _bbh)


_BBH = tuple(normalized.BBH_LOWER_BOUNDS)
_HELD_IN = "exact match, eight sets"
_COT_EVAL = "reasoned answers, five sets"
MEASURES: dict[str, Measure] = {
    "mmlu_direct": _mmlu("MMLU direct", DIRECT, "5 exemplars"),
    "mmlu_cot": _mmlu("MMLU CoT", COT, "5 exemplars with reasoning"),
    "bbh_direct": _bbh_measure("BBH direct", DIRECT, "3 exemplars", _BBH),
    "bbh_cot": _bbh_measure("BBH CoT", COT, "3 exemplars with reasoning", _BBH),
    "tydiqa": Measure(
        *("TyDiQA", "tydiqa", DIRECT, 8, "validation", "1 exemplar, gold passage, exact match"),
        *(normalized.TYDIQA_LANGUAGES, _language),
    ),
    "mgsm": Measure(
        *("MGSM", "mgsm", COT, 10, "test", "8 exemplars with reasoning in the language itself"),
        *(normalized.MGSM_LANGUAGES, _language),
    ),
    "held_in": Measure("Held-In", "held_in", (), 8, "validation", _HELD_IN),
    "cot_eval": Measure("CoT", "cot_eval", (), 5, "validation", _COT_EVAL),
    "mmlu_direct@zero": _mmlu("MMLU 0-shot", _ZERO, "no exemplars"),
    "mmlu_direct@few": _mmlu("MMLU few-shot", DIRECT, "5 exemplars"),
    "bbh_direct@zero": _bbh_measure("BBH 0-shot", _ZERO, "no exemplars", _BBH),
    "bbh_direct@few": _bbh_measure("BBH few-shot", DIRECT, "3 exemplars", _BBH),
    "bbh_cot@zero": _bbh_measure("BBH-CoT 0-shot", ("zs_cot",), "no exemplars, reasoned", _BBH),
    "bbh_cot@few": _bbh_measure("BBH-CoT few-shot", COT, "3 exemplars with reasoning", _BBH),
    "held_in@zero": Measure("Held-In 0-shot", "held_in", _ZERO, 8, "validation", _HELD_IN),
    "held_in@few": Measure(
        *("Held-In few-shot", "held_in", ("direct", "fs_opt", "fs_noopt"), 8),
        *("validation", _HELD_IN),
    ),
    "cot_eval@zero": Measure("CoT 0-shot", "cot_eval", ("zs_cot",), 5, "validation", _COT_EVAL),
    "cot_eval@few": Measure(
        *("CoT few-shot", "cot_eval", ("cot", "fs_cot"), 5, "validation", _COT_EVAL)
    ),
    # With a prompting: see `prompted`.
    "mmlu": _mmlu("MMLU", DIRECT, "5 exemplars"),
    "bbh_nlp": _bbh_measure("BBH-nlp", DIRECT, "3 exemplars", normalized.BBH_NLP),
    "bbh_algorithmic": _bbh_measure("BBH-alg", DIRECT, "3 exemplars", normalized.BBH_ALGORITHMIC),
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
    if key not in MEASURES:
        return column
    return (
        f"{part} {key.split('_')[1]}"
        if key.startswith("bbh") and part
        else part or (MEASURES[key].title)
    )


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
    run: Run,
    column: str,
    step: int | None = None,
    modes: Sequence[str] = (),
    voted: bool = False,
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
    found: dict[int, dict[tuple[str, str], tuple[Mapping[str, Any], int | None]]] = {}
    # "<name>-<suite>" holds results of settings with a name of their own: only where no others are.
    for evaluation in sorted(run.evaluations, key=lambda e: "-" in e.suite):
        for row in evaluation.metrics:
            is_part = not part or measure.name_of(row) == part
            if measure.takes(row) and is_part and _is_voted(row) == voted:
                limit = evaluation.settings.get("num_examples")
                at_step = found.setdefault(evaluation.step, {})
                at_step.setdefault((row["task"], row["mode"]), (row, limit))
    steps = [s for s in found if step is None or s == step]
    if not steps:
        return None
    chosen = list(found[max(steps)].values())
    rows = tuple(row for row, _ in chosen)
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
        limit=min((limit for _, limit in chosen if limit), default=None),
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
    found = {name: part for name, part in parts.items() if part is not None and part.complete}
    valued = all(row["value"] is not None for part in found.values() for row in part.rows)
    if len(found) < len(parts) or not valued:
        return None
    given: dict[str, Any] = {}
    variance = 0.0
    for name, part in found.items():
        by_task = {MEASURES[name].name_of(row): row for row in part.rows}
        if normalized.PARTS[name] is None:
            given[name] = {task: row["value"] for task, row in by_task.items()}
            slopes = {task: 100 / (100 - normalized.BBH_LOWER_BOUNDS[task]) for task in by_task}
        else:
            given[name] = part.value
            slopes = dict.fromkeys(by_task, 100 / (100 - (normalized.PARTS[name] or 0.0)))
        for task, row in by_task.items():
            error = math.nan if row["stderr"] is None else row["stderr"]
            variance += (error * slopes[task] / (len(by_task) * len(found))) ** 2
    limits = [part.limit for part in found.values() if part.limit]
    return Score(
        column=NORMALIZED,
        value=normalized.normalized_average(given).value,
        stderr=math.sqrt(variance) if math.isfinite(variance) else None,
        n=sum(part.n for part in found.values()),
        tasks=len(found),
        expected=len(parts),
        rows=tuple(row for part in found.values() for row in part.rows),
        step=max(part.step for part in found.values()),
        limit=min(limits, default=None),
    )


def differences(scores: Iterable[Score], mmlu_split: str) -> list[tuple[str, str]]:
    """(suite's title, what sets our score apart from the paper's), each once."""
    told: dict[tuple[str, str], None] = {}
    for found in scores:
        if found.column == NORMALIZED:
            continue
        key, _, part = found.column.partition(":")
        measure = MEASURES[key]
        split = mmlu_split if measure.family == "mmlu" else measure.split
        marks = []
        if not part and not found.complete:
            marks.append(f"{found.tasks} of the paper's {found.expected} sub-tasks")
        others = sorted({row["split"] for row in found.rows} - {split})
        if others:
            marks.append(f"our split is {', '.join(others)}, the paper's {split}")
        metrics = sorted({row["metric"] for row in found.rows} - _EXACT)
        if metrics:
            marks.append(f"our metric is {', '.join(metrics)}, the paper's exact match")
        if found.limit:
            marks.append(f"at most {found.limit:,} examples a task, the paper's all")
        decodings = {row["decode"].partition(" ")[0] for row in found.rows}
        if decodings - {"greedy"} and not all(map(_is_voted, found.rows)):
            marks.append(f"our decoding is {', '.join(sorted(decodings))}, the paper's greedy")
        marks += _prompt_marks(found.rows)
        if results.exemplars_of(found.rows) is None:
            marks.append("how many exemplars our prompts show is not known (an earlier evaluation)")
        trained = any(row["group"] == "held_in" for row in found.rows)
        if trained and measure.family in _HELD_OUT:
            marks.append("tasks of it were trained on; the paper's were held out")
        told |= {(measure.title, mark): None for mark in marks}
    return list(told)


def _prompt_marks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What our prompts lack of the protocol's: exemplars, the end of a source, whole examples."""
    marks = []
    shown = results.exemplars_of(rows)
    if shown is not None and not shown.complete:
        marks.append(f"our prompts show fewer exemplars: {shown}")
    n = sum(row["n"] for row in rows)
    for field, what in (
        ("truncated", "of our {n:,} prompts lost the end of their passage"),
        ("left_out", "examples are left out, because they do not fit the inputs' length"),
    ):
        count = sum(row.get(field) or 0 for row in rows)
        if count:
            marks.append(f"{count:,} {what.format(n=n)}")
    return marks


def sentences(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """`differences` as sentences, one a thing: "BBH direct, BBH CoT: 13 of ..."."""
    titles: dict[str, dict[str, None]] = {}
    for title, what in pairs:
        titles.setdefault(what, {})[title] = None
    return [f"{', '.join(names)}: {what}." for what, names in titles.items()]


def protocols(columns: Iterable[str], mmlu_split: str) -> list[str]:
    """How the paper measured the columns, one phrase a suite."""
    told: dict[str, None] = {}
    for key in dict.fromkeys(column.split(":")[0] for column in columns):
        if key in MEASURES:
            measure = MEASURES[key]
            split = mmlu_split if measure.family == "mmlu" else measure.split
            told[f"{measure.title}: {measure.protocol}, {split} split"] = None
    return list(told)


def conditions(scores: Iterable[Score]) -> list[str]:
    """Under what our scores were measured: exemplars, step, decoding, template sets, versions."""
    scores = list(scores)
    rows = [row for found in scores for row in found.rows]
    made = []
    whole = [s for s in scores if s.column in MEASURES]
    counts = [(s.column, results.exemplars_of(s.rows)) for s in whole]
    shown = dict.fromkeys(f"{title_of(column)} {count}" for column, count in counts if count)
    if shown:
        made.append(f"exemplars shown: {', '.join(shown)}")
    for title, field in (
        ("step", "step"),
        ("decoding", "decode"),
        ("template set", "template_set"),
        ("task version", "task_version"),
    ):
        values = sorted({str(row[field]) for row in rows})
        if values:
            more = f" and {len(values) - 4} more" if len(values) > 4 else ""
            made.append(f"{title} {', '.join(values[:4])}{more}")
    return made
