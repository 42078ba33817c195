"""The second waist: what an evaluation writes and a report reads, `results.jsonl`.

One JSON object a line, of four kinds (`kind`):

    header    first line: schema version, suite, step, checkpoint and the settings that can change a
              number (never the batch size)
    example   one evaluated example: what was asked, what was expected, what came. `prompt` is all
              that the model saw; `source` the texts of the record alone (a dialogue, a passage)
    metric    one metric of one task in one prompt mode. Metric lines close their task: they are
              written together after its examples, and a task without them is not finished.
              The first of them is the task's primary metric
    failure   a task that could not be evaluated, and why; it is tried again on the next run

Values are as `metric_fns` return them: 0-100 for accuracies and overlaps, as in T5.
A task is named by (task, mode): `gym.chain_sum` in `zs_noopt`.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from instruct.errors import UserError

VERSION = 1
FILE_NAME = "results.jsonl"
GROUPS = ("held_in", "held_out", "unknown")

_TEXT = (str,)
_NUMBER = (int, float)
_TASK_FIELDS: dict[str, tuple[type, ...]] = {
    "suite": _TEXT,
    "task": _TEXT,
    "task_version": _TEXT,
    "family": _TEXT,
    "category": _TEXT,
    "mode": _TEXT,
    "split": _TEXT,
    "group": _TEXT,  # one of GROUPS: did the training mixture hold its data set?
    "step": (int,),
}
FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "header": {
        "version": (int,),
        "suite": _TEXT,
        "step": (int,),
        "checkpoint": _TEXT,
        "settings": (dict,),
    },
    "example": _TASK_FIELDS
    | {
        "template": _TEXT,
        "index": (int,),
        "id": _TEXT,
        "prompt": _TEXT,
        "target": _TEXT,
        "prediction": _TEXT,
        "source": _TEXT,  # the record's own texts, without instruction and exemplars; "": not known
        "references": (list,),  # every accepted answer, as text; []: not known
        "correct": (bool, type(None)),  # None where no metric of one example says yes or no
        "scores": (dict,),
    },
    "metric": _TASK_FIELDS
    | {
        "metric": _TEXT,
        "value": (*_NUMBER, type(None)),  # None stands for a value that is not finite
        "stderr": (*_NUMBER, type(None)),
        "n": (int,),
        "baseline": (
            *_NUMBER,
            type(None),
        ),  # the same metric if the majority answer is always given
        "checkpoint": _TEXT,
        "template_set": _TEXT,
        "decode": _TEXT,
    },
    "failure": _TASK_FIELDS | {"error": _TEXT, "checkpoint": _TEXT},
}

# What lines of earlier files may lack, and what stands for it.
DEFAULTS: dict[str, dict[str, Any]] = {"example": {"source": "", "references": []}}
# Fields that a line has only where their value is known.
OPTIONAL: dict[str, dict[str, tuple[type, ...]]] = {
    "example": {"truncated": (bool,)}  # was the source cut so that the prompt fits the model?
}


def check_row(row: Mapping[str, Any]) -> None:
    """Raises ValueError unless `row` has its kind's fields, optional ones aside, and types."""
    kind = row.get("kind")
    if kind not in FIELDS:
        raise ValueError(f"kind is {kind!r}, expected one of {sorted(FIELDS)}")
    optional = OPTIONAL.get(kind, {})
    missing = sorted(set(FIELDS[kind]) - set(row))
    extra = sorted(set(row) - set(FIELDS[kind]) - set(optional) - {"kind"})
    if missing or extra:
        raise ValueError(f"{kind} line: missing {missing}, unexpected {extra}")
    for name, types in (FIELDS[kind] | optional).items():
        if name in optional and name not in row:
            continue
        value = row[name]
        boolean = isinstance(value, bool) and bool not in types
        if boolean or not isinstance(value, types):
            allowed = " or ".join(t.__name__ for t in types)
            raise ValueError(f"{kind} line: {name} is {value!r}, expected {allowed}")
    if not all(isinstance(text, str) for text in row.get("references", ())):
        raise ValueError(f"{kind} line: references is {row['references']!r}, expected texts")
    if "group" in row and row["group"] not in GROUPS:
        raise ValueError(f"{kind} line: group is {row['group']!r}, expected one of {GROUPS}")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_line(row: Mapping[str, Any]) -> str:
    """One line of strict JSON (a value that is not finite becomes null), checked, with its end."""
    given = {**DEFAULTS.get(row.get("kind", ""), {}), **row}
    finite = {name: _finite(value) for name, value in given.items()}
    if isinstance(row.get("scores"), Mapping):
        finite["scores"] = {name: _finite(value) for name, value in row["scores"].items()}
    check_row(finite)
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"


