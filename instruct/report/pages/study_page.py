"""The page of a study: what was varied, points of the x axis with intervals, and their differences.

`write_study` reads only what lies in STUDY_DIR (study.json, study_run.json and the results of each
run). Runs that failed or are missing are named with their reason, and points without any run have
an empty cell; only runs that are done count.
"""

import collections
import itertools
import json
import math
import os
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from instruct import results
from instruct.files import path_of, replace_file
from instruct.report import blocks
from instruct.report.pages import differences, scaling
from instruct.report.pages.rendering import write_document
from instruct.report.papers import filled_tables, measures, printed_tables
from instruct.report.study.study_files import MISSING, STATES, StudyFiles, StudyRun, read_study
from instruct.report.study.study_scores import (
    Cell,
    Change,
    PanelScores,
    StudyScores,
    Task,
    measure,
    untrained,
)
from instruct.report.study_statistics import Estimate, seeds_note
from instruct.report.wording import all_of, compact, counted, first_of, number, probability, signed

PAGE, RESULTS = "study", "study_results.jsonl"
MANY_CHANGES = 40  # above, the bars show whole curves only
# Files that only training writes: warnings of them say nothing of a run that is only evaluated.
_OF_TRAINING = ("run.json", "metrics.jsonl", "mixture.json", "operative.gin")
_STATE_WORDS = {"running": "still running", "waiting": "waiting", MISSING: "missing"}


def write_study(
    study_dir: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    suites: Sequence[str] = (),
) -> pathlib.Path:
    """Write study.html, study.md and study_results.jsonl; return the path of the page.

    Args:
        study_dir: STUDY_DIR.
        out: folder of the page; None for STUDY_DIR.
        suites: in the order in which they stand on the page, see `study_scores.find_panels`.

    Raises:
        UserError: study.json is missing or damaged.
    """
    folder = path_of(study_dir if out is None else out)
    study = read_study(study_dir)
    scores = measure(study, suites)
    page = write_document(document(scores), folder, PAGE)
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in result_rows(scores))
    replace_file(folder / RESULTS, "".join(f"{line}\n" for line in lines))
    return page


def result_rows(scores: StudyScores) -> Iterator[dict[str, Any]]:
    """A row for each run of the grid, suite and task; one without a suite for a run without any."""
    for one, rows in zip(scores.study.runs, scores.rows):
        about = {"run": one.name, "labels": dict(one.labels), "state": one.state}
        if not rows:
            yield about | {"suite": None, "error": one.error}
        for row in rows.values():
            names = ("suite", "task", "task_version", "mode", "split", "group", "category")
            names += ("step", "metric", "value", "stderr", "n", "baseline", "random_baseline")
            names += ("template_set", "decode")
            yield about | {name: row[name] for name in names}


def document(scores: StudyScores) -> blocks.Document:
    """All sections of the page."""
    study = scores.study
    sections = [
        _overview(scores),
        _points_section(scores),
        _changes_section(scores),
        _tasks_section(scores),
        _papers_section(scores),
        _runs_section(study),
        _conditions_section(scores),
    ]
    when = study.facts.get("time")
    return blocks.Document(
        study.title,
        " · ".join(filter(None, (f"study {study.path.name}", str(when) if when else ""))),
        [section for section in sections if section.blocks],
    )


def _curve_name(study: StudyFiles, curve: Sequence[str]) -> str:
    """`size small, mixture flan`; "" without further axes."""
    return ", ".join(f"{axis} {label}" for axis, label in zip(study.curve_axes, curve))


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "interval unknown"
    return f"[{number(estimate.low)}, {number(estimate.high)}]"


def _estimate(estimate: Estimate) -> str:
    return f"{number(estimate.value)} {_interval(estimate)}"


# The first screen.


