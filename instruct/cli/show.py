"""`run.py show`: tasks and mixtures, their rates and overlap, and what their prompts look like."""

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from instruct.cli import settings, show_overlap
from instruct.cli.show_filters import TaskFilter
from instruct.cli.show_mixture import ROW_LENGTHS, MixtureView, license_counts
from instruct.cli.show_tables import family_table, license_table, wide_console
from instruct.cli.show_tables import mixture_table as view_table
from instruct.data import registry
from instruct.data.config import AUTO_VOCABULARY, DataConfig
from instruct.data.feed import preview
from instruct.data.feed.pipeline import TrainFeed
from instruct.data.feed.rendering import example_key, exemplar_indices, name_key, render_example
from instruct.data.seqio.bridge import numbered_records
from instruct.data.spec import SPLITS, Resolved, TaskSpec
from instruct.data.token_record import TokenRecord
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError, unknown_name
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered
from instruct.workspace import Workspace

# Long enough that no prompt is cut for the sake of being shown.
_LENGTHS = (4096, 1024)
_UNCUT = 1 << 20
_EXEMPLAR_POOL = 200
_FEW_TASKS = 200  # as many are listed without being asked for
_TABLE_COLUMNS = 240
# Flags that would be ignored without another.
_NEEDS = {
    **{"n": "overlap", "pairs": "overlap", "workers": "overlap", "against_split": "against"},
    **{"draws": "mixture", "rows": "mixture", "examples": "task"},
}
_LEAST = {"draws": 1, "n": 1, "workers": 1, "pairs": 0, "examples": 0, "rows": 0}


def run(flags: argparse.Namespace) -> int:
    """Prints a mixture, a task, the list of both, or an overlap."""
    _check(flags)
    workspace, _ = settings.load(flags)
    if flags.task:
        return _show_task(workspace, flags)
    if flags.mixture and flags.split is None:
        leaves = registry.resolve(workspace, flags.mixture).leaves
        flags.split = _in_order({split for leaf in leaves for split in leaf.splits})[0]
    if flags.overlap:
        return show_overlap.run(workspace, flags)
    if flags.mixture:
        return _show_mixture(workspace, flags)
    return _show_list(workspace, flags)


def _in_order(splits: Collection[str]) -> list[str]:
    """Splits as they are looked for: train, validation, test, then others."""
    return [*(s for s in SPLITS if s in splits), *sorted(s for s in splits if s not in SPLITS)]


def _split_there(workspace: Workspace, spec: TaskSpec) -> str:
    """The first split of a task that can be read; the first of all where none can."""
    splits, reasons = _in_order(spec.splits), []
    for split in splits:
        try:
            next(numbered_records(workspace, spec, split, False, 0), None)
        except UserError as error:
            reasons.append(f"note: split {split!r} is not shown: {error}")
            continue
        for reason in reasons:
            print(reason, file=sys.stderr)
        return split
    return splits[0]  # reading it says what is missing


def _check(flags: argparse.Namespace) -> None:
    if flags.mixture and flags.task:
        raise UserError("give --mixture or --task, not both.")
    if flags.overlap and not flags.mixture:
        raise UserError("--overlap compares the tasks of a mixture: give --mixture=NAME.")
    if flags.against and not flags.overlap:
        raise UserError("--against is for --overlap: add --overlap, or leave it out.")
    for name, needed in _NEEDS.items():
        if name in flags.given and not getattr(flags, needed):
            raise UserError(f"--{name} is for --{needed}: add --{needed}, or leave it out.")
    for name, least in _LEAST.items():
        if getattr(flags, name) < least:
            raise UserError(f"--{name} is {getattr(flags, name)}; it must be at least {least}.")


def _print_json(value: Any) -> int:
    print(json.dumps(value, indent=1, ensure_ascii=False))
    return 0


def _task_json(spec: TaskSpec) -> dict[str, Any]:
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


def _families(specs: Iterable[TaskSpec]) -> list[dict[str, Any]]:
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


