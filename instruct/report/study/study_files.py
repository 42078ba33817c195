"""Read what a study leaves in STUDY_DIR: study.json, and study_run.json and results of each run.

    STUDY_DIR/  study.json
                <run>/   study_run.json and what `read.py` reads

study.json names every run of the grid, so a run whose folder is missing is known to be missing.
"""

import dataclasses
import itertools
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from instruct.errors import UserError
from instruct.files import path_of
from instruct.lineage import read_object
from instruct.report import read
from instruct.report.papers.filled_tables import trained_parameters

STUDY_FILE = "study.json"
RUN_FILE = "study_run.json"
MISSING = "missing"  # the state of a run that has not been started
STATES = ("done", "failed", "running", "waiting", MISSING)

Labels = Mapping[str, str]
_FIELDS = {"title": str, "axes": dict, "x_axis": str, "runs": list}
_SIZES_APART = 1.5  # least ratio of the parameters of two sizes
_SIZE_AXES = ("size", "model", "params", "parameters")
_SIZES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        name: of its folder. labels: axis -> label; {} of a run before the grid.
        stages: of "train" and "eval"; ("eval",) where a checkpoint is only evaluated.
        state: one of `STATES`. stage: the one that runs or failed. error: why it failed.
        seconds: of all its stages; None if unknown.
        code: a hash of the program that ran it last; "" if unknown.
        run: the contents of its folder, with the scores of all examples of the latest evaluations;
            None if there is no folder.
    """

    name: str
    labels: Labels
    stages: tuple[str, ...]
    state: str
    stage: str
    error: str
    seconds: float | None
    code: str
    run: read.Run | None

    @property
    def done(self) -> bool:
        """Whether its results count."""
        return self.state == "done" and self.run is not None

    @property
    def only_evaluated(self) -> bool:
        """Whether it has no training, and so no training seed."""
        return bool(self.labels) and "train" not in self.stages


@dataclasses.dataclass(frozen=True)
class StudyFiles:
    """A study as it lies in its folder.

    Attributes:
        path: STUDY_DIR.
        axes: axis -> labels, in order. x_axis: one of them. seed_axis: "" without one.
        papers: names of printed tables. protocol: what differs from them.
        runs: of the grid. before: runs that those of the grid start from.
        facts: further fields of study.json (hashes, commit, time).
    """

    path: pathlib.Path
    title: str
    axes: Mapping[str, tuple[str, ...]]
    x_axis: str
    seed_axis: str
    papers: tuple[str, ...]
    protocol: str
    runs: tuple[StudyRun, ...]
    before: tuple[StudyRun, ...]
    facts: Mapping[str, Any]

    @property
    def curve_axes(self) -> tuple[str, ...]:
        """Axes whose combinations make curves: all but `x_axis` and `seed_axis`."""
        return tuple(axis for axis in self.axes if axis not in (self.x_axis, self.seed_axis))

    def x_values(self) -> dict[str, float] | None:
        """The number of each label of `x_axis`, in the order of the numbers; None without numbers.

        An axis of models without numbers (`small`, `base`) takes their parameters from run.json, if
        they are known and sizes apart: architectures of about one size are categories.
        """
        labels = self.axes[self.x_axis]
        values: dict[str, float | None] = {label: number_of(label) for label in labels}
        if None in values.values() and self.over_parameters:
            values = {label: self._parameters(label) for label in labels}
            known = sorted(value for value in values.values() if value is not None)
            if any(b < _SIZES_APART * a for a, b in itertools.pairwise(known)):
                return None
        numbers = {label: value for label, value in values.items() if value is not None}
        if len(labels) < 2 or len(set(numbers.values())) < len(labels):
            return None
        return dict(sorted(numbers.items(), key=lambda item: item[1]))

    def _parameters(self, label: str) -> float | None:
        """Parameters of the runs with a label of the x axis; None if unknown or several."""
        inside = [one.run for one in self.runs if one.run and one.labels[self.x_axis] == label]
        sizes = {size for run in inside if (size := trained_parameters(run)) is not None}
        return sizes.pop() if len(sizes) == 1 else None

    @property
    def over_parameters(self) -> bool:
        """Whether the x axis is the size of the model."""
        return self.x_axis.lower() in _SIZE_AXES

    @property
    def category_axes(self) -> tuple[str, ...]:
        """Curve axes whose labels are compared with the first one: neither numbers nor sizes."""
        return tuple(
            axis
            for axis in self.curve_axes
            if axis.lower() not in _SIZE_AXES and None in map(number_of, self.axes[axis])
        )


def number_of(label: str) -> float | None:
    """The number that a label is; None if it is none.

    >>> number_of("1,836"), number_of("250M"), number_of("10 %"), number_of("all")
    (1836.0, 250000000.0, 10.0, None)
    """
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*([kmbt]?)\s*%?", _plain(label))
    if match is None:
        return None
    value = float(match[1]) * _SIZES[match[2]]
    return value if math.isfinite(value) else None


def _plain(label: str) -> str:
    return label.strip().lower().replace(",", "")


def read_study(study_dir: str | os.PathLike[str]) -> StudyFiles:
    """Read a study's folder; what is missing or damaged in a run's folder is in its warnings.

    Raises:
        UserError: there is no study.json, or it lacks a field.
    """
    path = path_of(study_dir)
    states: list[str] = []
    document = read_object(path / STUDY_FILE, states.append)
    if states:
        raise UserError(
            f"{path / STUDY_FILE} is {states[0]}. Give the STUDY_DIR of a study that "
            "`run.py study` has started; the same command writes the file again."
        )
    for name, kind in _FIELDS.items():
        if not isinstance(document.get(name), kind) or not document[name]:
            raise UserError(
                f"{path / STUDY_FILE}: {name} is {document.get(name)!r}, expected a "
                f"{kind.__name__} that is not empty. Run `run.py study` again to rewrite the file."
            )
    if name := _wrong_field(document):
        raise UserError(
            f"{path / STUDY_FILE}: {name} is {document[name]!r:.200}, which no study writes. Run "
            "`run.py study` again to rewrite the file."
        )
    papers = document.pop("papers", None) or ()
    x_axis, seed_axis = document.pop("x_axis"), document.pop("seed_axis", None) or ""
    study = StudyFiles(
        path=path,
        title=document.pop("title"),
        axes={axis: tuple(map(str, labels)) for axis, labels in document.pop("axes").items()},
        x_axis=x_axis,
        seed_axis="" if seed_axis == x_axis else seed_axis,  # seeds are then what is compared
        papers=(papers,) if isinstance(papers, str) else tuple(papers),
        protocol=document.pop("protocol", None) or "",
        runs=tuple(_read_run(path, row) for row in document.pop("runs")),
        before=tuple(_read_run(path, {"name": name}) for name in document.pop("before", ())),
        facts=document,
    )
    if study.x_axis not in study.axes:
        raise UserError(
            f"{path / STUDY_FILE}: x_axis is {study.x_axis!r}; axes: {', '.join(study.axes)}."
        )
    return study


def _wrong_field(document: Mapping[str, Any]) -> str:
    """The first field with values of another type than a study's; "" without one."""

    def of_texts(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(text, str) for text in value)

    def is_run(row: Any) -> bool:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            return False
        return isinstance(row.get("labels", {}), dict) and of_texts(row.get("stages", []))

    papers = document.get("papers") or []
    checks = {
        "axes": all(isinstance(labels, list) for labels in document["axes"].values()),
        "seed_axis": isinstance(document.get("seed_axis") or "", str),
        "papers": isinstance(papers, str) or of_texts(papers),
        "protocol": isinstance(document.get("protocol") or "", str),
        "runs": all(map(is_run, document["runs"])),
        "before": of_texts(document.get("before", [])),
    }
    return next((name for name, is_right in checks.items() if not is_right), "")


def _read_run(study_dir: pathlib.Path, row: Mapping[str, Any]) -> StudyRun:
    folder = study_dir / row["name"]
    problems: list[str] = []
    about = read_object(folder / RUN_FILE, problems.append)
    state = about.get("state", MISSING if "damaged" not in problems else "")
    unknown = f"unknown state {state!r}" if state else f"{RUN_FILE} is damaged"
    seconds = about.get("seconds")
    return StudyRun(
        name=row["name"],
        labels={axis: str(label) for axis, label in row.get("labels", {}).items()},
        stages=tuple(row.get("stages", ("train",))),
        state=state if state in STATES else "failed",
        stage=about.get("stage") or "",
        error=about.get("error") or ("" if state in STATES else unknown),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        code=about.get("code") or "",
        run=read.read_run(folder, row["name"], read.keep_scores) if folder.is_dir() else None,
    )