@blocks.section("overview", "At a glance")
def _overview(scores: StudyScores) -> Iterator[blocks.Block]:
    study = scores.study
    yield blocks.Text(_varied(study))
    states = collections.Counter(one.state for one in study.runs)
    total = len(study.runs)
    facts = [blocks.Fact("Runs done", f"{states['done']:,} of {total:,}")]
    for state in STATES[1:]:
        if states[state]:
            facts.append(
                blocks.Fact(f"Runs {_STATE_WORDS.get(state, state)}", f"{states[state]:,}")
            )
    hours = sum(one.seconds or 0.0 for one in (*study.runs, *study.before)) / 3600
    if hours:
        facts.append(blocks.Fact("Time of all runs", _duration(3600 * hours)))
    yield blocks.Facts(facts)
    if scores.panels:
        yield _headline_table(scores)
        most = max(scores.panels, key=lambda panel: sum(e.seeds for e in panel.points.values()))
        numbers = [e.seeds for cell, e in most.points.items() if not untrained(study, cell)]
        text = "Mean over seeds [95 % interval]; tasks weigh the same. Changes are paired. "
        text += seeds_note(numbers)
        if 0 < len(numbers) < len(most.points):
            text += " Points that are only evaluated have intervals over examples."
        yield blocks.Text(text, quiet=True)
    else:
        yield blocks.Text("No run of the study has results yet.")
    if notices := list(_notices(scores)):
        yield blocks.Notices(notices)


def _varied(study: StudyFiles) -> str:
    """What was varied, as a sentence, with the labels of each axis."""
    axes = [
        f"{axis} ({', '.join(labels)})"
        for axis, labels in study.axes.items()
        if axis != study.seed_axis
    ]
    seeds = study.axes.get(study.seed_axis, ())
    each = "each trained point" if any(one.only_evaluated for one in study.runs) else "each"
    repeated = f" {counted(len(seeds), 'seed')} of {each}." if len(seeds) > 1 else ""
    text = f"Varied: {'; '.join(axes) or 'nothing but the seed'}.{repeated}"
    return f"{text} Protocol: {study.protocol}" if study.protocol else text


def _headline_table(scores: StudyScores) -> blocks.Table:
    """Points by panels, each curve's whole change, and baselines; a point without runs says why.

    Panels are the rows, one for each curve, if there are more of them than labels on the x axis.
    """
    study, panels = scores.study, scores.panels
    # (curve, label or ends) -> the panels' cells, and the number of runs.
    lines: dict[tuple[tuple[str, ...], str], tuple[list[str], str]] = {}
    for curve in scores.curves:
        for x in scores.x_labels:
            inside = _runs_at(scores, (x, curve))
            if not inside:
                continue
            done = sum(one.done for one in inside)
            why = "–" if done else ", ".join(sorted({one.state for one in inside}))
            cells = [
                _estimate(panel.points[x, curve]) if (x, curve) in panel.points else why
                for panel in panels
            ]
            runs = f"{done}" if done == len(inside) else f"{done} of {len(inside)}"
            lines[curve, x] = cells, runs
        ends = _ends(scores, curve)
        whole = {
            id(change.panel): _change(change.estimate)
            for change in scores.changes
            if (change.first, change.second) == tuple((x, curve) for x in ends) and change.estimate
        }
        if whole and scores.x_values is not None:
            lines[curve, " → ".join(ends)] = [whole.get(id(p.panel), "–") for p in panels], ""
    names = dict.fromkeys(name for panel in panels for name in panel.baselines)
    levels = {name: [number(panel.baselines.get(name)) for panel in panels] for name in names}
    levels["n a run"] = [f"{_examples(panel):,}" for panel in panels]
    titles = [panel.panel.title for panel in panels]
    if len(panels) <= len(scores.x_labels):
        rows = [
            blocks.Row((*curve, x, *cells, runs), strong=x not in scores.x_labels)
            for (curve, x), (cells, runs) in lines.items()
        ]
        blank = ("",) * len(study.curve_axes)
        rows += [blocks.Row((name, *blank, *cells, "")) for name, cells in levels.items()]
        columns = (*study.curve_axes, study.x_axis, *titles, "Runs")
        return blocks.Table(columns, rows, 1 + len(study.curve_axes))
    headings = (*scores.x_labels, *(x for _, x in lines if x not in scores.x_labels))
    headings = tuple(dict.fromkeys(headings))
    none = ([""] * len(panels), "")
    rows = []
    for index, title in enumerate(titles):
        of_panel = [cells[index] for cells in levels.values()]
        for curve in scores.curves:
            cells = (lines.get((curve, x), none)[0][index] for x in headings)
            rows.append(blocks.Row((title, *curve, *cells, *of_panel)))
    for curve in scores.curves:
        counts = (lines.get((curve, x), none)[1] for x in headings)
        rows.append(blocks.Row(("Runs", *curve, *counts, *("" for _ in levels))))
    columns = (f"{study.x_axis} →", *study.curve_axes, *headings, *levels)
    return blocks.Table(columns, rows, 1 + len(study.curve_axes))


