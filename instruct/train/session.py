"""What a run leaves besides metrics and checkpoints, and whether it may go on.

    MODEL_DIR/run.json        command line, versions, commit, device, peak, model, configuration
    MODEL_DIR/mixture.json    asked and realised shares of the mixture, drops and why
    MODEL_DIR/config.gin, operative.gin    as given by the caller

All are replaced whole, so a reader never sees half a file.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from instruct.checkpoints.checkpoint_files import check_storable
from instruct.checkpoints.trained_run import SPEED_ONLY
from instruct.errors import UserError
from instruct.files import local_path, locked, make_writable, replace_file
from instruct.json_text import parse_json

RUN_FILE = "run.json"
MIXTURE_FILE = "mixture.json"
_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "grain",
    "seqio",
    "tensorflow",
    "tensorflow-cpu",
    "sentencepiece",
    "gin-config",
)


def results_config(**parts: Any) -> dict[str, Any]:
    """Flat JSON of all that results hang on: {'optimizer.learning_rate': 0.001, ...}.

    Args:
        parts: dataclasses, mappings or plain values by name.
    """
    flat: dict[str, Any] = {}
    for name, part in parts.items():
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            part = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        if isinstance(part, Mapping):
            flat |= results_config(**{f"{name}.{key}": value for key, value in part.items()})
        elif name not in SPEED_ONLY:
            flat[name] = part
    # What JSON makes of it (tuples become lists), so that comparison with a file is fair.
    return json.loads(json.dumps(flat, default=str))


def check_same_run(model_dir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Raises UserError if the run in `model_dir` was started with another configuration."""
    earlier = read_run_info(model_dir).get("config")
    if not isinstance(earlier, Mapping):
        return
    absent = "(not set)"
    changed = [
        f"{name}: {earlier.get(name, absent)!r} there, {config.get(name, absent)!r} now"
        for name in sorted(set(earlier) | set(config))
        if earlier.get(name, absent) != config.get(name, absent)
    ]
    if changed:
        shown = "; ".join(changed[:8]) + (f"; {len(changed) - 8} more" if changed[8:] else "")
        raise UserError(
            f"MODEL_DIR {str(model_dir)!r} holds a run with another configuration ({shown}). "
            "Give the first one again, or a new MODEL_DIR; to start from these parameters give "
            "the new one INITIAL_CHECKPOINT_PATH as well."
        )


def read_run_info(model_dir: pathlib.Path) -> dict[str, Any]:
    """run.json, or {} where there is none or it cannot be read."""
    try:
        info = parse_json((model_dir / RUN_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def restore_run_file(
    model_dir: pathlib.Path, recorded: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Writes run.json from a checkpoint's copy where it is missing or damaged.

    Args:
        model_dir: of a run that has checkpoints.
        recorded: what it held when a checkpoint was written; empty: not known.
        say: takes a line for the user.
    """
    path = model_dir / RUN_FILE
    if isinstance(read_run_info(model_dir).get("config"), Mapping):
        return
    problem = f"{path} is {'damaged' if path.exists() else 'missing'}"
    if not recorded:
        say(f"{problem}: the settings of this run cannot be compared with those it had before.")
        return
    if jax.process_index() == 0:
        write_json(path, recorded)
    say(f"{problem}; it is restored from the newest checkpoint.")


def run_info(model: Any, mesh: jax.sharding.Mesh, matmul_peak: float) -> dict[str, Any]:
    """What is known when a process starts training.

    Args:
        model: `ModelConfig`.
        mesh: devices.
        matmul_peak: FLOP/s of all devices, see `instruct.peak`.
    """
    device = mesh.devices.flat[0]
    commit, dirty = _git_commit()
    return {
        "command_line": shlex.join(sys.argv),
        "start": _now(),
        "end": None,
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": commit,
        "commit_dirty": dirty,
        "device": f"{mesh.size} x {device.device_kind}",
        "platform": device.platform,
        "cpu_count": os.cpu_count(),
        "num_processes": jax.process_count(),
        "mesh": dict(mesh.shape),
        "matmul_peak_gflops": round(matmul_peak / 1e9, 1),
        "model": dataclasses.asdict(model),
        "num_params": model.num_params(),
    }


def start_run(
    model_dir: pathlib.Path,
    info: Mapping[str, Any],
    step: int,
    texts: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Writes `texts` and run.json; a resumed run keeps its first start and lists every session."""
    for name, text in texts.items():
        replace_file(model_dir / name, text)
    earlier = read_run_info(model_dir) if step else {}
    session = {name: info[name] for name in ("command_line", "start", "device", "commit")}
    sessions = [*_sessions(earlier), session | {"from_step": step, "end": None}]
    start = earlier.get("start", info["start"])
    write_json(model_dir / RUN_FILE, {**info, "start": start, "sessions": sessions})


def end_run(model_dir: pathlib.Path, step: int, outcome: str) -> None:
    """Adds to run.json when and how the session ended ('finished', 'stopped by SIGTERM', ...)."""
    info = read_run_info(model_dir)
    ended = {"end": _now(), "outcome": outcome, "step": step}
    sessions = _sessions(info)
    if sessions:
        info["sessions"] = [*sessions[:-1], sessions[-1] | ended]
    write_json(model_dir / RUN_FILE, info | ended)


def _sessions(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sessions of run.json that are readable as such."""
    found = info.get("sessions")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def write_json(path: pathlib.Path, value: Any) -> None:
    """Replaces a JSON file whole."""
    replace_file(path, json.dumps(value, indent=1, default=str) + "\n")


def make_model_dir(path: str) -> pathlib.Path:
    """The run's folder, made if needed.

    Raises:
        UserError: it is no folder of this machine or cannot be written.
    """
    folder = local_path("MODEL_DIR", path).absolute()
    check_storable(folder)
    make_writable("MODEL_DIR", folder)
    return folder


@contextlib.contextmanager
def open_model_dir(path: str) -> Iterator[pathlib.Path]:
    """The run's folder, made if needed, and kept from other trainings while the block runs.

    Raises:
        UserError: see `make_model_dir`; or another process trains in it.
    """
    folder = make_model_dir(path)
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(locked(folder, f"MODEL_DIR {path!r}"))
        yield folder


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> tuple[str | None, bool | None]:
    """(commit, whether files differ from it) of this program, (None, None) outside of git."""
    folder = pathlib.Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():  # installed, perhaps below another project's checkout
        return None, None

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit, bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None
