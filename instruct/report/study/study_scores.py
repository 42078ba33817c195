"""Scores of a study: quantities, their points over the x axis, and changes between points.

A quantity ("panel") is a column of the papers' tables that the results can fill, or what is left of
a suite, divided by whether the runs were trained on the tasks. Every run of a panel has the same
tasks: those that at least half of the runs with results have. A run that lacks one of them is left
out of the panel and named.
"""

import collections
import dataclasses
import itertools
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from instruct import results
from instruct.report import read
from instruct.report.compare import TaskDraws, task_draws
from instruct.report.papers import measures, normalized, printed_tables
from instruct.report.papers.measures import MEASURES, NORMALIZED
from instruct.report.statistics import holm
from instruct.report.study.study_files import StudyFiles
from instruct.report.study_statistics import (
    NO_SPREAD,
    RESAMPLES,
    Estimate,
    ScoreDraws,
    SeedSpread,
    estimate,
    score_draws,
    seed_spread,
)

# Filled where no printed table of the study has a column for the same tasks.
COLUMNS = ("mmlu_direct", "mmlu_cot", "bbh_direct", "bbh_cot", "tydiqa", "mgsm")
RANKED = ", options ranked"  # ends the name of a suite whose answers are generated as well
_TRAINED = {
    frozenset({"held_in"}): "held-in",
    frozenset({"held_out"}): "held-out",
    frozenset({"held_in", "held_out"}): "trained on by some runs",
}

Task = tuple[str, str, str]  # suite, task, mode
Cell = tuple[str, tuple[str, ...]]  # label on the x axis, labels on the curves' axes


class PanelTask(NamedTuple):
    """A task's part in a score, weight * (its score - bound); `part` as in `score_draws`."""

    key: Task
    weight: float
    bound: float = 0.0
    part: int = 0


@dataclasses.dataclass(frozen=True)
class Panel:
    """One quantity.

    Attributes:
        column: key of `measures.MEASURES`, `NORMALIZED`, or "".
        runs: indices of the runs that have all tasks.
        lacking: index of a run that is left out -> number of tasks that it lacks.
        left_out: tasks that fewer than half of the runs have.
    """

    title: str
    column: str
    tasks: tuple[PanelTask, ...]
    runs: tuple[int, ...]
    lacking: Mapping[int, int]
    left_out: tuple[Task, ...]


@dataclasses.dataclass(frozen=True)
class Change:
    """Second minus first point, paired over seeds and examples.

    Attributes:
        axis: the one in which they differ.
        estimate: None if the points have no seed in common.
        seeds: number of runs of each point; the estimate has the number of pairs.
        p_holm: corrected for all changes of the study; None without a p-value.
    """

    panel: Panel
    axis: str
    first: Cell
    second: Cell
    estimate: Estimate | None
    seeds: tuple[int, int]
    p_holm: float | None = None


@dataclasses.dataclass(frozen=True)
class PanelScores:
    """A panel's numbers.

    Attributes:
        points: mean over seeds. wider: the same with tasks resampled as well.
        values: (cell, run's index) -> the run's score.
        tasks: (task, cell) -> mean over seeds of one task.
        baselines: "majority answer" and "random option", where all tasks have them.
        paired: examples that all runs share. unpaired: number of tasks without such examples.
    """

    panel: Panel
    points: Mapping[Cell, Estimate]
    wider: Mapping[Cell, Estimate]
    values: Mapping[tuple[Cell, int], float]
    tasks: Mapping[tuple[Task, Cell], float]
    baselines: Mapping[str, float]
    paired: int
    unpaired: int


@dataclasses.dataclass(frozen=True)
class StudyScores:
    """All numbers of a study.

    Attributes:
        x_labels: points of the x axis in the order of the curves.
        x_values: their numbers; None for categories.
        curves: combinations of the other axes' labels that have a run, in the study's order.
        rows: by run, its primary metric lines at each suite's latest step.
        left_out: sentences on results that no panel has.
        resamples: of the bootstrap.
    """

    study: StudyFiles
    x_labels: tuple[str, ...]
    x_values: Mapping[str, float] | None
    curves: tuple[tuple[str, ...], ...]
    panels: tuple[PanelScores, ...]
    changes: tuple[Change, ...]
    rows: tuple[Mapping[Task, read.Line], ...]
    left_out: tuple[str, ...]
    resamples: int

    def cell_of(self, index: int) -> Cell:
        """The point of a run."""
        return cell_of(self.study, index)


