"""Read what runs and evaluations leave in their folders; every report reads through this module.

    MODEL_DIR/  run.json  metrics.jsonl  mixture.json  operative.gin
                eval/<suite>/step_<n>/results.jsonl

`read_run` turns a missing or damaged file into a warning on the page: the run that went wrong is
the one to report on. `read_finished`, for comparisons, raises a UserError instead.
"""

import collections
import dataclasses
import functools
import math
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from instruct import results
from instruct.errors import UserError
from instruct.files import path_of
from instruct.lineage import read_lineage, read_object, unrecorded
from instruct.metrics_file import read_metrics

SAMPLE_TEXT_LIMIT = 4000
SAMPLES_PER_TASK = 2
_SAMPLE_TEXTS = ("prompt", "target", "prediction")
_SCORE_FIELDS = (
    *("kind", "suite", "task", "mode", "split", "index", "id", "target", "correct", "scores"),
)
_STEP_FOLDER = re.compile(r"step_(\d+)")

Line = dict[str, Any]
Keep = Callable[[Line], Line | None]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One results file.

    Attributes:
        header: its first line; {} without one.
        metrics: primary metric lines, one a (task, mode). others: further metric lines.
        failures: tasks that could not be evaluated.
        examples: the kept example lines, in the order of the file.
        path: of results.jsonl.
    """

    suite: str
    step: int
    header: Line
    metrics: tuple[Line, ...]
    others: tuple[Line, ...]
    failures: tuple[Line, ...]
    examples: tuple[Line, ...]
    path: pathlib.Path = pathlib.Path()

    @property
    def settings(self) -> Line:
        """The settings that affect results."""
        return self.header.get("settings", {})

    @property
    def lines(self) -> list[Line]:
        """All metric lines, task by task."""
        by_task: dict[tuple[str, str], list[Line]] = {}
        for row in (*self.metrics, *self.others):
            by_task.setdefault((row["task"], row["mode"]), []).append(row)
        return [row for rows in by_task.values() for row in rows]

    @functools.cached_property
    def scored(self) -> list[Line]:
        """All example lines by `keep_scores`, read on first use; [] if that fails."""
        try:
            return list(read_evaluation(self.path, keep_scores, self.suite, self.step).examples)
        except (UserError, OSError):
            return []  # `read_runs` warned of damaged files


def keep_scores(line: Line) -> Line:
    """Keep an example's key and scores, without its long texts."""
    return {name: line[name] for name in _SCORE_FIELDS}


def _sampler(most: int) -> Keep:
    """Keep at most this many right and as many other examples of each task, long texts cut."""
    counts: collections.Counter[tuple[str, str, bool]] = collections.Counter()

    def short(text: str) -> str:
        more = len(text) - SAMPLE_TEXT_LIMIT
        return f"{text[:SAMPLE_TEXT_LIMIT]} … ({more:,} more characters)" if more > 0 else text

    def keep(line: Line) -> Line | None:
        key = (line["task"], line["mode"], line["correct"] is True)
        counts[key] += 1
        if counts[key] > most:
            return None
        return line | {name: short(line[name]) for name in _SAMPLE_TEXTS}

    return keep


def read_evaluation(
    path: pathlib.Path,
    keep: Keep = lambda line: None,
    suite: str | None = None,
    step: int | None = None,
) -> Evaluation:
    """Read a results file a line at a time.

    Args:
        keep: maps an example line to what to hold in memory of it, or None.
        suite, step: replace the header's, for a folder that was copied or renamed.

    Raises:
        UserError: a line is damaged.
    """
    rows: dict[str, list[Line]] = collections.defaultdict(list)
    for row in results.read_rows(path):
        if suite is not None:
            row["suite"] = suite
        kept = keep(row) if row["kind"] == "example" else row
        if kept is not None:
            rows[row["kind"]].append(kept)
    header = rows["header"][-1] if rows["header"] else {}
    primary = results.primary_metrics(rows["metric"])
    names = {(row["task"], row["mode"], row["metric"]) for row in primary}
    return Evaluation(
        suite=header.get("suite", "") if suite is None else suite,
        step=header.get("step", 0) if step is None else step,
        header=header,
        metrics=tuple(primary),
        others=tuple(
            row for row in rows["metric"] if (row["task"], row["mode"], row["metric"]) not in names
        ),
        failures=tuple(rows["failure"]),
        examples=tuple(rows["example"]),
        path=path,
    )


def results_files(model_dir: pathlib.Path) -> dict[str, list[tuple[int, pathlib.Path]]]:
    """Suite -> (step, results file) of every evaluation; suites by name, steps in order."""
    files: dict[str, list[tuple[int, pathlib.Path]]] = {}
    for path in sorted(model_dir.glob(f"eval/*/step_*/{results.FILE_NAME}")):
        if match := _STEP_FOLDER.fullmatch(path.parent.name):
            files.setdefault(path.parent.parent.name, []).append((int(match[1]), path))
    return {suite: sorted(steps) for suite, steps in files.items()}


