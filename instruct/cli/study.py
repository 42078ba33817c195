"""`run.py study`: a grid of runs, trained, evaluated and reported by one command."""

import argparse
import collections
import datetime
import hashlib
import itertools
import json
import pathlib
import shutil
import sys
from collections.abc import Sequence

from instruct import gin_config
from instruct.cli import study_cost, study_runs
from instruct.cli.show_tables import wide_console
from instruct.cli.study_runs import LoadedRun
from instruct.code_version import code_hash, git_commit
from instruct.data import registry
from instruct.errors import UserError
from instruct.files import any_folder, is_address, locked, make_writable, replace_file
from instruct.report.pages.study_page import write_study
from instruct.report.read import read_evaluation, results_files
from instruct.study import jobs, plan, runner

_STUDY_FILE = "study.json"


def run(flags: argparse.Namespace) -> int:
    """Runs a study, or prints its cost, writes its jobs or collects what they left.

    Returns 1 if a run failed, else 0, also after a signal made the runs save and stop.
    """
    machine = study_cost.checked_flags(flags)
    one_of = [f"--{n}" for n in ("dry_run", "write_jobs", "collect") if getattr(flags, n)]
    if len(one_of) > 1:
        raise UserError(f"{' and '.join(one_of)} exclude each other; give one.")
    study, rest = study_runs.read_flags(flags)
    chosen = study_runs.chosen_runs(study, flags.only)
    runs = [*study.runs_before(chosen), *chosen]
    if not study.study_dir and not flags.dry_run:
        raise UserError("STUDY_DIR is not set; add --gin.STUDY_DIR=runs/my_study.")
    folder = any_folder("STUDY_DIR", study.study_dir or "STUDY_DIR").absolute()
    everyone = [*study.runs_before(study.runs()), *study.runs()]
    loaded = [
        study_runs.load_run(
            run, str(folder), rest.files, rest.of_run(run, everyone), stand_ins=flags.dry_run
        )
        for run in runs
    ]
    study_runs.refuse_equal_runs(loaded)
    if flags.dry_run:
        study_cost.print_costs(wide_console(), flags, machine, loaded)
        return 0
    if is_address(folder) and not (flags.write_jobs or flags.collect):
        raise UserError(
            f"STUDY_DIR is {study.study_dir!r}: runs of a study in a bucket are started by jobs, "
            "see --write_jobs, and read with --collect. To run them here give a folder."
        )
    if flags.collect and not (folder / _STUDY_FILE).exists():
        raise UserError(
            f"{folder / _STUDY_FILE} is missing. Give the STUDY_DIR of a study that was started, "
            "by `run.py study` or with --write_jobs."
        )
    make_writable("STUDY_DIR", folder)
    if not flags.collect:
        _prepare(folder, study, loaded, flags, [run for run in everyone if run not in runs])
    planned = [one.planned for one in loaded]
    if flags.write_jobs:
        done = runner.DONE
        left = [p for p in planned if runner.read_state(folder / p.name).state != done]
        print(jobs.write_jobs(folder, left, flags.write_jobs) if left else "all runs are done")
        return 0
    if flags.collect:
        _collect(folder, loaded)
    else:
        runner.StudyRunner(folder, planned, _program(), code_hash(), flags.workers, _say).run()
    return _summary(folder, loaded, everyone)


def _say(line: str) -> None:
    print(line, flush=True)


def _program() -> list[str]:
    """The command of this program, without a mode."""
    script = gin_config.ROOT / "run.py"
    if script.is_file():
        return [sys.executable, str(script)]
    installed = pathlib.Path(sys.executable).with_name("instruct")
    return [str(installed if installed.exists() else shutil.which("instruct") or installed)]


def _prepare(
    folder: pathlib.Path,
    study: plan.Study,
    loaded: list[LoadedRun],
    flags: argparse.Namespace,
    others: list[plan.StudyRun],
) -> None:
    """Writes study.json and the files of runs that are not done; `others` are those not loaded."""
    commit, dirty = git_commit()
    document = plan.study_document(
        study,
        recipe_sha256={path: _file_hash(path) for path in study.recipe},
        commit=commit,
        commit_dirty=dirty,
        code_sha256=code_hash(),
        command=sys.argv,
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    planned = [one.planned for one in loaded]
    with locked(folder, f"STUDY_DIR {str(folder)!r}", wait=not is_address(folder)):
        runner.prepare(folder, planned, code_hash(), flags.force_rerun, _say, others)
        replace_file(folder / _STUDY_FILE, json.dumps(document, indent=1) + "\n")


def _file_hash(path: str) -> str:
    return hashlib.sha256(gin_config.find_gin_file(path).read_bytes()).hexdigest()


def _collect(folder: pathlib.Path, loaded: list[LoadedRun]) -> None:
    """Records how far runs are that jobs started, by the files that they left."""
    for one in loaded:
        run_folder = folder / one.planned.name
        reached = {
            plan.TRAIN: runner.is_trained(run_folder),
            plan.EVAL: _is_evaluated(run_folder, one),
        }
        stages = one.planned.run.stages
        finished = itertools.takewhile(reached.__getitem__, stages)
        runner.record_left(run_folder, stages, tuple(finished))


def _is_evaluated(folder: pathlib.Path, one: LoadedRun) -> bool:
    """Whether the last step's results of every suite hold all its tasks."""
    files, steps = results_files(folder), runner.last_step(folder, one.planned.steps)
    for name, suite in one.suites.items():
        step, path = files.get(name, [(-1, folder)])[-1]
        if step < 0 or (steps and step != steps):
            return False
        metrics = read_evaluation(path).metrics
        leaves = registry.resolve(one.workspace, suite).straight().leaves
        if not {(leaf.task, leaf.mode) for leaf in leaves} <= {
            (row["task"], row["mode"]) for row in metrics
        }:
            return False
    return True


def _summary(
    folder: pathlib.Path, loaded: list[LoadedRun], everyone: Sequence[plan.StudyRun]
) -> int:
    """Prints how many runs are in which state, writes the page; returns 1 if a run failed."""
    states = {one.planned.name: runner.read_state(folder / one.planned.name) for one in loaded}
    counts = collections.Counter(state.state for state in states.values())
    print(f"{len(states)} runs: {', '.join(f'{n} {state}' for state, n in counts.items())}")
    failed = {name: state for name, state in states.items() if state.state == runner.FAILED}
    for name, state in failed.items():
        print(f"  {name} failed in {state.stage}: {state.error}")
    known = {run.name for run in everyone}
    others = sorted(path.parent.name for path in folder.glob(f"*/{runner.STATE_FILE}"))
    if others := [name for name in others if name not in known]:
        print(f"note: not on the page: {len(others)} runs of other settings, such as {others[0]}")
    suites = dict.fromkeys(suite for one in loaded for suite in one.suites)
    print(f"report: {write_study(folder, suites=tuple(suites))}")
    return int(bool(failed))
