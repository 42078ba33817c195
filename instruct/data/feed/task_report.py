"""Report on the prepared tasks of a mixture: records, drops, token lengths, truncation.

Lengths are measured on the first examples that training on the task alone would see, rendered in
its modes under the run's vocabulary and lengths; nothing is drawn that another run would draw
otherwise, so equal stores give equal reports.

    STORE_DIR/reports/<mixture>.json
"""

import collections
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from instruct.data.config import DataConfig
from instruct.data.feed.leaves import make_builder
from instruct.data.feed.window import COUNTS, WindowBuilder, open_store
from instruct.data.sources.json_files import write_json
from instruct.data.spec import Leaf, Resolved
from instruct.data.stores.jobs import PreparedStore
from instruct.data.stores.processes import map_in_processes
from instruct.errors import UserError
from instruct.workspace import Workspace

# A task that loses more than this share of its rows or examples is a problem worth a line.
MOST_LOST = 0.2
_FEW_TASKS = 8  # fewer are measured here: starting processes would take longer
_SHOWN_PROBLEMS = 20
_MOST_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Statistics of a sample of rendered examples.

    Attributes:
        examples: rendered.
        input_tokens, target_tokens: means of the examples that fit, with EOS.
        truncated: share of the examples that lost the end of a field to fit.
        too_long: share that does not fit however it is cut, and is left out.
        not_rendered: share that is left out for any reason.
        exemplars_missing: mean number of exemplars that a prompt should show and does not.
        reasons: why -> examples.
    """

    examples: int
    input_tokens: float
    target_tokens: float
    truncated: float
    too_long: float
    not_rendered: float
    exemplars_missing: float
    reasons: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class TaskReport:
    """One task.

    Attributes:
        rate: share of the mixture.
        modes: prompt mode -> share of the mixture; {} for a plain seqio task.
        stores: as they were prepared.
        lengths: None where nothing could be rendered.
        problems: a sentence each.
    """

    task: str
    family: str
    category: str
    rate: float
    modes: Mapping[str, float]
    stores: tuple[PreparedStore, ...]
    lengths: Lengths | None
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class MixtureReport:
    """All tasks of a mixture, in its order."""

    mixture: str
    split: str
    vocabulary: str
    feature_lengths: Mapping[str, int]
    tasks: tuple[TaskReport, ...]

    def write(self, workspace: Workspace) -> Path:
        """Writes all of it as JSON; returns where."""
        path = workspace.store_dir / "reports" / f"{self.mixture}.json"
        write_json(path, dataclasses.asdict(self))
        return path

    def print_totals(self, console: Console) -> None:
        """A line a family, and why rows were dropped."""
        families = collections.defaultdict(list)
        for task in self.tasks:
            families[task.family].append(task)
        table = Table(*_TOTALS, box=None, header_style="bold")
        for family, tasks in families.items():
            stores = [store for task in tasks for store in task.stores]
            table.add_row(family, f"{len(tasks):,}", *_numbers(stores, tasks))
        if len(families) > 1:
            stores = [store for task in self.tasks for store in task.stores]
            table.add_row("in all", f"{len(self.tasks):,}", *_numbers(stores, self.tasks))
        _print_table(console, table)
        dropped: collections.Counter[str] = collections.Counter()
        for task in self.tasks:
            for store in task.stores:
                dropped.update(store.dropped)
        if dropped:
            reasons = ", ".join(f"{reason}: {n:,}" for reason, n in dropped.most_common())
            _print_line(console, f"dropped rows: {reasons}", "")
        missing = {t.task: t.lengths.exemplars_missing for t in self.tasks if t.lengths}
        most = sorted(filter(missing.get, missing), key=lambda task: -missing[task])
        if most:
            first = ", ".join(f"{task}: {missing[task]:.2g}" for task in most[:_MOST_NAMED])
            text = f"exemplars missing from a prompt, in {len(most):,} tasks, most of all {first}"
            _print_line(console, text, "")

    def print_tasks(self, console: Console) -> None:
        """A line a store; what was measured stands with the task's first."""
        table = Table(*_FULL, box=None, header_style="bold")
        for task in self.tasks:
            for number, store in enumerate(task.stores):
                measured = _measured([task]) if not number else [""] * 4
                table.add_row(
                    task.task,
                    store.split,
                    f"{store.records:,}",
                    f"{sum(store.dropped.values()):,}",
                    *measured,
                    store.sha256[:8] or store.status,
                )
        _print_table(console, table)

    def print_problems(self, console: Console, path: Path) -> None:
        """The first problems, one a line; stores that failed are not repeated.

        Args:
            path: the file with all of them.
        """
        problems = [(task.task, problem) for task in self.tasks for problem in task.problems]
        for task, problem in problems[:_SHOWN_PROBLEMS]:
            _print_line(console, f"warning: {task}: {problem}", "yellow")
        if len(problems) > _SHOWN_PROBLEMS:
            rest = len(problems) - _SHOWN_PROBLEMS
            _print_line(console, f"warning: {rest} more such tasks in {path}", "yellow")


