"""Lists of tasks: filters by pattern, counts by licence and by family, facts as JSON values."""

import dataclasses
import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from instruct.data.spec import Leaf, TaskSpec
from instruct.errors import UserError

KINDS = ("family", "category", "dataset", "license")
_MOST_NAMED = 12  # most values in a message

Entry = TypeVar("Entry", TaskSpec, Leaf)


@dataclasses.dataclass(frozen=True)
class TaskFilter:
    """Case-insensitive patterns with `*`: an entry must match one of each kind that has any.

    Attributes:
        family, category, dataset, license: empty for no condition.
    """

    family: Sequence[str] = ()
    category: Sequence[str] = ()
    dataset: Sequence[str] = ()
    license: Sequence[str] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, kind) for kind in KINDS)

    def __call__(self, entries: Iterable[Entry]) -> list[Entry]:
        """The tasks or leaves that match; a plain seqio task has no licence.

        Raises:
            UserError: none matches; lists the values that exist.
        """
        entries = list(entries)
        matches = [entry for entry in entries if self._matches(entry)]
        if matches or not self:
            return matches
        kinds = [kind for kind in KINDS if getattr(self, kind)]
        asked = " and ".join(
            f"--{kind}={' or '.join(map(repr, getattr(self, kind)))}" for kind in kinds
        )
        hints = " ".join(self._hint(kind, entries) for kind in kinds)
        raise UserError(f"none of {len(entries)} tasks has {asked}. {hints}")

    def _hint(self, kind: str, entries: Sequence[TaskSpec | Leaf]) -> str:
        """The values of one kind among the entries that match the other kinds."""
        others = dataclasses.replace(self, **{kind: ()})
        left = [entry for entry in entries if others._matches(entry)] or entries
        values = sorted({getattr(entry, kind) or "(not stated)" for entry in left})
        asked = " ".join(getattr(self, kind))
        near = difflib.get_close_matches(asked, values, n=3, cutoff=0.6)
        if near and near[0] != asked:
            return f"Did you mean --{kind}={' or '.join(map(repr, near))}?"
        more = f" and {len(values) - _MOST_NAMED} more" if len(values) > _MOST_NAMED else ""
        return f"Values of --{kind}: {', '.join(values[:_MOST_NAMED])}{more}."

    def _matches(self, entry: TaskSpec | Leaf) -> bool:
        for kind in KINDS:
            patterns, value = getattr(self, kind), getattr(entry, kind).lower()
            if patterns and not any(fnmatch.fnmatchcase(value, p.lower()) for p in patterns):
                return False
        return True


def license_counts(entries: Iterable[Any]) -> list[dict[str, Any]]:
    """Licences of tasks or leaves with their numbers of tasks and data sets, most tasks first."""
    tasks: dict[str, set[str]] = {}
    datasets: dict[str, set[str]] = {}
    for entry in entries:
        name = entry.task if isinstance(entry, Leaf) else entry.name
        tasks.setdefault(entry.license, set()).add(name)
        datasets.setdefault(entry.license, set()).add(entry.dataset)
    return [
        {"license": name, "num_tasks": len(tasks[name]), "num_datasets": len(datasets[name])}
        for name in sorted(tasks, key=lambda name: (-len(tasks[name]), name))
    ]


def family_counts(specs: Iterable[TaskSpec]) -> list[dict[str, Any]]:
    """Families with their numbers of tasks, data sets and categories, in order of first mention."""
    families: dict[str, list[TaskSpec]] = {}
    for spec in specs:
        families.setdefault(spec.family, []).append(spec)
    return [
        {
            "family": family,
            "num_tasks": len(members),
            "num_datasets": len({spec.dataset for spec in members}),
            "num_categories": len({spec.category for spec in members}),
        }
        for family, members in families.items()
    ]


def task_facts(spec: TaskSpec) -> dict[str, Any]:
    """What a task declares, as JSON values."""
    names = ("name", "family", "dataset", "category", "version", "license", "url")
    return {name: getattr(spec, name) for name in names} | {
        "modes": list(spec.modes),
        "extra_modes": list(spec.extra_modes),
        "languages": list(spec.languages),
        "template_set": spec.templates.name,
        "contamination_group": spec.group,
        "held_out": spec.held_out,
        "splits": list(spec.splits),
        "num_examples": dict(spec.num_examples),
        "cap": spec.cap,
    }
