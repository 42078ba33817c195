"""Results, samples and mixture as blocks: which numbers stand beside which.

Scores are primary metrics (0-100); a mean over tasks is unweighted, as in the papers. Two runs get
a column with their difference.
"""

import collections
import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from instruct import results
from instruct.report.blocks import (
    Block,
    Charts,
    DotRow,
    Dots,
    Lines,
    Mark,
    Pair,
    Row,
    Sample,
    Samples,
    Section,
    Series,
    Table,
    Text,
)
from instruct.report.read import Evaluation, Run
from instruct.report.wording import all_of, counted, number, plus_minus, signed

GROUP_TITLES = {
    "held_in": "Held-in",
    "held_out": "Held-out",
    "unknown": "All",
}
# Above this many tasks the open table shows only the best and the worst.
MANY_TASKS = 40
ENDS = 10
_MEDIAN = "median [quartiles]"
SAMPLES_SHOWN = 6

Key = tuple[str, ...]


def with_error(value: float | None, stderr: float | None) -> str:
    """`41.2 ± 1.3`, without the error where it is not known."""
    return number(value) + ("" if number(value) == "–" else plus_minus(stderr))


def _grouped(rows: Iterable[Mapping[str, Any]], *names: str) -> dict[Key, list[Mapping[str, Any]]]:
    groups: dict[Key, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[name]) for name in names), []).append(row)
    return groups


