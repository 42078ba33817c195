"""Jobs of a study for a cluster: lists of its runs, and a script that submits them.

Runs of one *wave* do not depend on each other; a wave starts when the one before it is done. A job
is one run, whose stages launch/stages.sh starts on each machine.
"""

import hashlib
import pathlib
import shlex
from collections.abc import Callable, Sequence

from instruct.files import is_address, replace_file
from instruct.study.plan import RUN_GIN
from instruct.study.runner import PlannedRun

# (STUDY_DIR, folder of the jobs, waves) -> a script without its first lines.
ScriptOf = Callable[[pathlib.Path, pathlib.Path, list[list[PlannedRun]]], str]

SCRIPT = "submit.sh"

# Bash before 4.4 (macOS has 3.2) calls an empty array unbound, hence ${after[@]+...}.
_SLURM_HEAD = """\
# bash {script} [flags of sbatch, such as --partition=gpu --nodes=1]
# An array of jobs a wave; a wave waits until all runs of the wave before it are done.
set -euo pipefail
after=()
"""
_SLURM_WAVE = """\
job="$(sbatch --parsable --array=0-{last} ${{after[@]+"${{after[@]}}"}} "$@" \\
  launch/study.sbatch {runs})"
echo "wave {wave}: job $job, {count} runs"
after=("--dependency=afterok:${{job%%;*}}")
"""
_WAVES_HEAD = """\
# {variables} bash {script} WAVE
# WAVE is 0 to {last}; submit a wave when all runs of the wave before it are done.
set -euo pipefail
wave="${{1:?give a wave, 0 to {last}}}"
case "$wave" in
  {numbers}) ;;
  *) echo "error: there is no wave $wave; give 0 to {last}" >&2; exit 2 ;;
esac
status=0
not_submitted() {{ echo "error: not submitted: $1" >&2; status=1; }}
"""
_XPK_HEAD = """\
# A run has the same workload name each time, and XPK refuses a name that it has already.
# To submit such a run again, first: xpk workload delete --workload=NAME
study="${STUDY:-study}" type="${TYPE:?export TYPE, such as v5p-64}"
"""
_XPK = 'launch/gke_xpk.sh stages "$study-{job}" "$type" "${{SLICES:-1}}" {gin} {stages}'
_SKYPILOT_HEAD = 'study="${STUDY:-study}"\n'
_SKYPILOT = (
    'sky jobs launch --yes --detach-run --name="$study-{job}" '
    "--env=RUN_GIN={gin} --env=STAGES={stages} launch/study_skypilot.yaml"
)


def waves_of(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Runs by the number of runs that must be done before them, one after another."""
    depth: dict[str, int] = {}
    for planned in runs:
        needed = (depth.get(name, -1) for name in planned.run.needs)  # -1: it is done
        depth[planned.name] = 1 + max(needed, default=-1)
    return [[p for p in runs if depth[p.name] == d] for d in range(1 + max(depth.values()))]


def write_jobs(study_dir: pathlib.Path, runs: Sequence[PlannedRun], system: str) -> str:
    """Writes STUDY_DIR/jobs, or jobs/<study> here if STUDY_DIR is in a bucket; says what to do.

    Args:
        runs: those that are not done, earlier ones first; `prepare` wrote their files.
        system: slurm, xpk or skypilot.
    """
    folder = study_dir / "jobs"
    if is_address(study_dir):
        folder = pathlib.Path("jobs") / study_dir.name
    folder.mkdir(parents=True, exist_ok=True)
    waves = waves_of(runs)
    for wave, planned in enumerate(waves):
        replace_file(_list_path(study_dir, folder, wave, planned), _list_of(study_dir, planned))
    script = folder / SCRIPT
    text = "#!/bin/bash\n# Submits the runs of a study, from the checkout's folder:\n"
    replace_file(script, text + _SCRIPTS[system](study_dir, folder, waves))
    return f"{len(runs)} runs: {script} submits them and says how. Then give --collect."


def _list_of(study_dir: pathlib.Path, runs: Sequence[PlannedRun]) -> str:
    """Lines of a run's gin file and its stages."""
    return "".join(f"{study_dir / p.name / RUN_GIN}\t{','.join(p.run.stages)}\n" for p in runs)


def _list_path(
    study_dir: pathlib.Path, folder: pathlib.Path, wave: int, runs: Sequence[PlannedRun]
) -> pathlib.Path:
    """The file of a wave's runs, named by its content.

    A queued job reads its line when it starts, so a later list of other runs is another file.
    """
    return folder / f"wave_{wave}-{_digest(_list_of(study_dir, runs))}.txt"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _slurm(study_dir: pathlib.Path, folder: pathlib.Path, waves: list[list[PlannedRun]]) -> str:
    text = _SLURM_HEAD.format(script=shlex.quote(str(folder / SCRIPT)))
    for wave, runs in enumerate(waves):
        path = shlex.quote(str(_list_path(study_dir, folder, wave, runs)))
        text += _SLURM_WAVE.format(wave=wave, last=len(runs) - 1, count=len(runs), runs=path)
    return text


def _by_wave(variables: str, head: str, command: str) -> ScriptOf:
    """A script that starts the runs of one wave, each by a command."""

    def script(study_dir: pathlib.Path, folder: pathlib.Path, waves: list[list[PlannedRun]]) -> str:
        path = shlex.quote(str(folder / SCRIPT))
        last, numbers = len(waves) - 1, " | ".join(map(str, range(len(waves))))
        fields = {"variables": variables, "script": path, "last": last, "numbers": numbers}
        text = _WAVES_HEAD.format(**fields) + head
        for wave, runs in enumerate(waves):
            text += f'if [[ "$wave" == {wave} ]]; then\n'
            for planned in runs:
                path = str(study_dir / planned.name / RUN_GIN)
                gin, stages = shlex.quote(path), ",".join(planned.run.stages)
                # By the run, not by its place in the list: a later list has other runs there.
                line = command.format(job=_digest(path), gin=gin, stages=stages)
                text += f"  {line} || not_submitted {gin}\n"
            text += "fi\n"
        return text + 'exit "$status"\n'

    return script


_SCRIPTS = {
    "slurm": _slurm,
    "xpk": _by_wave("CLUSTER=... IMAGE=... TYPE=v5p-64", _XPK_HEAD, _XPK),
    "skypilot": _by_wave("STUDY=my-study", _SKYPILOT_HEAD, _SKYPILOT),
}