def cell_of(study: StudyFiles, index: int) -> Cell:
    """The point of a run of the grid."""
    labels = study.runs[index].labels
    return labels[study.x_axis], tuple(labels[axis] for axis in study.curve_axes)


def untrained(study: StudyFiles, cell: Cell) -> bool:
    """Whether a point's checkpoint is only evaluated, so that it has no training seed."""
    inside = [one for index, one in enumerate(study.runs) if cell_of(study, index) == cell]
    return all(one.only_evaluated for one in inside)


def measure(
    study: StudyFiles, suites: Sequence[str] = (), seed: int = 0, resamples: int = RESAMPLES
) -> StudyScores:
    """Compute all scores, points and changes; only runs that are done count.

    `suites` stand in this order, see `find_panels`.
    """
    latest = [_latest(one.run) if one.done and one.run else None for one in study.runs]
    rows = tuple(_rows(run) for run in latest)
    values = study.x_values()
    labels = tuple(values or study.axes[study.x_axis])
    curves = tuple(dict.fromkeys(cell_of(study, index)[1] for index in range(len(study.runs))))
    examples = [_examples(run) for run in latest]
    draws: dict[Task, tuple[tuple[int, ...], TaskDraws]] = {}
    sources: dict[tuple[str, ...], int] = {}
    panels: list[PanelScores] = []
    changes: list[Change] = []
    left_out: list[str] = []
    for panel in find_panels(latest, rows, study.papers, suites):
        if not (panel.tasks and panel.runs):
            left_out.append(f"{panel.title}: no two runs have the same tasks; it is left out.")
            continue
        for task in panel.tasks:
            if task.key not in draws:
                runs = tuple(n for n, of_run in enumerate(rows) if task.key in of_run)
                lines = [rows[n][task.key] for n in runs]
                answers = [examples[n].get(task.key, ()) for n in runs]
                number = sources.setdefault(_source(lines[0]), len(sources))
                rng = np.random.default_rng([seed, number])
                draws[task.key] = runs, task_draws(lines, answers, rng, resamples)
        scores, of_panel = _panel_scores(study, panel, draws, rows, labels, curves, values, seed)
        panels.append(scores)
        changes += of_panel
    p_values = {n: c.estimate.p for n, c in enumerate(changes) if c.estimate}
    known = {n: p for n, p in p_values.items() if p is not None}
    for index, p in zip(known, holm(list(known.values()))):
        changes[index] = dataclasses.replace(changes[index], p_holm=p)
    return StudyScores(
        study,
        labels,
        values,
        curves,
        tuple(panels),
        tuple(changes),
        rows,
        tuple(left_out),
        resamples,
    )


def _source(row: read.Line) -> tuple[str, ...]:
    """What tasks on the same records share: modes of a task, and prompts of a set of prompts.

    Their draws start from one state of the generator, so a resample has the same records of all.
    Sets of prompts are as in `results.prompt_sets`.
    """
    ranked = row["metric"] == "rank_accuracy"
    return (row["family"], row["category"]) if ranked else (row["task"],)


def _latest(run: read.Run) -> read.Run:
    """The run with the latest evaluation of each suite only, generated and ranked answers apart."""
    suites = results.counted_suites(run.suites())
    latest = [evaluation for suite in suites if (evaluation := run.latest(suite))]
    ranked = [_ranked(evaluation) for evaluation in latest]
    return dataclasses.replace(run, evaluations=tuple(e for e in (*latest, *ranked) if e.metrics))


def _ranked(evaluation: read.Evaluation) -> read.Evaluation:
    """The suite scored by ranking the options of tasks whose answers are generated as well."""
    suite = evaluation.suite + RANKED

    def of_suite(rows: Iterable[read.Line]) -> tuple[read.Line, ...]:
        # A category of its own: these tasks are no prompts of one set (`results.prompt_sets`).
        return tuple(row | {"suite": suite, "category": row["task"]} for row in rows)

    lines = [row for row in evaluation.others if row["metric"] == "rank_accuracy"]
    examples = of_suite(evaluation.examples) if lines else ()
    return dataclasses.replace(
        evaluation, suite=suite, metrics=of_suite(lines), others=(), examples=examples
    )