def _prompt_sets(rows: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Primary metric lines by examples they share: the prompts of a set together, others alone.

    Tasks whose primary metric is `rank_accuracy` are prompts of one set where they agree in family
    and category, as T0's held-out tasks do.
    """
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for place, row in enumerate(rows):
        ranked = row["metric"] == "rank_accuracy"
        key = (row["family"], row["category"]) if ranked else (str(place),)
        found.setdefault(key, []).append(row)
    return list(found.values())


def mean_of(rows: Iterable[Mapping[str, Any]]) -> results.Aggregate:
    """`results.aggregate`; prompts of one set share their examples, so their errors do not cancel.

    The standard error of a mean over such prompts is taken as the mean of theirs, its largest
    possible value; sets are independent.
    """
    given = list(rows)
    mean = results.aggregate(given)
    if mean.stderr is None:
        return mean
    valued = [row for row in given if row["value"] is not None]
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


def results_section(runs: Sequence[Run]) -> Section:
    """For every suite: categories as dots and table, then tasks, then scores over checkpoints."""
    suites = list(dict.fromkeys(suite for run in runs for suite in run.suites()))
    blocks: list[Block] = []
    if suites:
        blocks.append(
            Text(
                "Scores are the first metric of each task; a mean over tasks is unweighted. "
                "± is one standard error, from the sample of examples only; a score without it has "
                "one example, or examples that all score alike. The baseline needs no model: the "
                "better of always giving the most frequent answer of the task and of choosing one "
                "of the options shown at random.",
                quiet=True,
            )
        )
    else:
        blocks.append(Text("No evaluation has been written yet."))
    for suite in suites:
        found = [(number, run.latest(suite)) for number, run in enumerate(runs)]
        chosen = {number: e for number, e in found if e is not None and e.metrics}
        if chosen:
            blocks += _suite_blocks(suite, runs, chosen)
    return Section("results", "Results", tuple(blocks))


def _suite_blocks(suite: str, runs: Sequence[Run], chosen: dict[int, Evaluation]) -> list[Block]:
    steps = sorted({evaluation.step for evaluation in chosen.values()})
    where = " and ".join(f"{step:,}" for step in steps)
    metrics = {row["metric"] for e in chosen.values() for row in e.metrics}
    unit = (
        f"{' / '.join(sorted(metrics))} (%)" if len(metrics) <= 3 else "first metric of each task"
    )
    names = {number: runs[number].label for number in chosen}
    rows = _category_rows(chosen)
    title = f"{suite}, step {where}"
    legend = tuple((n, runs[n].label if len(runs) > 1 else "score") for n in chosen)
    blocks: list[Block] = [
        Pair(
            Dots(title, tuple(_dot_row(r) for r in rows), legend, unit, tabled=True),
            _table("Category", rows, names),
        ),
    ]
    if any(text for row in rows for text in row.spreads.values()):
        text = (
            "Tasks of a category are prompts of one set here: the median and the quartiles are "
            "over its prompts, and ± assumes that all of them err on the same examples."
        )
        blocks.append(Text(text, quiet=True))
    tasks = _task_rows(chosen)
    if len(tasks) > MANY_TASKS:
        shown = [*tasks[:ENDS], *tasks[-ENDS:]]
        blocks.append(Text(f"The {ENDS} best and {ENDS} worst of {len(tasks):,} tasks:"))
        blocks.append(_table("Task", shown, names))
    blocks.append(_table("Task", tasks, names, f"{all_of(len(tasks), 'task')} of {suite}"))
    others = _other_metrics(chosen, runs)
    if others is not None:
        blocks.append(others)
    return [*blocks, *_trend(suite, runs)]


class ResultRow(NamedTuple):
    """A result line before it is laid out.

    Attributes:
        titles: its name and what stands in its last columns.
        cells: one aggregate for each run that has it.
        strong: whether it is a total.
        spreads: for each run that has it, `over_prompts` of its tasks.
    """

    titles: tuple[str, ...]
    cells: dict[int, results.Aggregate]
    strong: bool
    spreads: Mapping[int, str] = {}


def _category_rows(chosen: dict[int, Evaluation]) -> list[ResultRow]:
    rows: list[ResultRow] = []
    by_group = {n: _grouped(e.metrics, "group") for n, e in chosen.items()}
    by_category = {n: _grouped(e.metrics, "group", "category") for n, e in chosen.items()}
    for group in results.GROUPS:
        if not any((group,) in groups for groups in by_group.values()):
            continue
        title = GROUP_TITLES[group]
        cells = {n: mean_of(g[group,]) for n, g in by_group.items() if (group,) in g}
        rows.append(ResultRow((f"{title} tasks",), cells, True))
        keys = list(dict.fromkeys(k for g in by_category.values() for k in g if k[0] == group))
        inside = []
        for key in keys:
            of_runs = {n: g[key] for n, g in by_category.items() if key in g}
            cells = {n: mean_of(lines) for n, lines in of_runs.items()}
            spreads = {n: over_prompts(lines) for n, lines in of_runs.items()}
            inside.append(ResultRow((key[1],), cells, False, spreads))
        rows += sorted(inside, key=_best_first)
    return rows


def _task_rows(chosen: dict[int, Evaluation]) -> list[ResultRow]:
    names = ("task", "mode", "metric", "group")
    grouped = {n: _grouped(e.metrics, *names) for n, e in chosen.items()}
    keys = list(dict.fromkeys(key for groups in grouped.values() for key in groups))
    rows: list[ResultRow] = []
    for key in keys:
        cells = {n: results.aggregate(g[key]) for n, g in grouped.items() if key in g}
        task, mode, metric, group = key
        titles = (f"{task} {mode}".rstrip(), metric, GROUP_TITLES[group].lower())
        rows.append(ResultRow(titles, cells, False))
    return sorted(rows, key=_best_first)


def _best_first(row: ResultRow) -> tuple[float, Key]:
    values = [a.value for a in row.cells.values() if a.value is not None]
    return (-max(values, default=-math.inf), row.titles)


def _table(heading: str, rows: list[ResultRow], names: Mapping[int, str], fold: str = "") -> Table:
    of_tasks = heading == "Task"
    last = ("n", "Metric", "Group") if of_tasks else ("Tasks", "n")
    told = [n for n in names if any(n in r.cells and r.cells[n].exemplars for r in rows)]
    exemplars = [f"{names[n]}: exemplars" if len(names) > 1 else "Exemplars" for n in told]
    difference = ("Difference",) if len(names) == 2 else ()
    scores = names.values() if len(names) > 1 else ("Score ± s.e.",)
    spread = [n for n in names if any(row.spreads.get(n) for row in rows)]
    medians = [f"{names[n]}: {_MEDIAN}" if len(names) > 1 else _MEDIAN.capitalize() for n in spread]
    columns = (heading, *scores, *difference, *medians, "Baseline", *exemplars, *last)
    laid = []
    for titles, cells, strong, spreads in rows:
        given = [cells.get(n) for n in names]
        scored = [with_error(a.value, a.stderr) if a else "–" for a in given]
        some = next(iter(cells.values()))
        counts = [f"{some.examples:,}"] if of_tasks else [f"{some.tasks:,}", f"{some.examples:,}"]
        apart = [_difference(given)] if difference else []
        baseline = next((a.baseline for a in cells.values() if a.baseline is not None), None)
        medians = [spreads.get(n) or "–" for n in spread]
        of_told = [cells[n].exemplars if n in cells else None for n in told]
        prompts = [results.exemplars_text(shown) for shown in of_told]
        values = (titles[0], *scored, *apart, *medians, number(baseline), *prompts, *counts)
        values += titles[1:]
        laid.append(Row(values, strong))
    return Table(columns, tuple(laid), fold=fold)


def _difference(pair: Sequence[results.Aggregate | None]) -> str:
    first, second = (*pair, None, None)[:2]
    if not first or not second or first.value is None or second.value is None:
        return "–"
    change = second.value - first.value
    if first.stderr is None or second.stderr is None:
        return signed(change)
    return signed(change) + plus_minus(math.hypot(first.stderr, second.stderr))


def _dot_row(row: ResultRow) -> DotRow:
    titles, cells, strong, _ = row
    marks = [Mark(a.value, a.stderr, n) for n, a in cells.items() if a.value is not None]
    baseline = next((a.baseline for a in cells.values() if a.baseline is not None), None)
    return DotRow(titles[0], tuple(marks), baseline, strong)


def _other_metrics(chosen: dict[int, Evaluation], runs: Sequence[Run]) -> Table | None:
    rows = []
    several = len(chosen) > 1
    for run_number, evaluation in chosen.items():
        for row in evaluation.others:
            value = with_error(row["value"], row["stderr"])
            level = number(results.chance_level(row))
            cells = (value, level, f"{row['n']:,}", row["metric"])
            label = (runs[run_number].label,) if several else ()
            rows.append(Row((f"{row['task']} {row['mode']}".rstrip(), *cells, *label)))
    if not rows:
        return None
    label = ("Run",) if several else ()
    columns = ("Task", "Value ± s.e.", "Baseline", "n", "Metric", *label)
    return Table(columns, tuple(rows), fold=counted(len(rows), "further metric"))


def _trend(suite: str, runs: Sequence[Run]) -> list[Block]:
    """Score of each group against the checkpoint's step, drawn and as a folded table."""
    rows, series = [], []
    several = len(runs) > 1
    for color, run in enumerate(runs):
        evaluations = sorted((e for e in run.evaluations if e.suite == suite), key=lambda e: e.step)
        for order, group in enumerate(results.GROUPS):
            points = []
            for evaluation in evaluations:
                lines = [row for row in evaluation.metrics if row["group"] == group]
                if lines:
                    mean = mean_of(lines)
                    score = with_error(mean.value, mean.stderr)
                    cells = (run.label, GROUP_TITLES[group], f"{evaluation.step:,}", score)
                    rows.append(Row((*cells, number(mean.baseline), str(mean.tasks))))
                    points.append((evaluation.step, math.nan if mean.value is None else mean.value))
            if len(points) > 1:
                title = GROUP_TITLES[group].lower()
                name = f"{run.label}, {title}" if several else title
                series.append(Series(name, tuple(points), color if several else order, order > 0))
    if not series:
        return []
    columns = ("Run", "Group", "Step", "Score ± s.e.", "Baseline", "Tasks")
    return [
        Charts((Lines(f"{suite}: score over the checkpoints", tuple(series)),)),
        Table(columns, tuple(rows), 2, fold=f"{suite} over the checkpoints"),
    ]


def samples_section(runs: Sequence[Run]) -> Section:
    """Right, wrong and unjudged predictions of each group, spread over tasks."""
    blocks: list[Block] = []
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
                    blocks.append(Samples(title, tuple(map(_sample, kept))))
    if not blocks:
        blocks.append(Text("No example has been evaluated yet."))
    return Section("samples", "Sample predictions", tuple(blocks))


def _spread(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Up to `SAMPLES_SHOWN` rows: categories take turns, then their tasks, then repeats."""
    queues: dict[str, collections.deque[Mapping[str, Any]]] = {}
    seen: collections.Counter[Key] = collections.Counter()
    ranked = []
    for place, row in enumerate(rows):
        ranked.append((seen[row["task"], row["mode"]], place, row))
        seen[row["task"], row["mode"]] += 1
    for _, _, row in sorted(ranked, key=lambda item: item[:2]):
        queues.setdefault(row["category"], collections.deque()).append(row)
    kept: list[Mapping[str, Any]] = []
    while len(kept) < SAMPLES_SHOWN and any(queues.values()):
        kept += [queue.popleft() for queue in queues.values() if queue]
    return kept[:SAMPLES_SHOWN]


def _sample(row: Mapping[str, Any]) -> Sample:
    scores = ", ".join(f"{name} {number(value)}" for name, value in row["scores"].items())
    source = f"{row['task']} · {row['mode']}"
    return Sample(source, row["prompt"], row["target"], row["prediction"], row["correct"], scores)
