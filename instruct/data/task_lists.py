"""Lists of tasks: filters by pattern, counts by licence and by family, facts as JSON values."""

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from instruct.data.spec import Leaf, TaskSpec
from instruct.errors import unknown_name

KINDS = ("family", "category", "dataset", "license")

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
            UserError: none matches one of the kinds, among those that match the kinds before it.
        """
        matches = list(entries)
        for kind in KINDS:
            patterns, values = getattr(self, kind), [getattr(entry, kind) for entry in matches]
            if patterns:
                matches = [entry for entry in matches if _matches(getattr(entry, kind), patterns)]
            if patterns and not matches:
                flag = f"--{kind} (of {len(values)} tasks)"
                known = (value or "(not stated)" for value in values)
                raise unknown_name(flag, " or ".join(patterns), known)
        return matches


def _matches(value: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(value.lower(), pattern.lower()) for pattern in patterns)


def license_counts(entries: Iterable[Any]) -> list[dict[str, Any]]:
    """Licences of tasks or leaves with their numbers of tasks and data sets, most tasks first."""
    counts = [
        {
            "license": name,
            "num_tasks": len({e.task if isinstance(e, Leaf) else e.name for e in members}),
            "num_datasets": len({entry.dataset for entry in members}),
        }
        for name, members in _grouped(entries, "license").items()
    ]
    return sorted(counts, key=lambda count: (-count["num_tasks"], count["license"]))


def family_counts(specs: Iterable[TaskSpec]) -> list[dict[str, Any]]:
    """Families with their numbers of tasks, data sets and categories, in order of first mention."""
    return [
        {
            "family": family,
            "num_tasks": len(members),
            "num_datasets": len({spec.dataset for spec in members}),
            "num_categories": len({spec.category for spec in members}),
        }
        for family, members in _grouped(specs, "family").items()
    ]


def _grouped(entries: Iterable[Any], kind: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for entry in entries:
        groups.setdefault(getattr(entry, kind), []).append(entry)
    return groups


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
