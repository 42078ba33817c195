"""The sections on results and samples: which numbers stand beside which.

Scores are primary metrics (0-100); a mean over tasks is unweighted, as in the papers. Two runs get
a column with their difference.
"""

import collections
import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from instruct import results
from instruct.report import blocks
from instruct.report.read import Evaluation, Run
from instruct.report.wording import all_of, counted, number, plus_minus, signed, with_error

GROUP_TITLES = {"held_in": "Held-in", "held_out": "Held-out", "unknown": "All"}
# Above this many tasks the open table shows only the best and the worst.
MANY_TASKS = 40
ENDS = 10
SAMPLES_SHOWN = 6

T = TypeVar("T")
Key = tuple[str, ...]
Lines = list[Mapping[str, Any]]  # metric lines of results files


def _grouped(rows: Iterable[Mapping[str, Any]], *names: str) -> dict[Key, Lines]:
    groups: dict[Key, Lines] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[name]) for name in names), []).append(row)
    return groups


def _prompt_sets(rows: Iterable[Mapping[str, Any]]) -> list[Lines]:
    """Primary metric lines by examples they share: the prompts of a set together, others alone.

    Tasks whose primary metric is `rank_accuracy` are prompts of one set where they agree in family
    and category, as T0's held-out tasks do.
    """
    sets: dict[Key, Lines] = {}
    for index, row in enumerate(rows):
        ranked = row["metric"] == "rank_accuracy"
        key = (row["family"], row["category"]) if ranked else (str(index),)
        sets.setdefault(key, []).append(row)
    return list(sets.values())


def mean_of(rows: Iterable[Mapping[str, Any]]) -> results.Aggregate:
    """`results.aggregate`; prompts of one set share their examples, so their errors do not cancel.

    The standard error of a mean over such prompts is taken as the mean of theirs, its largest
    possible value; sets are independent.
    """
    lines = list(rows)
    mean = results.aggregate(lines)
    if mean.stderr is None:
        return mean
    valued = [row for row in lines if row["value"] is not None]
    sums = [sum(row["stderr"] for row in prompts) for prompts in _prompt_sets(valued)]
    return dataclasses.replace(mean, stderr=math.hypot(*sums) / len(valued))


def over_prompts(rows: Iterable[Mapping[str, Any]]) -> str:
    """Median and quartiles over the prompts of one set, `48.2 [45.0, 51.3]`; "" for other rows."""
    sets = _prompt_sets(rows)
    values = [row["value"] for row in sets[0] if row["value"] is not None] if sets else []
    if len(sets) != 1 or len(values) < 2:
        return ""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{number(middle)} [{number(low)}, {number(high)}]"


def headline(run: Run) -> dict[str, results.Aggregate]:
    """Per group, the mean over its distinct tasks, each in the latest evaluation that has it."""
    latest: dict[Key, Mapping[str, Any]] = {}
    for evaluation in sorted(run.evaluations, key=lambda e: e.step):
        for row in evaluation.metrics:
            latest[row["task"], row["mode"], row["split"]] = row
    groups = _grouped(latest.values(), "group")
    return {g: mean_of(groups[g,]) for g in results.GROUPS if (g,) in groups}


def results_section(runs: Sequence[Run]) -> blocks.Section:
    """For every suite: categories as dots and table, then tasks, then scores over checkpoints."""
    suites = dict.fromkeys(suite for run in runs for suite in run.suites())
    text = (
        "Scores are the first metric of each task; a mean over tasks is unweighted. ± is one "
        "standard error, from the sample of examples only; a score without it has one example, or "
        "examples that all score alike. The baseline needs no model: the better of always giving "
        "the most frequent answer of the task and of choosing one of the options shown at random."
    )
    if not suites:
        text = "No evaluation has been written yet."
    parts: list[blocks.Block] = [blocks.Text(text, quiet=bool(suites))]
    for suite in suites:
        latest = [(n, run.latest(suite)) for n, run in enumerate(runs)]
        if chosen := {n: e for n, e in latest if e is not None and e.metrics}:
            parts += _suite_blocks(suite, runs, chosen)
    return blocks.Section("results", "Results", tuple(parts))


class ResultRow(NamedTuple):
    """A line of a results table; by run: its mean, and `over_prompts` of its tasks.

    `titles` are its name and the texts of its last columns; totals are `strong`.
    """

    titles: tuple[str, ...]
    means: dict[int, results.Aggregate]
    strong: bool = False
    spreads: Mapping[int, str] = {}

    @property
    def baseline(self) -> float | None:
        """The baseline of the first run that has one."""
        levels = (mean.baseline for mean in self.means.values())
        return next((level for level in levels if level is not None), None)


