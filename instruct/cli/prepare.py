"""`run.py prepare`: builds the record stores of mixtures, so that training only reads."""

import argparse
import dataclasses
import json

from rich.console import Console

from instruct import gin_config
from instruct.cli import settings
from instruct.data import registry
from instruct.data.config import AUTO_VOCABULARY, DataConfig
from instruct.data.feed.task_report import report_tasks
from instruct.data.mixture_shares import make_left_out
from instruct.data.stores import prepare
from instruct.data.stores.beam import BeamBuilder
from instruct.data.stores.left_out import left_out_path, missing_stores, read_left_out
from instruct.errors import UserError
from instruct.workspace import Workspace

# Lengths affect the stores of plain SeqIO tasks, whose pipelines trim, and the report.
_LENGTHS = {"inputs": 512, "targets": 128}


def run(flags: argparse.Namespace) -> int:
    """Builds missing stores. Returns 1 if a store could not be built; the others are built.

    With --skip_unavailable it returns 0 if every mixture has a task left.
    """
    if flags.runner == "local" and flags.beam_option:
        raise UserError("--beam_option needs a --runner of Beam's: direct, dataflow, flink, spark")
    console = Console()
    progress = None if flags.json else console
    elsewhere = None
    if flags.runner != "local":
        elsewhere = BeamBuilder(flags.runner, flags.beam_option, progress)
    own = settings.own_task(flags)
    workspace, arguments = settings.load(flags, own)
    if flags.download:
        workspace = dataclasses.replace(workspace, downloads=True)
    data: DataConfig | None = arguments[gin_config.TRAIN].get("data")
    names = flags.mixture or ([data.mixture] if data else [own.spec.name] if own else [])
    if not names:
        raise UserError(
            "prepare what? Give --mixture=NAME, --data=FILE, or a --gin_file that trains on one."
        )
    good = True
    for name in names:
        config = DataConfig(name, _LENGTHS, 1, AUTO_VOCABULARY)
        config = dataclasses.replace(data, mixture=name) if data else config
        config = registry.with_vocabulary(workspace, config)
        done = prepare.prepare(
            workspace,
            registry.resolve(workspace, name),
            config,
            workers=flags.workers,
            verify=flags.verify,
            console=progress,
            check_disk=not flags.ignore_disk_estimate,
            elsewhere=elsewhere,
        )
        messages = Console(stderr=True) if flags.json else console
        good &= _finish(workspace, config, done, flags, messages)
        if flags.json:
            print(json.dumps([dataclasses.asdict(entry) for entry in done.stores], indent=1))
    return 0 if good else 1


def _finish(
    workspace: Workspace,
    config: DataConfig,
    done: prepare.Prepared,
    flags: argparse.Namespace,
    console: Console,
) -> bool:
    """Reports on a mixture and records left-out tasks. Returns whether it can be trained on."""
    resolved = registry.resolve(workspace, config.mixture)
    report = report_tasks(
        workspace, resolved, config, done.stores, flags.report_examples, flags.workers
    )
    path = report.write(workspace)
    if not flags.json:
        if flags.report:
            report.print_tasks(console)
        report.print_totals(console)
        report.print_problems(console, path)
    if flags.skip_unavailable:
        good = _leave_out(workspace, config, done, console)
    else:
        good = not done.failed
        done.print_failures(console)
        if not good:
            advice = "" if workspace.downloads else "--download fetches what can be fetched; "
            _say(
                console,
                f"{len(done.failed)} of {len(done.stores)} stores could not be built. {advice}"
                "--skip_unavailable continues without these tasks.",
            )
        old = read_left_out(workspace, config.mixture)
        if old is not None and old.left_out:
            _say(
                console,
                f"{left_out_path(workspace, config.mixture)} of {old.date} still names "
                f"{len(old.tasks)} tasks, which runs with SKIP_UNAVAILABLE leave out; "
                "--skip_unavailable writes it again.",
            )
    if not flags.json:
        _say(
            console,
            f"stores: {workspace.shared_store_dir}; vocabulary: {config.vocabulary}; "
            f"report: {path}",
        )
    return good


def _leave_out(
    workspace: Workspace, config: DataConfig, done: prepare.Prepared, console: Console
) -> bool:
    """Records the left-out tasks. Returns whether a task is left."""
    broken = [entry for entry in done.stores if entry.machine]
    if broken:  # not because of the data: the next attempt may succeed
        done.print_failures(console)
        _say(
            console,
            f"{len(broken)} stores failed for a reason that is not their source's, such as "
            f"{broken[0].task}: {broken[0].message}. Nothing is left out for that; run it again.",
        )
        return False
    missing = missing_stores(done.stores, config.split)
    resolved = registry.resolve(workspace, config.mixture, config.split)
    record = make_left_out(workspace, resolved, missing, config.split)
    path = record.write(workspace)
    for line in record.describe(path):
        _say(console, line)
    if missing and record.num_tasks_left:
        _say(console, "train on the rest with --gin.SKIP_UNAVAILABLE=True")
    return record.num_tasks_left > 0


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
