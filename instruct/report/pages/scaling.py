"""Curves over several runs: scores over parameters, over tasks and over training steps.

The papers' figures for the same quantity are drawn beside ours, dashed and hollow: models of table
5 over parameters, of table 3 over the number of tasks. `filled_tables` says how their experiments
differ.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence

from instruct import results
from instruct.report.blocks import Block, Chart, Charts, Row, Series, Table, Text, section
from instruct.report.pages import tables
from instruct.report.papers import measures, printed_tables
from instruct.report.papers.filled_tables import nearest_row, trained_parameters, trained_tasks
from instruct.report.papers.printed_tables import PARAMETERS
from instruct.report.read import Run
from instruct.report.wording import magnitude, with_error

COLUMNS = (
    *(measures.NORMALIZED, "mmlu_direct", "mmlu_cot", "bbh_direct", "bbh_cot", "tydiqa", "mgsm"),
    *("held_in", "cot_eval"),
)
# Printed tables with curves: what over, and their description.
PRINTED_OVER = {
    "flan_palm.5": ("Parameters", "models of Chung et al. 2022, table 5"),
    "flan_palm.3": (
        *(
            "Finetuning tasks",
            "PaLM finetuned on more and more mixtures, Chung et al. 2022, table 3",
        ),
    ),
}
_PRINTED = ("T5", "Flan-T5", "PaLM", "Flan-PaLM", "PaLM 8B", "PaLM 62B", "PaLM 540B")
_FIRST_PAPER_COLOR = 4

SizeOf = Callable[[Run], float | None]  # None if unknown
ScoreOf = Callable[[Run], measures.Score | results.Aggregate | None]


@section("scaling", "Scaling")
def scaling_section(runs: Sequence[Run]) -> Iterator[Block]:
    """Curves over size and over tasks, where at least two runs differ in one but not the other."""
    sizes, tasks = trained_parameters, trained_tasks
    blocks = [
        *_axis_blocks(runs, "Parameters", sizes, tasks, "tasks", "flan_palm.5"),
        *_axis_blocks(runs, "Finetuning tasks", tasks, sizes, "parameters", "flan_palm.3"),
    ]
    yield from blocks
    unknown = [run.label for run in runs if not (sizes(run) and tasks(run))]
    if blocks and unknown:
        text = f"Without a known number of parameters or tasks: {', '.join(unknown)}."
        yield Text(text, quiet=True)


def _axis_blocks(
    runs: Sequence[Run], axis: str, size_of: SizeOf, curve_of: SizeOf, unit: str, table: str
) -> Iterator[Block]:
    """Charts over `size_of`, and their scores as a table.

    Runs of equal `curve_of` and one kind of model are a curve.
    """
    groups: dict[tuple[float, str], dict[float, list[Run]]] = {}
    for run in runs:
        x, group = size_of(run), curve_of(run)
        if x is not None and group is not None:
            # Numbers that agree in three digits count as equal.
            key = float(f"{group:.3g}"), _kind_of_model(run)
            groups.setdefault(key, {}).setdefault(x, []).append(run)
    groups = {key: by_size for key, by_size in groups.items() if len(by_size) > 1}
    one_kind = len({kind for _, kind in groups}) < 2
    over = f"over {axis.lower()}"
    charts, rows = [], []
    for title, score_of, column in _quantities(runs) if groups else ():
        curves, curve_rows = [], []
        for color, ((group, kind), by_size) in enumerate(groups.items()):
            points, errors = [], []
            for x, (run, *_) in sorted(by_size.items()):
                score = score_of(run)
                if score and score.value is not None:
                    points.append((x, score.value))
                    errors.append(score.stderr)
                    text = with_error(score.value, score.stderr)
                    curve_rows.append(Row((title, run.label, f"{x:,.0f}", text)))
            if len(points) > 1:
                name = f"ours, {magnitude(group)} {unit}{'' if one_kind else f', {kind}'}"
                curves.append(Series(name, tuple(points), color, errors=tuple(errors)))
        if curves:
            curves += printed_curves(table, column)
            charts.append(Chart(f"{title} {over}", tuple(curves), sizes=axis))
            rows += curve_rows
    if charts:
        yield Charts(charts)
        if any(series.dashed for chart in charts for series in chart.series):
            yield Text(f"Dashed and hollow: {PRINTED_OVER[table][1]}.", quiet=True)
        columns = ("Score", "Run", axis, "Value ± s.e.")
        yield Table(columns, rows, 2, fold=f"Our scores {over}")
        equal = [
            run.label for sizes in groups.values() for _, *rest in sizes.values() for run in rest
        ]
        if equal:
            text = f"Equal to a run that is drawn {over}, in size and tasks: {', '.join(equal)}."
            yield Text(text, quiet=True)


def _kind_of_model(run: Run) -> str:
    """Class of the model's configuration, and whether it is a prefix-LM; "" if unknown."""
    model = run.info.get("model")
    fields = model if isinstance(model, dict) else {}
    return f"{fields.get('class', '')}{', prefix-LM' if fields.get('prefix_lm') else ''}"


def _quantities(runs: Sequence[Run]) -> Iterator[tuple[str, ScoreOf, str]]:
    """(title, a run's score, column of the papers or "") of everything that some run has."""
    columns = [column for column in COLUMNS if any(measures.score(run, column) for run in runs)]
    for column in columns:
        yield measures.title_of(column), functools.partial(measures.score, column=column), column
    for group in results.GROUPS if not columns else ():
        title = f"{tables.GROUP_TITLES[group]} tasks"
        yield title, lambda run, group=group: tables.headline(run).get(group), ""


def printed_curves(table_name: str, column: str) -> Iterator[Series]:
    """The curves of one of the tables `PRINTED_OVER`, dashed; none without the column."""
    table = printed_tables.find_table(table_name)
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in table.rows if column in table.columns else ():
        if table_name == "flan_palm.3":
            name, size = f"PaLM {row.labels[0]}", float(row.labels[2])
        else:
            name = re.sub("-(Small|Base|Large|XL|XXL)$", "", row.labels[1])
            size = PARAMETERS[row.labels[0]]
        if name in _PRINTED:
            value = row.values[table.columns.index(column)]
            curves.setdefault(name, []).append((size, value))
    for color, (name, points) in enumerate(curves.items(), start=_FIRST_PAPER_COLOR):
        tag, title = name.removeprefix("PaLM "), f"{name} ({table.paper})"
        yield Series(title, tuple(sorted(points)), color, dashed=True, tag=tag)


@section("learning", "Learning curves")
def learning_section(runs: Sequence[Run]) -> Iterator[Block]:
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
                value = score.value if score else None
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
            charts.append(Chart(f"{measures.title_of(column)} over steps", tuple(series)))
    if charts:
        yield Charts(charts)