def _suite_blocks(
    suite: str, runs: Sequence[Run], chosen: dict[int, Evaluation]
) -> list[blocks.Block]:
    steps = sorted({evaluation.step for evaluation in chosen.values()})
    metrics = sorted({row["metric"] for e in chosen.values() for row in e.metrics})
    names = {n: runs[n].label for n in chosen}
    rows = _category_rows(chosen)
    dots = blocks.Dots(
        f"{suite}, step {' and '.join(f'{step:,}' for step in steps)}",
        tuple(map(_dot_row, rows)),
        tuple((n, name if len(runs) > 1 else "score") for n, name in names.items()),
        f"{' / '.join(metrics)} (%)" if len(metrics) <= 3 else "first metric of each task",
        tabled=True,
    )
    parts: list[blocks.Block] = [blocks.Pair(dots, _table("Category", rows, names))]
    if any(text for row in rows for text in row.spreads.values()):
        text = (
            "Tasks of a category are prompts of one set here: the median and the quartiles are "
            "over its prompts, and ± assumes that all of them err on the same examples."
        )
        parts.append(blocks.Text(text, quiet=True))
    tasks = _task_rows(chosen)
    if len(tasks) > MANY_TASKS:
        text = f"The {ENDS} best and {ENDS} worst of {len(tasks):,} tasks:"
        parts.append(blocks.Text(text))
        parts.append(_table("Task", [*tasks[:ENDS], *tasks[-ENDS:]], names))
    parts.append(_table("Task", tasks, names, f"{all_of(len(tasks), 'task')} of {suite}"))
    return [*parts, *_other_metrics(chosen, names), *_trend(suite, runs)]


def _by_key(chosen: dict[int, Evaluation], *names: str) -> dict[Key, dict[int, Lines]]:
    """Metric lines by the values of these fields, then by run."""
    keyed: dict[Key, dict[int, Lines]] = {}
    for n, evaluation in chosen.items():
        for key, lines in _grouped(evaluation.metrics, *names).items():
            keyed.setdefault(key, {})[n] = lines
    return keyed


def _each(of_runs: dict[int, Lines], function: Callable[[Lines], T]) -> dict[int, T]:
    return {n: function(lines) for n, lines in of_runs.items()}


def _category_rows(chosen: dict[int, Evaluation]) -> list[ResultRow]:
    groups, categories = _by_key(chosen, "group"), _by_key(chosen, "group", "category")
    rows: list[ResultRow] = []
    for group in (g for g in results.GROUPS if (g,) in groups):
        means = _each(groups[group,], mean_of)
        rows.append(ResultRow((f"{GROUP_TITLES[group]} tasks",), means, True))
        inside = [
            ResultRow((key[1],), _each(of_runs, mean_of), False, _each(of_runs, over_prompts))
            for key, of_runs in categories.items()
            if key[0] == group
        ]
        rows += sorted(inside, key=_best_first)
    return rows


def _task_rows(chosen: dict[int, Evaluation]) -> list[ResultRow]:
    rows = []
    keyed = _by_key(chosen, "task", "mode", "metric", "group")
    for (task, mode, metric, group), of_runs in keyed.items():
        titles = (f"{task} {mode}".rstrip(), metric, GROUP_TITLES[group].lower())
        rows.append(ResultRow(titles, _each(of_runs, results.aggregate)))
    return sorted(rows, key=_best_first)


def _best_first(row: ResultRow) -> tuple[float, Key]:
    values = [mean.value for mean in row.means.values() if mean.value is not None]
    return (-max(values, default=-math.inf), row.titles)


def _table(
    heading: str, rows: Sequence[ResultRow], names: Mapping[int, str], fold: str = ""
) -> blocks.Table:
    """A table built column by column: (heading, one text a row) each."""

    def title(n: int, what: str) -> str:
        return f"{names[n]}: {what}" if len(names) > 1 else what.capitalize()

    columns: list[tuple[str, Sequence[str]]] = [(heading, [row.titles[0] for row in rows])]
    for n, name in names.items():
        means = [row.means.get(n) for row in rows]
        scores = [with_error(mean.value, mean.stderr) if mean else "–" for mean in means]
        columns.append((name if len(names) > 1 else "Score ± s.e.", scores))
    if len(names) == 2:
        columns.append(("Difference", [_difference(*map(row.means.get, names)) for row in rows]))
    for n in names:
        if any(row.spreads.get(n) for row in rows):
            spreads = [row.spreads.get(n) or "–" for row in rows]
            columns.append((title(n, "median [quartiles]"), spreads))
    columns.append(("Baseline", [number(row.baseline) for row in rows]))
    for n in names:
        exemplars = [row.means[n].exemplars if n in row.means else None for row in rows]
        if any(exemplars):
            columns.append((title(n, "exemplars"), list(map(results.exemplars_text, exemplars))))
    first = [next(iter(row.means.values())) for row in rows]
    counts = ("n", [f"{mean.examples:,}" for mean in first])
    if heading == "Task":
        _, metrics, groups = zip(*(row.titles for row in rows))
        columns += [counts, ("Metric", metrics), ("Group", groups)]
    else:
        columns += [("Tasks", [f"{mean.tasks:,}" for mean in first]), counts]
    headings, texts = zip(*columns)
    lines = tuple(blocks.Row(cells, row.strong) for cells, row in zip(zip(*texts), rows))
    return blocks.Table(headings, lines, fold=fold)


