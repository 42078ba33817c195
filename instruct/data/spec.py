"""What a task is, and what a mixture resolves to: plain data, importable without TensorFlow."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from instruct.errors import UserError, unknown_name
from instruct.prompts.modes import (
    COT_MODES,
    FEW_SHOT_MODES,
    FIXED_SHOT_MODES,
    INVERTED_MODES,
    MODES,
)
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.prompts.template import TemplateSet
from instruct.workspace import Workspace

SPLITS = ("train", "validation", "test")


class Source(Protocol):
    """Where raw examples come from (instruct/data/sources/ has the built-in ones)."""

    @property
    def splits(self) -> Sequence[str]: ...

    def fingerprint(self, workspace: Workspace) -> str:
        """Changes whenever the records would; ends in "absent" while there are none to read."""
        ...

    def available(self, workspace: Workspace) -> str | None:
        """None, or why the records cannot be read here."""
        ...

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """Streams the records in a fixed order; `Dropped` stands for a row that is none."""
        ...


def function_name(function: Any) -> str:
    """A function's full name as it counts in a source's fingerprint, hence for its stores.

    A module that was moved says under which name its functions are known there, so that the
    stores that were built before stay valid: `FINGERPRINT_MODULE = "its.first.name"`.
    """
    module = function.__module__
    known_as = getattr(sys.modules.get(module), "FINGERPRINT_MODULE", module)
    return f"{known_as}.{function.__qualname__}"


@dataclasses.dataclass(frozen=True, eq=False)
class TaskSpec:
    """One data set as a task: where it is, how it is worded, how it is scored.

    Attributes:
        name: `<family>.<dataset>`; its seqio tasks are `<name>.<mode>`.
        category: kind of task; results are averaged over it.
        source: the raw records; not touched before a store is built.
        templates: the wordings.
        modes: prompt mode -> share among the modes of this task.
        extra_modes: modes that exist as seqio tasks but have no share of the task.
        version: changes when the records or their meaning change; results and stores carry it.
        cap: most records that count for an examples-proportional rate; None for no limit.
        metric_fns, postprocess_fn: SeqIO's (`metric_fn(targets, predictions)`,
            `postprocess_fn(decoded, example=..., is_target=...)`).
        mode_metric_fns: prompt mode -> its metric functions, where they are not `metric_fns`.
        splits: our split -> the source's split.
        num_examples: split -> records, where they are known before the store is built.
        exemplar_split: split that few-shot exemplars are drawn from.
        cot_exemplar_split: the same for exemplars with reasoning; "" for `exemplar_split`.
        shots: how many exemplars the modes `direct` and `cot` show, the first ones of their split
            in its order, as published protocols do; None for none.
        reasoned_reply: a reply of the modes with reasoning that gives `{answer}` and nothing else,
            in the words that `postprocess_fn` looks for ("The answer is {answer}."); "" for the
            closing phrase of the templates, if they have one, else the answer alone.
        ranked: its published protocol is rank classification: evaluation chooses the option of the
            highest log-likelihood, and that accuracy is the task's primary metric.
        contamination_group: tasks that share examples have the same one; "" for the data set's
            name. What is held out is held out with its whole group.
        languages: those of inputs and targets.
        held_out: name of the group this task is held out with; "" if it may be trained on.
        license, url, description: for lists and reports.
        within_fn: (this task, workspace) -> the task as that workspace words and scores it, under
            the same name, with no mode that this one lacks; None where no workspace changes it.
    """

    name: str
    family: str
    dataset: str
    category: str
    source: Source
    templates: TemplateSet
    modes: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"zs_noopt": 1.0})
    extra_modes: Sequence[str] = ()
    version: str = "1.0.0"
    cap: int | None = None
    metric_fns: Sequence[Callable[..., Mapping[str, Any]]] = ()
    postprocess_fn: Callable[..., Any] | None = None
    mode_metric_fns: Mapping[str, Sequence[Callable[..., Mapping[str, Any]]]] = dataclasses.field(
        default_factory=dict
    )
    splits: Mapping[str, str] = dataclasses.field(default_factory=lambda: {s: s for s in SPLITS})
    num_examples: Mapping[str, int] = dataclasses.field(default_factory=dict)
    exemplar_split: str = "train"
    cot_exemplar_split: str = ""
    shots: int | None = None
    reasoned_reply: str = ""
    ranked: bool = False
    contamination_group: str = ""
    languages: Sequence[str] = ("English",)
    held_out: str = ""
    license: str = ""
    url: str = ""
    description: str = ""
    within_fn: "Callable[[TaskSpec, Workspace], TaskSpec] | None" = None

    def __post_init__(self) -> None:
        if not self.modes:
            raise UserError(f"task {self.name!r} has no prompt mode; allowed: {', '.join(MODES)}")
        for mode in (*self.modes, *self.extra_modes, *self.mode_metric_fns):
            if mode not in MODES:
                raise unknown_name(f"prompt mode of task {self.name!r}", mode, MODES)
        for mode, rate in self.modes.items():
            if not rate > 0:
                raise UserError(
                    f"task {self.name!r}: the rate of mode {mode!r} is {rate}; it must be above 0"
                )
        if self.cap is not None and self.cap <= 0:
            raise UserError(f"task {self.name!r}: cap is {self.cap}; use a number above 0 or None")
        if self.shots is not None and self.shots <= 0:
            raise UserError(
                f"task {self.name!r}: shots is {self.shots}; use a number above 0 or None"
            )
        if self.reasoned_reply and "{answer}" not in self.reasoned_reply:
            raise UserError(
                f"task {self.name!r}: reasoned_reply is {self.reasoned_reply!r}; it must contain "
                "{answer}"
            )

    def within(self, workspace: Workspace) -> "TaskSpec":
        """The task as a workspace words and scores it."""
        return self if self.within_fn is None else self.within_fn(self, workspace)

    @property
    def all_modes(self) -> tuple[str, ...]:
        """Every mode that is a seqio task."""
        return (*self.modes, *(mode for mode in self.extra_modes if mode not in self.modes))

    @property
    def group(self) -> str:
        """The contamination group."""
        return self.contamination_group or self.dataset

    def fixed_shots(self, mode: str) -> int | None:
        """How many exemplars a mode always shows; None where they are drawn or there are none."""
        return self.shots if mode in FIXED_SHOT_MODES else None

    def exemplar_split_of(self, mode: str) -> str:
        """The split that a mode takes exemplars from; "" for a mode that shows none."""
        if mode not in FEW_SHOT_MODES and self.fixed_shots(mode) is None:
            return ""
        reasoned = self.cot_exemplar_split if mode in COT_MODES else ""
        return reasoned or self.exemplar_split

    def metric_fns_of(self, mode: str) -> Sequence[Callable[..., Mapping[str, Any]]]:
        """The metric functions of the seqio task of one mode."""
        return self.mode_metric_fns.get(mode, self.metric_fns)

    def reply(self, mode: str, answer: str) -> str:
        """A reply in a mode that gives `answer` and nothing else, in the form that is read."""
        if mode not in COT_MODES:
            return answer
        form = self.reasoned_reply
        if not form and self.templates.closing_phrases:
            words = self.templates.closing_phrases[0][0].rpartition("\n")[2]
            form = f"{words} {{answer}}".strip()
        return (form or "{answer}").replace("{answer}", answer)

    def leaf_name(self, mode: str) -> str:
        """Name of the seqio task of one mode."""
        return f"{self.name}.{mode}"


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
    """A task in one prompt mode, or a plain seqio task, with its share of a mixture.

    Attributes:
        name: name of the registered seqio task.
        rate: share of the mixture's examples; the leaves of a mixture add up to 1.
        task: the `TaskSpec`'s name; for a plain seqio task its own name.
        mode: prompt mode; "" for a plain seqio task.
        records: records in the split, None while unknown (not prepared, not declared).
        splits: splits the task has.
        spec: None for a plain seqio task.
        plain_source_fn: (`DataConfig`) -> the source of a plain seqio task's `TokenRecord`s; None
            for our tasks.
    """

    name: str
    rate: float
    task: str
    mode: str
    family: str
    dataset: str
    category: str
    version: str
    records: int | None
    splits: tuple[str, ...]
    spec: TaskSpec | None
    plain_source_fn: Callable[[Any], Source] | None = None

    @property
    def inverted(self) -> bool:
        """Whether it asks for something else than the answer: for training only."""
        return self.mode in INVERTED_MODES


@dataclasses.dataclass(frozen=True, eq=False)
class Resolved:
    """A mixture taken apart into its leaves, in the order of first mention.

    Attributes:
        left_out: tasks of the mixture that are not among the leaves, because they are not there.
    """

    name: str
    split: str
    leaves: tuple[Leaf, ...]
    left_out: tuple[str, ...] = ()

    @property
    def num_tasks(self) -> int:
        """Tasks as the Flan papers count them: a data set in a category, in however many modes."""
        return len({leaf.task for leaf in self.leaves})

    @property
    def num_datasets(self) -> int:
        return len({leaf.dataset for leaf in self.leaves})

    @property
    def num_categories(self) -> int:
        return len({leaf.category for leaf in self.leaves})

    @property
    def unprepared(self) -> tuple[str, ...]:
        """Leaves whose number of records is unknown, so that rates may be provisional."""
        return tuple(leaf.name for leaf in self.leaves if leaf.records is None)

    def straight(self) -> "Resolved":
        """The mixture without inverted prompts, which say nothing about how well a task is done."""
        leaves = tuple(leaf for leaf in self.leaves if not leaf.inverted)
        if not leaves:
            raise UserError(
                f"{self.name!r} has inverted prompts only, which are for training; evaluate "
                "another mode of its tasks"
            )
        return dataclasses.replace(self, leaves=leaves)

    def leaf(self, name: str) -> Leaf:
        """The leaf of that name."""
        for leaf in self.leaves:
            if leaf.name == name:
                return leaf
        raise unknown_name(f"task of mixture {self.name!r}", name, (lf.name for lf in self.leaves))
