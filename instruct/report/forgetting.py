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
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from instruct import results
from instruct.errors import UserError
from instruct.report.evaluation_file import EvaluationFile
from instruct.report.paired import holm
from instruct.report.wording import counted

RESAMPLES = 2000
Task = tuple[str, str]  # task, mode


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
    changes: Mapping[Task, TaskChange]
    retained: Skill
    gained: Skill
    fell: int
    rose: int


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


def measure(
    start: Sequence[EvaluationFile],
    runs: Sequence[tuple[str, Sequence[EvaluationFile]]],
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

    Raises UserError where they have no task in common or a pattern matches none.
    """
    first = _Scores(start)
    others = [(label, _Scores(files)) for label, files in runs]
    tasks = [task for task in first.primary if all(task in s.primary for _, s in others)]
    tasks = [t for t in tasks if all(_comparable(first, s, t) for _, s in others)]
    if not tasks:
        raise UserError(
            "the start and the runs have no evaluated task in common. Evaluate all of them on the "
            "same suite (python run.py eval)."
        )
    targets = _targets(tasks, [scores for _, scores in others], target)
    able = tuple(task for task in tasks if task not in targets and first.is_able(task))
    rng = np.random.default_rng(seed)
    drawn = {task: _draws(task, first, [s for _, s in others], rng, resamples) for task in tasks}
    made = [
        _skills(label, scores, place, first, tasks, targets, able, drawn)
        for place, (label, scores) in enumerate(others, start=1)
    ]
    warnings = _warnings(first, [s for _, s in others], tasks, targets, able)
    return Forgetting(
        {task: first.primary[task]["metric"] for task in tasks},
        tuple(targets),
        bool(target),
        able,
        tuple(made),
        tuple(warnings),
    )


class _Scores:
    """Primary metric lines of a model's evaluations, and the examples behind them."""

    def __init__(self, files: Sequence[EvaluationFile]) -> None:
        self.primary: dict[Task, dict[str, Any]] = {}
        self.examples: dict[Task, dict[tuple[str, int], dict[str, Any]]] = {}
        for file in files:
            for row in results.primary_metrics(file.metrics):
                if row["value"] is not None:
                    self.primary.setdefault((row["task"], row["mode"]), row)
            for (task, mode, split, index), row in file.examples.items():
                self.examples.setdefault((task, mode), {}).setdefault((split, index), row)

    def baseline(self, task: Task) -> float:
        return results.chance_level(self.primary[task]) or 0.0

    def is_able(self, task: Task) -> bool:
        row = self.primary[task]
        return row["value"] - 2 * (row["stderr"] or 0.0) > self.baseline(task)

    def trained(self, task: Task) -> bool | None:
        group = self.primary[task]["group"]
        return None if group == "unknown" else group == "held_in"

    def values(self, task: Task) -> dict[tuple[str, int], tuple[float, tuple[str, str]]]:
        """Example -> (score in the primary metric, its id and target)."""
        metric = self.primary[task]["metric"]
        found = {}
        for key, row in self.examples.get(task, {}).items():
            value = row["scores"].get(metric)
            if value is not None and math.isfinite(value):
                found[key] = (float(value), (row["id"], row["target"]))
        return found


def _comparable(first: _Scores, other: _Scores, task: Task) -> bool:
    return first.primary[task]["metric"] == other.primary[task]["metric"]


def _targets(
    tasks: Sequence[Task], runs: Sequence[_Scores], patterns: Sequence[str]
) -> tuple[Task, ...]:
    if not patterns:
        return tuple(t for t in tasks if all(scores.trained(t) for scores in runs))
    for pattern in patterns:
        if not any(fnmatch.fnmatch(task, pattern) for task, _ in tasks):
            there = ", ".join(dict.fromkeys(task for task, _ in tasks))
            raise UserError(f"--target={pattern} matches no evaluated task; there are: {there}")
    return tuple(t for t in tasks if any(fnmatch.fnmatch(t[0], p) for p in patterns))


@dataclasses.dataclass(frozen=True)
class _Draws:
    """Scores of start and runs: the values, and resampled ones (draws, 1 + runs)."""

    values: np.ndarray
    drawn: np.ndarray
    paired: int


def _draws(
    task: Task,
    first: _Scores,
    others: Sequence[_Scores],
    rng: np.random.Generator,
    resamples: int,
) -> _Draws:
    """Resampled scores of one task; over the common examples where every model has them."""
    every = [scores.values(task) for scores in (first, *others)]
    common = [
        key for key in every[0] if all(key in v and v[key][1] == every[0][key][1] for v in every)
    ]
    rows = [scores.primary[task] for scores in (first, *others)]
    reported = np.array([row["value"] for row in rows], float)
    if len(common) > 1:
        table = np.array([[values[key][0] for key in common] for values in every]).T
        # Metric lines of corpus metrics are no means of examples: then the line counts.
        if np.allclose(table.mean(axis=0), reported, atol=1e-6) or len(common) < min(
            map(len, every)
        ):
            weights = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), resamples)
            return _Draws(table.mean(axis=0), weights @ table / len(table), len(common))
    errors = np.array([row["stderr"] if row["stderr"] is not None else math.nan for row in rows])
    return _Draws(reported, reported + rng.normal(size=(resamples, len(rows))) * errors, 0)