def _show_list(workspace: Workspace, flags: argparse.Namespace) -> int:
    task_filter = TaskFilter.from_flags(flags)
    specs = task_filter.specs(registry.task_specs(workspace).values())
    if flags.licenses:
        found = license_counts(specs)
        if flags.json:
            return _print_json({"licenses": found})
        wide_console().print(license_table(found, f"{len(specs):,} tasks"))
        return 0
    families = _families(specs)
    if flags.json:
        rows = [_task_json(spec) for spec in specs]
        mixtures = registry.mixture_names()
        return _print_json({"families": families, "tasks": rows, "mixtures": mixtures})
    console = wide_console(_TABLE_COLUMNS)
    if task_filter or flags.leaves or len(specs) <= _FEW_TASKS:
        console.print(_task_table(specs))
    else:
        console.print(family_table(families))
        console.print(
            f"{len(specs):,} tasks; list them with --leaves, or some with --family, --category, "
            "--dataset or --license (`*` stands for anything)."
        )
    names = registry.mixture_names()
    parts = [name for name in names if _whole(name) in names]
    console.print("mixtures: " + ", ".join(name for name in names if name not in parts))
    if parts:
        console.print(f"and {len(parts):,} parts of these, such as {parts[0]} (--json lists them)")
    return 0


def _whole(name: str) -> str:
    """Name of the mixture that a part such as `t0.zs` is named after."""
    return name.rpartition(".")[0]


def _task_table(specs: Sequence[TaskSpec]) -> Table:
    table = Table(
        *("task", "category", "modes", "version", "licence"),
        box=None,
        title=f"{len(specs):,} tasks",
    )
    for spec in specs:
        modes = " ".join(spec.all_modes)
        table.add_row(spec.name, escape(spec.category), modes, spec.version, escape(_short(spec)))
    return table


def _short(spec: TaskSpec) -> str:
    return spec.license.partition(" (")[0]


def mixture_table(workspace: Workspace, resolved: Resolved) -> Table:
    """A mixture's leaves, or its sub-mixtures where it has many leaves."""
    return view_table(MixtureView(workspace, resolved))


def _show_mixture(workspace: Workspace, flags: argparse.Namespace) -> int:
    whole = registry.resolve(workspace, flags.mixture, flags.split)
    splits = {split for leaf in whole.leaves for split in leaf.splits}
    if flags.split not in splits:
        raise unknown_name(f"split of mixture {whole.name!r}", flags.split, splits)
    view = MixtureView(workspace, whole, TaskFilter.from_flags(flags), flags.draws)
    if flags.licenses:
        found = view.licenses()
        if flags.json:
            return _print_json({"mixture": view.name, "licenses": found})
        wide_console().print(license_table(found, view.counts_line()))
        return 0
    if flags.json:
        return _print_json(view.to_json())
    console = wide_console(_TABLE_COLUMNS)
    console.print(view_table(view, flags.leaves))
    if view.resolved.unprepared:
        console.print(
            f"{len(view.resolved.unprepared)} leaves are not prepared and do not declare their "
            "size; rates that depend on it are provisional until `run.py prepare`."
        )
    if flags.rows:
        config = DataConfig(flags.mixture, ROW_LENGTHS, flags.rows, AUTO_VOCABULARY)
        config = registry.with_vocabulary(workspace, config)
        console.print(f"vocabulary: {config.vocabulary}", markup=False, soft_wrap=True)
        print_packed_rows(workspace, console, config, whole)
    return 0


def print_packed_rows(
    workspace: Workspace, console: Console, config: DataConfig, resolved: Resolved
) -> None:
    """The rows of the first batch, decoded from the arrays that training would get."""
    vocabulary = load_vocabulary(config.vocabulary)
    batch, _ = next(TrainFeed(workspace, config, resolved))
    for row in range(config.batch_size):
        console.print(preview.packed_row(batch, row, vocabulary, resolved), markup=False)


def rendered_examples(
    workspace: Workspace,
    spec: TaskSpec,
    modes: Sequence[str],
    split: str,
    count: int,
    vocabulary_name: str = "gym",
) -> Iterator[tuple[str, Rendered | Dropped]]:
    """(mode, example) of the first records of a split, worded as an epoch of evaluation would.

    Records come from the prepared store, else from the source. One of several modes whose exemplars
    are not there is `Dropped`, with the reason.

    Raises:
        UserError: there is no store, and the source is not there; says where it was looked for.
    """
    vocabulary = load_vocabulary(vocabulary_name)
    records = list(itertools.islice(numbered_records(workspace, spec, split, False, 0), count))
    pools: dict[str, list[Record]] = {"": []}
    for mode in modes:
        leaf_key = name_key(spec.leaf_name(mode))
        pool_split = spec.exemplar_split_of(mode)
        if pool_split not in pools:
            pool_rows = numbered_records(workspace, spec, pool_split, False, 0)
            rows = itertools.islice(pool_rows, _EXEMPLAR_POOL)
            try:
                pools[pool_split] = [record for _, record in rows]
            except UserError as error:
                if len(modes) == 1:
                    raise
                yield mode, Dropped(str(error))
                continue
        pool, shots = pools[pool_split], spec.fixed_shots(mode)
        for number, record in records:
            key = example_key(0, leaf_key, number)
            query = number if split == pool_split else None
            chosen = [pool[i] for i in exemplar_indices(mode, key, len(pool), query, shots)]
            yield (
                mode,
                render_example(record, spec.templates, mode, key, chosen, vocabulary, _LENGTHS),
            )


