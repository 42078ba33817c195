"""The results contract: what an evaluation writes and a report reads, `results.jsonl`.

One JSON object a line, of four kinds (`kind`):

    header    first line: schema version, suite, step, checkpoint and the settings that can change a
              number (never the batch size)
    example   one evaluated example: what was asked, what was expected, what came. `prompt` is all
              that the model saw; `source` the texts of the record alone (a dialogue, a passage).
              `exemplars` is how many exemplars the prompt shows, `exemplars_asked` how many the
              protocol asks for: prompts that are too long lose exemplars, then the end of their
              source (`truncated`)
    metric    one metric of one task in one prompt mode. Metric lines close their task: they are
              written together after its examples, and a task without them is not finished.
              The first of them is the task's primary metric. `baseline` is the same metric if the
              most frequent answer is always given, `random_baseline` if one of the options is
              chosen at random; what all prompts of the task show is summed up beside it
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

from instruct.errors import UserError, naming_file
from instruct.files import replace_file, replacing
from instruct.json_text import parse_json

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
        "exemplars": (int, type(None)),  # None in all of these: not known
        "exemplars_asked": (int, type(None)),
        "truncated": (bool, type(None)),
        "correct": (bool, type(None)),  # None where no metric of one example says yes or no
        "scores": (dict,),
    },
    "metric": _TASK_FIELDS
    | {
        "metric": _TEXT,
        "value": (*_NUMBER, type(None)),  # None stands for a value that is not finite
        "stderr": (*_NUMBER, type(None)),
        "n": (int,),
        "baseline": (*_NUMBER, type(None)),
        "random_baseline": (*_NUMBER, type(None)),  # None: not every metric and task has one
        "exemplars_mean": (*_NUMBER, type(None)),
        "exemplars_min": (int, type(None)),
        "exemplars_asked": (*_NUMBER, type(None)),  # the mean; few-shot modes draw the number
        "truncated": (int, type(None)),  # prompts that lost the end of their source
        "left_out": (int, type(None)),  # examples that do not fit even so, which n lacks
        "checkpoint": _TEXT,
        "template_set": _TEXT,
        "decode": _TEXT,
    },
    "failure": _TASK_FIELDS | {"error": _TEXT, "checkpoint": _TEXT},
}

# What lines of earlier files may lack, and what stands for it.
DEFAULTS: dict[str, dict[str, Any]] = {
    "example": {"source": "", "references": []}
    | dict.fromkeys(("exemplars", "exemplars_asked", "truncated")),
    "metric": dict.fromkeys(
        (
            *("random_baseline", "exemplars_mean", "exemplars_min", "exemplars_asked"),
            *("truncated", "left_out"),
        )
    ),
}


def check_row(row: Mapping[str, Any]) -> None:
    """Raises ValueError unless `row` has exactly its kind's fields, with their types."""
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
    lacking = {k: v for k, v in DEFAULTS.get(row.get("kind", ""), {}).items() if k not in row}
    # "kind" stays in front
    finite = {name: _finite(value) for name, value in {**row, **lacking}.items()}
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
                row = parse_json(line)
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
            replace_file(self.path, first)

    def __enter__(self) -> "ResultsWriter":
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *unused: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Checks and appends rows, and pushes them to the disk before it returns."""
        assert self._file is not None, "use ResultsWriter in a with statement"
        with naming_file(self.path):
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
        with replacing(self.path) as stream:
            stream.write(to_line(header).encode("utf-8"))
            stream.writelines(line.encode("utf-8") for line in kept)


def differing_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two headers as "name: old -> new", or "" (the version counts too)."""
    pairs = [("version", old["version"], new["version"])]
    names = sorted(set(old["settings"]) | set(new["settings"]))
    pairs += [(n, old["settings"].get(n), new["settings"].get(n)) for n in names]
    return ", ".join(f"{n}: {a!r} -> {b!r}" for n, a, b in pairs if a != b)


@dataclasses.dataclass(frozen=True)
class Exemplars:
    """How many exemplars prompts show.

    Attributes:
        shown, asked: means over prompts. fewest: of any prompt.
    """

    shown: float
    fewest: int
    asked: float

    @property
    def complete(self) -> bool:
        """Whether every prompt shows all that the protocol asks for."""
        return self.shown >= self.asked - 1e-9

    def __str__(self) -> str:
        """`5`; `3.41 of 5 (at least 1)` where some are missing (rounded down, never up to all)."""
        if self.complete:
            return f"{self.shown:.3g}"
        shown = math.floor(100 * self.shown) / 100
        return f"{shown:.3g} of {self.asked:.3g} (at least {self.fewest})"


def exemplars_of(rows: Iterable[Mapping[str, Any]]) -> Exemplars | None:
    """Over metric lines, tasks weighing the same; None where a line does not say (older files)."""
    rows = list(rows)
    if not rows or any(row.get("exemplars_mean") is None for row in rows):
        return None
    shown, asked = (
        sum(row[name] for row in rows) / len(rows) for name in ("exemplars_mean", "exemplars_asked")
    )
    return Exemplars(shown, min(row["exemplars_min"] for row in rows), asked)


def exemplars_text(shown: Exemplars | None) -> str:
    """As in tables: "–" where it is not known."""
    return "–" if shown is None else str(shown)


def chance_level(row: Mapping[str, Any]) -> float | None:
    """What a metric line's value is without any skill: its better baseline; None without one."""
    levels = (row.get("baseline"), row.get("random_baseline"))
    return max((level for level in levels if level is not None), default=None)


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """Unweighted mean over tasks, each with its primary metric (the papers' macro average).

    Attributes:
        value: 0-100; None where no task has one.
        baseline: of their `chance_level`s; None unless all have one.
        stderr: of the mean over these tasks, their examples being the only chance in it.
        tasks: number of (task, mode) pairs. examples: their sum of n.
        exemplars: what their prompts show; None where a line does not say.
    """

    value: float | None
    stderr: float | None
    baseline: float | None
    tasks: int
    examples: int
    exemplars: Exemplars | None = None


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
    rows = list(rows)
    valued = [row for row in rows if row["value"] is not None]
    errors = [row["stderr"] for row in valued]
    baselines = [level for row in valued if (level := chance_level(row)) is not None]
    stderr = None
    if valued and all(error is not None for error in errors):
        stderr = math.sqrt(sum(error**2 for error in errors)) / len(errors)
    # A mean of some tasks' baselines beside a mean of all tasks' values would mislead.
    complete = bool(valued) and len(baselines) == len(valued)
    return Aggregate(
        value=sum(row["value"] for row in valued) / len(valued) if valued else None,
        stderr=stderr,
        baseline=sum(baselines) / len(baselines) if complete else None,
        tasks=len(rows),
        examples=sum(row["n"] for row in rows),
        exemplars=exemplars_of(rows),
    )