def _skills(
    label: str,
    scores: _Scores,
    place: int,
    first: _Scores,
    tasks: Sequence[Task],
    targets: Sequence[Task],
    able: Sequence[Task],
    drawn: Mapping[Task, _Draws],
) -> RunSkills:
    changes = {task: _change(task, scores, place, drawn[task]) for task in tasks}
    known = [task for task in tasks if changes[task].p is not None]
    for task, p in zip(known, holm([changes[task].p or 0.0 for task in known])):
        changes[task] = dataclasses.replace(changes[task], p=p)
    clear = [
        changes[task].change
        for task in known
        if task not in targets and (changes[task].p or 0.0) < 0.05
    ]
    return RunSkills(
        label=label,
        changes=changes,
        retained=_retained(place, first, able, drawn),
        gained=_gained(place, targets, drawn),
        fell=sum(change < 0 for change in clear),
        rose=sum(change > 0 for change in clear),
    )


def _change(task: Task, scores: _Scores, place: int, drawn: _Draws) -> TaskChange:
    change = float(drawn.values[place] - drawn.values[0])
    differences = drawn.drawn[:, place] - drawn.drawn[:, 0]
    stderr = float(differences.std()) if np.isfinite(differences).all() else None
    p = None
    if stderr is not None:
        p = math.erfc(abs(change) / stderr / math.sqrt(2)) if stderr > 0 else float(change == 0)
        # Never below the sign test's smallest: examples that all change alike have no error.
        p = max(p, min(1.0, 2.0 ** (1 - (drawn.paired or scores.primary[task]["n"]))))
    return TaskChange(
        start=float(drawn.values[0]),
        value=float(drawn.values[place]),
        change=change,
        stderr=stderr,
        p=p,
        trained=scores.trained(task),
        n=scores.primary[task]["n"],
        paired=drawn.paired,
    )


def _retained(
    place: int, first: _Scores, able: Sequence[Task], drawn: Mapping[Task, _Draws]
) -> Skill:
    if not able:
        return Skill(None, None, 0)
    baselines = np.array([first.baseline(task) for task in able])
    values = np.array([drawn[task].values for task in able]) - baselines[:, None]
    value = 100 * values[:, place].sum() / values[:, 0].sum()
    samples = np.stack([drawn[task].drawn for task in able]) - baselines[:, None, None]
    summed = samples.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # then there is no standard error
        shares = 100 * summed[:, place] / summed[:, 0]
    return _skill(value, shares, len(able))


def _gained(place: int, targets: Sequence[Task], drawn: Mapping[Task, _Draws]) -> Skill:
    if not targets:
        return Skill(None, None, 0)
    value = np.mean([drawn[t].values[place] - drawn[t].values[0] for t in targets])
    samples = [drawn[t].drawn[:, place] - drawn[t].drawn[:, 0] for t in targets]
    return _skill(float(value), np.mean(samples, axis=0), len(targets))


def _skill(value: float, samples: np.ndarray, tasks: int) -> Skill:
    known = bool(np.isfinite(samples).all())
    return Skill(float(value), float(samples.std()) if known else None, tasks)


def _warnings(
    first: _Scores,
    others: Sequence[_Scores],
    tasks: Sequence[Task],
    targets: Sequence[Task],
    able: Sequence[Task],
) -> list[str]:
    told = []
    every = set(first.primary).union(*(scores.primary for scores in others))
    if len(every) > len(tasks):
        told.append(
            f"{counted(len(every) - len(tasks), 'task')} left out, not evaluated in one of the "
            f"models or with another metric: {_named(task for task in every if task not in tasks)}."
        )
    if not targets:
        told.append(
            "no task is known to be in the training data of every run: there is no gained skill. "
            "Name the tasks that finetuning was for with --target=TASK."
        )
    weak = len(tasks) - len(targets) - len(able)
    if weak:
        told.append(
            f"on {weak:,} of the {counted(len(tasks) - len(targets), 'other task')} the start is "
            "not clearly above the baseline: there was nothing to forget there, and what is "
            "retained does not count it."
        )
    unknown = sum(results.chance_level(first.primary[task]) is None for task in able)
    if unknown:
        told.append(f"the baseline is not known for {counted(unknown, 'task')}; 0 is taken.")
    versions = [
        task
        for task in tasks
        if len({scores.primary[task]["task_version"] for scores in (first, *others)}) > 1
    ]
    if versions:
        told.append(
            f"{counted(len(versions), 'task')} with different versions in the evaluations: "
            f"{_named(versions)}."
        )
    return told


def _named(tasks: Iterable[Task]) -> str:
    names = sorted(" ".join(filter(None, task)) for task in tasks)
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
