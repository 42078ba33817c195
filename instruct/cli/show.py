"""`run.py show`: tasks, mixtures, their shares and overlap, and rendered prompts."""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from instruct import gin_config
from instruct.cli import settings, show_overlap
from instruct.cli.show_tables import (
    family_table,
    filter_of,
    license_table,
    mixture_table,
    number_table,
    print_json,
    wide_console,
)
from instruct.data import registry
from instruct.data.config import AUTO_VOCABULARY, DataConfig
from instruct.data.feed import preview
from instruct.data.feed.spelling import mixture_spelling, spelling, spelling_lines
from instruct.data.mixture_shares import ROW_LENGTHS, MixtureView
from instruct.data.spec import Resolved, TaskSpec
from instruct.data.task_lists import family_counts, license_counts, task_facts
from instruct.data.token_record import TokenRecord
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError, unknown_name
from instruct.prompts.render import Rendered
from instruct.workspace import Workspace

_UNCUT = 1 << 20  # tokens
_FEW_TASKS = 200  # above this many, tasks are listed only on request
_TABLE_COLUMNS = 240
# Flag -> flag without which it would have no effect.
_NEEDS = {
    **{"n": "overlap", "pairs": "overlap", "workers": "overlap", "against_split": "against"},
    **{"draws": "mixture", "rows": "mixture", "examples": "task"},
}


def run(flags: argparse.Namespace) -> int:
    """Prints a mixture, a task, the list of both, or an overlap."""
    own = settings.own_task(flags)
    if own is not None and not flags.mixture:
        flags.task = flags.task or own.spec.name
        if flags.task not in (own.spec.name, *map(own.spec.leaf_name, own.spec.all_modes)):
            raise UserError(
                f"--data makes the task {own.spec.name}, --task={flags.task} names another one; "
                f"leave one out, or name a mode of it such as {own.spec.leaf_name('fs_noopt')}."
            )
    _check(flags)
    workspace, arguments = settings.load(flags, own)
    data = arguments[gin_config.TRAIN].get("data")
    if data is not None and flags.vocabulary is None and data.vocabulary != AUTO_VOCABULARY:
        flags.vocabulary = data.vocabulary
    if flags.task:
        return _show_task(workspace, flags)
    if flags.mixture and flags.split is None:
        leaves = registry.resolve(workspace, flags.mixture).leaves
        flags.split = preview.splits_in_order({s for leaf in leaves for s in leaf.splits})[0]
    if flags.overlap:
        return show_overlap.run(workspace, flags)
    if flags.mixture:
        return _show_mixture(workspace, flags)
    return _show_list(workspace, flags)


def _check(flags: argparse.Namespace) -> None:
    if flags.mixture and flags.task:
        raise UserError("give --mixture or --task, not both.")
    if flags.overlap and not flags.mixture:
        raise UserError("--overlap compares the tasks of a mixture: give --mixture=NAME.")
    if flags.against and not flags.overlap:
        raise UserError("--against is for --overlap: add --overlap, or leave it out.")
    if "vocabulary" in flags.given and not (flags.mixture or flags.task):
        raise UserError("--vocabulary is for --task or --mixture: add one, or leave it out.")
    for name, needed in _NEEDS.items():
        if name in flags.given and not getattr(flags, needed):
            raise UserError(f"--{name} is for --{needed}: add --{needed}, or leave it out.")


def _show_list(workspace: Workspace, flags: argparse.Namespace) -> int:
    task_filter = filter_of(flags)
    specs = task_filter(registry.task_specs(workspace).values())
    if flags.licenses:
        return _print_licenses(flags, {"licenses": license_counts(specs)}, f"{len(specs):,} tasks")
    families = family_counts(specs)
    if flags.json:
        rows = [task_facts(spec) for spec in specs]
        mixtures = registry.mixture_names()
        return print_json({"families": families, "tasks": rows, "mixtures": mixtures})
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
    # Parts of a mixture are named after it: `t0.zs`.
    parts = [name for name in names if name.rpartition(".")[0] in names]
    console.print("mixtures: " + ", ".join(name for name in names if name not in parts))
    if parts:
        console.print(f"and {len(parts):,} parts of these, such as {parts[0]} (--json lists them)")
    return 0


def _print_licenses(flags: argparse.Namespace, document: dict[str, Any], title: str) -> int:
    if flags.json:
        return print_json(document)
    wide_console().print(license_table(document["licenses"], title))
    return 0


def _task_table(specs: Sequence[TaskSpec]) -> Table:
    columns = ("task", "category", "modes", "version", "licence")
    table = number_table(f"{len(specs):,} tasks", columns, ())
    for spec in specs:
        modes = " ".join(spec.all_modes)
        license_name = escape(spec.license.partition(" (")[0])
        table.add_row(spec.name, escape(spec.category), modes, spec.version, license_name)
    return table


