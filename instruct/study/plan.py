"""`Study`: a grid of runs as a gin file binds it, and its expansion into runs with names and gin.

    from __gin__ import dynamic_registration
    from instruct.study import plan
    plan.Study.title = 'More tasks'
    plan.Study.recipe = 'gin/recipes/gym_small.gin'
    plan.Study.axes = {
        'tasks': {'8': "MIXTURE_OR_TASK_NAME = 'gym.scale_8'", '24': "..."},
        'SEED': (0, 1, 2),
    }

A run is a folder of STUDY_DIR: `run.gin` (all its settings), what `train` and `eval` write (it is
their MODEL_DIR), `study_run.json` and `output.log`.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from instruct import gin_config
from instruct.errors import UserError, unknown_name
from instruct.fields import check_fields

ENTRY = "instruct.study.plan.Study"
DEFAULTS = "gin/runs/study.gin"
RUN_GIN = "run.gin"
TRAIN, EVAL = "train", "eval"
SEED = "SEED"

# What a study writes into its folder beside the folders of its runs.
_OWN_NAMES = {"jobs", "replaced", "study.json", "study.html", "study.md", "study_results.jsonl"}
_LONGEST_NAME = 200  # bytes of a run's folder; file systems allow 255
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9=,._-]")
# {axis:size} is the run's label on an axis, {before:pretrain} the folder of an earlier run.
_LABEL = re.compile(r"\{axis:([^{}]+)\}")
_BEFORE = re.compile(r"\{before:([^{}]+)\}")
# Of a run that is only evaluated; other programs' checkpoints do not record the lengths.
_START = "CHECKPOINT_PATH = %INITIAL_CHECKPOINT_PATH"
_LENGTHS = "runner.evaluate.feature_lengths"
_LENGTHS_AS_TRAINED = ("from instruct.eval import runner", f"{_LENGTHS} = %TASK_FEATURE_LENGTHS")
_REGISTRATION = "from __gin__ import dynamic_registration"

Labels = dict[str, str]  # axis -> label


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        name: also its folder's.
        labels: axis -> label; {} of a run of `Study.before`.
        text: its gin, in which {before:NAME} still stands for folders; `gin_text` is all of it.
        stages: modes of run.py, in order.
        needs: names of the runs of `Study.before` that its text names.
    """

    name: str
    labels: Labels
    text: str
    stages: tuple[str, ...]
    needs: tuple[str, ...]

    def gin_text(self, study_dir: str, files: Sequence[str], lines: Sequence[str]) -> str:
        """The content of run.gin.

        Args:
            study_dir: the folder of all runs.
            files: gin files that are included after the run's own text.
            lines: bindings after them, which win.
        """
        # Inside of the text's quotes, of either kind.
        parent = re.sub(r"[\\'\"]", r"\\\g<0>", study_dir)
        text = _BEFORE.sub(lambda match: f"{parent}/{folder_name(match[1])}", self.text)
        own = [line for line in text.splitlines() if line.strip() != _REGISTRATION]
        if self.stages == (EVAL,):
            own.append(_START)
            own += [] if _LENGTHS in text else _LENGTHS_AS_TRAINED
        end = [*lines, f"MODEL_DIR = {f'{study_dir}/{self.name}'!r}"]
        includes = [f"include {str(path)!r}" for path in files]
        head = [f"# {self.name}: a run of a study; `run.py study` wrote this file."]
        head += [_REGISTRATION] if _REGISTRATION in text else []  # gin wants it first, and once
        return "\n".join([*head, *own, *includes, *end]) + "\n"