def read_rows(path: str | os.PathLike[str], kinds: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yields the checked rows of a file, all kinds or some, a line at a time.

    A last line cut short (the writer was killed) is passed over; any other bad line is a UserError.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line.decode("utf-8"))
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
    """Appends results to a file and keeps the tasks an earlier run finished.

    Opening removes what an interrupted run left half-done: a cut line, the examples of a task
    without metric lines, and failures. Existing results made with other settings are a UserError,
    unless `overwrite`.

        with ResultsWriter(path, header) as writer:
            if (task, mode) not in writer.finished:
                writer.write(example_rows)
                writer.write(metric_rows)          # closes the task
    """

    def __init__(
        self, path: str | os.PathLike[str], header: Mapping[str, Any], overwrite: bool = False
    ) -> None:
        self.path = pathlib.Path(path)
        self.finished: set[tuple[str, str]] = set()
        self._file: TextIO | None = None
        first = to_line({"kind": "header", "version": VERSION, **header})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file() and not overwrite:
            self._keep_finished(json.loads(first))
        else:
            self._replace([first])

    def __enter__(self) -> "ResultsWriter":
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *unused: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Checks and appends rows, and pushes them to the disk before it returns."""
        assert self._file is not None, "use ResultsWriter in a with statement"
        for row in rows:
            self._file.write(to_line(row))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _keep_finished(self, header: Mapping[str, Any]) -> None:
        metrics = read_rows(self.path, ("metric",))
        self.finished = {(row["task"], row["mode"]) for row in metrics}
        old = next(read_rows(self.path), None)
        # Without a finished task nothing is kept, whatever the settings were.
        if self.finished and old is not None and old["kind"] == "header":
            different = differing_settings(old, header)
            if different:
                raise UserError(
                    f"{self.path} holds results made with other settings: {different}. "
                    "Set EvalConfig.overwrite = True to replace them, or EvalConfig.name to keep "
                    "both."
                )
        kept = (
            to_line(row)
            for row in read_rows(self.path, ("example", "metric"))
            if (row["task"], row["mode"]) in self.finished
        )
        self._replace([to_line(header)], kept)

    def _replace(self, *parts: Iterable[str]) -> None:
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            for lines in parts:
                file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def differing_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two headers as "name: old -> new", or "" (the version counts too)."""
    pairs = [("version", old["version"], new["version"])]
    names = sorted(set(old["settings"]) | set(new["settings"]))
    pairs += [(n, old["settings"].get(n), new["settings"].get(n)) for n in names]
    return ", ".join(f"{n}: {a!r} -> {b!r}" for n, a, b in pairs if a != b)


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """Unweighted mean over tasks, each with its primary metric (the papers' macro average).

    Attributes:
        value, baseline: 0-100; None where no task has one.
        stderr: of the mean over these tasks, their examples being the only chance in it.
        tasks: number of (task, mode) pairs. examples: their sum of n.
    """

    value: float | None
    stderr: float | None
    baseline: float | None
    tasks: int
    examples: int


def primary_metrics(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first metric line of each (suite, task, mode, step), in the order of the file."""
    first: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for row in rows:
        if row["kind"] == "metric":
            key = (row["suite"], row["task"], row["mode"], row["step"])
            first.setdefault(key, dict(row))
    return list(first.values())


def aggregate(rows: Iterable[Mapping[str, Any]]) -> Aggregate:
    """Means over primary metric lines; lines whose value is None are left out of them."""
    given = list(rows)
    valued = [row for row in given if row["value"] is not None]
    errors = [row["stderr"] for row in valued]
    baselines = [row["baseline"] for row in valued if row["baseline"] is not None]
    stderr = None
    if valued and all(error is not None for error in errors):
        stderr = math.sqrt(sum(error**2 for error in errors)) / len(errors)
    # A mean of some tasks' baselines beside a mean of all tasks' values would mislead.
    complete = bool(valued) and len(baselines) == len(valued)
    return Aggregate(
        value=sum(row["value"] for row in valued) / len(valued) if valued else None,
        stderr=stderr,
        baseline=sum(baselines) / len(baselines) if complete else None,
        tasks=len(given),
        examples=sum(row["n"] for row in given),
    )
