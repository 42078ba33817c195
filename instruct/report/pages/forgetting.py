"""What finetuning kept and what it gained: runs against the model they started from.

Tasks are divided once for all runs: the *target* tasks (named by the user, else those that every
run was trained on), and the *others*. With x a run's score, s the start's and b the baseline (the
better of always giving the most frequent answer and of choosing an option at random; 0 where
neither is known):

    retained = 100 * sum over others of (x - b) / sum over others of (s - b)
    gained = mean over target tasks of (x - s), in points

Retained counts only the others on which the start is above b by more than two standard errors.
100: everything is still there; 0: no better than the baseline. A gain on one task can make up for a
loss on another, so the number of tasks that fell stands beside it.

Both numbers weight tasks equally, as the papers' averages do. Standard errors come from resampling
examples within tasks, the same draws for start and runs; where no examples can be paired, from
normal draws with the metrics' own standard errors.
"""

import dataclasses
import fnmatch
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from instruct import results
from instruct.errors import UserError
from instruct.files import path_of
from instruct.report import blocks, read
from instruct.report.compare import Example, Key, TaskDraws, key_of, task_draws
from instruct.report.pages.rendering import write_document
from instruct.report.read import Evaluation
from instruct.report.statistics import holm, normal_p, sign_test_floor
from instruct.report.wording import (
    all_of,
    counted,
    first_of,
    number,
    plus_minus,
    probability,
    signed,
)

RESAMPLES = 2000
FULL_SHADE = 20.0  # points of change at which a cell has its darkest shade

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
    """A run's change on a task against the start, in the metric's points."""

    start: float
    value: float
    change: float
    stderr: float | None  # of the change
    p: float | None  # two-sided, of no change, corrected over the run's tasks (Holm)
    trained: bool | None  # whether the run was trained on the task; None if unknown
    n: int  # examples of the run's score
    paired: int  # of them, those that were compared with the start's


@dataclasses.dataclass(frozen=True)
class RunSkills:
    """A run's two numbers and its change on every task."""

    label: str
    retained: Skill
    gained: Skill
    fell: int  # other tasks with a clear loss (corrected p below 0.05)
    rose: int
    changes: Mapping[Task, TaskChange]


@dataclasses.dataclass(frozen=True)
class Forgetting:
    """All numbers of the page."""

    tasks: Mapping[Task, str]  # those of start and all runs, with their primary metrics
    targets: tuple[Task, ...]
    given: bool  # whether the user named the targets
    able: tuple[Task, ...]  # the other tasks that the start could do
    runs: tuple[RunSkills, ...]
    warnings: tuple[str, ...]