def _rows(run: read.Run | None) -> dict[Task, read.Line]:
    return {
        _key(row): row
        for evaluation in (run.evaluations if run else ())
        for row in evaluation.metrics
        if row["value"] is not None
    }


def _key(row: Mapping[str, Any]) -> Task:
    return row["suite"], row["task"], row["mode"]


def _examples(run: read.Run | None) -> dict[Task, list[read.Line]]:
    lines: dict[Task, list[read.Line]] = {}
    for evaluation in run.evaluations if run else ():
        for line in evaluation.examples:
            lines.setdefault(_key(line), []).append(line)
    return lines


def find_panels(
    runs: Sequence[read.Run | None],
    rows: Sequence[Mapping[Task, read.Line]],
    papers: Iterable[str] = (),
    suites: Sequence[str] = (),
) -> list[Panel]:
    """The quantities of runs: columns of the papers' tables, then what is left of each suite.

    A suite's ranked options follow its generated answers.

    Args:
        runs: with the latest evaluation of each suite; None for a run that does not count.
        rows: by run, its primary metric lines.
        papers: names of printed tables, whose columns come first.
        suites: in the order in which they stand; others follow, the highest mean score first.
    """
    panels: list[Panel] = []
    covered: set[Task] = set()
    printed = [c for name in papers for c in printed_tables.find_table(name).columns]
    for column in dict.fromkeys([NORMALIZED, *filter(measures.is_measure, printed), *COLUMNS]):
        by_run = [_column_tasks(run, column) if run else {} for run in runs]
        keys = {key for tasks in by_run for key in tasks}
        if keys and (column in (NORMALIZED, *printed) or not keys <= covered):
            panels.append(_panel(measures.title_of(column), column, by_run))
            if column != NORMALIZED:
                covered |= keys
    groups: dict[Task, set[str]] = {}
    for of_run in rows:
        for key, row in of_run.items():
            groups.setdefault(key, set()).add(row["group"])
    titles = {
        key: ", ".join(filter(None, (key[0], _TRAINED.get(frozenset(kinds - {"unknown"}), ""))))
        for key, kinds in groups.items()
        if key not in covered
    }
    values: dict[str, list[float]] = {}
    for key, row in ((key, row) for of_run in rows for key, row in of_run.items()):
        if key in titles:
            values.setdefault(titles[key], []).append(row["value"])
    places = {name: place for place, name in enumerate(n for s in suites for n in (s, s + RANKED))}

    suite_of = {title: key[0] for key, title in titles.items()}

    def order(title: str) -> tuple[int, float]:
        place = places.get(suite_of[title], len(places))
        return place, -statistics.fmean(values[title])

    for title in sorted(values, key=order):
        by_run = [
            {key: PanelTask(key, 1.0) for key in of_run if titles.get(key) == title}
            for of_run in rows
        ]
        panels.append(_panel(title, "", by_run))
    return panels


def _column_tasks(run: read.Run, column: str) -> dict[Task, PanelTask]:
    """A run's tasks of a column of the papers; weights of a mean are 1 here."""
    score = measures.score(run, column)
    if score is None:
        return {}
    if column != NORMALIZED:
        known = (row for row in score.rows if row["value"] is not None)
        return {_key(row): PanelTask(_key(row), 1.0) for row in known}
    tasks = {}
    for part, (name, bound) in enumerate(normalized.PARTS.items()):
        inside = measures.score(run, name)
        rows = inside.rows if inside else ()
        for row in rows:
            lower = bound
            if lower is None:
                lower = normalized.BBH_LOWER_BOUNDS[MEASURES[name].name_of(row)]
            weight = 100 / (100 - lower) / (len(rows) * len(normalized.PARTS))
            tasks[_key(row)] = PanelTask(_key(row), weight, lower, part)
    return tasks


