"""What a run left in its folder (`MODEL_DIR`), read for a report. Nothing here has to be complete.

    run.json  metrics.jsonl  mixture.json  operative.gin  eval/<suite>/step_<n>/results.jsonl

A file that is missing or damaged becomes a warning of the page, never an error: a report is most
wanted of the run that went wrong.
"""

import dataclasses
import math
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from instruct import results
from instruct.errors import UserError
from instruct.json_text import parse_json
from instruct.lineage import read_lineage, unrecorded
from instruct.metrics_file import read_metrics
from instruct.report.wording import failure_lines

SAMPLE_TEXT_LIMIT = 4000
SAMPLES_PER_TASK = 2
_STEP_FOLDER = re.compile(r"step_(\d+)")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One results file.

    Attributes:
        metrics: its primary metric lines, one a (task, mode); others: its further metric lines.
        failures: tasks that could not be evaluated.
        samples: some example lines, at most `SAMPLES_PER_TASK` right and as many not right a task,
            texts shortened. Only for the latest step of a suite.
    """

    suite: str
    step: int
    settings: dict[str, Any]
    metrics: tuple[dict[str, Any], ...]
    others: tuple[dict[str, Any], ...]
    failures: tuple[dict[str, Any], ...]
    samples: tuple[dict[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything known about one run; empty containers stand for what is not there."""

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

    def latest(self, suite: str) -> Evaluation | None:
        """The evaluation of a suite at its highest step, or None."""
        found = [e for e in self.evaluations if e.suite == suite]
        return max(found, key=lambda e: e.step, default=None)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one scalar, in order; a value that is not finite is kept as NaN."""
        points = []
        for row in self.metrics:
            if name in row:
                value = row[name]
                # Not `isfinite`: an integer may be beyond every float.
                finite = isinstance(value, int | float) and abs(value) <= sys.float_info.max
                points.append((int(row["step"]), float(value) if finite else math.nan))
        return points

    def scalar_names(self) -> list[str]:
        """Every scalar that was ever logged, in the order of appearance."""
        return list(dict.fromkeys(name for row in self.metrics for name in row if name != "step"))


def read_runs(model_dirs: Sequence[str | pathlib.Path]) -> list[Run]:
    """Reads run folders; labels are the shortest path ends that tell them apart.

    Raises UserError if none is given or one is no folder.
    """
    paths = [pathlib.Path(folder) for folder in model_dirs]
    if not paths:
        raise UserError("no run to report on. Give at least one MODEL_DIR.")
    for path in paths:
        if not path.is_dir():
            raise UserError(f"MODEL_DIR {str(path)!r} is not a folder. Train first, or mend it.")
    labels = _labels([path.resolve() for path in paths])
    return [read_run(path, label) for path, label in zip(paths, labels)]


def read_run(path: pathlib.Path, label: str) -> Run:
    """Reads one run folder; see the module's docstring for what happens to missing files."""
    warnings: list[str] = []
    info = _read_object(path / "run.json", "how it was started is not known", warnings)
    mixture = _read_object(path / "mixture.json", "the mixture as realised is not known", warnings)
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
        evaluations=tuple(_read_evaluations(path / "eval", warnings)),
        warnings=(),
    )
    for name in run.scalar_names():
        bad = [step for step, value in run.curve(name) if math.isnan(value)]
        if bad:
            more = f" and {len(bad) - 1} more times" if len(bad) > 1 else ""
            warnings.append(f"{name} is not a finite number at step {bad[0]:,}{more}.")
    return dataclasses.replace(run, warnings=tuple(warnings))


def _labels(paths: list[pathlib.Path]) -> list[str]:
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{path.name} ({number})" for number, path in enumerate(paths, start=1)]


def _read_object(path: pathlib.Path, consequence: str, warnings: list[str]) -> dict[str, Any]:
    try:
        value = parse_json(path.read_bytes())
    except FileNotFoundError:
        warnings.append(f"{path.name} is missing: {consequence}.")
        return {}
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        warnings.append(f"{path.name} is damaged: {consequence}.")
        return {}
    return value


def _read_metrics(path: pathlib.Path, warnings: list[str]) -> list[dict[str, Any]]:
    if not path.exists():
        warnings.append("metrics.jsonl is missing: no training curves.")
        return []
    try:
        rows, damaged, repeated, _ = read_metrics(path)
    except OSError as error:
        warnings.append(f"metrics.jsonl cannot be read ({error.strerror}): no training curves.")
        return []
    if damaged:
        warnings.append(f"metrics.jsonl: {damaged} damaged line(s) passed over.")
    if repeated:
        warnings.append(f"metrics.jsonl: {repeated} repeated row(s); the last of a step counts.")
    if not rows:
        warnings.append("metrics.jsonl holds no step yet: no training curves.")
    return rows


def _read_evaluations(folder: pathlib.Path, warnings: list[str]) -> Iterator[Evaluation]:
    found: dict[str, list[tuple[int, pathlib.Path]]] = {}
    for path in sorted(folder.glob(f"*/step_*/{results.FILE_NAME}")):
        match = _STEP_FOLDER.fullmatch(path.parent.name)
        if match:
            found.setdefault(path.parent.parent.name, []).append((int(match.group(1)), path))
    if not found:
        warnings.append("no evaluation yet (eval/<suite>/step_<n>/results.jsonl): no results.")
    for suite, files in found.items():
        last = max(step for step, _ in files)
        for step, path in sorted(files):
            try:
                evaluation = _read_evaluation(path, suite, step, step == last)
            except UserError as error:
                warnings.append(str(error))
                continue
            yield evaluation
            warnings += [
                f"evaluation at step {step:,}: {line}"
                for line in failure_lines(evaluation.failures)
            ]
            if not evaluation.metrics:
                warnings.append(f"{suite} at step {step:,}: no task is finished yet.")


def _read_evaluation(path: pathlib.Path, suite: str, step: int, with_samples: bool) -> Evaluation:
    settings: dict[str, Any] = {}
    metrics, failures, samples = [], [], []
    taken: dict[tuple[str, str, bool], int] = {}
    for row in results.read_rows(path):
        # The folder names the suite: a copied or renamed folder is another suite.
        row["suite"] = suite
        if row["kind"] == "header":
            settings = row["settings"]
        elif row["kind"] == "metric":
            metrics.append(row)
        elif row["kind"] == "failure":
            failures.append(row)
        elif with_samples:
            key = (row["task"], row["mode"], row["correct"] is True)
            if taken.get(key, 0) < SAMPLES_PER_TASK:
                taken[key] = taken.get(key, 0) + 1
                samples.append(row | {k: _short(row[k]) for k in _SAMPLE_TEXTS})
    primary = results.primary_metrics(metrics)
    first = {(row["task"], row["mode"], row["metric"]) for row in primary}
    others = [row for row in metrics if (row["task"], row["mode"], row["metric"]) not in first]
    return Evaluation(
        suite, step, settings, tuple(primary), tuple(others), tuple(failures), tuple(samples)
    )


_SAMPLE_TEXTS = ("prompt", "target", "prediction")


def _short(text: str) -> str:
    if len(text) <= SAMPLE_TEXT_LIMIT:
        return text
    return f"{text[:SAMPLE_TEXT_LIMIT]} … ({len(text) - SAMPLE_TEXT_LIMIT:,} more characters)"