@dataclasses.dataclass(frozen=True)
class Study:
    """A grid of runs: the product of its axes, each point with the gin that makes it.

    Attributes:
        title: what varies, and where it is printed.
        recipe: gin files that every run of the grid includes.
        axes: axis -> {label: gin text}, or a sequence of values of the macro of the axis's name.
            In a text `{axis:NAME}` stands for the run's label on an axis, and `{before:NAME}` for
            the folder of a run of `before`.
        settings: gin text of every run of the grid, after the recipe and before the points.
        x_axis: the axis of the curves; "" for the first.
        seed_axis: the axis that means and intervals are taken over; "": none.
        papers: names of the printed tables beside the results (`instruct/report/papers`).
        protocol: what differs from the papers.
        skip: points that are left out, as {axis: label}; axes that are not named match any label.
        only_eval: points whose INITIAL_CHECKPOINT_PATH is evaluated and not trained, with prompts
            as long as in training unless their gin says otherwise. They run once, with the first
            value of a `seed_axis` that only sets a macro.
        before: name -> whole gin text of runs that are trained first and not evaluated, in order.
        study_dir: the folder of everything that the study writes (STUDY_DIR).
    """

    title: str
    recipe: str | Sequence[str]
    axes: Mapping[str, Mapping[str, str] | Sequence[Any]]
    settings: str = ""
    x_axis: str = ""
    seed_axis: str = SEED
    papers: str | Sequence[str] = ()
    protocol: str = ""
    skip: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ()
    only_eval: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ()
    before: Mapping[str, str] = dataclasses.field(default_factory=dict)
    study_dir: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.title:
            raise UserError("Study.title is ''; say what varies, which is the page's heading.")
        for name in ("recipe", "papers"):
            value = getattr(self, name)
            texts = _several(value)
            if texts is None or not all(isinstance(text, str) and text for text in texts):
                raise UserError(f"Study.{name} is {value!r}; give names as texts.")
            object.__setattr__(self, name, texts)
        object.__setattr__(self, "axes", _checked_axes(self.axes))
        object.__setattr__(self, "x_axis", self.x_axis or next(iter(self.axes)))
        if self.x_axis not in self.axes:
            raise unknown_name("axis of Study.x_axis", self.x_axis, self.axes)
        if self.seed_axis not in ("", SEED, *self.axes):
            raise unknown_name("axis of Study.seed_axis", self.seed_axis, self.axes)
        _check_texts("before", self.before)
        for name in ("skip", "only_eval"):
            object.__setattr__(self, name, self._checked_points(name))
        names = [run.name for run in self.runs()]
        names += [folder_name(name) for name in self.before]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise UserError(f"several runs of the study would be named {min(repeated)!r}.")
        if taken := _OWN_NAMES.intersection(names):
            raise UserError(
                f"a run cannot be named {min(taken)!r}: the study's own files are there."
            )
        longest = max(names, key=len)
        if len(longest) > _LONGEST_NAME:
            raise UserError(
                f"the folder {longest[:80]!r} ... of a run would have a name of {len(longest)} "
                f"characters, at most {_LONGEST_NAME} are allowed; give shorter labels."
            )

    def _checked_points(self, field: str) -> tuple[Labels, ...]:
        """Points of `skip` or `only_eval`, labels as texts."""
        value = getattr(self, field)
        points = (value,) if isinstance(value, Mapping) else _several(value)
        if points is None:
            raise UserError(f"Study.{field} is {value!r}; give {{axis: label, ...}}, or several.")
        for point in points:
            if not isinstance(point, Mapping) or not point:
                raise UserError(f"Study.{field} has {point!r}; give {{axis: label, ...}}.")
            check_labels(self, f"Study.{field}", point)
        return tuple({axis: str(label) for axis, label in point.items()} for point in points)

    def labels_of(self, axis: str) -> tuple[str, ...]:
        """The labels of an axis, in order."""
        return tuple(map(str, self.axes[axis]))

    def runs(self) -> tuple[StudyRun, ...]:
        """The runs of the grid, the last axis fastest."""
        runs = []
        for values in itertools.product(*map(self.labels_of, self.axes)):
            labels = dict(zip(self.axes, values))
            if self._names("skip", labels):
                continue
            evaluated = self._names("only_eval", labels)
            if evaluated and self._repeats_a_seed(labels):
                continue
            runs.append(self._run(labels, evaluated))
        if not runs:
            raise UserError("the study has no run: Study.skip leaves all points out.")
        return tuple(runs)

    def _names(self, field: str, labels: Labels) -> bool:
        """Whether a point of `skip` or `only_eval` is that of the labels."""
        return any(matches(labels, point) for point in getattr(self, field))

    def _repeats_a_seed(self, labels: Labels) -> bool:
        """Whether the seed is another one than the first, and sets a macro only."""
        values = self.axes.get(self.seed_axis, {})
        return not isinstance(values, Mapping) and labels[self.seed_axis] != str(values[0])

    def _run(self, labels: Labels, only_eval: bool) -> StudyRun:
        texts = [self.settings]
        for axis, label in labels.items():
            points = self.axes[axis]
            if isinstance(points, Mapping):
                texts.append(points[label])
            else:
                value = next(value for value in points if str(value) == label)
                texts.append(f"{axis} = {value!r}")
        name = folder_name(",".join(f"{axis}={label}" for axis, label in labels.items()))
        includes = [f"include {path!r}" for path in self.recipe]
        text = "\n".join(filter(None, [*includes, *texts]))
        text = _LABEL.sub(lambda match: _label(labels, match[1]), text)
        stages = (EVAL,) if only_eval else (TRAIN, EVAL)
        return StudyRun(name, labels, text, stages, self._needs(name, text, tuple(self.before)))

    def runs_before(self, runs: Sequence[StudyRun]) -> tuple[StudyRun, ...]:
        """Runs of `before` that some runs need, directly or through each other, in order."""
        earlier: list[StudyRun] = []
        for name, text in self.before.items():
            known = tuple(run.name for run in earlier)
            needs = self._needs(name, text, known)
            earlier.append(StudyRun(folder_name(name), {}, text, (TRAIN,), needs))
        needed = {name for run in runs for name in run.needs}
        for run in reversed(earlier):
            needed |= set(run.needs) if run.name in needed else set()
        return tuple(run for run in earlier if run.name in needed)

    def _needs(self, run: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
        names = dict.fromkeys(_BEFORE.findall(text))
        for name in names:
            if folder_name(name) not in map(folder_name, known):
                raise unknown_name(f"run of Study.before, in the text of {run},", name, known)
        return tuple(map(folder_name, names))


def read_study(gin_files: Sequence[str], bindings: Sequence[str] = ()) -> Study:
    """Builds the study that gin files bind.

    Args:
        gin_files: looked up as `gin_config.load` does.
        bindings: lines of gin, and flags as `--gin.NAME=VALUE`.

    Raises:
        UserError: a file is missing or binds something else than a study, or a field is wrong.
    """
    try:
        gin_config.load([DEFAULTS, *gin_files], bindings)
    except UserError as error:
        if "MODEL_DIR" in gin_config.macros():
            raise UserError(
                f"{' '.join(gin_files)} sets a run, not a study; name it in a study's "
                "plan.Study.recipe. gin/ablations has studies."
            ) from error
        raise
    arguments = gin_config.entry_arguments((ENTRY,))[ENTRY]
    missing = [name for name in ("title", "recipe", "axes") if name not in arguments]
    if missing:
        raise UserError(
            f"{' '.join(gin_files)} binds no plan.Study.{missing[0]}; a study needs title, recipe "
            "and axes. gin/ablations has studies."
        )
    return Study(**arguments)


def study_document(study: Study, **facts: Any) -> dict[str, Any]:
    """The content of study.json, which the study's page reads.

    {"title", "axes": {axis: [label, ...]}, "x_axis", "seed_axis", "papers": [name, ...],
    "protocol", "runs": [{"name", "labels": {axis: label}, "stages": ["train", "eval"]}, ...],
    "before": [name, ...], "recipe": [file, ...]} and `facts`. "seed_axis" is None if the study has
    no such axis.
    """
    runs = study.runs()
    return {
        "title": study.title,
        "axes": {axis: study.labels_of(axis) for axis in study.axes},
        "x_axis": study.x_axis,
        "seed_axis": study.seed_axis if study.seed_axis in study.axes else None,
        "papers": study.papers,
        "protocol": study.protocol,
        "runs": [{"name": r.name, "labels": r.labels, "stages": r.stages} for r in runs],
        "before": [run.name for run in study.runs_before(runs)],
        "recipe": study.recipe,
        **facts,
    }


def matches(labels: Mapping[str, str], point: Mapping[str, str]) -> bool:
    """Whether a run's labels are those of a point, on the axes that the point names."""
    return all(labels[axis] == label for axis, label in point.items())


def check_labels(study: Study, origin: str, point: Mapping[str, Any]) -> None:
    """Raises UserError unless a point {axis: label} names axes and labels of the study."""
    for axis, label in point.items():
        if axis not in study.axes:
            raise unknown_name(f"axis in {origin}", axis, study.axes)
        if str(label) not in study.labels_of(axis):
            raise unknown_name(f"label of {axis} in {origin}", str(label), study.labels_of(axis))


def folder_name(name: str) -> str:
    """A run's name, which is a folder's: other characters than A-Za-z0-9=,._- become '-'.

    >>> folder_name("mixture=flan 2022/all,SEED=0")
    'mixture=flan-2022-all,SEED=0'
    """
    return _NOT_IN_NAMES.sub("-", name)


def _several(value: Any) -> tuple[Any, ...] | None:
    """A text as a tuple of it, a list or tuple as a tuple; None for anything else."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list | tuple) else None


def _label(labels: Labels, axis: str) -> str:
    if axis not in labels:
        raise unknown_name("axis in a text of the study, {axis:...},", axis, labels)
    return labels[axis]


def _check_texts(field: str, texts: Any) -> None:
    """Raises UserError unless a mapping has names and gin texts."""
    if not isinstance(texts, Mapping):
        raise UserError(f"Study.{field} is {texts!r}; give {{'name': 'gin text', ...}}.")
    for name, text in texts.items():
        if not (isinstance(name, str) and name and isinstance(text, str)):
            raise UserError(
                f"Study.{field} has {name!r}: {text!r}; names and gin are texts, "
                "such as {'8': \"MIXTURE_OR_TASK_NAME = 'gym.scale_8'\"}."
            )
        if len(folder_name(name)) > _LONGEST_NAME or name.startswith("."):
            raise UserError(f"Study.{field} has the name {name!r}, which cannot name a folder.")


def _checked_axes(axes: Any) -> dict[str, Mapping[str, str] | tuple[Any, ...]]:
    if not isinstance(axes, Mapping) or not axes:
        raise UserError(f"Study.axes is {axes!r}; give {{'axis': {{'label': 'gin text'}}, ...}}.")
    checked: dict[str, Mapping[str, str] | tuple[Any, ...]] = {}
    for axis, points in axes.items():
        if not isinstance(axis, str) or not axis:
            raise UserError(f"Study.axes has an axis {axis!r}; name it by a text.")
        if isinstance(points, Mapping):
            _check_texts(f"axes[{axis!r}]", points)
            checked[axis] = dict(points)
        elif isinstance(points, list | tuple):
            if len({str(value) for value in points}) < len(points):
                raise UserError(f"Study.axes[{axis!r}] is {points!r}; it has a value twice.")
            checked[axis] = tuple(points)
        else:
            raise UserError(
                f"Study.axes[{axis!r}] is {points!r}; give {{label: gin text}}, or several values "
                f"of the macro {axis}, such as (0, 1, 2)."
            )
        if not points:
            raise UserError(f"Study.axes[{axis!r}] has no point; give at least one.")
    return checked
