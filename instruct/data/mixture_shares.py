"""Shares of a mixture: asked for, planned, realised, and before and after tasks are left out.

Shares are of the mixture's examples, in three readings:
    asked      by its rates as written, with the sizes that the tasks declare, and the caps
    planned    the same with the sizes of the prepared stores; what training goes by
    realised   counted over the first draws of the plan
"""

import dataclasses
import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from instruct.data import registry
from instruct.data.config import AUTO_VOCABULARY, DataConfig
from instruct.data.feed.plan import Plan
from instruct.data.spec import Leaf, Resolved
from instruct.data.stores.left_out import LeftOut, Missing
from instruct.data.task_lists import TaskFilter, license_counts, license_of
from instruct.workspace import Workspace

DRAWS = 100_000
ROW_LENGTHS = {"inputs": 512, "targets": 128}
FEW = 12  # above this many tasks side by side in a mixture, rows are grouped by category
_CHUNK = 1 << 20  # draws that are counted at once


@dataclasses.dataclass(frozen=True, eq=False)
class LeafRow:
    """A leaf and its numbers.

    Attributes:
        asked, planned: shares.
        cap: most records it counts for, where its rate goes by records; else None.
        realised: examples among the first `draws`.
    """

    leaf: Leaf
    asked: float
    cap: int | None
    realised: int
    draws: int

    @property
    def planned(self) -> float:
        return self.leaf.rate

    @property
    def capped(self) -> int | None:
        """Records, at most the cap; None while the records are not known."""
        records = self.leaf.records
        return records if records is None or self.cap is None else min(records, self.cap)

    @property
    def realised_share(self) -> float:
        return self.realised / self.draws

    @property
    def epochs(self) -> float | None:
        """How often each record is expected among the draws; None without a number of records."""
        return self.planned * self.draws / self.leaf.records if self.leaf.records else None

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        leaf, spec = self.leaf, self.leaf.spec
        return {
            "leaf": leaf.name,
            "task": leaf.task,
            "mode": leaf.mode,
            "family": leaf.family,
            "dataset": leaf.dataset,
            "category": leaf.category,
            "rate": leaf.rate,
            "records": leaf.records,
            "asked_share": self.asked,
            "cap": self.cap,
            "capped_records": self.capped,
            "planned_share": self.planned,
            "realised_share": self.realised_share,
            "epochs": self.epochs,
            "contamination_group": spec.group if spec else leaf.dataset,
            "license": license_of(leaf),
        }


@dataclasses.dataclass(frozen=True)
class Group:
    """Leaves of one child of a mixture, or of one category of its tasks, summed up.

    Attributes:
        depth: 0 for a child of the mixture, 1 for a child of that.
        records, capped: sums over its tasks; None if a size is not known.
    """

    name: str
    depth: int
    num_tasks: int
    num_datasets: int
    num_leaves: int
    records: int | None
    capped: int | None
    asked: float
    planned: float
    realised: float
    epochs: float | None


