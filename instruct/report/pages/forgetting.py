"""What finetuning kept and what it gained: runs against the model they started from.

Tasks are divided once for all runs: the *target* tasks (given, else those that every run was
trained on), and the *others*. Then, with x a run's score, s the start's and b the score without
skill, the better of always giving the most frequent answer and of choosing an option at random (0
where neither is known):

    retained = 100 * sum over others of (x - b) / sum over others of (s - b)

over the others on which the start is above b by more than two standard errors: what it could do
at all. 100: everything is still there; 0: no better than without skill. A run that is better
than the start elsewhere can pass 100, and a gain on one task can make up for a loss on another: the
number of tasks that fell stands beside it.

    gained = mean over target tasks of (x - s), in points

Both numbers weigh tasks equally, as the papers' averages do. Standard errors come from resampling
examples within tasks, the same draws for start and runs; where no examples can be paired, from
normal draws with the metrics' own standard errors.
"""

import dataclasses
import fnmatch
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from instruct import results
from instruct.errors import UserError
from instruct.report import blocks
from instruct.report.compare import Example, Key, key_of, pair_examples
from instruct.report.pages.rendering import write_document
from instruct.report.read import (
    Evaluation,
    Line,
    conditions,
    find_results,
    keep_scores,
    labels_of,
    read_finished,
)
from instruct.report.statistics import holm, normal_p, resampled_sums, sign_test_floor
from instruct.report.wording import (
    all_of,
    counted,
    failure_lines,
    number,
    plus_minus,
    probability,
    signed,
)

RESAMPLES = 2000
# A change of so many points has the fullest colour.
FULL_SHADE = 20.0

Task = tuple[str, str]  # task, mode
Model = tuple[str, Sequence[Evaluation]]  # label, evaluations


@dataclasses.dataclass(frozen=True)
class Skill:
    """One number with its standard error; None where no task counts for it."""

    value: float | None
    stderr: float | None
    tasks: int


@dataclasses.dataclass(frozen=True)
class TaskChange:
    """A task in a run against the start, in the metric's points.

    Attributes:
        start, value: scores. change: value - start. stderr: of the change.
        p: two-sided, of no change, corrected over the run's tasks (Holm).
        trained: whether the run was trained on it; None where that is not known.
        n: examples of the run's score. paired: of them, those that stood against the start's.
    """

    start: float
    value: float
    change: float
    stderr: float | None
    p: float | None
    trained: bool | None
    n: int
    paired: int


@dataclasses.dataclass(frozen=True)
class RunSkills:
    """A run: change of every task, and the two numbers.

    `fell` and `rose` count the other tasks that changed clearly (corrected p below 0.05).
    """

    label: str
    retained: Skill
    gained: Skill
    fell: int
    rose: int
    changes: Mapping[Task, TaskChange]


