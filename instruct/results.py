"""The results contract: `results.jsonl`, which an evaluation writes and a report reads.

One JSON object per line, of four kinds (`kind`):

    header    first line: schema version, suite, step, checkpoint, and the settings that affect
              results (never the batch size)
    example   one evaluated example: prompt, target and prediction. `prompt` is the whole input of
              the model, `source` only the record's texts (a dialogue, a passage). `exemplars` is
              the number of exemplars in the prompt, `exemplars_asked` that of the protocol:
              prompts that are too long lose exemplars, then the end of their source (`truncated`)
    metric    one metric of one task in one prompt mode; the first is the task's primary metric.
              Metric lines follow the task's examples in one write, and a task without them is
              unfinished. `baseline` is the metric of always giving the most frequent answer of the
              evaluated split, `random_baseline` that of a random option
    failure   a task that could not be evaluated, and why; the next run tries it again

The last field of a line is `crc32`, a checksum of the rest of it, which readers verify and remove;
lines without one are taken as they are.

Values are those of `metric_fns`: 0-100 for accuracies and overlaps, as in T5.
A task is named by (task, mode): `gym.chain_sum` in `zs_noopt`.
"""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from instruct.errors import UserError
from instruct.files import LineFile, path_of, replace_file, replacing
from instruct.json_text import parse_json, sealed_line, unsealed_line

VERSION = 1
FILE_NAME = "results.jsonl"
GROUPS = ("held_in", "held_out", "unknown")
# Prefix of the suites that training evaluates on a few examples: eval/training-<suite>.
TRAINING = "training"

# Fields of each kind of line and the types of their values; None means unknown unless noted.
_TEXT, _WHOLE = (str,), (int,)
_WHOLE_OR_NONE, _NUMBER_OR_NONE = (int, type(None)), (int, float, type(None))
_TASK_FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("suite", "task", "task_version", "family", "category", "mode", "split"), _TEXT
    ),
    "group": _TEXT,  # one of GROUPS: whether the model was trained on the task's data set
    "step": _WHOLE,
}
FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "header": {
        **{"version": _WHOLE, "suite": _TEXT, "step": _WHOLE, "checkpoint": _TEXT},
        "description": _TEXT,  # what the suite asks, for a reader; "": nothing said
        "settings": (dict,),
    },
    "example": _TASK_FIELDS
    | {
        **dict.fromkeys(("template", "id", "prompt", "target", "prediction"), _TEXT),
        "index": _WHOLE,
        "source": _TEXT,  # the record's texts, without instruction and exemplars; "": unknown
        "references": (list,),  # accepted answers, as text; []: unknown
        "exemplars": _WHOLE_OR_NONE,
        "exemplars_asked": _WHOLE_OR_NONE,
        "truncated": (bool, type(None)),
        "correct": (bool, type(None)),  # None: no metric says yes or no for one example
        "scores": (dict,),
    },
    "metric": _TASK_FIELDS
    | {
        **dict.fromkeys(("metric", "checkpoint", "template_set", "decode"), _TEXT),
        "metric_fns": _TEXT,  # functions that gave the task's metrics; "": unknown
        "records": _TEXT,  # hash of the records of examples and exemplars; "": unknown
        "value": _NUMBER_OR_NONE,  # None: not finite
        "stderr": _NUMBER_OR_NONE,
        "n": _WHOLE,
        "baseline": _NUMBER_OR_NONE,
        "random_baseline": _NUMBER_OR_NONE,  # None: the metric or task has none
        "exemplars_mean": _NUMBER_OR_NONE,
        "exemplars_min": _WHOLE_OR_NONE,
        "exemplars_asked": _NUMBER_OR_NONE,  # a mean: few-shot modes draw the number
        "truncated": _WHOLE_OR_NONE,  # prompts that lost the end of their source
        "left_out": _WHOLE_OR_NONE,  # examples that do not fit, not counted in n
    },
    "failure": _TASK_FIELDS | {"error": _TEXT, "checkpoint": _TEXT},
}