def write_forgetting(
    start: str,
    runs: Sequence[str],
    out_dir: str | os.PathLike[str],
    suites: Sequence[str] = (),
    target: Sequence[str] = (),
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Writes `forgetting.html` and `.md`; returns the path of the page and its numbers.

    Args:
        start: MODEL_DIR (or results) of the model that finetuning started from.
        runs: those of the finetuned models.
        suites: which suites; () for all that the start has.
        target: patterns of the tasks that finetuning was for; () for those all runs trained on.
    """
    notes: list[str] = []
    paths = [path_of(run) for run in runs]
    first = _read_evaluations(start, "start", suites, notes)
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"the same run is given twice: {', '.join(runs)}. Give each run once.")
    others = [
        (label, _read_evaluations(run, label, suites, notes))
        for run, label in zip(runs, read.labels_of(paths))
    ]
    measured = measure(first, others, target)
    measured = dataclasses.replace(measured, warnings=(*notes, *measured.warnings))
    page = document(measured, start, [("start", first), *others])
    return write_document(page, out_dir, "forgetting"), summary(measured)


def _read_evaluations(
    run: str, label: str, suites: Sequence[str], notes: list[str]
) -> list[Evaluation]:
    """A model's evaluations. Adds to `notes` the ones it cannot use and the tasks that failed.

    Raises:
        UserError: no evaluation has a finished task.
    """
    folder = path_of(run)
    if not suites and folder.is_dir() and not (folder / results.FILE_NAME).is_file():
        names = {path.parent.name for path in folder.glob("eval/*/step_*")}
        suites = results.counted_suites(sorted(names))
        if not suites:
            raise UserError(
                f"{run} has no evaluation. Evaluate it first: python run.py eval "
                f"--gin_file=gin/runs/eval.gin --gin.MODEL_DIR={run} --gin.EVAL_MIXTURES=SUITE"
            )
    evaluations: dict[pathlib.Path, Evaluation] = {}
    left_out = []
    for suite in suites or ("",):
        try:
            path = read.find_results(run, suite).resolve()
            evaluations[path] = read.read_finished(path, read.keep_scores)
        except UserError as error:
            left_out.append(f"{label}: {f'{suite} is left out: ' if suite else ''}{error}")
    if not evaluations:
        raise UserError(" ".join(left_out))
    notes += left_out
    for evaluation in evaluations.values():
        notes += [f"{label}: {line}" for line in results.failure_lines(evaluation.failures)]
    return list(evaluations.values())


class _Scores(NamedTuple):
    """A model's primary metric lines with a value, and its examples."""

    primary: dict[Task, read.Line]
    examples: dict[Task, dict[Key, Example]]


def _scores(evaluations: Sequence[Evaluation]) -> _Scores:
    """Of a task or example in several evaluations, the first counts."""
    scores = _Scores({}, {})
    for evaluation in evaluations:
        for row in evaluation.metrics:
            if row["value"] is not None:
                scores.primary.setdefault((row["task"], row["mode"]), row)
        for row in evaluation.examples:
            lines = scores.examples.setdefault((row["task"], row["mode"]), {})
            lines.setdefault(key_of(row), row)
    return scores


def measure(
    start: Sequence[Evaluation],
    runs: Sequence[Model],
    target: Sequence[str] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Forgetting:
    """Compares runs with the start; `target` as in `write_forgetting`.

    Raises:
        UserError: they have no task in common, or a pattern of `target` matches none.
    """
    first, *others = models = [_scores(start), *(_scores(evaluations) for _, evaluations in runs)]
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
    names = list(dict.fromkeys(task for task, _ in tasks))
    trained = {t for t in tasks if all(m.primary[t]["group"] == "held_in" for m in others)}
    named: set[str] = set()
    for pattern in target:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            allowed = ", ".join(names)
            raise UserError(f"--target={pattern} matches no evaluated task; there are: {allowed}")
        named.update(matches)
    targets = tuple(t for t in tasks if (t[0] in named if target else t in trained))
    levels = {t: {results.chance_level(model.primary[t]) for model in models} for t in tasks}
    baselines = {task: results.highest(of) for task, of in levels.items()}
    least = {t: first.primary[t]["value"] - 2 * (first.primary[t]["stderr"] or 0.0) for t in tasks}
    able = tuple(t for t in tasks if t not in targets and least[t] > (baselines[t] or 0.0))
    rng = np.random.default_rng(seed)
    draws = {
        task: task_draws(
            [model.primary[task] for model in models],
            [model.examples.get(task, {}).values() for model in models],
            rng,
            resamples,
        )
        for task in tasks
    }
    skills = []
    for column, ((label, _), model) in enumerate(zip(runs, others), start=1):
        changes = _changes(column, model, draws)
        clear = [
            change.change
            for task, change in changes.items()
            if task not in targets and change.p is not None and change.p < 0.05
        ]
        skills.append(
            RunSkills(
                label=label,
                changes=changes,
                retained=_retained(column, [(draws[t], baselines[t] or 0.0) for t in able]),
                gained=_gained(column, [draws[task] for task in targets]),
                fell=sum(change < 0 for change in clear),
                rose=sum(change > 0 for change in clear),
            )
        )
    unknown = sum(baselines[task] is None for task in able)
    warnings = _warnings(models, list(tasks), len(targets), len(able), unknown)
    if differing := [task for task, of in levels.items() if len(of) > 1]:
        warnings.append(
            f"{counted(len(differing), 'task')} with different baselines in the evaluations, of "
            f"which the highest counts: {_named(differing)}."
        )
    return Forgetting(tasks, targets, bool(target), able, tuple(skills), tuple(warnings))


def _changes(
    column: int, scores: _Scores, draws: Mapping[Task, TaskDraws]
) -> dict[Task, TaskChange]:
    changes = {}
    for task, (values, drawn, paired) in draws.items():
        row = scores.primary[task]
        change = float(values[column] - values[0])
        stderr = _stderr(drawn[:, column] - drawn[:, 0])
        # Examples that all change alike have no standard error, so the sign test bounds p.
        floor = sign_test_floor(paired or row["n"])
        changes[task] = TaskChange(
            start=float(values[0]),
            value=float(values[column]),
            change=change,
            stderr=stderr,
            p=None if stderr is None else max(normal_p(change, stderr), floor),
            trained={"held_in": True, "held_out": False}.get(row["group"]),
            n=row["n"],
            paired=paired,
        )
    known = {task: change.p for task, change in changes.items() if change.p is not None}
    for task, p in zip(known, holm(list(known.values()))):
        changes[task] = dataclasses.replace(changes[task], p=p)
    return changes


def _stderr(samples: np.ndarray) -> float | None:
    return float(samples.std()) if np.isfinite(samples).all() else None


def _retained(column: int, draws: Sequence[tuple[TaskDraws, float]]) -> Skill:
    if not draws:
        return Skill(None, None, 0)
    values = np.array([one.values - baseline for one, baseline in draws])
    samples = np.sum([one.drawn - baseline for one, baseline in draws], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # then there is no standard error
        shares = 100 * samples[:, column] / samples[:, 0]
    value = 100 * values[:, column].sum() / values[:, 0].sum()
    return Skill(float(value), _stderr(shares), len(draws))


def _gained(column: int, draws: Sequence[TaskDraws]) -> Skill:
    if not draws:
        return Skill(None, None, 0)
    value = np.mean([one.values[column] - one.values[0] for one in draws])
    samples = np.mean([one.drawn[:, column] - one.drawn[:, 0] for one in draws], axis=0)
    return Skill(float(value), _stderr(samples), len(draws))


def _warnings(
    models: Sequence[_Scores], tasks: Sequence[Task], targets: int, able: int, unknown: int
) -> list[str]:
    """What the reader must know about `targets` and `able` tasks, `unknown` without a baseline."""
    others = counted(len(tasks) - targets, "other task")
    weak = len(tasks) - targets - able
    left_out = set().union(*(model.primary for model in models)) - set(tasks)
    versions = [t for t in tasks if len({m.primary[t]["task_version"] for m in models}) > 1]
    texts = {
        f"{counted(len(left_out), 'task')} left out, not evaluated in one of the models or with "
        f"another metric: {_named(left_out)}.": left_out,
        "no task is known to be in the training data of every run: there is no gained skill. "
        "Name the tasks that finetuning was for with --target=TASK.": not targets,
        f"on {weak:,} of the {others} the start is not clearly above the baseline: there was "
        "nothing to forget there, and what is retained does not count it.": weak,
        f"the baseline is not known for {counted(unknown, 'task')}; 0 is taken.": unknown,
        f"{counted(len(versions), 'task')} with different versions in the evaluations: "
        f"{_named(versions)}.": versions,
    }
    return [text for text, applies in texts.items() if applies]


def _title(task: Task) -> str:
    return " ".join(filter(None, task))


def _named(tasks: Iterable[Task]) -> str:
    return first_of(sorted(map(_title, tasks)), 5)


def document(measured: Forgetting, start: str, models: Sequence[Model]) -> blocks.Document:
    """The page: two numbers a run, the matrix of tasks and runs, every change, conditions."""

    def order(task: Task) -> tuple[bool, float, Task]:
        """Targets first, then the others, each from the largest loss of any run."""
        worst = min(run.changes[task].change for run in measured.runs)
        return task not in measured.targets, worst, task

    tasks = sorted(measured.tasks, key=order)
    return blocks.Document(
        "Retained and gained",
        f"{counted(len(measured.runs), 'run')} against the start {start} on "
        f"{counted(len(tasks), 'task')}",
        (
            _overview(measured),
            _matrix_section(measured, tasks),
            _numbers_section(measured, tasks),
            _conditions_section(models),
        ),
    )


@blocks.section("overview", "At a glance")
def _overview(measured: Forgetting) -> Iterator[blocks.Block]:
    rows = []
    for run in measured.runs:
        retained = number(run.retained.value) + plus_minus(run.retained.stderr)
        cells = (run.label, retained, _change_text(run.gained.value, run.gained.stderr))
        rows.append(blocks.Row((*cells, f"{run.fell} / {run.rose}")))
    columns = ("Run", "Retained, %", "Gained, points", "Other tasks that fell / rose")
    yield blocks.Table(columns, rows)
    retained = "Retained: not known, as there is no other task that the start could do. "
    if measured.able:
        retained = (
            "Retained: of what the start could do on "
            f"{counted(len(measured.able), 'other task')} above the baseline (the better of always "
            "giving the most frequent answer and of choosing an option at random), the share that "
            "is still there, summed over tasks. 100 is everything, 0 no better than the baseline; "
            "gains elsewhere can make up for losses. "
        )
    gained = "Gained: not known, as there is no target task."
    if measured.targets:
        named = "given" if measured.given else "those that every run was trained on"
        count = counted(len(measured.targets), "target task")
        gained = f"Gained: mean change on {count} ({named})."
    yield blocks.Text(retained + gained)
    yield blocks.Text(blocks.NOTES["forgetting"], quiet=True)
    if measured.warnings:
        yield blocks.Notices(measured.warnings)


def _change_text(change: float | None, stderr: float | None) -> str:
    return "–" if change is None else signed(change) + plus_minus(stderr)


@blocks.section("matrix", "Tasks and runs")
def _matrix_section(measured: Forgetting, tasks: Sequence[Task]) -> Iterator[blocks.Block]:
    rows = []
    for task in tasks:
        changes = [run.changes[task] for run in measured.runs]
        name = f"{_title(task)} (target)" if task in measured.targets else _title(task)
        cells = [
            blocks.Cell(
                text=_change_text(change.change, change.stderr),
                shade=max(-1.0, min(1.0, change.change / FULL_SHADE)),
                note=number(change.value),
                marked=bool(change.trained),
            )
            for change in changes
        ]
        rows.append((name, (blocks.Cell(number(changes[0].start)), *cells)))
    columns = ("Start", *(run.label for run in measured.runs))
    yield blocks.Matrix("Task", columns, rows, blocks.NOTES["matrix"])


@blocks.section("numbers", "Numbers")
def _numbers_section(measured: Forgetting, tasks: Sequence[Task]) -> Iterator[blocks.Block]:
    dots, rows = [], []
    for task in tasks:
        marks = []
        for column, run in enumerate(measured.runs):
            c = run.changes[task]
            marks.append(blocks.Mark(c.change, c.stderr, column))
            names = (_title(task), run.label, measured.tasks[task])
            scores = (number(c.start), number(c.value), _change_text(c.change, c.stderr))
            p = "–" if c.p is None else probability(c.p)
            rows.append(blocks.Row((*names, *scores, p, f"{c.n:,}", f"{c.paired:,}")))
        dots.append(blocks.DotRow(_title(task), tuple(marks), 0.0))
    legend = [(column, run.label) for column, run in enumerate(measured.runs)]
    yield blocks.Dots("Change against the start", dots, legend, "points", True, "no change")
    columns = ("Task", "Run", "Metric", "Start", "After", "Change", "p (Holm)", "n", "Paired")
    yield blocks.Table(columns, rows, 3, fold=all_of(len(rows), "change"))


@blocks.section("conditions", "Conditions of every evaluation")
def _conditions_section(models: Sequence[Model]) -> Iterator[blocks.Block]:
    for label, evaluations in models:
        for evaluation in evaluations:
            rows = list(map(blocks.Row, read.conditions(evaluation).items()))
            title = f"{label}: {evaluation.suite}, step {evaluation.step:,}"
            yield blocks.Table(("Condition", "Value"), rows, 2, fold=title)


def summary(measured: Forgetting) -> dict[str, Any]:
    """The numbers of the page, for a program to read."""
    runs = {}
    for run in map(dataclasses.asdict, measured.runs):
        run["changes"] = {_title(task): change for task, change in run["changes"].items()}
        runs[run.pop("label")] = run
    targets = [_title(task) for task in measured.targets]
    return {"warnings": list(measured.warnings), "targets": targets, "runs": runs}