@dataclasses.dataclass(frozen=True)
class Forgetting:
    """Everything of the page.

    Attributes:
        tasks: that start and all runs have, with their primary metrics.
        targets: those of them that finetuning was for. given: whether they were named.
        able: the other tasks that the start could do.
        runs: in the order given. warnings: what to know.
    """

    tasks: Mapping[Task, str]
    targets: tuple[Task, ...]
    given: bool
    able: tuple[Task, ...]
    runs: tuple[RunSkills, ...]
    warnings: tuple[str, ...]


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
        suites: which suites; () for all that the start has.
        target: patterns of the tasks that finetuning was for; () for those all runs trained on.
    """
    notes: list[str] = []
    paths = [pathlib.Path(run) for run in runs]
    first = _read_evaluations(start, "start", suites, notes)
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"the same run is given twice: {', '.join(runs)}")
    others = [
        (label, _read_evaluations(run, label, suites, notes))
        for run, label in zip(runs, labels_of(paths))
    ]
    measured = measure(first, others, target)
    measured = dataclasses.replace(measured, warnings=(*notes, *measured.warnings))
    page = document(measured, start, [("start", first), *others])
    return write_document(page, out_dir, "forgetting"), summary(measured)


def _read_evaluations(
    run: str, label: str, suites: Sequence[str], notes: list[str]
) -> list[Evaluation]:
    """The evaluations of a model. What cannot be used, or failed, is added to `notes`.

    Raises:
        UserError: no evaluation has a finished task.
    """
    folder = pathlib.Path(run)
    if not suites and folder.is_dir() and not (folder / results.FILE_NAME).is_file():
        suites = sorted({path.parent.name for path in folder.glob("eval/*/step_*")})
        if not suites:
            raise UserError(f"{run} has no evaluation. Evaluate it first: python run.py eval")
    evaluations: dict[pathlib.Path, Evaluation] = {}
    left_out = []
    for suite in suites or ("",):
        try:
            path = find_results(run, suite).resolve()
            evaluations[path] = read_finished(path, keep_scores)
        except UserError as error:
            left_out.append(f"{label}: {f'{suite} is left out: ' if suite else ''}{error}")
    if not evaluations:
        raise UserError(" ".join(left_out))
    notes += left_out
    for evaluation in evaluations.values():
        notes += [f"{label}: {line}" for line in failure_lines(evaluation.failures)]
    return list(evaluations.values())


class _Scores:
    """Primary metric lines of a model's evaluations, and the examples behind them."""

    def __init__(self, evaluations: Sequence[Evaluation]) -> None:
        self.primary: dict[Task, Line] = {}
        self.examples: dict[Task, dict[Key, Example]] = {}
        for evaluation in evaluations:
            for row in evaluation.metrics:
                if row["value"] is not None:
                    self.primary.setdefault((row["task"], row["mode"]), row)
            for row in evaluation.examples:
                lines = self.examples.setdefault((row["task"], row["mode"]), {})
                lines.setdefault(key_of(row), row)

    def baseline(self, task: Task) -> float:
        return results.chance_level(self.primary[task]) or 0.0

    def is_able(self, task: Task) -> bool:
        row = self.primary[task]
        return row["value"] - 2 * (row["stderr"] or 0.0) > self.baseline(task)

    def trained(self, task: Task) -> bool | None:
        group = self.primary[task]["group"]
        return None if group == "unknown" else group == "held_in"


@dataclasses.dataclass(frozen=True)
class _Draws:
    """Scores of start and runs on a task: (1 + runs,) values, (draws, 1 + runs) resampled ones."""

    values: np.ndarray
    drawn: np.ndarray
    paired: int


