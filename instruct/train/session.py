"""A run's folder: who may train in it, and its description beside metrics and checkpoints.

    MODEL_DIR/run.json        command line, versions, commit, device, peak, model, configuration
    MODEL_DIR/mixture.json    requested and realised shares of the mixture, drops and reasons
    MODEL_DIR/config.gin, operative.gin    as given by the caller

Files are replaced atomically, so a reader never sees a partial one.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from instruct.checkpoints.checkpoint_files import check_storable
from instruct.checkpoints.model_fields import record_of
from instruct.checkpoints.trained_run import SPEED_ONLY
from instruct.code_version import code_hash, git_commit
from instruct.distributed import folder_leader
from instruct.errors import UserError
from instruct.files import (
    UPLOAD_SECS,
    any_path,
    is_address,
    locked,
    make_writable,
    remove_leftovers,
    replace_file,
)
from instruct.lineage import FINISHED, read_object

RUN_FILE = "run.json"
MIXTURE_FILE = "mixture.json"
# All that training replaces in the folder.
_FILES = (RUN_FILE, MIXTURE_FILE, "config.gin", "operative.gin", "metrics.jsonl")
_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain"),
    *("seqio", "tensorflow", "tensorflow-cpu", "sentencepiece", "gin-config"),
)


def results_config(**parts: Any) -> dict[str, Any]:
    """Flat JSON of the settings that affect results: {'optimizer.learning_rate': 0.001, ...}."""
    flat: dict[str, Any] = {}
    for name, part in parts.items():
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            part = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        if isinstance(part, Mapping):
            flat |= results_config(**{f"{name}.{key}": value for key, value in part.items()})
        elif name not in SPEED_ONLY:
            flat[name] = part
    # Through JSON, which turns tuples into lists, so that it compares with a file.
    return json.loads(json.dumps(flat, default=str))


def check_same_run(model_dir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Raises UserError if the run in `model_dir` was started with another configuration."""
    info = read_run_info(model_dir)
    earlier = info.get("config")
    if not isinstance(earlier, Mapping):
        return
    absent = "(not set)"
    # Earlier versions had T5's models and sequences only, all records of a task, and each process
    # read what a lane reads.
    absent_then = {
        "model.relpos_per_layer": False,
        "data.lanes": info.get("num_processes", 1),
        "data.layout": "encoder_decoder",
        "data.loss_on": "targets",
        "data.separator": "eos",
        "data.chat_template": False,
        "data.records_share": 1.0,
    }
    earlier = {n: value for n, value in absent_then.items() if n in config} | dict(earlier)
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
    """run.json; {} if it is missing or damaged."""
    return read_object(model_dir / RUN_FILE, warn=lambda state: None)


def restore_run_file(
    model_dir: pathlib.Path, recorded: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Restores a missing, damaged or changed run.json from the checkpoints' copy, if there is one.

    The configuration of a run never changes, and checkpoints hold a hash of their copy.
    """
    path = model_dir / RUN_FILE
    info = read_run_info(model_dir)
    config = info.get("config")
    readable = isinstance(config, Mapping)
    if readable and config == recorded.get("config", config):
        return
    state = "damaged" if path.exists() else "missing"
    if info.get("converted_from"):
        state = "of a converted checkpoint"
    problem = f"{path} {'was changed after training' if readable else f'is {state}'}"
    if not recorded:
        say(f"{problem}: the settings of this run cannot be compared with its earlier ones.")
        return
    if jax.process_index() == 0:
        write_json(path, recorded)
    say(f"{problem}; it is restored from the newest checkpoint.")


def run_info(model: Any, mesh: jax.sharding.Mesh, matmul_peak: float) -> dict[str, Any]:
    """Facts about a starting process; `matmul_peak` in FLOP/s of all devices (`instruct.peak`)."""
    device = mesh.devices.flat[0]
    commit, dirty = git_commit()
    return {
        "command_line": shlex.join(sys.argv),
        "start": _now(),
        "end": None,
        "python": platform.python_version(),
        "versions": package_versions(),
        "commit": commit,
        "commit_dirty": dirty,
        "code_sha256": code_hash(),
        "device": f"{mesh.size} x {device.device_kind}",
        "platform": device.platform,
        "cpu_count": os.cpu_count(),
        "num_processes": jax.process_count(),
        "mesh": dict(mesh.shape),
        "matmul_peak_gflops": round(matmul_peak / 1e9, 1),
        "model": record_of(model),
        "num_params": model.num_params(),
    }


def start_run(model_dir: pathlib.Path, info: Mapping[str, Any], step: int) -> None:
    """Writes run.json; a resumed run keeps its first start and adds a session."""
    earlier = read_run_info(model_dir) if step else {}
    session = {name: info[name] for name in ("command_line", "start", "device", "commit")}
    sessions = [*_sessions(earlier), session | {"from_step": step, "end": None}]
    start = earlier.get("start", info["start"])
    write_json(model_dir / RUN_FILE, {**info, "start": start, "sessions": sessions})


def end_run(model_dir: pathlib.Path, step: int, outcome: str) -> None:
    """Records in run.json when and how the session ended (`FINISHED`, 'stopped by SIGTERM')."""
    info = read_run_info(model_dir)
    ended = {"end": _now(), "outcome": outcome, "step": step}
    sessions = _sessions(info)
    if sessions:
        info["sessions"] = [*sessions[:-1], sessions[-1] | ended]
    write_json(model_dir / RUN_FILE, info | ended)


def end_killed_run(model_dir: pathlib.Path, step: int, outcome: str = FINISHED) -> None:
    """Records that a run ended whose process was killed after the last checkpoint."""
    if read_run_info(model_dir).get("outcome") is None:
        end_run(model_dir, step, outcome)


def _sessions(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The readable sessions of run.json."""
    sessions = info.get("sessions")
    return [one for one in sessions if isinstance(one, dict)] if isinstance(sessions, list) else []


def write_json(path: pathlib.Path, value: Any) -> None:
    """Replaces a JSON file atomically."""
    replace_file(path, json.dumps(value, indent=1, default=str) + "\n")


class JsonFile:
    """A JSON file of a run that is replaced often; in a bucket at most once in `UPLOAD_SECS`."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path, self._written_at, self._pending = path, -math.inf, False
        self._value: Any = None

    def write(self, value: Any) -> None:
        """Replaces the file, or in a bucket remembers the value for the next time."""
        self._value, self._pending = value, True
        if not is_address(self._path) or time.monotonic() - self._written_at >= UPLOAD_SECS:
            self.close()

    def close(self) -> None:
        """Writes a value that is not written yet."""
        if self._pending:
            write_json(self._path, self._value)
            self._pending, self._written_at = False, time.monotonic()


@contextlib.contextmanager
def open_model_dir(path: str) -> Iterator[pathlib.Path]:
    """Context: the run's folder, created if needed, locked against other trainings.

    Raises UserError if it cannot be used or another process trains in it.
    """
    folder = any_path("MODEL_DIR", path).absolute()
    check_storable(folder)
    make_writable("MODEL_DIR", folder)
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(locked(folder, f"MODEL_DIR {path!r}"))
            remove_leftovers(folder, *_FILES)
        if folder_leader("MODEL_DIR", folder) != 0:
            raise UserError(
                f"MODEL_DIR {str(folder)!r} is another folder on this machine than on process 0's. "
                "Give a folder that all machines share."
            )
        yield folder


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def package_versions() -> dict[str, str]:
    """Versions of the packages that affect results."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