def _show_mixture(workspace: Workspace, flags: argparse.Namespace) -> int:
    whole = registry.resolve(workspace, flags.mixture, flags.split)
    splits = {split for leaf in whole.leaves for split in leaf.splits}
    if flags.split not in splits:
        raise unknown_name(f"split of mixture {whole.name!r}", flags.split, splits)
    view = MixtureView(workspace, whole, filter_of(flags), flags.draws)
    if flags.licenses:
        document = {"mixture": view.name, "licenses": view.licenses()}
        return _print_licenses(flags, document, view.counts_line())
    vocabulary = flags.vocabulary or AUTO_VOCABULARY
    config = DataConfig(flags.mixture, ROW_LENGTHS, flags.rows or 1, vocabulary)
    sample = dataclasses.replace(config, split=flags.split)
    spelled = {}
    if "vocabulary" in flags.given or (
        flags.vocabulary and not registry.unprepared(workspace, whole, sample)
    ):
        spelled = mixture_spelling(workspace, sample, whole)
    if flags.json:
        tasks = {task: dataclasses.asdict(own) for task, own in spelled.items()}
        return print_json(view.to_json() | ({"spelling": tasks} if tasks else {}))
    console = wide_console(_TABLE_COLUMNS)
    console.print(mixture_table(view, flags.leaves))
    if description := registry.description_of(view.name):
        console.print(f"{description}.", markup=False, highlight=False)
    if view.resolved.unprepared:
        console.print(
            f"{len(view.resolved.unprepared)} leaves are not prepared and do not declare their "
            "size; rates that depend on it are provisional until `run.py prepare`."
        )
    for line in spelling_lines(spelled) if spelled else ():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if flags.rows:
        config = registry.with_vocabulary(workspace, config)
        console.print(f"vocabulary: {config.vocabulary}", markup=False, soft_wrap=True)
        print_packed_rows(workspace, console, config, whole)
    return 0


def print_packed_rows(
    workspace: Workspace, console: Console, config: DataConfig, resolved: Resolved
) -> None:
    """Prints the rows of the first training batch, decoded from its arrays."""
    from instruct.data.feed.pipeline import TrainFeed  # imports Grain, which takes a second

    vocabulary = load_vocabulary(config.vocabulary)
    windows_fn = registry.seqio_windows_fn(config)
    batch, _ = next(TrainFeed(workspace, config, resolved, seqio_windows_fn=windows_fn))
    for row in range(config.batch_size):
        console.print(preview.packed_row(batch, row, vocabulary, resolved), markup=False)


def _show_task(workspace: Workspace, flags: argparse.Namespace) -> int:
    if registry.is_plain_task(flags.task):
        return _show_plain_task(workspace, flags)
    spec = registry.find_spec(workspace, flags.task)
    split = flags.split
    if split is None:
        split, reasons = preview.first_readable_split(workspace, spec)
        for reason in reasons:
            print(f"note: {reason}", file=sys.stderr)
    if split not in spec.splits:
        raise unknown_name(f"split of task {spec.name!r}", split, spec.splits)
    mode = flags.task.removeprefix(spec.name + ".")
    modes = spec.all_modes if flags.task == spec.name else (mode,)
    examples = []
    shown_examples = preview.rendered_examples(
        workspace, spec, modes, split, flags.examples, flags.vocabulary
    )
    rendered = []
    for mode, shown in shown_examples:
        example = {"task": spec.leaf_name(mode), "mode": mode} | dataclasses.asdict(shown)
        if isinstance(shown, Rendered):
            rendered.append(shown)
            example["input_tokens"] = len(example.pop("input_ids"))
            example["target_tokens"] = len(example.pop("target_ids"))
        examples.append(example)
    names = {"category": spec.category, "template_set": spec.templates.name}
    origin = escape(f"{spec.license} {spec.url}".strip())
    head = f"[bold]{spec.name}[/] {escape(spec.category)}, version {spec.version}"
    head += (f", {origin}" if origin else "") + "\n"
    head += f"{escape(spec.description)}\n" if spec.description else ""
    head += f"wordings: {escape(spec.templates.name)}; split {escape(split)}"
    values = {"task": spec.name, "split": split, **names, "examples": examples}
    if flags.vocabulary:
        unknown = spelling(load_vocabulary(flags.vocabulary), rendered)
        values |= {"vocabulary": flags.vocabulary, "spelling": dataclasses.asdict(unknown)}
        head += f"\nvocabulary {escape(flags.vocabulary)}: {escape(str(unknown))}"
    return _print_examples(flags, values, head)


def _show_plain_task(workspace: Workspace, flags: argparse.Namespace) -> int:
    """Prints examples of a user's seqio task from its own pipeline, not truncated."""
    from instruct.data.seqio.reading import token_records  # imports TensorFlow

    task = registry.plain_task(flags.task)
    split = flags.split or preview.splits_in_order(task.splits)[0]
    if split not in task.splits:
        raise unknown_name(f"split of task {task.name!r}", split, task.splits)
    vocabulary = registry.task_vocabulary(workspace, task.name) or flags.vocabulary or "gym"
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
    values = {"task": task.name, "split": split, "vocabulary": vocabulary, "examples": examples}
    head = (
        f"[bold]{escape(task.name)}[/] plain seqio task, shown as its pipeline makes it\n"
        f"vocabulary {escape(vocabulary)}; split {escape(split)} of "
        f"{escape(', '.join(sorted(task.splits)))}"
    )
    return _print_examples(flags, values, head)


def _print_examples(flags: argparse.Namespace, values: dict[str, Any], head: str) -> int:
    if flags.json:
        return print_json(values)
    console = wide_console()
    console.print(head)
    for example in values["examples"]:
        if "reason" in example:
            console.rule(f"{example['mode']}: dropped")
            console.print(example["reason"], markup=False)
            continue
        console.rule(
            f"{example['mode']}  template {escape(example['template_id'])}  "
            f"{example['num_exemplars']} exemplars  "
            f"{example['input_tokens']} + {example['target_tokens']} tokens"
        )
        console.print(example["inputs"], markup=False)
        console.print("[bold green]->[/] ", end="")
        console.print(example["targets"], markup=False, style="green")
    return 0
