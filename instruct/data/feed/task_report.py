"""Report on the prepared tasks of a mixture: records, drops, token lengths, truncation.

Lengths are measured on the first examples that training on the task alone would see, rendered in
its modes under the run's vocabulary and lengths. They depend on the stores only: equal stores give
equal reports.

    STORE_DIR/reports/<mixture>.json
"""

import collections
import contextlib
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from instruct.data.config import DataConfig
from instruct.data.feed.leaves import make_builder
from instruct.data.feed.preview import MAX_LOST
from instruct.data.feed.spelling import Spelling, spelling
from instruct.data.feed.window import COUNTS, WindowBuilder, open_store
from instruct.data.sources.json_files import write_json
from instruct.data.spec import Leaf, Resolved
from instruct.data.stores.jobs import PreparedStore
from instruct.data.stores.processes import map_in_processes
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.files import is_address, locked, remove_leftovers
from instruct.workspace import Workspace

_MAX_UNSPELLED = 0.01  # a task with a larger share of targets that no model can write is a problem
_FEW_TASKS = 8  # fewer are measured in this process: starting others would take longer
_MAX_PROBLEMS = 20  # on the terminal
_MAX_NAMES = 5
_KILLED = "the process that measured its lengths was killed; did it run out of memory?"
# Column -> field of `Lengths` and its format.
_MEASURED = {
    "inputs": ("input_tokens", ".0f"),
    "targets": ("target_tokens", ".0f"),
    "cut": ("truncated", ".1%"),
    "too long": ("too_long", ".1%"),
    "unknown": ("unknown_characters", ".2%"),
    "in targets": ("unknown_targets", ".1%"),
}


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Statistics of a sample of rendered examples.

    Attributes:
        examples: rendered.
        input_tokens, target_tokens: means of the examples that fit, with EOS.
        truncated: share of the examples that lost the end of a field to fit.
        too_long: share that does not fit even so, and is dropped.
        not_rendered: share that is dropped for any reason.
        exemplars_missing: mean number of exemplars that a prompt should show and does not.
        unknown_characters: share of the characters that the vocabulary cannot spell.
        unknown_targets: share of the targets that hold one.
        unknown: these characters, the most frequent ones first.
        reasons: why -> examples.
    """

    examples: int
    input_tokens: float
    target_tokens: float
    truncated: float
    too_long: float
    not_rendered: float
    exemplars_missing: float
    unknown_characters: float
    unknown_targets: float
    unknown: str
    reasons: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class TaskReport:
    """One task.

    Attributes:
        rate: share of the mixture.
        modes: prompt mode -> share of the mixture; {} for a plain seqio task.
        lengths: None where nothing could be rendered.
        problems: one sentence each.
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
        """Writes the report as JSON; returns its path."""
        path = workspace.shared_store_dir / "reports" / f"{self.mixture}.json"
        folder = path.parent
        folder.mkdir(parents=True, exist_ok=True)
        in_bucket = is_address(folder)
        with contextlib.nullcontext() if in_bucket else locked(folder, f"{folder}", wait=True):
            remove_leftovers(folder, path.name)
            write_json(path, dataclasses.asdict(self))
        return path

    def print_totals(self, console: Console) -> None:
        """Prints a line per family, then why rows were dropped and which tasks lack exemplars."""
        families = collections.defaultdict(list)
        for task in self.tasks:
            families[task.family].append(task)
        if len(families) > 1:
            families["in all"] = list(self.tasks)
        columns = ("family", "tasks", "stores", "records", "dropped", *_MEASURED)
        table = Table(*columns, box=None)
        for family, tasks in families.items():
            stores = [store for task in tasks for store in task.stores]
            records = sum(store.records for store in stores)
            dropped = sum(sum(store.dropped.values()) for store in stores)
            numbers = (f"{number:,}" for number in (len(tasks), len(stores), records, dropped))
            table.add_row(family, *numbers, *_mean_lengths(tasks))
        _print_table(console, table)
        drops = (store.dropped for task in self.tasks for store in task.stores)
        reasons = sum(map(collections.Counter, drops), collections.Counter[str]())
        if reasons:
            text = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common())
            console.print(Text(f"dropped rows: {text}"), soft_wrap=True)
        missing = {t.task: t.lengths.exemplars_missing for t in self.tasks if t.lengths}
        most = sorted(filter(missing.get, missing), key=lambda task: -missing[task])
        if most:
            first = ", ".join(f"{task}: {missing[task]:.2g}" for task in most[:_MAX_NAMES])
            text = f"exemplars missing from a prompt, in {len(most):,} tasks, most of all {first}"
            console.print(Text(text), soft_wrap=True)

    def print_tasks(self, console: Console) -> None:
        """Prints one line per store; the first of a task has its lengths."""
        columns = ("task", "split", "records", "dropped", *_MEASURED, "sha256")
        table = Table(*columns, box=None)
        for task in self.tasks:
            for number, store in enumerate(task.stores):
                lengths = [""] * len(_MEASURED) if number else _mean_lengths([task])
                numbers = f"{store.records:,}", f"{sum(store.dropped.values()):,}"
                identity = store.sha256[:8] or store.status
                table.add_row(task.task, store.split, *numbers, *lengths, identity)
        _print_table(console, table)

    def print_problems(self, console: Console, path: Path) -> None:
        """Prints the first problems, one per line; `path` is the file with all of them."""
        problems = [f"{task.task}: {problem}" for task in self.tasks for problem in task.problems]
        if len(problems) > _MAX_PROBLEMS:
            rest = len(problems) - _MAX_PROBLEMS
            problems[_MAX_PROBLEMS:] = [f"{rest} more such tasks in {path}"]
        for problem in problems:
            console.print(Text(f"warning: {problem}", "yellow"), soft_wrap=True)


