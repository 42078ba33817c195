"""Shares of a mixture: asked, planned, realised, and before and after tasks are left out.

asked      by its rates as written, the sizes that the tasks declare, and the caps
planned    the same with the sizes of the prepared stores; used in training
realised   counted over the first draws of the plan
"""

import dataclasses
import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from instruct.data import registry
from instruct.data.config import AUTO_VOCABULARY, DataConfig
from instruct.data.feed.plan import Plan
from instruct.data.spec import Leaf, Resolved
from instruct.data.stores.left_out import LeftOut, Missing
from instruct.data.task_lists import TaskFilter, license_counts
from instruct.workspace import Workspace

DRAWS = 100_000
ROW_LENGTHS = {"inputs": 512, "targets": 128}
FEW = 12  # above this many tasks in a mixture, rows are grouped by category
_CHUNK = 1 << 20  # draws counted at a time


@dataclasses.dataclass(frozen=True, eq=False)
class LeafRow:
    """A leaf and its numbers.

    Attributes:
        asked, planned: shares.
        cap: most records it counts for if its rate is proportional to records; else None.
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
        """Records, at most the cap; None if unknown."""
        records = self.leaf.records
        return records if records is None or self.cap is None else min(records, self.cap)

    @property
    def realised_share(self) -> float:
        return self.realised / self.draws

    @property
    def epochs(self) -> float | None:
        """Expected repetitions of each record among the draws; None without known records."""
        return self.planned * self.draws / self.leaf.records if self.leaf.records else None

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        leaf = self.leaf
        names = ("task", "mode", "family", "dataset", "category", "rate", "records")
        return {
            "leaf": leaf.name,
            **{name: getattr(leaf, name) for name in names},
            "asked_share": self.asked,
            "cap": self.cap,
            "capped_records": self.capped,
            "planned_share": self.planned,
            "realised_share": self.realised_share,
            "epochs": self.epochs,
            "contamination_group": leaf.group,
            "license": leaf.license,
        }


@dataclasses.dataclass(frozen=True)
class Group:
    """Sums over the leaves of one child of a mixture, or of one category of its tasks.

    Attributes:
        depth: 0 for a child of the mixture, 1 for a child of that.
        records, capped: sums over its tasks; None if a size is unknown.
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
    """A mixture's leaves with their numbers, all of them or those that pass a filter.

    Args:
        resolved: the whole mixture; shares are of the whole.
        draws: examples of the plan over which realised shares are counted.
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
        """The numbers of tasks, data sets, categories, leaves, and leaves without a store."""
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
        """Children of the mixture and their children, the greatest shares first."""
        rows = {row.leaf.name: row for row in self.rows}
        workspace, groups = self._workspace, []
        shares = {c.name: c.share for c in registry.children(workspace, self.name)}
        view = registry.View(workspace, self.split)
        for name, parts in _level(view, self.name, 1.0, rows):
            groups.append(_group(name, 0, parts, rows))
            if registry.is_mixture(name):
                inner = _level(view, name, shares[name], rows)
                groups += [_group(label, 1, parts, rows) for label, parts in inner]
        return groups

    def licenses(self) -> list[dict[str, Any]]:
        """Licences with their tasks, data sets and share of the mixture, the greatest first."""
        entries = license_counts(row.leaf for row in self.rows)
        for entry in entries:
            rows = [row for row in self.rows if row.leaf.license == entry["license"]]
            entry["share"] = sum(row.planned for row in rows)
        return sorted(entries, key=lambda entry: -entry["share"])


def _counts(resolved: Resolved, draws: int) -> np.ndarray:
    """Examples of each leaf among the first `draws` of a run."""
    rates = np.array([leaf.rate for leaf in resolved.leaves])
    tasks = np.unique([leaf.task for leaf in resolved.leaves], return_inverse=True)[1]
    # An empty task without a fixed rate has no share, and the plan has no such leaf.
    planned = np.flatnonzero(rates)
    # The leaf of an example does not depend on the sizes.
    plan = Plan(rates[planned].tolist(), [1] * planned.size, 0, groups=tasks[planned].tolist())
    counts = np.zeros(rates.size, dtype=np.int64)
    for start in range(0, draws, _CHUNK):
        leaves = plan.examples(start, min(start + _CHUNK, draws))[0]
        counts[planned] += np.bincount(leaves, minlength=planned.size)
    return counts


def _caps(workspace: Workspace, resolved: Resolved) -> dict[str, int | None]:
    """Leaf -> cap, for leaves whose rate in their innermost mixture is proportional to records."""
    specs = {leaf.name: leaf.spec for leaf in resolved.leaves}
    caps: dict[str, int | None] = {}
    visited: set[str] = set()
    stack = [resolved.name]
    view, own_view = registry.View(workspace), registry.View(workspace, resolved.split)
    while stack:
        name = stack.pop()
        below = () if name in visited else view.children(name)
        visited.add(name)
        for child in below:
            if registry.is_mixture(child.name):
                stack.append(child.name)
            elif child.rate is None:
                for leaf in own_view.shares(child.name):
                    spec = specs[leaf]
                    caps.setdefault(leaf, child.cap or (spec.cap if spec else None))
    return caps


def _level(
    view: registry.View, name: str, scale: float, rows: Mapping[str, LeafRow]
) -> list[tuple[str, dict[str, float]]]:
    """(name, leaf -> share) of the children of a mixture whose own share is `scale`.

    More than `FEW` tasks are grouped by category.
    """
    below = view.children(name)
    tasks = {child.name for child in below if not registry.is_mixture(child.name)}
    groups: dict[str, dict[str, float]] = {}
    for child in below:
        for leaf, share in view.shares(child.name).items():
            if leaf not in rows:
                continue
            label = child.name
            if len(tasks) > FEW and label in tasks:
                label = f"category: {rows[leaf].leaf.category}"
            parts = groups.setdefault(label, {})
            parts[leaf] = parts.get(leaf, 0.0) + scale * child.share * share
    return sorted(groups.items(), key=lambda item: -sum(item[1].values()))


def _group(
    name: str, depth: int, parts: Mapping[str, float], all_rows: Mapping[str, LeafRow]
) -> Group:
    """Sums over leaves; one below several children counts for each by its share there."""
    rows = [all_rows[leaf] for leaf in parts]
    # The fraction of each leaf that belongs to this group; all of a leaf without a share.
    fractions = [parts[r.leaf.name] / r.planned if r.planned else 1.0 for r in rows]
    records = _sum({row.leaf.task: row.leaf.records for row in rows}.values())
    planned = sum(parts.values())
    return Group(
        name=name,
        depth=depth,
        num_tasks=len({row.leaf.task for row in rows}),
        num_datasets=len({row.leaf.dataset for row in rows}),
        num_leaves=len(rows),
        records=records,
        capped=_sum({row.leaf.task: row.capped for row in rows}.values()),
        asked=sum(row.asked * fraction for row, fraction in zip(rows, fractions)),
        planned=planned,
        realised=sum(row.realised_share * fraction for row, fraction in zip(rows, fractions)),
        epochs=planned * rows[0].draws / records if records else None,
    )


def _sum(sizes: Collection[int | None]) -> int | None:
    return None if None in sizes else sum(size or 0 for size in sizes)


def make_left_out(
    workspace: Workspace, resolved: Resolved, missing: Sequence[Missing], split: str
) -> LeftOut:
    """The record of what is left out of a mixture.

    Args:
        resolved: the whole mixture.
        missing: its missing stores.
        split: the split whose records fix rates.
    """
    tasks = {store.task for store in missing}
    num_left = resolved.num_tasks - len(tasks)
    before = _parts(workspace, resolved.name, split, ())
    after = _parts(workspace, resolved.name, split, tasks) if num_left else {}
    sub_mixtures = {}
    for name, (share, task_shares) in before.items():
        share_after, task_shares_after = after.get(name, (0.0, {}))
        sub_mixtures[name] = {
            "before": share,
            "after": share_after,
            "tasks": {
                task: {"before": task_shares[task], "after": task_share}
                for task, task_share in task_shares_after.items()
            },
        }
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return LeftOut(resolved.name, now, tuple(missing), num_left, sub_mixtures)


def _parts(
    workspace: Workspace, mixture: str, split: str, left_out: Collection[str]
) -> dict[str, tuple[float, dict[str, float]]]:
    """Child -> (its share, task -> share) of the whole; a mixture without children is its own."""
    below = registry.children(workspace, mixture, split, left_out)
    parts = {}
    for name, share in [(child.name, child.share) for child in below] or [(mixture, 1.0)]:
        tasks: dict[str, float] = {}
        for leaf in registry.resolve(workspace, name, split, left_out).leaves:
            tasks[leaf.task] = tasks.get(leaf.task, 0.0) + share * leaf.rate
        parts[name] = (share, tasks)
    return parts
