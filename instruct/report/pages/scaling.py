"""Curves over several runs: scores over parameters, over tasks and over training steps.

What the papers printed for the same quantity is drawn beside ours, dashed and hollow: their models
of table 5 over parameters, of table 3 over the number of tasks. It is not the same experiment, and
`filled_tables` says what differs.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence

from instruct import results
from instruct.report.blocks import Charts, Lines, Row, Scaling, Section, Series, Table, Text
from instruct.report.pages import tables
from instruct.report.papers import measures, printed_tables
from instruct.report.papers.filled_tables import nearest_row, trained_parameters, trained_tasks
from instruct.report.papers.printed_tables import PARAMETERS, PaperRow
from instruct.report.read import Run
from instruct.report.wording import magnitude, with_error

COLUMNS = (
    *(measures.NORMALIZED, "mmlu_direct", "mmlu_cot", "bbh_direct", "bbh_cot", "tydiqa", "mgsm"),
    *("held_in", "cot_eval"),
)
_FIRST_PAPER_COLOR = 4
_FAMILIES = ("T5", "Flan-T5", "PaLM", "Flan-PaLM")

ScoreOf = Callable[[Run], measures.Score | results.Aggregate | None]


@dataclasses.dataclass(frozen=True)
class Axis:
    """A size that runs differ in, and the paper's table of it.

    Attributes:
        size: where a run is on the axis; None where that is not known.
        curve: runs that agree in it are one curve, called by it and `curve_unit`.
        table, table_text: the paper's, and what is in it.
        printed: (curve, place) of one of its rows; None for a row that is not drawn.
    """

    name: str
    size: Callable[[Run], float | None]
    curve: Callable[[Run], float | None]
    curve_unit: str
    table: str
    table_text: str
    printed: Callable[[PaperRow], tuple[str, float] | None]


def _printed_model(row: PaperRow) -> tuple[str, float] | None:
    family = re.sub("-(Small|Base|Large|XL|XXL)$", "", row.labels[1])
    return (family, PARAMETERS[row.labels[0]]) if family in _FAMILIES else None


def _printed_mixture(row: PaperRow) -> tuple[str, float]:
    return f"PaLM {row.labels[0]}", float(row.labels[2])


AXES = (
    Axis(
        *("Parameters", trained_parameters, trained_tasks, "tasks"),
        *("flan_palm.5", "models of Chung et al. 2022, table 5", _printed_model),
    ),
    Axis(
        *("Finetuning tasks", trained_tasks, trained_parameters, "parameters", "flan_palm.3"),
        "PaLM finetuned on more and more mixtures, Chung et al. 2022, table 3",
        _printed_mixture,
    ),
)


def scaling_section(runs: Sequence[Run]) -> Section | None:
    """Curves over size and over tasks, where at least two runs differ in one but not the other."""
    parts = [part for axis in AXES for part in _axis_parts(axis, runs)]
    if not parts:
        return None
    unknown = [run.label for run in runs if not (trained_parameters(run) and trained_tasks(run))]
    if unknown:
        text = f"Without a known number of parameters or tasks: {', '.join(unknown)}."
        parts.append(Text(text, quiet=True))
    return Section("scaling", "Scaling", tuple(parts))


def _axis_parts(axis: Axis, runs: Sequence[Run]) -> list[Charts | Text | Table]:
    groups = _groups(runs, axis)
    over = f"over {axis.name.lower()}"
    charts, rows = [], []
    for title, score_of, printed in _quantities(runs, axis) if groups else ():
        ours, lines = [], []
        for color, (group, inside) in enumerate(groups.items()):
            scores = [(run, x, score_of(run)) for x, run in sorted(inside.items())]
            points = [(x, s.value, s.stderr) for _, x, s in scores if s and s.value is not None]
            lines += [
                Row((title, run.label, f"{x:,.0f}", with_error(s.value, s.stderr)))
                for run, x, s in scores
                if s and s.value is not None
            ]
            if len(points) > 1:
                curve = tuple((x, value) for x, value, _ in points)
                errors = tuple(error for _, _, error in points)
                name = f"ours, {magnitude(group)} {axis.curve_unit}"
                ours.append(Series(name, curve, color, errors=errors))
        if ours:
            charts.append(Scaling(f"{title} {over}", axis.name, (*ours, *printed)))
            rows += lines
    if not charts:
        return []
    dashed = any(series.dashed for chart in charts for series in chart.series)
    note = [Text(f"Dashed and hollow: {axis.table_text}.", quiet=True)] if dashed else []
    columns = ("Score", "Run", axis.name, "Value ± s.e.")
    table = Table(columns, tuple(rows), 2, fold=f"Our scores {over}")
    return [Charts(tuple(charts)), *note, table]


def _groups(runs: Sequence[Run], axis: Axis) -> dict[float, dict[float, Run]]:
    """Runs of one curve by their size, where they have at least two sizes.

    Of runs that agree in both, the first given stands for them.
    """
    groups: dict[float, dict[float, Run]] = {}
    for run in runs:
        x, group = axis.size(run), axis.curve(run)
        if x is not None and group is not None:
            # Sizes that are the same in three digits are meant to be the same.
            groups.setdefault(float(f"{group:.3g}"), {}).setdefault(x, run)
    return {group: inside for group, inside in groups.items() if len(inside) > 1}


def _quantities(runs: Sequence[Run], axis: Axis) -> Iterator[tuple[str, ScoreOf, list[Series]]]:
    """(title, a run's score, the papers' curves) of everything that some run has."""
    columns = [column for column in COLUMNS if any(measures.score(run, column) for run in runs)]
    for column in columns:
        score_of = functools.partial(measures.score, column=column)
        yield measures.title_of(column), score_of, _printed_curves(axis, column)
    for group in results.GROUPS if not columns else ():
        title = f"{tables.GROUP_TITLES[group]} tasks"
        yield title, functools.partial(_headline, group=group), []


def _headline(run: Run, group: str) -> results.Aggregate | None:
    return tables.headline(run).get(group)


def _printed_curves(axis: Axis, column: str) -> list[Series]:
    table = printed_tables.find_table(axis.table)
    if column not in table.columns:
        return []
    curves: dict[str, list[tuple[float, float]]] = {}
    for row, value in zip(table.rows, table.column(column)):
        if (point := axis.printed(row)) is not None:
            curves.setdefault(point[0], []).append((point[1], value))
    return [
        Series(
            f"{name} ({table.paper})",
            tuple(sorted(points)),
            color,
            dashed=True,
            tag=name.removeprefix("PaLM "),
        )
        for color, (name, points) in enumerate(curves.items(), start=_FIRST_PAPER_COLOR)
    ]


def learning_section(runs: Sequence[Run]) -> Section | None:
    """Scores on the papers' suites over training steps, with the nearest Flan-T5's as a level."""
    charts = []
    printed = nearest_row(runs)
    table = printed_tables.find_table("flan_palm.5")
    for column in COLUMNS:
        series = []
        for color, run in enumerate(runs):
            points = []
            for step in measures.steps_of(run, column):
                score = measures.score(run, column, step)
                value = score.value if score is not None else None
                points.append((float(step), math.nan if value is None else value))
            if len(points) > 1:
                series.append(Series(run.label, tuple(points), color))
        if series and column in table.columns:
            steps = [x for one in series for x, _ in one.points]
            level = printed.values[table.columns.index(column)]
            ends = ((min(steps), level), (max(steps), level))
            name = f"{printed.labels[1]} ({table.paper})"
            series.append(Series(name, ends, 7, dashed=True))
        if series:
            charts.append(Lines(f"{measures.title_of(column)} over steps", tuple(series)))
    if not charts:
        return None
    return Section("learning", "Learning curves", (Charts(tuple(charts)),))