def find_results(run: str, suite: str = "") -> pathlib.Path:
    """Find the results file that a user names.

    Args:
        run: a MODEL_DIR (its latest step counts), a folder eval/<suite>/step_<n>, or a file.
        suite: a suite's folder, or a part of its name: "dialogsum" finds "dialogsum.main"; "" if
            there is only one.

    Raises:
        UserError: there is none, or more than one; the message lists the suites of the run.
    """
    path = path_of(run)
    if path.is_file():
        return path
    if (path / results.FILE_NAME).is_file():
        return path / results.FILE_NAME
    if not path.is_dir():
        raise UserError(f"{run}: no such folder. Give the MODEL_DIR of a run that was evaluated.")
    files = results_files(path)
    # Whole parts of a name: "dialogsum" of "few-dialogsum.main".
    part = re.compile(rf"(?:^|[.\-_]){re.escape(suite)}(?:$|[.\-_])" if suite else "")
    names = [suite] if suite in files else [name for name in files if part.search(name)]
    names = results.counted_suites(names)
    if len(names) == 1:
        return files[names[0]][-1][1]
    suites = ", ".join(files) or "none"
    if names:
        raise UserError(f"{run} has several evaluations: {suites}. Name one with --suite=NAME.")
    raise UserError(
        f"{run} has no evaluation{f' of suite {suite!r}' if suite else ''}; it has: {suites}. "
        "Evaluate the suite first: "
        f"python run.py eval --gin_file=gin/runs/eval.gin --gin.MODEL_DIR={run} "
        f"--gin.EVAL_MIXTURES={suite or 'SUITE'}"
    )


def read_finished(path: pathlib.Path, keep: Keep) -> Evaluation:
    """`read_evaluation` with the examples of finished tasks only; UserError if none is finished."""
    evaluation = read_evaluation(path, keep)
    if not evaluation.metrics:
        raise UserError(
            f"{path} holds no finished task. Run the same evaluation again to resume it."
        )
    finished = {(row["task"], row["mode"]) for row in evaluation.metrics}
    examples = [e for e in evaluation.examples if (e["task"], e["mode"]) in finished]
    return dataclasses.replace(evaluation, examples=tuple(examples))


def conditions(evaluation: Evaluation) -> dict[str, str]:
    """Everything that an evaluation's numbers depend on, as text."""

    def all_of(texts: Iterable[str]) -> str:
        return ", ".join(sorted(set(texts)))

    rows = evaluation.lines
    named = {
        "suite": evaluation.suite,
        "results": str(evaluation.path),
        "checkpoint": str(evaluation.header.get("checkpoint", "")),
        "step": f"{evaluation.step:,}",
        "n": f"{len(evaluation.examples):,}",
        "decode": all_of(row["decode"] for row in rows),
        "task version": all_of(f"{row['task']} {row['task_version']}" for row in rows),
        "template set": all_of(row["template_set"] for row in rows),
        "split": all_of(row["split"] for row in rows),
        "exemplars shown": results.exemplars_text(results.exemplars_of(evaluation.metrics)),
        "trained on the task": all_of(row["group"].replace("_", "-") for row in rows),
    }
    return named | {n: str(value) for n, value in evaluation.settings.items() if n not in named}


@dataclasses.dataclass(frozen=True)
class Run:
    """The contents of one run folder; a missing file is an empty container."""

    path: pathlib.Path
    label: str
    info: dict[str, Any]
    metrics: tuple[dict[str, Any], ...]
    mixture: dict[str, Any]
    operative_gin: str
    evaluations: tuple[Evaluation, ...]
    warnings: tuple[str, ...]

    def suites(self) -> list[str]:
        """Names of the evaluated suites, in the order of their folders."""
        return list(dict.fromkeys(e.suite for e in self.evaluations))

    def counted(self, step: int | None = None) -> list[Evaluation]:
        """The evaluations of a step (None: of all) whose suites `results.counted_suites` has."""
        there = [evaluation for evaluation in self.evaluations if step in (None, evaluation.step)]
        suites = results.counted_suites(evaluation.suite for evaluation in there)
        return [evaluation for evaluation in there if evaluation.suite in suites]

    def latest(self, suite: str) -> Evaluation | None:
        """The evaluation of a suite at its highest step, or None."""
        inside = [e for e in self.evaluations if e.suite == suite]
        return max(inside, key=lambda e: e.step, default=None)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one scalar, in order; NaN for a value that is not finite."""
        points = []
        for row in self.metrics:
            if name in row:
                value = row[name]
                # Not `isfinite`: an integer may be beyond every float.
                finite = isinstance(value, int | float) and abs(value) <= sys.float_info.max
                points.append((int(row["step"]), float(value) if finite else math.nan))
        return points

    def scalar_names(self) -> list[str]:
        """All logged scalars, in the order of appearance."""
        return list(dict.fromkeys(name for row in self.metrics for name in row if name != "step"))


def read_runs(model_dirs: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """Read run folders; labels are the shortest path ends that differ.

    Raises:
        UserError: there is none, or one is not a folder.
    """
    paths = [path_of(folder) for folder in model_dirs]
    if not paths:
        raise UserError("no run to report on. Give at least one MODEL_DIR.")
    for path in paths:
        if not path.is_dir():
            raise UserError(f"MODEL_DIR {str(path)!r} is not a folder. Give the folder of a run.")
    return [read_run(path, label) for path, label in zip(paths, labels_of(paths))]


def labels_of(paths: Sequence[pathlib.Path]) -> list[str]:
    """The shortest path ends that differ; a path given twice gets a number."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{part[-1]} ({number})" for number, part in enumerate(parts, start=1)]