def _print_table(console: Console, table: Table) -> None:
    """Prints a table at full width, however narrow the terminal: no name is cut."""
    text = io.StringIO()
    Console(file=text, width=1000, color_system=None).print(table)
    for line in text.getvalue().splitlines():
        console.print(Text(line.rstrip()), soft_wrap=True)


def _mean_lengths(tasks: Iterable[TaskReport]) -> list[str]:
    """Means over tasks, which all weigh the same, in the columns of `_MEASURED`."""
    measured = [task.lengths for task in tasks if task.lengths is not None]
    if not measured:
        return ["-"] * len(_MEASURED)

    return [
        format(sum(getattr(lengths, name) for lengths in measured) / len(measured), spec)
        for name, spec in _MEASURED.values()
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
        config: vocabulary, lengths and the split that is measured.
        stores: results of `prepare`.
        num_examples: to render of each task, at most its records; 0 for none.
        workers: processes that render.
    """
    leaves: dict[str, list[Leaf]] = collections.defaultdict(list)
    for leaf in resolved.leaves:
        leaves[leaf.task].append(leaf)
    stores_of = collections.defaultdict(list)
    for store in stores:
        stores_of[store.task].append(store)
    builders = {}
    for task, task_leaves in leaves.items() if num_examples else ():
        alone = Resolved(task, config.split, tuple(task_leaves))
        changes = {"mixture": task, "seed": 0, "plan": "low_discrepancy", "packing": "none"}
        own = dataclasses.replace(config, **changes)
        try:
            builder, _ = make_builder(workspace, own, alone)
        except UserError:
            continue  # no such split, no store, or no record: the stores' rows say so
        size = min(num_examples, builder.leaves[0].num_records)
        own = dataclasses.replace(own, window_examples=size)
        builders[task] = dataclasses.replace(builder, config=own)
    if workers > 1 and len(builders) >= _FEW_TASKS:
        results = map_in_processes(_measure, list(builders.items()), workers)
        measured = {task: lengths or _KILLED for (task, _), lengths in results}
    else:
        measured = {item[0]: _measure(item) for item in builders.items()}
    reports = []
    for task, task_leaves in leaves.items():
        task_stores = tuple(stores_of[task])
        lengths = measured.get(task)
        reports.append(
            TaskReport(
                task=task,
                family=task_leaves[0].family,
                category=task_leaves[0].category,
                rate=sum(leaf.rate for leaf in task_leaves),
                modes={leaf.mode: leaf.rate for leaf in task_leaves if leaf.mode},
                stores=task_stores,
                lengths=None if isinstance(lengths, str) else lengths,
                problems=tuple(_problems(task_stores, lengths, config)),
            )
        )
    lengths = dict(config.feature_lengths)
    return MixtureReport(resolved.name, config.split, config.vocabulary, lengths, tuple(reports))


def _measure(item: tuple[str, WindowBuilder], progress_fn: Any = None) -> Lengths | str:
    """Statistics of a task's first window, or why it cannot be built."""
    open_store.cache_clear()  # stores may have been rebuilt; and not every store stays open
    try:
        _, examples, counts, dropped = item[1].examples(0)
    except UserError as error:  # a damaged store
        return str(error)
    totals = dict(zip(COUNTS, counts.sum(axis=1).tolist()))
    unknown = spelling(load_vocabulary(item[1].config.vocabulary), examples)
    asked, kept = max(1, totals["asked"]), max(1, totals["kept"])
    too_long = sum(n for reason, n in dropped.items() if reason.endswith("too long"))
    return Lengths(
        examples=totals["asked"],
        input_tokens=round(totals["input_tokens"] / kept, 2),
        target_tokens=round(totals["target_tokens"] / kept, 2),
        truncated=round(totals["truncated"] / asked, 4),
        too_long=round(too_long / asked, 4),
        not_rendered=round(totals["dropped"] / asked, 4),
        exemplars_missing=round(totals["exemplars_missing"] / kept, 2),
        unknown_characters=unknown.characters,
        unknown_targets=unknown.targets,
        unknown=unknown.lost,
        reasons=dropped,
    )


def _problems(
    stores: Sequence[PreparedStore], lengths: Lengths | str | None, config: DataConfig
) -> Iterable[str]:
    for store in stores:
        if store.status == "failed":
            continue
        why = ", ".join(f"{reason}: {count}" for reason, count in store.dropped.items())
        dropped = sum(store.dropped.values())
        share = dropped / max(1, dropped + store.records)
        if not store.records:
            yield f"no record in split {store.split!r}" + (f" ({why})" if why else "")
        elif share > MAX_LOST:
            yield f"{share:.0%} of the rows of split {store.split!r} were rejected ({why})"
    if isinstance(lengths, str):
        yield lengths
    elif lengths is not None and lengths.too_long > MAX_LOST:
        yield (
            f"{lengths.too_long:.0%} of its examples are longer than TASK_FEATURE_LENGTHS "
            f"{dict(config.feature_lengths)} allow, and are left out"
        )
    elif lengths is not None and lengths.not_rendered > MAX_LOST:
        why = ", ".join(f"{reason}: {count}" for reason, count in lengths.reasons.items())
        yield f"{lengths.not_rendered:.0%} of its examples cannot be rendered ({why})"
    if isinstance(lengths, Lengths) and lengths.unknown_targets > _MAX_UNSPELLED:
        parts = lengths.unknown_characters, lengths.unknown_targets, lengths.unknown
        yield (
            f"{Spelling(*parts)}. No model can write these targets with {config.vocabulary!r}; use "
            "a vocabulary that has them (bytes, byte fallback, added tokens), or leave the task out"
        )