def _examples(panel: PanelScores) -> int:
    """Examples of every run of a panel."""
    return next(iter(panel.points.values())).examples


def _ends(scores: StudyScores, curve: tuple[str, ...]) -> tuple[str, str]:
    """The first and the last point of a curve that have a score."""
    cells = {cell for panel in scores.panels for cell in panel.points}
    labels = [x for x in scores.x_labels if (x, curve) in cells] or [""]
    return labels[0], labels[-1]


def _change(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return signed(estimate.value)
    return f"{signed(estimate.value)} [{signed(estimate.low)}, {signed(estimate.high)}]"


def _runs_at(scores: StudyScores, cell: Cell) -> list[StudyRun]:
    """The runs of a point, whatever their state."""
    runs = scores.study.runs
    return [one for index, one in enumerate(runs) if scores.cell_of(index) == cell]


def _notices(scores: StudyScores) -> Iterator[str]:
    """Runs that do not count, tasks that differ, and conditions that should not differ."""
    study = scores.study
    for one in (*study.before, *study.runs):
        if one.state == "failed":
            stage = f" in {one.stage}" if one.stage else ""
            yield f"{one.name} failed{stage}: {_first_line(one.error) or 'no reason recorded'}"
        elif one.state == "done" and one.run is None:
            yield f"{one.name} is done, but its folder is gone; it does not count."
    for state, word in _STATE_WORDS.items():
        if names := [one.name for one in study.runs if one.state == state]:
            are = counted(len(names), "run is", "runs are")
            yield f"{are} {word} and not in the means: {first_of(names)}."
    code = study.facts.get("code_sha256")  # of the study's last start
    done = (one for one in (*study.before, *study.runs) if one.state == "done")
    if others := [one.name for one in done if one.code not in ("", code)]:
        are = counted(len(others), "run was", "runs were")
        yield f"{are} made by other code than the commit under Conditions: {first_of(others)}."
    for one, rows in zip(study.runs, scores.rows):
        if one.done and not rows:
            yield f"{one.name} is done but has no results; it does not count."
    for panel in scores.panels:
        title = panel.panel.title
        for index, count in panel.panel.lacking.items():
            name = study.runs[index].name
            total = len(panel.panel.tasks)
            yield f"{title}: {name} lacks {count:,} of {counted(total, 'task')} and is left out."
        if left_out := panel.panel.left_out:
            names = first_of([_task_title(task) for task in left_out])
            yield f"{title}: fewer than half of the runs have {names}; left out."
        if panel.unpaired:
            yield (
                f"{title}: {counted(panel.unpaired, 'task')} without examples that all runs share "
                "(or with a metric that is no mean over examples): their errors are those of the "
                "metric, independent between runs."
            )
        least = sum(
            min(scores.rows[index][task.key]["n"] for index in panel.panel.runs)
            for task in panel.panel.tasks
        )
        if _examples(panel) < least:
            yield (
                f"{title}: of {least:,} examples of each run only {_examples(panel):,} are the "
                "same in all runs, and only they count. Runs are evaluated on different examples."
            )
        steps = {
            scores.rows[index][panel.panel.tasks[0].key]["step"]
            for index in panel.panel.runs
            if not study.runs[index].only_evaluated
        }
        if len(steps) > 1:
            yield f"{title}: runs are evaluated at different steps, {_span(steps)}."
    yield from scores.left_out
    fields = ("task_version", "template_set", "metric", "decode", "n", "baseline")
    for name in (*fields, "random_baseline"):
        if different := _differing(scores, name):
            named = ", ".join(different[:4]) + (" and more" if different[4:] else "")
            note = "; the highest counts" if name.endswith("baseline") else ""
            yield f"{name.replace('_', ' ')} is not the same in all runs: {named}{note}."
    warnings: dict[str, list[str]] = {}
    for one in (*study.before, *study.runs):
        for text in one.run.warnings if one.run and one.state == "done" else ():
            unasked = ("no evaluation yet",) if one in study.before else ()
            unasked += _OF_TRAINING if one.only_evaluated else ()
            if not text.startswith(unasked):
                warnings.setdefault(text, []).append(one.name)
    for text, names in warnings.items():
        yield f"{', '.join(names) if len(names) < 3 else counted(len(names), 'run')}: {text}"


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


def _differing(scores: StudyScores, name: str) -> list[str]:
    """Tasks whose metric lines do not agree in a field."""
    values: dict[Task, set[Any]] = {}
    for rows in scores.rows:
        for key, row in rows.items():
            value = row[name]
            value = round(value, 6) if isinstance(value, float) else value
            values.setdefault(key, set()).add(value)
    differing = (_task_title(key) for key, of_task in values.items() if len(of_task) > 1)
    return list(dict.fromkeys(differing))


def _task_title(task: Task) -> str:
    return f"{task[1]} {task[2]}".rstrip()


# Points and differences.


@blocks.section("points", "Scores over the points")
def _points_section(scores: StudyScores) -> Iterator[blocks.Block]:
    """A chart or dot plot a panel, and all points in full."""
    if not scores.panels:
        return
    if scores.x_values is None:
        for panel in scores.panels:
            yield _dots(scores, panel)
    else:
        charts = [_chart(scores, panel) for panel in scores.panels]
        yield blocks.Charts(charts)
        papers = [name for name in scores.study.papers if name in scaling.PRINTED_OVER]
        text = "Vertical lines: 95 % intervals. Curves with intervals are moved apart sideways."
        if any(series.dashed for chart in charts for series in chart.series):
            printed = "; ".join(scaling.PRINTED_OVER[name][1] for name in papers)
            text += f" Dashed and hollow: {printed}."
        yield blocks.Text(text, quiet=True)
    yield _points_table(scores)


def _chart(scores: StudyScores, panel: PanelScores) -> blocks.Chart:
    study = scores.study
    x_values = scores.x_values or {}
    series = []
    for color, curve in enumerate(scores.curves):
        inside = [
            (x, panel.points[label, curve])
            for label, x in x_values.items()
            if (label, curve) in panel.points
        ]
        if inside:
            intervals = tuple(
                None if e.low is None or e.high is None else (e.low, e.high) for _, e in inside
            )
            points = tuple((x, estimate.value) for x, estimate in inside)
            name = _curve_name(study, curve) or "ours"
            series.append(blocks.Series(name, points, color, intervals=intervals))
    series += _printed_curves(study, panel.panel.column, x_values)
    xs = sorted({x for one in series for x, _ in one.points})
    beyond = any(x > max(x_values.values()) for x in xs)  # of a paper's models
    return blocks.Chart(
        panel.panel.title,
        tuple(series),
        sizes=study.x_axis,
        linear=_is_linear(xs),
        ticks=() if beyond else tuple((x, label) for label, x in x_values.items() if x in xs),
        levels=tuple(panel.baselines.items()),
    )


def _is_linear(xs: Sequence[float]) -> bool:
    """Whether a linear axis tells sorted numbers apart at least as well as a logarithmic one."""
    positive = [x for x in xs if x > 0]
    if xs[0] < 0 or len(positive) < 2:
        return True

    def least_apart(places: Sequence[float]) -> float:
        return min(b - a for a, b in itertools.pairwise(places)) / (places[-1] - places[0])

    return least_apart(xs) >= least_apart([math.log(x) for x in positive])


def _printed_curves(
    study: StudyFiles, column: str, x_values: Mapping[str, float]
) -> Iterator[blocks.Series]:
    """The papers' curves of a column, where their x is ours."""
    for name in study.papers:
        over = scaling.PRINTED_OVER.get(name, ("",))[0]
        is_x = study.over_parameters if over == "Parameters" else over and study.x_axis == "tasks"
        if is_x and column:
            yield from scaling.printed_curves(name, column)


def _dots(scores: StudyScores, panel: PanelScores) -> blocks.Dots:
    """A row for each category; those whose runs have other suites only are left out."""
    baseline = max(panel.baselines.values(), default=None)
    rows = []
    for x in scores.x_labels:
        marks = tuple(
            blocks.Mark(estimate.value, estimate.stderr, color)
            for color, curve in enumerate(scores.curves)
            if (estimate := panel.points.get((x, curve))) is not None
        )
        if marks or not any(cell[0] == x for other in scores.panels for cell in other.points):
            rows.append(blocks.DotRow(x, marks, baseline))
    drawn = {mark.color for row in rows for mark in row.marks}
    names = ((n, _curve_name(scores.study, c) or "score") for n, c in enumerate(scores.curves))
    legend = [(n, name) for n, name in names if n in drawn]
    tick = " or ".join(panel.baselines) if len(panel.baselines) < 2 else "the better baseline"
    return blocks.Dots(panel.panel.title, rows, legend, "score", tabled=True, tick=tick)


def _points_table(scores: StudyScores) -> blocks.Table:
    study = scores.study
    rows = []
    for panel in scores.panels:
        for (x, curve), estimate in panel.points.items():
            values = {i: v for (cell, i), v in panel.values.items() if cell == (x, curve)}
            spread = statistics.stdev(values.values()) if len(values) > 1 else None
            cells = (panel.panel.title, *curve, x, number(estimate.value), _interval(estimate))
            cells += (_interval(panel.wider[x, curve]), number(estimate.stderr, 2))
            cells += (number(spread, 2), " / ".join(map(number, values.values())))
            cells += (f"{len(panel.panel.tasks):,}", f"{estimate.examples:,}")
            rows.append(blocks.Row(cells))
    columns = ("Score of", *study.curve_axes, study.x_axis, "Mean", "95 % interval")
    columns += ("tasks resampled too", "s.e.", "s.d. of seeds", "Each seed", "Tasks", "n a run")
    fold = f"{all_of(len(rows), 'point')}: intervals, spread over seeds, numbers of examples"
    return blocks.Table(columns, rows, 2 + len(study.curve_axes), fold=fold)


@blocks.section("differences", "Differences")
def _changes_section(scores: StudyScores) -> Iterator[blocks.Block]:
    """Paired differences of neighbors, or against the first category, as bars and table."""
    if not scores.changes:
        return
    study, numeric = scores.study, scores.x_values is not None
    tests = [change for change in scores.changes if change.p_holm is not None]
    clear = sum((change.p_holm or 0.0) < 0.05 for change in tests)
    along = "neighbouring points, and the last with the first" if numeric else "each with the first"
    ways = dict.fromkeys(study.category_axes, "each with the first") | {study.x_axis: along}
    axes = dict.fromkeys(change.axis for change in scores.changes)
    compared = [f"{axis} ({ways[axis]})" for axis in axes]
    text = f"Compared along {' and '.join(compared)}: {counted(len(tests), 'comparison')}."
    if len(tests) > 1:
        text += (
            f" With so many, about {0.05 * len(tests):.1f} would have p below 0.05 by chance "
            "alone, so p (Holm) is corrected for all of them."
        )
    yield blocks.Text(f"{text} Clear at 5 %: {clear} of {len(tests)}.")
    several = any(max(change.seeds) > 1 for change in tests)
    over = "the same seeds and examples" if several else "the same examples; one seed each"
    yield blocks.Text(f"Differences are paired over {over}. Intervals are 95 %.", quiet=True)
    shown = scores.changes
    if numeric and len(shown) > MANY_CHANGES:
        shown = [change for change in shown if not _inside_curve(scores, change)]
        text = f"Drawn of {study.x_axis}: both ends of each curve. The table has all differences."
        yield blocks.Text(text, quiet=True)
    yield _bars(scores, shown)
    if not numeric:
        yield from _printed_changes(scores)
    rows = []
    for change in scores.changes:
        fixed, changed = _axes_of(study, change)
        cells = (change.panel.title, *([fixed] if study.curve_axes else []))
        rows.append(blocks.Row((*cells, f"{change.axis}: {changed}", *_change_cells(change))))
    columns = ("Score of", *(["At"] if study.curve_axes else []), "Compared", "Change")
    columns += ("95 % interval", "p", "p (Holm)", "Pairs of runs", "n a run")
    fold = f"{all_of(len(rows), 'difference')} with intervals and p"
    yield blocks.Table(columns, rows, columns.index("Change"), fold=fold)


def _inside_curve(scores: StudyScores, change: Change) -> bool:
    """Whether a change is along the x axis between other points than a curve's ends."""
    ends = _ends(scores, change.first[1])
    along = change.axis == scores.study.x_axis
    return along and (change.first[0], change.second[0]) != ends


def _axes_of(study: StudyFiles, change: Change) -> tuple[str, str]:
    """(labels that both points share, `first → second`)."""
    axes = (study.x_axis, *study.curve_axes)
    first, second = ((x, *curve) for x, curve in (change.first, change.second))
    pairs = {axis: pair for axis, *pair in zip(axes, first, second)}
    changed = " → ".join(pairs.pop(change.axis))
    return ", ".join(f"{axis} {label}" for axis, (label, _) in pairs.items()), changed


def _change_cells(change: Change) -> tuple[str, ...]:
    estimate, most = change.estimate, max(change.seeds)
    if estimate is None:
        return ("–", "no seed in common", "–", "–", f"0 of {most}", "–")
    known = None not in (estimate.low, estimate.high)
    pairs = f"{estimate.seeds}" if estimate.seeds == most else f"{estimate.seeds} of {most}"
    return (
        signed(estimate.value),
        f"{signed(estimate.low or 0.0)} to {signed(estimate.high or 0.0)}" if known else "–",
        "–" if estimate.p is None else probability(estimate.p),
        "–" if change.p_holm is None else probability(change.p_holm),
        pairs,
        f"{estimate.examples:,}",
    )


def _printed_changes(scores: StudyScores) -> Iterator[blocks.Bars]:
    """The papers' differences of the panels' columns, from tables of one label a row."""
    for table in map(printed_tables.find_table, scores.study.papers):
        columns = [p.panel.column for p in scores.panels if p.panel.column in table.columns]
        if len(table.labels) == 1:
            yield from differences.printed_bars(table, columns, table.rows[1:])


def _bars(scores: StudyScores, changes: Sequence[Change]) -> blocks.Bars:
    """A group a panel and curve, or pair of curves; the colors are those of the curves."""
    groups: dict[str, tuple[blocks.Bar, ...]] = {}
    for change in changes:
        if change.estimate is None:
            continue
        fixed, changed = _axes_of(scores.study, change)
        if change.axis == scores.study.x_axis:
            label = changed if scores.x_values is not None else change.second[0]
        else:
            fixed, label = f"{change.axis} {changed}", fixed
        heading = ": ".join(filter(None, (change.panel.title, fixed)))
        note = "" if change.p_holm is None or change.p_holm >= 0.05 else "clear"
        bar = blocks.Bar(
            *(label, change.estimate.value, change.estimate.low, change.estimate.high),
            scores.curves.index(change.second[1]),
            note,
        )
        groups[heading] = (*groups.get(heading, ()), bar)
    return blocks.Bars("Change", list(groups.items()), "points; clear: p (Holm) below 0.05")


@blocks.section("tasks", "Tasks")
def _tasks_section(scores: StudyScores) -> Iterator[blocks.Block]:
    """A folded table a panel: every task's mean over seeds at every point."""
    for panel in scores.panels:
        cells = list(panel.points)
        headings = (", ".join((*curve, x)) for x, curve in cells)
        rows = []
        for task in panel.panel.tasks:
            lines = [scores.rows[index][task.key] for index in panel.panel.runs]
            values = (number(panel.tasks[task.key, cell]) for cell in cells)
            fields = ("baseline", "random_baseline")
            levels = (results.highest(line[name] for line in lines) for name in fields)
            texts = (_of_lines(lines, name) for name in ("task_version", "metric"))
            size = _span({line["n"] for line in lines})
            level = " / ".join(map(number, levels))
            rows.append(blocks.Row((_task_title(task.key), *texts, size, level, *values)))
        columns = ("Task", "Version", "Metric", "n", "Majority / random", *headings)
        axes = ", ".join((*scores.study.curve_axes, scores.study.x_axis))
        fold = (
            f"{panel.panel.title}: {all_of(len(rows), 'task').lower()}, mean over seeds by {axes}"
        )
        yield blocks.Table(columns, rows, 3, fold=fold)


def _of_lines(lines: Sequence[Mapping[str, Any]], name: str) -> str:
    return _listed({line[name] for line in lines})


@blocks.section("papers", "Beside the papers")
def _papers_section(scores: StudyScores) -> Iterator[blocks.Block]:
    """The printed tables with a line for each run, and what differs in protocol."""
    study = scores.study
    runs = [one.run for one in study.runs if one.done and one.run]
    if study.protocol and study.papers:
        yield blocks.Text(study.protocol)
    for name in study.papers:
        content = filled_tables.fill(printed_tables.find_table(name), runs)
        headings, rows = filled_tables.lines(content)
        fold = f"{content.table.paper}, table {name.partition('.')[2]}: {content.table.title}"
        yield blocks.Table(headings, rows, len(content.table.labels), fold=fold)
        if not content.ours:
            yield blocks.Text(f"No run has results for a column of table {name}.", quiet=True)
        elif content.differences:
            text = " ".join(measures.sentences(content.differences))
            yield blocks.Text(f"What differs from its protocol: {text}", quiet=True)
        yield blocks.Text(f"Figures: {content.table.source}.", quiet=True)


# Runs and conditions.


@blocks.section("runs", "Runs")
def _runs_section(study: StudyFiles) -> Iterator[blocks.Block]:
    """Every run of the grid and before it, whatever its state."""
    rows = []
    for one in (*study.before, *study.runs):
        steps = max((row["step"] for row in one.run.metrics), default=None) if one.run else None
        size = filled_tables.trained_parameters(one.run) if one.run else None
        first = f"before the grid: {one.name}"
        labels = [one.labels.get(axis, "") for axis in study.axes] if one.labels else [first]
        labels += [""] * (len(study.axes) - len(labels))
        state = f"{one.state} ({one.stage})" if one.stage and not one.done else one.state
        if one.only_evaluated:
            state = f"{state}, only evaluated"
        cells = (*labels, state, compact(steps), compact(size), _duration(one.seconds))
        rows.append(blocks.Row((*cells, _first_line(one.error))))
    columns = (*study.axes, "State", "Steps", "Parameters", "Time", "Error")
    # The error is text in the last column, which wraps; numbers between are read as text here.
    yield blocks.Table(columns, rows, len(columns))


def _duration(seconds: float | None) -> str:
    """`48 s`, `12 min`, `3.4 h`; "–" if unknown."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@blocks.section("conditions", "Conditions")
def _conditions_section(scores: StudyScores) -> Iterator[blocks.Block]:
    """What the numbers depend on, and the study's own record."""
    study = scores.study
    rows = [blocks.Row(("seeds", ", ".join(study.axes.get(study.seed_axis, ())) or "one"))]
    for panel in scores.panels:
        runs, keys = panel.panel.runs, [task.key for task in panel.panel.tasks]
        lines = [scores.rows[index][key] for index in runs for key in keys]
        examples = {line["n"] for line in lines}
        steps = []
        for word, only in (("", False), ("only evaluated: ", True)):
            of_runs = (index for index in runs if study.runs[index].only_evaluated == only)
            if values := {scores.rows[index][key]["step"] for index in of_runs for key in keys}:
                steps.append(f"{word}{_span(values)}")
        about = [
            f"{counted(len(panel.panel.tasks), 'task')}, n {_span(examples)} each",
            f"{panel.paired:,} examples paired over all runs",
            f"checkpoint step {', '.join(steps)}",
        ]
        for field in ("metric", "split", "template_set", "decode", "task_version"):
            about.append(f"{field.replace('_', ' ')} {_of_lines(lines, field)}")
        rows.append(blocks.Row((panel.panel.title, "; ".join(about))))
    for name, value in study.facts.items():
        rows.append(blocks.Row((name.replace("_", " "), _fact(name, value))))
    yield blocks.Table(("Condition", ""), rows, 2)
    if scores.panels:
        yield blocks.Text(
            f"Intervals: hierarchical bootstrap with {scores.resamples:,} resamples of seeds and, "
            "within each task, of examples, drawn alike for all runs; Student's t times its "
            "standard error, and at least Wilson's interval where all examples score alike. Tasks "
            "are fixed, but in the column that says otherwise.",
            quiet=True,
        )


def _fact(name: str, value: Any) -> str:
    """A field of study.json as text."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one}" for key, one in value.items())
    if isinstance(value, list):
        return (" " if name == "command" else ", ").join(map(str, value))
    return str(value)


def _span(values: set[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _listed(values: set[str], most: int = 4) -> str:
    return first_of(sorted(map(str, values)), most)
