"""The page on forgetting: a matrix of tasks and runs with changes, and the two numbers of a run."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from instruct import results
from instruct.errors import UserError
from instruct.report import forgetting
from instruct.report.blocks import (
    Block,
    Cell,
    Document,
    DotRow,
    Dots,
    Mark,
    Matrix,
    Notices,
    Row,
    Section,
    Table,
    Text,
)
from instruct.report.compare import conditions
from instruct.report.evaluation_file import EvaluationFile, find_results, read_evaluation
from instruct.report.forgetting import Forgetting, RunSkills, Skill, Task, TaskChange
from instruct.report.pages.rendering import write_document
from instruct.report.wording import (
    all_of,
    counted,
    failure_lines,
    number,
    plus_minus,
    probability,
    signed,
)

# A change of so many points has the fullest colour.
FULL_SHADE = 20.0


def write_forgetting(
    start: str,
    runs: Sequence[str],
    out_dir: str | os.PathLike[str],
    suites: Sequence[str] = (),
    target: Sequence[str] = (),
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Writes `forgetting.html` and `.md`; returns the page's path and the numbers.

    Args:
        start: MODEL_DIR (or results) of the model that finetuning started from.
        runs: those of the finetuned models.
        out_dir: where to write.
        suites: which suites; () for all that the start has.
        target: patterns of the tasks that finetuning was for; see `forgetting`.
    """
    notes: list[str] = []
    first = _evaluations(start, "start", suites, notes)
    labels = _labels(runs)
    others = [(label, _evaluations(run, label, suites, notes)) for label, run in zip(labels, runs)]
    found = forgetting.measure(first, others, target)
    found = dataclasses.replace(found, warnings=(*notes, *found.warnings))
    page = write_document(_document(found, start, first, others), out_dir, "forgetting")
    return page, summary(found)


def _evaluations(
    run: str, label: str, suites: Sequence[str], notes: list[str]
) -> list[EvaluationFile]:
    """The evaluations of a model. What cannot be used, or failed, is added to `notes`.

    Raises UserError where no evaluation has a finished task.
    """
    folder = pathlib.Path(run)
    names: Sequence[str] = suites
    if not suites and folder.is_dir() and not (folder / results.FILE_NAME).is_file():
        names = sorted({path.parent.name for path in folder.glob("eval/*/step_*")})
        if not names:
            raise UserError(f"{run} has no evaluation. Evaluate it first: python run.py eval")
    files: dict[pathlib.Path, EvaluationFile] = {}
    left_out = []
    for name in names or ("",):
        try:
            path = find_results(run, name).resolve()
            files[path] = read_evaluation(path, run)
        except UserError as error:
            left_out.append(f"{label}: {f'{name} is left out: ' if name else ''}{error}")
    if not files:
        raise UserError(" ".join(left_out))
    notes += left_out
    for file in files.values():
        notes += [f"{label}: {line}" for line in failure_lines(file.failures)]
    return list(files.values())