class MixtureView:
    """A mixture's leaves with their numbers, all of them or what a filter leaves over.

    Args:
        resolved: the whole mixture; shares are of the whole.
        draws: examples of the plan that the realised shares are counted over.
    """

    def __init__(
        self,
        workspace: Workspace,
        resolved: Resolved,
        task_filter: TaskFilter | None = None,
        draws: int = DRAWS,
    ) -> None:
        self._workspace = workspace
        self.draws = draws
        self.name, self.split = resolved.name, resolved.split
        kept = (task_filter or TaskFilter())(resolved.leaves)
        self.resolved = dataclasses.replace(resolved, leaves=tuple(kept))
        asked = registry.shares(workspace, self.name, self.split, declared=True)
        caps = _caps(workspace, resolved)
        counts = dict(zip((leaf.name for leaf in resolved.leaves), _counts(resolved, draws)))
        self.rows = [
            LeafRow(leaf, asked[leaf.name], caps.get(leaf.name), int(counts[leaf.name]), draws)
            for leaf in kept
        ]
        config = DataConfig(self.name, ROW_LENGTHS, 1, AUTO_VOCABULARY, split=self.split)
        config = registry.with_vocabulary(workspace, config)
        self.unprepared = registry.unprepared(workspace, self.resolved, config)

    def counts_line(self) -> str:
        """Tasks, data sets, categories, leaves, and how many of these have no store."""
        kept = self.resolved
        return (
            f"{self.name}: {kept.num_tasks:,} tasks, {kept.num_datasets:,} data sets, "
            f"{kept.num_categories:,} categories, {len(kept.leaves):,} leaves, "
            f"{len(self.unprepared):,} unprepared"
        )

    def to_json(self) -> dict[str, Any]:
        """Counts, sub-mixtures and every leaf."""
        kept = self.resolved
        return {
            "mixture": self.name,
            "num_tasks": kept.num_tasks,
            "num_datasets": kept.num_datasets,
            "num_categories": kept.num_categories,
            "num_leaves": len(kept.leaves),
            "num_unprepared": len(self.unprepared),
            "draws": self.draws,
            "groups": [dataclasses.asdict(group) for group in self.groups()],
            "leaves": [row.to_json() for row in self.rows],
        }

    def groups(self) -> list[Group]:
        """Two levels of what the mixture was made of, the greatest shares first."""
        rows = {row.leaf.name: row for row in self.rows}
        workspace, groups = self._workspace, []
        for name, parts in _level(workspace, self.name, 1.0, self.split, rows):
            groups.append(_group(name, 0, parts, rows))
            if _is_mixture(workspace, name):
                children = registry.children(workspace, self.name)
                scale = next(child.share for child in children if child.name == name)
                inner = _level(workspace, name, scale, self.split, rows)
                groups += [_group(label, 1, parts, rows) for label, parts in inner]
        return groups

    def licenses(self) -> list[dict[str, Any]]:
        """Licences with their tasks, data sets and share of the mixture, the greatest first."""
        entries = license_counts(row.leaf for row in self.rows)
        for entry in entries:
            entry["share"] = sum(
                row.planned for row in self.rows if license_of(row.leaf) == entry["license"]
            )
        return sorted(entries, key=lambda entry: -entry["share"])


def _counts(resolved: Resolved, draws: int) -> np.ndarray:
    """Examples of each leaf among the first of a run."""
    rates = np.array([leaf.rate for leaf in resolved.leaves])
    tasks = np.unique([leaf.task for leaf in resolved.leaves], return_inverse=True)[1]
    # An empty task that goes by its records has no share, and is no leaf of the plan.
    planned = np.flatnonzero(rates)
    # Which leaf an example is of does not depend on the sizes.
    plan = Plan(rates[planned].tolist(), [1] * planned.size, 0, groups=tasks[planned].tolist())
    counts = np.zeros(rates.size, dtype=np.int64)
    for start in range(0, draws, _CHUNK):
        leaves = plan.examples(start, min(start + _CHUNK, draws))[0]
        counts[planned] += np.bincount(leaves, minlength=planned.size)
    return counts


def _is_mixture(workspace: Workspace, name: str) -> bool:
    """Whether it has children to look into: neither a task nor a leaf nor a plain SeqIO mixture."""
    return not registry.is_task(name) and bool(registry.children(workspace, name))


def _caps(workspace: Workspace, resolved: Resolved) -> dict[str, int | None]:
    """Leaf -> cap, where the mixture right around its task goes by numbers of records."""
    specs = {leaf.name: leaf.spec for leaf in resolved.leaves}
    caps: dict[str, int | None] = {}
    visited: set[str] = set()
    stack = [resolved.name]
    while stack:
        name = stack.pop()
        if name in visited:
            continue
        visited.add(name)
        for child in registry.children(workspace, name):
            if _is_mixture(workspace, child.name):
                stack.append(child.name)
            elif child.rate is None:
                for leaf in registry.shares(workspace, child.name, resolved.split):
                    spec = specs[leaf]
                    caps.setdefault(leaf, child.cap or (spec.cap if spec else None))
    return caps


