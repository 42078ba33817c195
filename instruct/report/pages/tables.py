"""Results and sample predictions of runs, as sections of a page.

Scores are primary metrics (0-100); a mean over tasks is unweighted, as in the papers.
"""

import collections
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from instruct import results
from instruct.report import blocks
from instruct.report.read import Evaluation, Run
from instruct.report.wording import all_of, counted, number, plus_minus, signed, with_error

GROUP_TITLES = {"held_in": "Held-in", "held_out": "Held-out", "unknown": "All"}
# With more tasks than this, the open table shows only the best and the worst.
MANY_TASKS = 40
ENDS = 10
SAMPLES_SHOWN = 6

Key = tuple[str, ...]
Lines = list[Mapping[str, Any]]  # metric lines of results files


def _grouped(rows: Iterable[Mapping[str, Any]], *names: str) -> dict[Key, Lines]:
    groups: dict[Key, Lines] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[name]) for name in names), []).append(row)
    return groups


def _over_prompts(rows: Iterable[Mapping[str, Any]]) -> str:
    """`48.2 [45.0, 51.3]`: median and quartiles of one prompt set; "" for other rows."""
    sets = results.prompt_sets(rows)
    values = [row["value"] for row in sets[0] if row["value"] is not None]
    if len(sets) != 1 or len(values) < 2:
        return ""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{number(middle)} [{number(low)}, {number(high)}]"


def headline(run: Run) -> dict[str, results.Aggregate]:
    """Mean score of each group, every task counting once, by the latest evaluation that has it.

    Evaluations while training, on a few examples, count only where there are no others.
    """
    latest: dict[Key, Mapping[str, Any]] = {}
    # Of evaluations at one step, one under the suite's own name counts before `<name>-<suite>`.
    for evaluation in sorted(run.counted(), key=lambda e: (e.step, "-" not in e.suite)):
        for row in evaluation.metrics:
            latest[row["task"], row["mode"], row["split"]] = row
    groups = _grouped(latest.values(), "group")
    return {g: results.aggregate(groups[g,]) for g in results.GROUPS if (g,) in groups}


@blocks.section("results", "Results", "No evaluation has been written yet.")
def results_section(runs: Sequence[Run]) -> Iterator[blocks.Block]:
    """For each suite: categories as dots and table, then tasks, then scores over checkpoints."""
    suites = dict.fromkeys(suite for run in runs for suite in run.suites())
    if suites:
        yield blocks.Text(blocks.NOTES["scores"], quiet=True)
    for suite in suites:
        latest = {n: run.latest(suite) for n, run in enumerate(runs)}
        if evaluations := {n: e for n, e in latest.items() if e is not None and e.metrics}:
            yield from _suite_blocks(suite, runs, evaluations)


class ResultRow(NamedTuple):
    """A row of a results table: by run, the mean of its metric lines and their `_over_prompts`.

    `key` holds the fields that its metric lines share; totals are `strong`. Runs are `alike` if
    their means are over the same tasks.
    """

    key: Key
    title: str
    means: dict[int, results.Aggregate]
    spreads: dict[int, str]
    strong: bool = False
    alike: bool = True

    @property
    def baseline(self) -> float | None:
        """The highest baseline of a run."""
        return results.highest(mean.baseline for mean in self.means.values())


def suites_compared(run: Run) -> Iterator[blocks.Block]:
    """The mean of each suite by its latest evaluation, if there are several."""
    if rows := suite_rows(run):
        dots = blocks.Dots(
            "By evaluation",
            [_dot_row(row) for row in rows],
            ((0, "score"),),
            "mean of each task's first metric (%)",
        )
        described = [row._replace(title=_description(run, row.title)) for row in rows]
        yield blocks.Pair(dots, _table("What it asks", described, {0: run.label}))


def _description(run: Run, suite: str) -> str:
    """What a suite asks by its results file; its name if that does not say."""
    evaluation = run.latest(suite)
    return (evaluation and evaluation.header.get("description")) or suite


def suite_rows(run: Run) -> list[ResultRow]:
    """A row a suite, the highest above its baseline first; none if there is one suite only."""
    latest = [(suite, run.latest(suite)) for suite in run.suites()]
    means = {suite: results.aggregate(e.metrics) for suite, e in latest if e and e.metrics}
    rows = [ResultRow((suite,), suite, {0: mean}, {}) for suite, mean in means.items()]
    rows.sort(key=lambda row: (row.means[0].baseline or 0.0) - (row.means[0].value or 0.0))
    return rows if len(rows) > 1 else []


