"""Task specs, and the leaves that a mixture resolves to. Importable without TensorFlow."""

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
        """Changes whenever the records would; ends in "absent" if there are none."""
        ...

    def available(self, workspace: Workspace) -> str | None:
        """None, or why the records cannot be read on this machine."""
        ...

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """Streams the records in a fixed order; `Dropped` is a rejected row."""
        ...


def function_name(function: Any) -> str:
    """A function's full name in the fingerprints of sources and stores.

    A module that was renamed keeps the first name of its functions, and thereby existing stores
    valid, by `FINGERPRINT_MODULE = "its.first.name"`.
    """
    module = sys.modules.get(function.__module__)
    name = getattr(module, "FINGERPRINT_MODULE", function.__module__)
    return f"{name}.{function.__qualname__}"


@dataclasses.dataclass(frozen=True, eq=False)
class TaskSpec:
    """One data set as a task: its source, wordings and metrics.

    Attributes:
        name: `<family>.<dataset>`; its seqio tasks are `<name>.<mode>`.
        category: kind of task; results are averaged over it.
        source: the raw records; not read before a store is built.
        templates: the wordings.
        modes: prompt mode -> share among the modes of this task.
        extra_modes: modes that are seqio tasks but have no share of the task.
        version: changes when the records or their meaning change; results and stores carry it.
        cap: most records that count for an examples-proportional rate; None for no limit.
        metric_fns, postprocess_fn: SeqIO's (`metric_fn(targets, predictions)`,
            `postprocess_fn(decoded, example=..., is_target=...)`).
        mode_metric_fns: prompt mode -> its metric functions, if they are not `metric_fns`.
        splits: our split -> the source's split.
        num_examples: split -> records, if they are known before the store is built.
        exemplar_split: split that few-shot exemplars are drawn from.
        cot_exemplar_split: the same for exemplars with rationales; "" for `exemplar_split`.
        shots: number of exemplars in the modes `direct` and `cot`: the first ones of their split
            in its order, as in published protocols; None for none.
        reasoned_reply: form of a reply with nothing but `{answer}` in the modes with rationales,
            in the words that `postprocess_fn` parses ("The answer is {answer}."); "" for the
            closing phrase of the templates, if they have one, else the answer alone.
        ranked: whether its published protocol is rank classification: evaluation chooses the
            option of highest log-likelihood, and that accuracy is the task's primary metric.
        contamination_group: shared by tasks with common examples; "" for the data set's name. A
            held-out task is held out with its whole group.
        languages: of inputs and targets.
        held_out: name of the group this task is held out with; "" if it may be trained on.
        license, url, description: for lists and reports.
        within_fn: (this task, workspace) -> the task as that workspace words and scores it, with
            the same name and no additional mode; None if no workspace changes it.
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
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
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
        if not self.splits:
            own = {name: name for name in SPLITS if name in self.source.splits}
            object.__setattr__(self, "splits", own)
        for split, name in self.splits.items():
            if name not in self.source.splits:
                raise UserError(
                    f"task {self.name!r}: its split {split!r} is {name!r} of the source, which has "
                    f"{', '.join(self.source.splits)}; give TaskSpec.splits"
                )
        for mode, rate in self.modes.items():
            if not rate > 0:
                raise UserError(
                    f"task {self.name!r}: the rate of mode {mode!r} is {rate}; it must be above 0"
                )
        for name in ("cap", "shots"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(
                    f"task {self.name!r}: {name} is {value}; use a number above 0 or None"
                )
        if self.reasoned_reply and "{answer}" not in self.reasoned_reply:
            raise UserError(
                f"task {self.name!r}: reasoned_reply is {self.reasoned_reply!r}; it must contain "
                "{answer}"
            )

    def within(self, workspace: Workspace) -> "TaskSpec":
        """The task in this workspace: reworded or rescored where `within_fn` does so."""
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
        """Fixed number of a mode's exemplars; None if they are drawn or the mode shows none."""
        return self.shots if mode in FIXED_SHOT_MODES else None

    def exemplar_split_of(self, mode: str) -> str:
        """The split of a mode's exemplars; "" for a mode that shows none."""
        if mode not in FEW_SHOT_MODES and self.fixed_shots(mode) is None:
            return ""
        reasoned = self.cot_exemplar_split if mode in COT_MODES else ""
        return reasoned or self.exemplar_split

    def metric_fns_of(self, mode: str) -> Sequence[Callable[..., Mapping[str, Any]]]:
        """The metric functions of the seqio task of one mode."""
        return self.mode_metric_fns.get(mode, self.metric_fns)

    def reply(self, mode: str, answer: str) -> str:
        """A reply with nothing but `answer`, in the form that `postprocess_fn` parses."""
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
        records: records in the split; None if unknown (neither prepared nor declared).
        splits: splits of the task.
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
    def group(self) -> str:
        """The contamination group."""
        return self.spec.group if self.spec else self.dataset

    @property
    def license(self) -> str:
        """The licence; "" if the task states none."""
        return self.spec.license if self.spec else ""

    @property
    def inverted(self) -> bool:
        """Whether its target is not the answer: for training only."""
        return self.mode in INVERTED_MODES


@dataclasses.dataclass(frozen=True, eq=False)
class Resolved:
    """The leaves of a mixture, in the order of first mention.

    Attributes:
        left_out: tasks of the mixture that are left out because their data are missing.
    """

    name: str
    split: str
    leaves: tuple[Leaf, ...]
    left_out: tuple[str, ...] = ()

    @property
    def num_tasks(self) -> int:
        """Tasks as the Flan papers count them: (data set, category) pairs, whatever their modes."""
        return len({leaf.task for leaf in self.leaves})

    @property
    def num_datasets(self) -> int:
        return len({leaf.dataset for leaf in self.leaves})

    @property
    def num_categories(self) -> int:
        return len({leaf.category for leaf in self.leaves})

    @property
    def unprepared(self) -> tuple[str, ...]:
        """Leaves with an unknown number of records, which makes rates provisional."""
        return tuple(leaf.name for leaf in self.leaves if leaf.records is None)

    def straight(self) -> "Resolved":
        """The mixture without inverted prompts, which do not measure a task's performance."""
        leaves = tuple(leaf for leaf in self.leaves if not leaf.inverted)
        if not leaves:
            raise UserError(
                f"{self.name!r} has only inverted prompts, which are for training; evaluate "
                "another mode of its tasks"
            )
        return dataclasses.replace(self, leaves=leaves)