def _level(
    workspace: Workspace, name: str, scale: float, split: str, rows: Mapping[str, LeafRow]
) -> list[tuple[str, dict[str, float]]]:
    """(name, leaf -> share) of what lies right below a mixture whose own share is `scale`.

    Many tasks beside each other are put together by category.
    """
    below = registry.children(workspace, name, split)
    by_category = sum(not _is_mixture(workspace, child.name) for child in below) > FEW
    found: dict[str, dict[str, float]] = {}
    for child in below:
        for leaf, share in registry.shares(workspace, child.name, split).items():
            if leaf not in rows:
                continue
            label = child.name
            if by_category and not _is_mixture(workspace, child.name):
                label = f"category: {rows[leaf].leaf.category}"
            parts = found.setdefault(label, {})
            parts[leaf] = parts.get(leaf, 0.0) + scale * child.share * share
    return sorted(found.items(), key=lambda item: -sum(item[1].values()))


def _group(name: str, depth: int, parts: Mapping[str, float], rows: Mapping[str, LeafRow]) -> Group:
    """Sums up leaves; one that several children have counts for each as much as it comes by it."""
    here = [rows[leaf] for leaf in parts]
    records = {row.leaf.task: row.leaf.records for row in here}
    capped = {row.leaf.task: row.capped for row in here}
    total = _sum(records.values())
    planned = sum(parts.values())
    draws = here[0].draws
    return Group(
        name=name,
        depth=depth,
        num_tasks=len(records),
        num_datasets=len({row.leaf.dataset for row in here}),
        num_leaves=len(here),
        records=total,
        capped=_sum(capped.values()),
        asked=sum(row.asked * _part(row, parts) for row in here),
        planned=planned,
        realised=sum(row.realised_share * _part(row, parts) for row in here),
        epochs=planned * draws / total if total else None,
    )


def _part(row: LeafRow, parts: Mapping[str, float]) -> float:
    """How much of a leaf comes by this way; all of one that has no share."""
    return parts[row.leaf.name] / row.planned if row.planned else 1.0


def _sum(sizes: Iterable[int | None]) -> int | None:
    known = list(sizes)
    return None if None in known else sum(size or 0 for size in known)


def make_left_out(
    workspace: Workspace, resolved: Resolved, missing: Sequence[Missing], split: str
) -> LeftOut:
    """The record of what is left out of a mixture.

    Args:
        resolved: the whole mixture.
        missing: of its stores.
        split: the one whose records fix rates.
    """
    tasks = {store.task for store in missing}
    num_left = resolved.num_tasks - len(tasks)
    before = _parts(workspace, resolved.name, split, ())
    after = _parts(workspace, resolved.name, split, tasks) if num_left else {}
    sub_mixtures = {
        name: {
            "before": share,
            "after": after.get(name, (0.0, {}))[0],
            "tasks": {
                task: {"before": rates[task], "after": rate}
                for task, rate in after.get(name, (0.0, {}))[1].items()
            },
        }
        for name, (share, rates) in before.items()
    }
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return LeftOut(resolved.name, now, tuple(missing), num_left, sub_mixtures)


def _parts(
    workspace: Workspace, mixture: str, split: str, left_out: Collection[str]
) -> dict[str, tuple[float, dict[str, float]]]:
    """Child -> (its share, task -> share), of the whole; a mixture without children is its own."""
    below = registry.children(workspace, mixture, split, left_out)
    children = {child.name: child.share for child in below}
    parts = {}
    for name, share in (children or {mixture: 1.0}).items():
        tasks: dict[str, float] = {}
        for leaf in registry.resolve(workspace, name, split, left_out).leaves:
            tasks[leaf.task] = tasks.get(leaf.task, 0.0) + share * leaf.rate
        parts[name] = (share, tasks)
    return parts