MOST_FAILURES = 5  # failed tasks whose errors are shown
# Values of fields that files of earlier versions lack.
_COUNTS = ("exemplars_mean", "exemplars_min", "exemplars_asked", "truncated", "left_out")
DEFAULTS: dict[str, dict[str, Any]] = {
    "header": {"description": ""},
    "example": {"source": "", "references": []}
    | dict.fromkeys(("exemplars", "exemplars_asked", "truncated")),
    "metric": {"metric_fns": "", "records": ""} | dict.fromkeys(("random_baseline", *_COUNTS)),
}


def check_row(row: Mapping[str, Any]) -> None:
    """Raises ValueError unless `row` has exactly the fields of its kind, with their types."""
    kind = row.get("kind")
    if kind not in FIELDS:
        raise ValueError(f"kind is {kind!r}, expected one of {sorted(FIELDS)}")
    expected = FIELDS[kind]
    missing = sorted(set(expected) - set(row))
    extra = sorted(set(row) - set(expected) - {"kind"})
    if missing or extra:
        raise ValueError(f"{kind} line: missing {missing}, unexpected {extra}")
    for name, types in expected.items():
        value = row[name]
        is_wrong_bool = isinstance(value, bool) and bool not in types  # a bool is an int
        if is_wrong_bool or not isinstance(value, types):
            allowed = " or ".join(t.__name__ for t in types)
            raise ValueError(f"{kind} line: {name} is {value!r}, expected {allowed}")
    if not all(isinstance(text, str) for text in row.get("references", ())):
        raise ValueError(f"{kind} line: references is {row['references']!r}, expected texts")
    if "group" in row and row["group"] not in GROUPS:
        raise ValueError(f"{kind} line: group is {row['group']!r}, expected one of {GROUPS}")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_line(row: Mapping[str, Any]) -> str:
    """Checks a row and writes it as a line of strict JSON, with null for values not finite."""
    defaults = DEFAULTS.get(row.get("kind", ""), {})
    finite = {name: _finite(value) for name, value in {**row, **defaults, **row}.items()}
    if isinstance(row.get("scores"), Mapping):
        finite["scores"] = {name: _finite(value) for name, value in row["scores"].items()}
    check_row(finite)
    return sealed_line(json.dumps(finite, ensure_ascii=False, allow_nan=False)) + "\n"