def measure(
    start: Sequence[Evaluation],
    runs: Sequence[Model],
    target: Sequence[str] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Forgetting:
    """Compares runs with the start.

    Args:
        start: the evaluations of the model that finetuning started from.
        runs: (label, evaluations) of each finetuned model.
        target: patterns of the tasks that finetuning was for; () for those all runs trained on.
        seed: of the resampling. resamples: draws.

    Raises:
        UserError: they have no task in common, or a pattern matches none.
    """
    first, *others = models = [_Scores(start), *(_Scores(evaluations) for _, evaluations in runs)]
    tasks = {
        task: row["metric"]
        for task, row in first.primary.items()
        if all(model.primary.get(task, {}).get("metric") == row["metric"] for model in others)
    }
    if not tasks:
        raise UserError(
            "the start and the runs have no evaluated task in common. Evaluate all of them on the "
            "same suite (python run.py eval)."
        )
    targets = _targets(tasks, others, target)
    able = tuple(task for task in tasks if task not in targets and first.is_able(task))
    rng = np.random.default_rng(seed)
    drawn = {task: _draws(task, metric, models, rng, resamples) for task, metric in tasks.items()}
    baselines = np.array([first.baseline(task) for task in able])
    skills = []
    for column, ((label, _), model) in enumerate(zip(runs, others), start=1):
        changes = _changes(column, model, drawn)
        clear = [
            change.change
            for task, change in changes.items()
            if task not in targets and change.p is not None and change.p < 0.05
        ]
        skills.append(
            RunSkills(
                label=label,
                changes=changes,
                retained=_retained(column, baselines, [drawn[task] for task in able]),
                gained=_gained(column, [drawn[task] for task in targets]),
                fell=sum(change < 0 for change in clear),
                rose=sum(change > 0 for change in clear),
            )
        )
    warnings = _warnings(models, list(tasks), targets, able)
    return Forgetting(tasks, targets, bool(target), able, tuple(skills), tuple(warnings))


def _targets(
    tasks: Iterable[Task], runs: Sequence[_Scores], patterns: Sequence[str]
) -> tuple[Task, ...]:
    if not patterns:
        return tuple(task for task in tasks if all(scores.trained(task) for scores in runs))
    for pattern in patterns:
        if not any(fnmatch.fnmatch(task, pattern) for task, _ in tasks):
            evaluated = ", ".join(dict.fromkeys(task for task, _ in tasks))
            raise UserError(f"--target={pattern} matches no evaluated task; there are: {evaluated}")
    return tuple(t for t in tasks if any(fnmatch.fnmatch(t[0], p) for p in patterns))


def _draws(
    task: Task, metric: str, models: Sequence[_Scores], rng: np.random.Generator, resamples: int
) -> _Draws:
    """Resampled scores of one task; over the common examples where every model has them."""
    rows = [model.primary[task] for model in models]
    reported = np.array([row["value"] for row in rows], float)
    pairs = pair_examples([model.examples.get(task, {}).values() for model in models], metric)
    n = len(pairs.keys)
    if n > 1:
        means = pairs.scores.mean(axis=0)
        # Metric lines of corpus metrics are no means of examples: then the line counts.
        if np.allclose(means, reported, atol=1e-6) or n < min(pairs.counts):
            return _Draws(means, resampled_sums(pairs.scores, resamples, rng) / n, n)
    errors = np.array([np.nan if row["stderr"] is None else row["stderr"] for row in rows])
    return _Draws(reported, reported + rng.normal(size=(resamples, len(rows))) * errors, 0)


def _changes(column: int, scores: _Scores, drawn: Mapping[Task, _Draws]) -> dict[Task, TaskChange]:
    changes = {}
    for task, draws in drawn.items():
        row = scores.primary[task]
        change = float(draws.values[column] - draws.values[0])
        stderr = _stderr(draws.drawn[:, column] - draws.drawn[:, 0])
        p = None
        if stderr is not None:
            # Examples that all change alike have no error.
            p = max(normal_p(change, stderr), sign_test_floor(draws.paired or row["n"]))
        changes[task] = TaskChange(
            start=float(draws.values[0]),
            value=float(draws.values[column]),
            change=change,
            stderr=stderr,
            p=p,
            trained=scores.trained(task),
            n=row["n"],
            paired=draws.paired,
        )
    known = {task: change.p for task, change in changes.items() if change.p is not None}
    for task, p in zip(known, holm(list(known.values()))):
        changes[task] = dataclasses.replace(changes[task], p=p)
    return changes


def _stderr(samples: np.ndarray) -> float | None:
    return float(samples.std()) if np.isfinite(samples).all() else None


def _retained(column: int, baselines: np.ndarray, drawn: Sequence[_Draws]) -> Skill:
    if not drawn:
        return Skill(None, None, 0)
    values = np.array([draws.values for draws in drawn]) - baselines[:, None]
    samples = np.stack([draws.drawn for draws in drawn]) - baselines[:, None, None]
    summed = samples.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # then there is no standard error
        shares = 100 * summed[:, column] / summed[:, 0]
    value = 100 * values[:, column].sum() / values[:, 0].sum()
    return Skill(float(value), _stderr(shares), len(drawn))


def _gained(column: int, drawn: Sequence[_Draws]) -> Skill:
    if not drawn:
        return Skill(None, None, 0)
    value = np.mean([draws.values[column] - draws.values[0] for draws in drawn])
    samples = np.mean([draws.drawn[:, column] - draws.drawn[:, 0] for draws in drawn], axis=0)
    return Skill(float(value), _stderr(samples), len(drawn))


def _warnings(
    models: Sequence[_Scores], tasks: Sequence[Task], targets: Sequence[Task], able: Sequence[Task]
) -> list[str]:
    texts = []
    others = counted(len(tasks) - len(targets), "other task")
    left_out = set().union(*(model.primary for model in models)) - set(tasks)
    if left_out:
        texts.append(
            f"{counted(len(left_out), 'task')} left out, not evaluated in one of the "
            f"models or with another metric: {_named(left_out)}."
        )
    if not targets:
        texts.append(
            "no task is known to be in the training data of every run: there is no gained skill. "
            "Name the tasks that finetuning was for with --target=TASK."
        )
    if weak := len(tasks) - len(targets) - len(able):
        texts.append(
            f"on {weak:,} of the {others} the start is "
            "not clearly above the baseline: there was nothing to forget there, and what is "
            "retained does not count it."
        )
    if unknown := sum(results.chance_level(models[0].primary[task]) is None for task in able):
        texts.append(f"the baseline is not known for {counted(unknown, 'task')}; 0 is taken.")
    versions = [
        task for task in tasks if len({m.primary[task]["task_version"] for m in models}) > 1
    ]
    if versions:
        texts.append(
            f"{counted(len(versions), 'task')} with different versions in the evaluations: "
            f"{_named(versions)}."
        )
    return texts


def _named(tasks: Iterable[Task]) -> str:
    names = sorted(" ".join(filter(None, task)) for task in tasks)
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def document(measured: Forgetting, start: str, models: Sequence[Model]) -> blocks.Document:
    """The page: two numbers a run, the matrix of tasks and runs, every change, conditions."""
    return blocks.Document(
        "Retained and gained",
        f"{counted(len(measured.runs), 'run')} against the start {start} on "
        f"{counted(len(measured.tasks), 'task')}",
        (
            _overview(measured),
            _matrix_section(measured),
            _numbers_section(measured),
            _conditions_section(models),
        ),
    )


def _overview(measured: Forgetting) -> blocks.Section:
    rows = [
        blocks.Row(
            (
                run.label,
                number(run.retained.value) + plus_minus(run.retained.stderr),
                _change_text(run.gained.value, run.gained.stderr),
                f"{run.fell} / {run.rose}",
            )
        )
        for run in measured.runs
    ]
    columns = ("Run", "Retained, %", "Gained, points", "Other tasks that fell / rose")
    able, targets = len(measured.able), len(measured.targets)
    named = "given" if measured.given else "those that every run was trained on"
    retained = (
        f"Retained: of what the start could do on {counted(able, 'other task')} above the "
        "baseline (the better of always giving the most frequent answer and of choosing "
        "an option at random), the share that is still there, summed over tasks. 100 is "
        "everything, 0 no better than the baseline; gains elsewhere can make up for "
        "losses. "
        if able
        else "Retained: not known, as there is no other task that the start could do. "
    )
    gained = (
        f"Gained: mean change on {counted(targets, 'target task')} ({named})."
        if targets
        else "Gained: not known, as there is no target task."
    )
    errors = (
        "± is one standard error, from resampling examples within tasks, the same for start "
        "and runs: training seeds are no part of it. Fell and rose: other tasks whose change "
        "is clear at 5 % after correction for their number (Holm)."
    )
    parts: list[blocks.Block] = [
        *(
            blocks.Table(columns, tuple(rows)),
            blocks.Text(retained + gained),
            blocks.Text(errors, quiet=True),
        )
    ]
    if measured.warnings:
        parts.append(blocks.Notices(measured.warnings))
    return blocks.Section("overview", "At a glance", tuple(parts))


def _change_text(change: float | None, stderr: float | None) -> str:
    return "–" if change is None else signed(change) + plus_minus(stderr)


def _title(task: Task) -> str:
    return " ".join(part for part in task if part)


def _ordered(measured: Forgetting) -> list[Task]:
    """Targets first, then the others, each from the largest loss of any run."""

    def worst(task: Task) -> float:
        return min(run.changes[task].change for run in measured.runs)

    return sorted(
        measured.tasks, key=lambda task: (task not in measured.targets, worst(task), task)
    )


def _matrix_section(measured: Forgetting) -> blocks.Section:
    rows = []
    for task in _ordered(measured):
        start = measured.runs[0].changes[task].start
        name = f"{_title(task)} (target)" if task in measured.targets else _title(task)
        cells = (blocks.Cell(number(start)), *(_cell(run.changes[task]) for run in measured.runs))
        rows.append((name, cells))
    legend = (
        "Change in points of each task's first metric, its standard error and the score after. "
        "Blue: more than at the start; orange: less. • the run was trained on the task."
    )
    columns = ("Start", *(run.label for run in measured.runs))
    return blocks.Section(
        "matrix", "Tasks and runs", (blocks.Matrix("Task", columns, tuple(rows), legend),)
    )


def _cell(change: TaskChange) -> blocks.Cell:
    return blocks.Cell(
        text=_change_text(change.change, change.stderr),
        shade=max(-1.0, min(1.0, change.change / FULL_SHADE)),
        note=number(change.value),
        marked=bool(change.trained),
    )


def _numbers_section(measured: Forgetting) -> blocks.Section:
    dots, rows = [], []
    for task in _ordered(measured):
        changes = [(run.label, run.changes[task]) for run in measured.runs]
        marks = (blocks.Mark(c.change, c.stderr, column) for column, (_, c) in enumerate(changes))
        dots.append(blocks.DotRow(_title(task), tuple(marks), 0.0))
        for label, c in changes:
            p = "–" if c.p is None else probability(c.p)
            scores = (number(c.start), number(c.value), _change_text(c.change, c.stderr))
            counts = (f"{c.n:,}", f"{c.paired:,}")
            rows.append(
                blocks.Row((_title(task), label, measured.tasks[task], *scores, p, *counts))
            )
    legend = tuple((column, run.label) for column, run in enumerate(measured.runs))
    plot = blocks.Dots("Change against the start", tuple(dots), legend, "points", True, "no change")
    columns = ("Task", "Run", "Metric", "Start", "After", "Change", "p (Holm)", "n", "Paired")
    table = blocks.Table(columns, tuple(rows), 3, fold=all_of(len(rows), "change"))
    return blocks.Section("numbers", "Numbers", (plot, table))


def _conditions_section(models: Sequence[Model]) -> blocks.Section:
    parts = []
    for label, evaluation in ((label, one) for label, several in models for one in several):
        rows = tuple(blocks.Row(pair) for pair in conditions(evaluation).items())
        title = f"{label}: {evaluation.suite}, step {evaluation.step:,}"
        parts.append(blocks.Table(("Condition", "Value"), rows, 2, fold=title))
    return blocks.Section("conditions", "Conditions of every evaluation", tuple(parts))


def summary(measured: Forgetting) -> dict[str, Any]:
    """The numbers of the page, for a program to read."""
    runs = {}
    for run in map(dataclasses.asdict, measured.runs):
        changes = {_title(task): change for task, change in run["changes"].items()}
        label = run.pop("label")
        runs[label] = run | {"changes": changes}
    targets = [_title(task) for task in measured.targets]
    return {"warnings": list(measured.warnings), "targets": targets, "runs": runs}