def _modes_of(name: str, spec: TaskSpec) -> Sequence[str]:
    return spec.all_modes if name == spec.name else (name.removeprefix(spec.name + "."),)


def _show_task(workspace: Workspace, flags: argparse.Namespace) -> int:
    if registry.is_plain_task(flags.task):
        return _show_plain_task(workspace, flags)
    spec = registry.find_spec(workspace, flags.task)
    split = flags.split or _split_there(workspace, spec)
    if split not in spec.splits:
        raise unknown_name(f"split of task {spec.name!r}", split, spec.splits)
    examples = []
    modes = _modes_of(flags.task, spec)
    for mode, shown in rendered_examples(workspace, spec, modes, split, flags.examples):
        entry = {"task": spec.leaf_name(mode), "mode": mode} | dataclasses.asdict(shown)
        examples.append({k: v for k, v in entry.items() if k not in ("input_ids", "target_ids")})
        if isinstance(shown, Rendered):
            examples[-1] |= {
                "input_tokens": len(shown.input_ids),
                "target_tokens": len(shown.target_ids),
            }
    if flags.json:
        names = {"category": spec.category, "template_set": spec.templates.name}
        return _print_json({"task": spec.name, "split": split, **names, "examples": examples})
    console = wide_console()
    console.print(
        f"[bold]{spec.name}[/] {escape(spec.category)}, version {spec.version}, "
        f"{escape(spec.license)} {escape(spec.url)}\n{escape(spec.description)}\n"
        f"wordings: {escape(spec.templates.name)}; split {escape(split)}"
    )
    for example in examples:
        _print_example(console, example)
    return 0


def _show_plain_task(workspace: Workspace, flags: argparse.Namespace) -> int:
    """Prints a user's seqio task as its own pipeline makes its examples, uncut."""
    from instruct.data.seqio.reading import token_records  # TensorFlow

    task = registry.find_seqio_task(workspace, flags.task)
    split = flags.split or _in_order(task.splits)[0]
    if split not in task.splits:
        raise unknown_name(f"split of task {task.name!r}", split, task.splits)
    vocabulary = registry.task_vocabulary(workspace, task.name) or "gym"
    lengths = dict.fromkeys(ROW_LENGTHS, _UNCUT)
    records = token_records(task.name, split, lengths, load_vocabulary(vocabulary))
    examples = [
        {
            "mode": f"example {number}",
            "template_id": "none",
            "num_exemplars": 0,
            "inputs": record.inputs,
            "targets": record.targets,
            "input_tokens": len(record.input_ids),
            "target_tokens": len(record.target_ids),
        }
        if isinstance(record, TokenRecord)
        else {"mode": f"example {number}", "reason": record.reason}
        for number, record in enumerate(itertools.islice(records, flags.examples))
    ]
    if flags.json:
        about = {"task": task.name, "split": split, "vocabulary": vocabulary}
        return _print_json(about | {"examples": examples})
    console = wide_console()
    console.print(f"[bold]{escape(task.name)}[/] plain seqio task, shown as its pipeline makes it")
    line = f"vocabulary {vocabulary}; split {split} of {', '.join(sorted(task.splits))}"
    console.print(line, markup=False, soft_wrap=True)
    for example in examples:
        _print_example(console, example)
    return 0


def _print_example(console: Console, example: dict[str, Any]) -> None:
    if "reason" in example:
        console.rule(f"{example['mode']}: dropped")
        console.print(example["reason"], markup=False)
        return
    console.rule(
        f"{example['mode']}  template {escape(example['template_id'])}  "
        f"{example['num_exemplars']} exemplars  "
        f"{example['input_tokens']} + {example['target_tokens']} tokens"
    )
    console.print(example["inputs"], markup=False)
    console.print("[bold green]->[/] ", end="")
    console.print(example["targets"], markup=False, style="green")