def _panel(title: str, column: str, by_run: Sequence[Mapping[Task, PanelTask]]) -> Panel:
    """Divide tasks and runs into those that count and those that do not."""
    counts = collections.Counter(key for tasks in by_run for key in tasks)
    half = sum(map(bool, by_run)) / 2
    tasks = {key: task for of_run in by_run for key, task in of_run.items() if counts[key] >= half}
    # Runs may have no task in common, and then none has half of the runs.
    share = 1.0 if column == NORMALIZED else 1 / max(1, len(tasks))
    missing = {
        index: len(tasks.keys() - of_run.keys()) for index, of_run in enumerate(by_run) if of_run
    }
    return Panel(
        title,
        column,
        tuple(task._replace(weight=task.weight * share) for task in tasks.values()),
        tuple(index for index, count in missing.items() if not count),
        {index: count for index, count in missing.items() if count},
        tuple(key for key in counts if key not in tasks),
    )


def _panel_scores(
    study: StudyFiles,
    panel: Panel,
    all_draws: Mapping[Task, tuple[tuple[int, ...], TaskDraws]],
    rows: Sequence[Mapping[Task, read.Line]],
    x_labels: Sequence[str],
    curves: Sequence[tuple[str, ...]],
    x_values: Mapping[str, float] | None,
    seed: int,
) -> tuple[PanelScores, list[Change]]:
    draws = []
    for task in panel.tasks:
        runs, one = all_draws[task.key]
        columns = [runs.index(index) for index in panel.runs]
        draws.append(TaskDraws(one.values[columns], one.drawn[:, columns], one.paired))
    lines = [[rows[index][task.key] for task in panel.tasks] for index in panel.runs]
    examples = sum(one.paired or row["n"] for one, row in zip(draws, lines[0]))
    weights, bounds, parts = ([getattr(t, n) for t in panel.tasks] for n in PanelTask._fields[1:])
    fixed = score_draws(draws, weights, bounds, examples)
    resampled = score_draws(draws, weights, bounds, examples, parts, seed)
    cells: dict[Cell, dict[str, int]] = {}  # -> seed -> column of the draws
    for column, index in enumerate(panel.runs):
        label = study.runs[index].labels.get(study.seed_axis, "")
        cells.setdefault(cell_of(study, index), {})[label] = column
    columns = {
        (x, curve): list(cells[x, curve].values())
        for curve in curves
        for x in x_labels
        if (x, curve) in cells
    }

    # Scores of 0 to 100 have no interval beyond; a normalised score may.
    limited = not any(bounds) and fixed.within(0.0, 100.0)
    spread = seed_spread(fixed.values[of_cell] for of_cell in columns.values())

    def points(scores: ScoreDraws) -> dict[Cell, Estimate]:
        return {
            cell: estimate(
                scores.values[of],
                scores.drawn[:, of],
                NO_SPREAD if untrained(study, cell) else spread,
                *(scores.examples, seed, (0.0, 100.0) if limited else None),
            )
            for cell, of in columns.items()
        }

    values = {
        (cell_of(study, index), index): float(fixed.values[column])
        for column, index in enumerate(panel.runs)
    }
    of_tasks = {
        (task.key, cell): float(one.values[of].mean())
        for task, one in zip(panel.tasks, draws)
        for cell, of in columns.items()
    }
    return (
        PanelScores(
            panel=panel,
            points=points(fixed),
            wider=points(resampled),
            values=values,
            tasks=of_tasks,
            baselines=dict(_baselines(panel, lines)),
            paired=sum(one.paired for one in draws),
            unpaired=sum(not one.paired for one in draws),
        ),
        [
            Change(panel, axis, first, second, one, (len(cells[first]), len(cells[second])))
            for (axis, first, second), one in _changes(
                *(study, panel, fixed, spread, cells),
                _compared(study, cells, x_labels, curves, x_values is not None),
                *(seed, (-100.0, 100.0) if limited else None),
            )
        ],
    )