def _difference(first: results.Aggregate | None, second: results.Aggregate | None) -> str:
    if not first or not second or first.value is None or second.value is None:
        return "–"
    change = signed(second.value - first.value)
    if first.stderr is None or second.stderr is None:
        return change
    return change + plus_minus(math.hypot(first.stderr, second.stderr))


def _dot_row(row: ResultRow) -> blocks.DotRow:
    marks = [blocks.Mark(m.value, m.stderr, n) for n, m in row.means.items() if m.value is not None]
    return blocks.DotRow(row.titles[0], tuple(marks), row.baseline, row.strong)


def _other_metrics(chosen: dict[int, Evaluation], names: dict[int, str]) -> list[blocks.Table]:
    rows = []
    for n, evaluation in chosen.items():
        for row in evaluation.others:
            value = with_error(row["value"], row["stderr"])
            level = number(results.chance_level(row))
            cells = (value, level, f"{row['n']:,}", row["metric"], names[n])
            rows.append((f"{row['task']} {row['mode']}".rstrip(), *cells))
    columns = ("Task", "Value ± s.e.", "Baseline", "n", "Metric", "Run")
    shown = len(columns) if len(chosen) > 1 else len(columns) - 1
    lines = tuple(blocks.Row(row[:shown]) for row in rows)
    fold = counted(len(rows), "further metric")
    return [blocks.Table(columns[:shown], lines, fold=fold)] if rows else []


def _trend(suite: str, runs: Sequence[Run]) -> list[blocks.Block]:
    """Score of each group against the checkpoint's step, drawn and as a folded table."""
    rows, series = [], []
    numbered = itertools.product(enumerate(runs), enumerate(results.GROUPS))
    for (color, run), (order, group) in numbered:
        points, title = [], GROUP_TITLES[group]
        for evaluation in sorted(run.evaluations, key=lambda e: e.step):
            lines = [row for row in evaluation.metrics if row["group"] == group]
            if evaluation.suite == suite and lines:
                mean = mean_of(lines)
                score = with_error(mean.value, mean.stderr)
                cells = (run.label, title, f"{evaluation.step:,}", score)
                rows.append(blocks.Row((*cells, number(mean.baseline), str(mean.tasks))))
                points.append((evaluation.step, math.nan if mean.value is None else mean.value))
        if len(points) > 1:
            several, name = len(runs) > 1, title.lower()
            name, shown = (f"{run.label}, {name}", color) if several else (name, order)
            series.append(blocks.Series(name, tuple(points), shown, dashed=order > 0))
    if not series:
        return []
    columns = ("Run", "Group", "Step", "Score ± s.e.", "Baseline", "Tasks")
    return [
        blocks.Charts((blocks.Lines(f"{suite}: score over the checkpoints", tuple(series)),)),
        blocks.Table(columns, tuple(rows), 2, fold=f"{suite} over the checkpoints"),
    ]


def samples_section(runs: Sequence[Run]) -> blocks.Section:
    """Right, wrong and unjudged predictions of each group, spread over tasks."""
    parts: list[blocks.Block] = []
    for run in runs:
        latest = [e for suite in run.suites() if (e := run.latest(suite)) is not None]
        rows = [row for evaluation in latest for row in evaluation.examples]
        groups = _grouped(rows, "group")
        for group in (g for g in results.GROUPS if (g,) in groups):
            for correct, word in ((True, "right"), (False, "wrong"), (None, "not judged")):
                kept = _spread([row for row in groups[group,] if row["correct"] is correct])
                if kept:
                    whose = f"{run.label}: " if len(runs) > 1 else ""
                    title = f"{whose}{GROUP_TITLES[group]}, {word}"
                    parts.append(blocks.Samples(title, tuple(map(_sample, kept))))
    if not parts:
        parts.append(blocks.Text("No example has been evaluated yet."))
    return blocks.Section("samples", "Sample predictions", tuple(parts))


def _spread(rows: Sequence[Mapping[str, Any]]) -> Lines:
    """Up to `SAMPLES_SHOWN` rows: categories take turns, then their tasks, then repeats."""
    seen: collections.Counter[Key] = collections.Counter()
    ranked = []
    for row in rows:
        ranked.append((seen[row["task"], row["mode"]], row))
        seen[row["task"], row["mode"]] += 1
    ranked.sort(key=lambda item: item[0])
    turns = itertools.zip_longest(*_grouped((row for _, row in ranked), "category").values())
    return [row for turn in turns for row in turn if row is not None][:SAMPLES_SHOWN]


def _sample(row: Mapping[str, Any]) -> blocks.Sample:
    scores = ", ".join(f"{name} {number(value)}" for name, value in row["scores"].items())
    texts = (row["prompt"], row["target"], row["prediction"])
    return blocks.Sample(f"{row['task']} · {row['mode']}", *texts, row["correct"], scores)
