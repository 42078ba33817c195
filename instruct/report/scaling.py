"""Curves over several runs: scores over parameters, over tasks and over training steps.

What the papers printed for the same quantity is drawn beside ours, dashed and hollow: their models
of table 5 over parameters, of table 3 over the number of tasks. It is not the same experiment, and
`filled_tables` says what differs.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from instruct import results
from instruct.report import tables
from instruct.report.blocks import Charts, Lines, Row, Scaling, Section, Series, Table, Text
from instruct.report.comparison_figures import magnitude
from instruct.report.papers import measures, printed_tables
from instruct.report.papers.filled_tables import nearest_row, trained_parameters, trained_tasks
from instruct.report.read import Run

COLUMNS = (
    *(measures.NORMALIZED, "mmlu_direct", "mmlu_cot", "bbh_direct", "bbh_cot", "tydiqa", "mgsm"),
    *("held_in", "cot_eval"),
)
_FIRST_PAPER_COLOR = 4
# (series of table 5, its model's names)
_FAMILIES = (
    ("T5", ("T5-Small", "T5-Base", "T5-Large", "T5-XL", "T5-XXL")),
    ("Flan-T5", ("Flan-T5-Small", "Flan-T5-Base", "Flan-T5-Large", "Flan-T5-XL", "Flan-T5-XXL")),
    ("PaLM", ("PaLM",)),
    ("Flan-PaLM", ("Flan-PaLM",)),
)

_TABLE_OF = {
    "Parameters": "models of Chung et al. 2022, table 5",
    "Finetuning tasks": "PaLM finetuned on more and more mixtures, Chung et al. 2022, table 3",
}

# A run's score of something, with its standard error; None where it has none.
Scored = Callable[[Run], tuple[float, float | None] | None]


def scaling_section(runs: Sequence[Run]) -> Section | None:
    """Curves over size and over tasks, where at least two runs differ in one but not the other."""
    parts: list[Charts | Text | Table] = []
    for name, of, group_of, group_name in (
        ("Parameters", trained_parameters, trained_tasks, "tasks"),
        ("Finetuning tasks", trained_tasks, trained_parameters, "parameters"),
    ):
        groups = _groups(runs, of, group_of)
        if not groups:
            continue
        charts, rows, dashed = [], [], False
        for title, scored, printed in _quantities(runs, name):
            ours = _curves(groups, of, scored, group_name)
            if ours:
                over = f"{title} over {name.lower()}"
                charts.append(Scaling(over, name, (*ours, *printed)))
                dashed |= bool(printed)
                rows += _rows(title, groups, of, scored)
        if charts:
            parts.append(Charts(tuple(charts)))
            if dashed:
                parts.append(Text(f"Dashed and hollow: {_TABLE_OF[name]}.", quiet=True))
            columns = ("Score", "Run", name, "Value ± s.e.")
            parts.append(Table(columns, tuple(rows), 2, fold=f"Our scores over {name.lower()}"))
    if not parts:
        return None
    left = [run.label for run in runs if not (trained_parameters(run) and trained_tasks(run))]
    if left:
        text = f"Without a known number of parameters or tasks: {', '.join(left)}."
        parts.append(Text(text, quiet=True))
    return Section("scaling", "Scaling", tuple(parts))


def _groups(
    runs: Sequence[Run],
    of: Callable[[Run], float | None],
    group_of: Callable[[Run], float | None],
) -> dict[float, list[Run]]:
    """Runs that agree in `group_of` by that value, each group with at least two values of `of`.

    Of runs that agree in both, the first given stands for them.
    """
    found: dict[float, dict[float, Run]] = {}
    for run in runs:
        x, group = of(run), group_of(run)
        if x is not None and group is not None:
            # Sizes that are the same in three digits are meant to be the same.
            found.setdefault(float(f"{group:.3g}"), {}).setdefault(x, run)
    return {
        group: [inside[x] for x in sorted(inside)]
        for group, inside in found.items()
        if len(inside) > 1
    }


def _quantities(runs: Sequence[Run], x: str) -> Iterable[tuple[str, Scored, list[Series]]]:
    """(title, a run's score, the papers' curves) of everything that some run has."""
    any_measure = False
    for column in COLUMNS:
        if any(measures.score(run, column) is not None for run in runs):
            any_measure = True
            printed = _by_size(column) if x == "Parameters" else _by_tasks(column)
            yield measures.title_of(column), _measured(column), printed
    if not any_measure:
        for group in results.GROUPS:
            yield f"{tables.GROUP_TITLES[group]} tasks", _headline(group), []


def _measured(column: str) -> Scored:
    def scored(run: Run) -> tuple[float, float | None] | None:
        found = measures.score(run, column)
        return None if found is None or found.value is None else (found.value, found.stderr)

    return scored


def _headline(group: str) -> Scored:
    def scored(run: Run) -> tuple[float, float | None] | None:
        found = tables.headline(run).get(group)
        return None if found is None or found.value is None else (found.value, found.stderr)

    return scored


def _curves(
    groups: dict[float, list[Run]],
    of: Callable[[Run], float | None],
    scored: Scored,
    group_name: str,
) -> list[Series]:
    made = []
    for color, (group, inside) in enumerate(groups.items()):
        found = [(of(run) or 0.0, score) for run in inside if (score := scored(run)) is not None]
        if len(found) > 1:
            made.append(
                Series(
                    f"ours, {magnitude(group)} {group_name}",
                    tuple((x, value) for x, (value, _) in found),
                    color,
                    errors=tuple(error for _, (_, error) in found),
                )
            )
    return made


def _rows(
    title: str,
    groups: dict[float, list[Run]],
    of: Callable[[Run], float | None],
    scored: Scored,
) -> list[Row]:
    made = []
    for inside in groups.values():
        for run in inside:
            score = scored(run)
            if score is not None:
                x = f"{of(run) or 0:,.0f}"
                made.append(Row((title, run.label, x, tables.with_error(*score))))
    return made


def _by_size(column: str) -> list[Series]:
    """Table 5's models over their size, one curve a family."""
    table = printed_tables.find_table("flan_palm.5")
    if column not in table.columns:
        return []
    made = []
    for order, (family, names) in enumerate(_FAMILIES):
        points = [
            (printed_tables.PARAMETERS[row.labels[0]], value)
            for row, value in zip(table.rows, table.column(column))
            if row.labels[1] in names
        ]
        made.append(_printed(f"{family} ({table.paper})", points, order, family))
    return made


def _by_tasks(column: str) -> list[Series]:
    """Table 3's mixtures over their number of tasks, one curve a size."""
    table = printed_tables.find_table("flan_palm.3")
    if column not in table.columns:
        return []
    made = []
    for order, size in enumerate(dict.fromkeys(row.labels[0] for row in table.rows)):
        points = [
            (float(row.labels[2]), value)
            for row, value in zip(table.rows, table.column(column))
            if row.labels[0] == size
        ]
        made.append(_printed(f"PaLM {size} ({table.paper})", points, order, size))
    return made


def _printed(name: str, points: list[tuple[float, float]], order: int, tag: str) -> Series:
    color = _FIRST_PAPER_COLOR + order
    return Series(name, tuple(sorted(points)), color, dashed=True, tag=tag)


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