def _changes(
    study: StudyFiles,
    panel: Panel,
    scores: ScoreDraws,
    spread: SeedSpread,
    cells: Mapping[Cell, Mapping[str, int]],
    compared: Iterable[tuple[str, Cell, Cell]],
    seed: int,
    limits: tuple[float, float] | None,
) -> Iterator[tuple[tuple[str, Cell, Cell], Estimate | None]]:
    """Estimate the differences of points.

    Args:
        spread: of the points that are trained, which is also that of their differences from a
            checkpoint that is only evaluated. Differences of two trained points have their own.
        cells: point -> seed -> column of the draws.
        seed: of the draws. limits: of a difference.
    """
    compared = list(compared)
    pairs = [_pairs(study, panel, cells[first], cells[second]) for _, first, second in compared]
    changes = [scores.values[second] - scores.values[first] for first, second in pairs]
    trained = [2 - untrained(study, one) - untrained(study, other) for _, one, other in compared]
    both = [(pair, values) for pair, values, n in zip(compared, changes, trained) if n == 2]
    independent = _independent((first, second) for (_, first, second), _ in both)
    between = seed_spread(itertools.compress((values for _, values in both), independent))
    for of_pair, change, (one, other), ends in zip(compared, changes, pairs, trained):
        drawn = scores.drawn[:, other] - scores.drawn[:, one]
        of_ends = (NO_SPREAD, spread, between)[ends]
        yield (
            of_pair,
            estimate(change, drawn, of_ends, scores.examples, seed, limits) if one else None,
        )


def _compared(
    study: StudyFiles,
    cells: Collection[Cell],
    x_labels: Sequence[str],
    curves: Sequence[tuple[str, ...]],
    numeric: bool,
) -> Iterator[tuple[str, Cell, Cell]]:
    """(axis, first point, second).

    Along the x axis neighbors and both ends of a curve, or each category and the first one; along
    `category_axes` each label and the first one.
    """
    for curve in curves:
        points = [(x, curve) for x in x_labels if (x, curve) in cells]
        if numeric:
            yield from ((study.x_axis, *pair) for pair in itertools.pairwise(points))
            if len(points) > 2:
                yield study.x_axis, points[0], points[-1]
        else:
            yield from ((study.x_axis, points[0], point) for point in points[1:])
    for axis in study.category_axes:
        place = study.curve_axes.index(axis)
        firsts: dict[Cell, Cell] = {}
        order = study.axes[axis].index
        for curve in sorted(curves, key=lambda curve: order(curve[place])):
            for cell in ((x, curve) for x in x_labels if (x, curve) in cells):
                others = (cell[0], (*curve[:place], *curve[place + 1 :]))
                first = firsts.setdefault(others, cell)
                if first != cell:
                    yield axis, first, cell


def _independent(pairs: Iterable[tuple[Cell, Cell]]) -> list[bool]:
    """Whether each pair joins points that the pairs before it do not join.

    The difference of points that are joined is a sum of earlier differences, so it adds no degrees
    of freedom to the spread over seeds: a-b, b-c, a-c -> True, True, False.
    """
    joined: dict[Cell, set[Cell]] = {}
    independent = []
    for first, second in pairs:
        one, other = (joined.setdefault(cell, {cell}) for cell in (first, second))
        independent.append(one is not other)
        one |= other
        joined.update(dict.fromkeys(other, one))
    return independent


def _pairs(
    study: StudyFiles, panel: Panel, first: Mapping[str, int], second: Mapping[str, int]
) -> tuple[list[int], list[int]]:
    """Columns of two points' runs with the same seeds, in the same order.

    A checkpoint that is only evaluated has no training seed, so it is paired with every run.
    """

    def once(of_cell: Mapping[str, int]) -> bool:
        column, *others = of_cell.values()
        return not others and untrained(study, cell_of(study, panel.runs[column]))

    if once(first) and not once(second):
        first = dict.fromkeys(second, *first.values())
    elif once(second) and not once(first):
        second = dict.fromkeys(first, *second.values())
    common = [seed for seed in first if seed in second]
    return [first[seed] for seed in common], [second[seed] for seed in common]


def _baselines(panel: Panel, lines: Sequence[Sequence[read.Line]]) -> Iterator[tuple[str, float]]:
    for name, field in (("majority answer", "baseline"), ("random option", "random_baseline")):
        levels = [results.highest(row[field] for row in rows) for rows in zip(*lines)]
        known = [level for level in levels if level is not None]
        if len(known) == len(levels):
            yield name, sum(t.weight * (level - t.bound) for t, level in zip(panel.tasks, known))