def read_rows(path: str | os.PathLike[str], kinds: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yields checked rows of a file, of all kinds or some.

    Ignores a last line without a line end (of an interrupted writer). Raises UserError for any
    other bad line.
    """
    with path_of(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = parse_json(unsealed_line(line))
                row = DEFAULTS.get(row.get("kind", ""), {}) | row
                check_row(row)
            except (ValueError, AttributeError, TypeError) as error:
                raise UserError(
                    f"{path}, line {number}: not a result ({error}). "
                    "Delete the file and evaluate again."
                ) from None
            if not kinds or row["kind"] in kinds:
                yield row


class ResultsWriter:
    """Appends results to a file, and keeps the tasks that an earlier run finished.

    In a bucket the whole file is uploaded at each `write`.
    Opening a file removes failures and leftovers of an interrupted run: a cut line, and examples
    without metric lines. Existing results of other settings are a UserError unless `overwrite`.

        with ResultsWriter(path, header) as writer:
            if not writer.is_finished(task, mode, version, template_set, metric_fns, records):
                writer.write(example_rows)
                writer.write(metric_rows)          # closes the task
    """

    def __init__(
        self, path: str | os.PathLike[str], header: Mapping[str, Any], overwrite: bool = False
    ) -> None:
        self.path = path_of(path)
        # (task, mode) -> (version of the task, name of its template set, its metric functions, hash
        # of its records).
        self.finished: dict[tuple[str, str], tuple[str, str, str, str]] = {}
        self._file: LineFile | None = None
        first = to_line({"kind": "header", "version": VERSION, **header})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file() and not overwrite:
            self._keep_finished(json.loads(unsealed_line(first.encode())))
        else:
            replace_file(self.path, first)

    def __enter__(self) -> "ResultsWriter":
        self._file = LineFile(self.path)
        return self

    def __exit__(self, *unused: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Checks and appends rows, and syncs the file."""
        assert self._file is not None, "use ResultsWriter in a with statement"
        for row in rows:
            self._file.write(to_line(row))
        self._file.sync()

    def is_finished(
        self,
        task: str,
        mode: str,
        version: str,
        template_set: str,
        metric_fns: str = "",
        records: str = "",
    ) -> bool:
        """Whether the file has the results of a task. Raises UserError if they are of another one.

        Args:
            version, template_set, metric_fns, records: of the task now, as its lines would have
                them; the last two are not compared where either is unknown ("").
        """
        if (task, mode) not in self.finished:
            return False
        names = ("version", "wordings", "metrics", "records")
        facts = zip(names, self.finished[task, mode], (version, template_set, metric_fns, records))
        different = [
            f"{name} of {task}: {old!r} -> {new!r}"
            for name, old, new in facts
            if old != new and (name in names[:2] or (old and new))
        ]
        self._refuse(different)
        return True

    def _refuse(self, different: Sequence[str]) -> None:
        if different:
            raise UserError(
                f"{self.path} holds results made with other settings: {', '.join(different)}. Set "
                "EvalConfig.overwrite = True to replace them, or EvalConfig.name to keep both."
            )

    def _keep_finished(self, header: Mapping[str, Any]) -> None:
        metrics = read_rows(self.path, ("metric",))
        self.finished = {
            (row["task"], row["mode"]): (
                *(row[n] for n in ("task_version", "template_set", "metric_fns", "records")),
            )
            for row in metrics
        }
        old = next(read_rows(self.path), None)
        # If no task is finished, the file is rewritten whatever its settings were.
        if self.finished and old is not None and old["kind"] == "header":
            versions = ("version", old["version"], header["version"])
            names = sorted(set(old["settings"]) | set(header["settings"]))
            settings = [(n, old["settings"].get(n), header["settings"].get(n)) for n in names]
            different = [f"{n}: {a!r} -> {b!r}" for n, a, b in (versions, *settings) if a != b]
            self._refuse(different)
        kept = (
            to_line(row)
            for row in read_rows(self.path, ("example", "metric"))
            if (row["task"], row["mode"]) in self.finished
        )
        with replacing(self.path) as stream:
            stream.write(to_line(header).encode("utf-8"))
            stream.writelines(line.encode("utf-8") for line in kept)


@dataclasses.dataclass(frozen=True)
class Exemplars:
    """Numbers of exemplars in prompts: means shown and asked for, and the fewest in any prompt."""

    shown: float
    fewest: int
    asked: float

    @property
    def complete(self) -> bool:
        """Whether every prompt shows as many as the protocol asks for."""
        return self.shown >= self.asked - 1e-9

    def __str__(self) -> str:
        """`5`, or `3.41 of 5 (at least 1)` if some are missing (rounded down)."""
        if self.complete:
            return f"{self.shown:.3g}"
        shown = math.floor(100 * self.shown) / 100
        return f"{shown:.3g} of {self.asked:.3g} (at least {self.fewest})"


def exemplars_of(rows: Iterable[Mapping[str, Any]]) -> Exemplars | None:
    """Mean over metric lines, with equal weights; None if unknown for a line (older files)."""
    rows = list(rows)
    if not rows or any(row.get("exemplars_mean") is None for row in rows):
        return None
    shown, asked = (
        sum(row[name] for row in rows) / len(rows) for name in ("exemplars_mean", "exemplars_asked")
    )
    return Exemplars(shown, min(row["exemplars_min"] for row in rows), asked)


def exemplars_text(shown: Exemplars | None) -> str:
    """The text for tables; "–" if unknown."""
    return "–" if shown is None else str(shown)


def chance_level(row: Mapping[str, Any]) -> float | None:
    """The better baseline of a metric line; None without one."""
    return highest((row.get("baseline"), row.get("random_baseline")))


def highest(levels: Iterable[float | None]) -> float | None:
    """The highest of the baselines that are known; None without one.

    Of one task it may differ between evaluations: the most frequent answer is that of the training
    split where its records were prepared.
    """
    return max((level for level in levels if level is not None), default=None)


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """Unweighted mean of primary metrics over tasks (the papers' macro average).

    Attributes:
        value: 0-100; None if no task has a value.
        stderr: of the mean over these tasks, from the sampling of their examples only.
        baseline: mean of the `chance_level`s; None unless all tasks have one.
        tasks: number of (task, mode) pairs.
        examples: sum of n.
        exemplars: None if unknown for a task.
        without_value: those of `tasks` that the mean leaves out, as their metric is not finite.
    """

    value: float | None
    stderr: float | None
    baseline: float | None
    tasks: int
    examples: int
    exemplars: Exemplars | None = None
    without_value: int = 0


def training_suite(suite: str) -> str:
    """The name under which training evaluates a suite."""
    return f"{TRAINING}-{suite}"


def is_of_training(suite: str) -> bool:
    """Whether training evaluated a suite of this name, on a few examples."""
    return suite.startswith(training_suite(""))


def counted_suites(suites: Iterable[str]) -> list[str]:
    """The suites that a score of a run is of: those of training only where there are no others."""
    suites = list(suites)
    return [suite for suite in suites if not is_of_training(suite)] or suites


def primary_metrics(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first metric line of each (suite, task, mode, step), in file order."""
    first: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for row in rows:
        if row["kind"] == "metric":
            key = (row["suite"], row["task"], row["mode"], row["step"])
            first.setdefault(key, dict(row))
    return list(first.values())


def failure_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Describe failed tasks: the first `MOST_FAILURES` with their errors, the others by name."""
    failures = [row for row in rows if row["kind"] == "failure"]
    lines = [
        f"{row['task']} ({row['mode']}) failed: {row['error']}" for row in failures[:MOST_FAILURES]
    ]
    if others := [row["task"] for row in failures[MOST_FAILURES:]]:
        names = ", ".join(dict.fromkeys(others[:MOST_FAILURES]))
        more = ", ..." if len(others) > MOST_FAILURES else ""
        tasks = f"{len(others):,} more task{'s' if len(others) > 1 else ''}"
        lines.append(f"{tasks} failed ({names}{more}); the results file has the reasons.")
    return lines


def prompt_sets(rows: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Group primary metric lines of tasks that are prompts on the same examples; others alone.

    Those are tasks with the primary metric `rank_accuracy` that agree in family and category, as
    T0's held-out tasks do.
    """
    sets: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for index, row in enumerate(rows):
        ranked = row["metric"] == "rank_accuracy"
        key = (row["family"], row["category"]) if ranked else (str(index),)
        sets.setdefault(key, []).append(row)
    return list(sets.values())


def aggregate(rows: Iterable[Mapping[str, Any]]) -> Aggregate:
    """Means over primary metric lines, ignoring values of None.

    Standard errors of prompts on the same examples do not cancel: the error of their mean is the
    mean of theirs, its largest possible value. Prompt sets are independent of each other.
    """
    rows = list(rows)
    valued = [row for row in rows if row["value"] is not None]
    baselines = [level for row in valued if (level := chance_level(row)) is not None]
    stderr = None
    if valued and all(row["stderr"] is not None for row in valued):
        sums = [sum(row["stderr"] for row in prompts) for prompts in prompt_sets(valued)]
        stderr = math.hypot(*sums) / len(valued)
    # A baseline over fewer tasks than the value would mislead.
    complete = bool(valued) and len(baselines) == len(valued)
    return Aggregate(
        value=sum(row["value"] for row in valued) / len(valued) if valued else None,
        stderr=stderr,
        baseline=sum(baselines) / len(baselines) if complete else None,
        tasks=len(rows),
        examples=sum(row["n"] for row in rows),
        exemplars=exemplars_of(rows),
        without_value=len(rows) - len(valued),
    )


def without_value_text(count: int, tasks: int) -> str:
    """`1 of 12 tasks has no finite value and is left out of the mean`."""
    has, is_ = ("has", "is") if count == 1 else ("have", "are")
    noun = "task" if tasks == 1 else "tasks"
    return f"{count:,} of {tasks:,} {noun} {has} no finite value and {is_} left out of the mean"