# Mean tokens of both sides, then shares of the examples.
_MEASURED = ("inputs", "targets", "cut", "too long")
_TOTALS = ("family", "tasks", "stores", "records", "dropped", *_MEASURED)
_FULL = ("task", "split", "records", "dropped", *_MEASURED, "sha256")


def _print_table(console: Console, table: Table) -> None:
    """Prints a table at full width, however narrow the terminal: no name is cut."""
    wide = Console(file=io.StringIO(), width=1000, color_system=None)
    width = wide.measure(table).maximum
    lines = wide.render_lines(table, wide.options.update(width=width))
    for line in lines:
        text = "".join(segment.text for segment in line).rstrip()
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_line(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _numbers(stores: Sequence[PreparedStore], tasks: Sequence[TaskReport]) -> list[str]:
    records = sum(store.records for store in stores)
    dropped = sum(sum(store.dropped.values()) for store in stores)
    return [f"{len(stores):,}", f"{records:,}", f"{dropped:,}", *_measured(tasks)]


def _measured(tasks: Iterable[TaskReport]) -> list[str]:
    """Means over tasks, each weighing the same."""
    found = [task.lengths for task in tasks if task.lengths is not None]
    if not found:
        return ["-"] * len(_MEASURED)

    def mean(name: str) -> float:
        return sum(getattr(lengths, name) for lengths in found) / len(found)

    return [
        f"{mean('input_tokens'):.0f}",
        f"{mean('target_tokens'):.0f}",
        f"{mean('truncated'):.1%}",
        f"{mean('too_long'):.1%}",
    ]


def report_tasks(
    workspace: Workspace,
    resolved: Resolved,
    config: DataConfig,
    stores: Sequence[PreparedStore],
    num_examples: int = 200,
    workers: int = 1,
) -> MixtureReport:
    """Measures the prepared tasks of a mixture.

    Args:
        workspace: where the stores are.
        resolved: the mixture.
        config: vocabulary, lengths and the split that is measured.
        stores: of the mixture, as `prepare` reports them.
        num_examples: rendered of each task, fewer of one that has fewer records; 0 for none.
        workers: processes that render.
    """
    leaves: dict[str, list[Leaf]] = collections.defaultdict(list)
    for leaf in resolved.leaves:
        leaves[leaf.task].append(leaf)
    by_task: dict[str, list[PreparedStore]] = collections.defaultdict(list)
    for store in stores:
        by_task[store.task].append(store)
    builders = {
        task: builder
        for task, parts in leaves.items()
        if num_examples
        and (builder := _builder(workspace, task, parts, config, num_examples)) is not None
    }
    lengths = _measure_all(builders, workers)
    reports = []
    for task, parts in leaves.items():
        task_stores = tuple(by_task.get(task, ()))
        measured = lengths.get(task)
        reports.append(
            TaskReport(
                task=task,
                family=parts[0].family,
                category=parts[0].category,
                rate=sum(leaf.rate for leaf in parts),
                modes={leaf.mode: leaf.rate for leaf in parts if leaf.mode},
                stores=task_stores,
                lengths=None if isinstance(measured, str) else measured,
                problems=tuple(_problems(task_stores, measured, config)),
            )
        )
    return MixtureReport(
        resolved.name,
        config.split,
        config.vocabulary,
        dict(config.feature_lengths),
        tuple(reports),
    )


def _builder(
    workspace: Workspace, task: str, leaves: Sequence[Leaf], config: DataConfig, num_examples: int
) -> WindowBuilder | None:
    """The builder of a sample of one task; None if the task has no records to render."""
    alone = Resolved(task, config.split, tuple(leaves))
    own = dataclasses.replace(config, mixture=task, seed=0, plan="low_discrepancy", packing="none")
    try:
        builder, _ = make_builder(workspace, own, alone, config.split)
    except UserError:
        return None  # no such split, no store, or no record: the stores' rows say so
    records = builder.leaves[0].num_records
    return dataclasses.replace(builder, window_examples=min(num_examples, records))


def _measure_all(builders: Mapping[str, WindowBuilder], workers: int) -> dict[str, Lengths | str]:
    """Task -> its statistics, or why it cannot be measured."""
    open_store.cache_clear()  # rebuilt stores are other files now
    if workers <= 1 or len(builders) < _FEW_TASKS:
        return {task: _measure(builder) for task, builder in builders.items()}
    killed = "the process that measured its lengths was killed; did it run out of memory?"
    measured = map_in_processes(_measure_in_worker, list(builders.items()), workers)
    return {task: lengths or killed for (task, _), lengths in measured}


def _measure_in_worker(item: tuple[str, WindowBuilder], progress_fn: Any) -> Lengths | str:
    lengths = _measure(item[1])
    progress_fn(item[1].window_examples)
    open_store.cache_clear()  # else each process keeps every store of the mixture open
    return lengths


def _measure(builder: WindowBuilder) -> Lengths | str:
    try:
        window = builder.build(0)
    except UserError as error:  # a damaged store
        return str(error)
    totals = dict(zip(COUNTS, window.counts.sum(axis=1).tolist()))
    asked, kept = max(1, totals["asked"]), max(1, totals["kept"])
    too_long = sum(n for reason, n in window.dropped.items() if reason.endswith("too long"))
    return Lengths(
        examples=totals["asked"],
        input_tokens=round(totals["input_tokens"] / kept, 2),
        target_tokens=round(totals["target_tokens"] / kept, 2),
        truncated=round(totals["truncated"] / asked, 4),
        too_long=round(too_long / asked, 4),
        not_rendered=round(totals["dropped"] / asked, 4),
        exemplars_missing=round(totals["exemplars_missing"] / kept, 2),
        reasons=window.dropped,
    )


def _problems(
    stores: Sequence[PreparedStore], lengths: Lengths | str | None, config: DataConfig
) -> Iterable[str]:
    for store in stores:
        dropped = sum(store.dropped.values())
        why = ", ".join(f"{reason}: {n}" for reason, n in store.dropped.items())
        if store.status == "failed":
            continue
        if not store.records:
            yield f"no record in split {store.split!r}" + (f" ({why})" if why else "")
        elif dropped > MOST_LOST * (dropped + store.records):
            share = dropped / (dropped + store.records)
            yield f"{share:.0%} of the rows of split {store.split!r} are no records ({why})"
    if lengths is None or isinstance(lengths, str):
        yield from filter(None, [lengths])
        return
    if lengths.too_long > MOST_LOST:
        yield (
            f"{lengths.too_long:.0%} of its examples are longer than TASK_FEATURE_LENGTHS "
            f"{dict(config.feature_lengths)} allow, and are left out"
        )
    elif lengths.not_rendered > MOST_LOST:
        why = ", ".join(f"{reason}: {n}" for reason, n in lengths.reasons.items())
        yield f"{lengths.not_rendered:.0%} of its examples cannot be rendered ({why})"