def _labels(runs: Sequence[str]) -> list[str]:
    paths = [pathlib.Path(run).resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    raise UserError(f"the same run is given twice: {', '.join(runs)}")


def _document(
    found: Forgetting,
    start: str,
    first: Sequence[EvaluationFile],
    others: Sequence[tuple[str, Sequence[EvaluationFile]]],
) -> Document:
    return Document(
        "Retained and gained",
        f"{counted(len(found.runs), 'run')} against the start {start} on "
        f"{counted(len(found.tasks), 'task')}",
        (
            _overview(found),
            _matrix_section(found),
            _numbers_section(found),
            _conditions_section(first, others),
        ),
    )


def _with_error(skill: Skill, form: str) -> str:
    if skill.value is None:
        return "–"
    value = signed(skill.value) if form == "+.1f" else number(skill.value)
    return value + plus_minus(skill.stderr)


def _overview(found: Forgetting) -> Section:
    rows = [
        Row(
            (
                run.label,
                _with_error(run.retained, ".1f"),
                _with_error(run.gained, "+.1f"),
                f"{run.fell} / {run.rose}",
            )
        )
        for run in found.runs
    ]
    columns = ("Run", "Retained, %", "Gained, points", "Other tasks that fell / rose")
    able, targets = len(found.able), len(found.targets)
    named = "given" if found.given else "those that every run was trained on"
    blocks: list[Block] = [
        Table(columns, tuple(rows)),
        Text(
            (
                f"Retained: of what the start could do on {counted(able, 'other task')} above the "
                "baseline (the better of always giving the most frequent answer and of choosing "
                "an option at random), the share that is still there, summed over tasks. 100 is "
                "everything, 0 no better than the baseline; gains elsewhere can make up for "
                "losses. "
                if able
                else "Retained: not known, as there is no other task that the start could do. "
            )
            + (
                f"Gained: mean change on {counted(targets, 'target task')} ({named})."
                if targets
                else "Gained: not known, as there is no target task."
            )
        ),
        Text(
            "± is one standard error, from resampling examples within tasks, the same for start "
            "and runs: training seeds are no part of it. Fell and rose: other tasks whose change "
            "is clear at 5 % after correction for their number (Holm).",
            quiet=True,
        ),
    ]
    if found.warnings:
        blocks.append(Notices(found.warnings))
    return Section("overview", "At a glance", tuple(blocks))


def _title(task: Task) -> str:
    return " ".join(part for part in task if part)


def _ordered(found: Forgetting) -> list[Task]:
    """Targets first, then the others, each from the largest loss of any run."""

    def worst(task: Task) -> float:
        return min(run.changes[task].change for run in found.runs)

    return sorted(found.tasks, key=lambda task: (task not in found.targets, worst(task), task))


def _matrix_section(found: Forgetting) -> Section:
    rows = []
    for task in _ordered(found):
        start = found.runs[0].changes[task].start
        name = f"{_title(task)} (target)" if task in found.targets else _title(task)
        cells = (Cell(number(start)), *(_cell(run.changes[task]) for run in found.runs))
        rows.append((name, cells))
    legend = (
        "Change in points of each task's first metric, its standard error and the score after. "
        "Blue: more than at the start; orange: less. • the run was trained on the task."
    )
    columns = ("Start", *(run.label for run in found.runs))
    return Section("matrix", "Tasks and runs", (Matrix("Task", columns, tuple(rows), legend),))


def _cell(change: TaskChange) -> Cell:
    return Cell(
        text=signed(change.change) + plus_minus(change.stderr),
        shade=max(-1.0, min(1.0, change.change / FULL_SHADE)),
        note=number(change.value),
        marked=bool(change.trained),
    )


def _numbers_section(found: Forgetting) -> Section:
    marks = [(place, run) for place, run in enumerate(found.runs)]
    dots = []
    for task in _ordered(found):
        of_task = tuple(
            Mark(run.changes[task].change, run.changes[task].stderr, place) for place, run in marks
        )
        dots.append(DotRow(_title(task), of_task, 0.0))
    legend = tuple((place, run.label) for place, run in marks)
    plot = Dots("Change against the start", tuple(dots), legend, "points", True, "no change")
    rows = [_line(task, run) for task in _ordered(found) for run in found.runs]
    columns = ("Task", "Run", "Metric", "Start", "After", "Change", "p (Holm)", "n", "Paired")
    lines = tuple(
        Row((task, label, found.tasks[key], *rest))
        for key, (task, label, *rest) in zip(
            [task for task in _ordered(found) for _ in found.runs], rows
        )
    )
    return Section(
        "numbers", "Numbers", (plot, Table(columns, lines, 3, fold=all_of(len(lines), "change")))
    )


def _line(task: Task, run: RunSkills) -> tuple[str, ...]:
    change = run.changes[task]
    return (
        *(_title(task), run.label, number(change.start), number(change.value)),
        signed(change.change) + plus_minus(change.stderr),
        "–" if change.p is None else probability(change.p),
        *(f"{change.n:,}", f"{change.paired:,}"),
    )


def _conditions_section(
    first: Sequence[EvaluationFile], others: Sequence[tuple[str, Sequence[EvaluationFile]]]
) -> Section:
    blocks: list[Block] = []
    for label, files in (("start", first), *others):
        for file in files:
            rows = tuple(Row(pair) for pair in conditions(file).items())
            title = f"{label}: {file.header.get('suite', '')}, step {file.header.get('step', 0):,}"
            blocks.append(Table(("Condition", "Value"), rows, 2, fold=title))
    return Section("conditions", "Conditions of every evaluation", tuple(blocks))


def summary(found: Forgetting) -> dict[str, Any]:
    """The numbers of the page, for a program to read."""
    return {
        "warnings": list(found.warnings),
        "targets": [_title(task) for task in found.targets],
        "runs": {
            run.label: {
                "retained": dataclasses.asdict(run.retained),
                "gained": dataclasses.asdict(run.gained),
                "fell": run.fell,
                "rose": run.rose,
                "changes": {
                    _title(task): dataclasses.asdict(change) for task, change in run.changes.items()
                },
            }
            for run in found.runs
        },
    }