def read_run(path: pathlib.Path, label: str, keep: Keep | None = None) -> Run:
    """Read one run folder; missing and damaged files become warnings.

    Args:
        keep: what to hold of each example of a suite's latest evaluation; None: a few samples.
    """
    warnings: list[str] = []

    def object_of(name: str, consequence: str) -> dict[str, Any]:
        return read_object(
            path / name, lambda state: warnings.append(f"{name} is {state}: {consequence}.")
        )

    info = object_of("run.json", "how it was started is not known")
    mixture = object_of("mixture.json", "the mixture as realised is not known")
    if not _is_mixture(mixture):
        warnings.append("mixture.json is damaged: the mixture as realised is not known.")
        mixture = {}
    metrics = _read_metrics(path / "metrics.jsonl", warnings)
    lineage = read_lineage(path)
    if lineage.tasks is not None and lineage.unknown:
        warnings.append(unrecorded(lineage))
    gin = path / "operative.gin"
    if not gin.is_file():
        warnings.append("operative.gin is missing: the configuration is not known.")
    run = Run(
        path=path,
        label=label,
        info=info,
        metrics=tuple(metrics),
        mixture=mixture,
        operative_gin=gin.read_text(encoding="utf-8", errors="replace") if gin.is_file() else "",
        evaluations=tuple(_read_evaluations(path, warnings, keep)),
        warnings=(),
    )
    for name in run.scalar_names():
        bad = [step for step, value in run.curve(name) if math.isnan(value)]
        if bad:
            more = f" and {len(bad) - 1} more times" if len(bad) > 1 else ""
            warnings.append(f"{name} is not a finite number at step {bad[0]:,}{more}.")
    return dataclasses.replace(run, warnings=tuple(warnings))


_LEAF_NUMBERS = (
    *("asked", "realised", "examples", "dropped", "truncated", "tokens", "exemplars_missing"),
)


def _is_mixture(mixture: dict[str, Any]) -> bool:
    """Whether the values that pages show have their types; what is missing is none."""
    leaves, reasons = mixture.get("leaves", []), mixture.get("dropped_reasons", {})
    if not isinstance(leaves, list) or not isinstance(reasons, dict):
        return False
    if not all(isinstance(leaf, dict) for leaf in leaves):
        return False
    numbers = [leaf.get(name) for leaf in leaves for name in _LEAF_NUMBERS]
    names = [leaf.get(name) for leaf in leaves for name in ("name", "task", "category")]
    return all(isinstance(name, str | None) for name in names) and all(
        # Not `isfinite`: an integer may be beyond every float.
        number is None or (isinstance(number, int | float) and abs(number) <= sys.float_info.max)
        for number in (*numbers, *reasons.values())
    )


def _read_metrics(path: pathlib.Path, warnings: list[str]) -> list[dict[str, Any]]:
    try:
        rows, damaged, repeated, _ = read_metrics(path)
    except OSError as error:
        warnings.append(f"metrics.jsonl cannot be read ({error.strerror}): no training curves.")
        return []
    if damaged:
        warnings.append(f"metrics.jsonl: skipped {damaged} damaged line(s).")
    if repeated:
        warnings.append(f"metrics.jsonl: {repeated} repeated row(s); the last of a step counts.")
    if not rows:
        state = "holds no step yet" if path.exists() else "is missing"
        warnings.append(f"metrics.jsonl {state}: no training curves.")
    return rows


def _read_evaluations(
    model_dir: pathlib.Path, warnings: list[str], keep: Keep | None
) -> Iterator[Evaluation]:
    files = results_files(model_dir)
    if not files:
        warnings.append("no evaluation yet (eval/<suite>/step_<n>/results.jsonl): no results.")
    for suite, steps in files.items():
        for step, path in steps:
            latest = step == steps[-1][0]
            sampler = _sampler(SAMPLES_PER_TASK if latest else 0)
            try:
                evaluation = read_evaluation(
                    path, keep if keep and latest else sampler, suite, step
                )
            except UserError as error:
                warnings.append(str(error))
                continue
            except OSError as error:
                warnings.append(f"{path} cannot be read ({error.strerror}): no results of it.")
                continue
            yield evaluation
            failed = results.failure_lines(evaluation.failures)
            warnings += [f"evaluation at step {step:,}: {line}" for line in failed]
            if not evaluation.metrics:
                warnings.append(f"{suite} at step {step:,}: no task is finished yet.")