def _result_rows(
    evaluations: dict[int, Evaluation], title_of: Callable[..., str], *names: str
) -> list[ResultRow]:
    """A row for each combination of the values of these fields, the best score of any run first."""
    keyed: dict[Key, dict[int, Lines]] = {}
    for n, evaluation in evaluations.items():
        for key, lines in _grouped(evaluation.metrics, *names).items():
            keyed.setdefault(key, {})[n] = lines
    rows = [
        ResultRow(
            key,
            title_of(*key),
            {n: results.aggregate(lines) for n, lines in of_runs.items()},
            {n: _over_prompts(lines) for n, lines in of_runs.items()},
            alike=_same_tasks(of_runs.values()),
        )
        for key, of_runs in keyed.items()
    ]

    def best_first(row: ResultRow) -> tuple[float, Key]:
        values = [mean.value for mean in row.means.values() if mean.value is not None]
        return -max(values, default=-math.inf), row.key

    return sorted(rows, key=best_first)


def _same_tasks(of_runs: Iterable[Lines]) -> bool:
    return len({frozenset((row["task"], row["mode"]) for row in rows) for rows in of_runs}) < 2


def _category_rows(evaluations: dict[int, Evaluation]) -> list[ResultRow]:
    """Each group's total, then its categories."""
    totals = _result_rows(evaluations, lambda group: f"{GROUP_TITLES[group]} tasks", "group")
    totals = [row._replace(spreads={}, strong=True) for row in totals]
    categories = _result_rows(evaluations, lambda _, category: category, "group", "category")
    rows = [*totals, *categories]
    return sorted(rows, key=lambda row: results.GROUPS.index(row.key[0]))


def _suite_blocks(
    suite: str, runs: Sequence[Run], evaluations: dict[int, Evaluation]
) -> Iterator[blocks.Block]:
    steps = sorted({evaluation.step for evaluation in evaluations.values()})
    metrics = sorted({row["metric"] for e in evaluations.values() for row in e.metrics})
    names = {n: runs[n].label for n in evaluations}
    rows = _category_rows(evaluations)
    dots = blocks.Dots(
        f"{suite}, step {' and '.join(f'{step:,}' for step in steps)}",
        [_dot_row(row) for row in rows],
        tuple((n, name if len(runs) > 1 else "score") for n, name in names.items()),
        f"{' / '.join(metrics)} (%)" if len(metrics) <= 3 else "first metric of each task",
        tabled=True,
    )
    yield blocks.Pair(dots, _table("Category", rows, names))
    if description := next(iter(evaluations.values())).header.get("description"):
        yield blocks.Text(f"{description}.", quiet=True)
    if any(text for row in rows for text in row.spreads.values()):
        text = (
            "Tasks of a category are prompts of one set here: the median and the quartiles are "
            "over its prompts, and ± assumes that all of them err on the same examples."
        )
        yield blocks.Text(text, quiet=True)
    fields = ("task", "mode", "metric", "group")
    tasks = _result_rows(evaluations, lambda task, mode, *_: f"{task} {mode}".rstrip(), *fields)
    if len(tasks) > MANY_TASKS:
        yield blocks.Text(f"The {ENDS} best and {ENDS} worst of {len(tasks):,} tasks:")
        yield _table("Task", [*tasks[:ENDS], *tasks[-ENDS:]], names)
    yield _table("Task", tasks, names, f"{all_of(len(tasks), 'task')} of {suite}")
    yield from _other_metrics(evaluations, names)
    yield from _trend(suite, runs)


def _table(
    heading: str, rows: Sequence[ResultRow], names: Mapping[int, str], fold: str = ""
) -> blocks.Table:
    """Columns that no row fills (differences, prompt sets, exemplars) are left out."""
    several, two = len(names) > 1, len(names) == 2
    spreads = [n for n in names if any(row.spreads.get(n) for row in rows)]
    exemplars = [n for n in names if any(n in row.means and row.means[n].exemplars for row in rows)]

    def of_run(n: int, title: str) -> str:
        return f"{names[n]}: {title}" if several else title.capitalize()

    columns = (
        heading,
        *(names.values() if several else ["Score ± s.e."]),
        *(["Difference"] if two else []),
        *(of_run(n, "median [quartiles]") for n in spreads),
        "Baseline",
        *(of_run(n, "exemplars") for n in exemplars),
        *(["n", "Metric", "Group"] if heading == "Task" else ["Tasks", "n"]),
    )
    lines = []
    for row in rows:
        means = [row.means.get(n) for n in names]
        cells = [row.title, *(with_error(m.value, m.stderr) if m else "–" for m in means)]
        cells += [_difference(*means) if row.alike else "other tasks"] if two else []
        cells += [row.spreads.get(n) or "–" for n in spreads]
        cells += [number(row.baseline)]
        shown = (row.means[n].exemplars if n in row.means else None for n in exemplars)
        cells += map(results.exemplars_text, shown)
        if heading == "Task":
            cells += [_counts(row, "examples"), row.key[2], GROUP_TITLES[row.key[3]].lower()]
        else:
            cells += [_counts(row, "tasks"), _counts(row, "examples")]
        lines.append(blocks.Row(tuple(cells), row.strong))
    return blocks.Table(columns, lines, fold=fold)


def _counts(row: ResultRow, name: str) -> str:
    """Tasks or examples of the runs, each if they differ: `12 / 8`."""
    counts = [f"{getattr(mean, name):,}" for mean in row.means.values()]
    return counts[0] if len(set(counts)) == 1 else " / ".join(counts)


def _difference(first: results.Aggregate | None, second: results.Aggregate | None) -> str:
    if not first or not second or first.value is None or second.value is None:
        return "–"
    change = signed(second.value - first.value)
    if first.stderr is None or second.stderr is None:
        return change
    return change + plus_minus(math.hypot(first.stderr, second.stderr))


def _dot_row(row: ResultRow) -> blocks.DotRow:
    marks = [blocks.Mark(m.value, m.stderr, n) for n, m in row.means.items() if m.value is not None]
    return blocks.DotRow(row.title, tuple(marks), row.baseline, row.strong)


def _other_metrics(
    evaluations: dict[int, Evaluation], names: dict[int, str]
) -> Iterator[blocks.Table]:
    columns = ("Task", "Value ± s.e.", "Baseline", "n", "Metric", "Run")
    shown = len(columns) if len(evaluations) > 1 else len(columns) - 1
    rows = []
    for n, evaluation in evaluations.items():
        for row in evaluation.others:
            value = with_error(row["value"], row["stderr"])
            cells = (f"{row['task']} {row['mode']}".rstrip(), value)
            cells += (number(results.chance_level(row)), f"{row['n']:,}", row["metric"], names[n])
            rows.append(blocks.Row(cells[:shown]))
    if rows:
        yield blocks.Table(columns[:shown], rows, fold=counted(len(rows), "further metric"))


def _trend(suite: str, runs: Sequence[Run]) -> Iterator[blocks.Block]:
    """Score of each group over the checkpoints, drawn and as a folded table."""
    rows, series = [], []
    for (color, run), group in itertools.product(enumerate(runs), results.GROUPS):
        points, title, order = [], GROUP_TITLES[group], results.GROUPS.index(group)
        for evaluation in sorted(run.evaluations, key=lambda e: e.step):
            lines = [row for row in evaluation.metrics if row["group"] == group]
            if evaluation.suite == suite and lines:
                mean = results.aggregate(lines)
                cells = (run.label, title, f"{evaluation.step:,}")
                cells += (with_error(mean.value, mean.stderr), number(mean.baseline))
                rows.append(blocks.Row((*cells, str(mean.tasks))))
                points.append((evaluation.step, math.nan if mean.value is None else mean.value))
        name, shown = title.lower(), order
        if len(runs) > 1:
            name, shown = f"{run.label}, {name}", color
        if len(points) > 1:
            series.append(blocks.Series(name, tuple(points), shown, dashed=order > 0))
    if series:
        columns = ("Run", "Group", "Step", "Score ± s.e.", "Baseline", "Tasks")
        yield blocks.Charts([blocks.Chart(f"{suite}: score over the checkpoints", tuple(series))])
        yield blocks.Table(columns, rows, 2, fold=f"{suite} over the checkpoints")


@blocks.section("samples", "Sample predictions", "No example has been evaluated yet.")
def samples_section(runs: Sequence[Run]) -> Iterator[blocks.Block]:
    """Right, wrong and unjudged predictions of each group, spread over tasks."""
    for run in runs:
        latest = [e for suite in run.suites() if (e := run.latest(suite)) is not None]
        groups = _grouped((row for evaluation in latest for row in evaluation.examples), "group")
        for group in (g for g in results.GROUPS if (g,) in groups):
            for correct, word in ((True, "right"), (False, "wrong"), (None, "not judged")):
                rows = _spread([row for row in groups[group,] if row["correct"] is correct])
                if rows:
                    whose = f"{run.label}: " if len(runs) > 1 else ""
                    title = f"{whose}{GROUP_TITLES[group]}, {word}"
                    yield blocks.Samples(title, rows)


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
