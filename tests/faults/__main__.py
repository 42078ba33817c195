"""`python -m tests.faults`: random faults, one line each, and a table; status 1 if one fails."""

import argparse
import collections
import gc
import importlib
import itertools
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
_PRELOADED = "failing_storage.so"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="fewest faults (default 200)")
    parser.add_argument(
        "--family", default="encoder_decoder", help="the model's: encoder_decoder or decoder"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first trial; each later one has the next number"
    )
    parser.add_argument(
        "--kinds", default="", help="comma-separated; default: all, by their shares"
    )
    parser.add_argument(
        "--folder",
        type=pathlib.Path,
        help="for the undisturbed life, faults.jsonl, and what failed trials left; the same folder "
        "resumes (default: a temporary one)",
    )
    return parser.parse_args()


def _restart_with_library(folder: pathlib.Path) -> None:
    """Starts this program again with the library that fails preloaded, and one thread."""
    from tests.failing_storage import compiled
    from tests.xla_flags import QUICK_COMPILATION

    library = compiled(folder)
    if library is None:
        sys.exit("the faults need a C compiler on Linux, for the library that fails")
    settings = {
        "LD_PRELOAD": str(library),
        "PYTHONPATH": str(ROOT),
        # Numpy's threads; TensorFlow's messages.
        "OPENBLAS_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {QUICK_COMPILATION}",
    }
    arguments = [*sys.argv[1:], f"--folder={folder}"]
    os.chdir(ROOT)
    os.execve(
        sys.executable,
        [sys.executable, "-m", "tests.faults", *arguments],
        os.environ | settings,
    )


def _import_program(folder: pathlib.Path) -> None:
    """Imports all that the children need, and starts no thread."""
    import jax

    from instruct import peak
    from instruct.cli import eval, infer, prepare, report, train  # noqa: F401
    from instruct.cli.settings import TASK_MODULES
    from instruct.train import session

    for module in (*TASK_MODULES, "tests.faults.tasks"):
        importlib.import_module(module)
    session.git_commit = lambda: (None, None)
    peak.matmul_peak = lambda *_: 1e9  # measuring it takes longer than the runs
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    gc.collect()
    gc.freeze()  # children need not go through these objects


def _order(kinds: list[str]) -> list[str]:
    """The kinds by their shares, spread evenly; trial n is of kind n modulo the length."""
    from tests.faults.kinds import KINDS

    spread = [((i + 0.5) / KINDS[kind][1], kind) for kind in kinds for i in range(KINDS[kind][1])]
    return [kind for _, kind in sorted(spread)]


def main() -> int:
    flags = _parse()
    if _PRELOADED not in os.environ.get("LD_PRELOAD", ""):
        folder = flags.folder or pathlib.Path(tempfile.mkdtemp(prefix="faults-"))
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        _restart_with_library(folder)
    folder: pathlib.Path = flags.folder / flags.family
    folder.mkdir(exist_ok=True)
    del os.environ["LD_PRELOAD"]  # not for programs that the program starts
    _import_program(folder)
    from tests.faults.commands import MODELS, Base
    from tests.faults.kinds import KINDS, Trial

    if flags.family not in MODELS:
        sys.exit(f"unknown family {flags.family}; there are {', '.join(MODELS)}")
    kinds = flags.kinds.split(",") if flags.kinds else list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        sys.exit(f"unknown kinds {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    base = Base(folder / "undisturbed", flags.family)
    record = folder / "faults.jsonl"
    lines = record.read_text().splitlines() if record.exists() else []
    done = {(fault["kind"], fault["seed"]): fault for fault in map(json.loads, lines)}
    faults, num_faults = [], 0
    for number, kind in zip(itertools.count(), itertools.cycle(_order(kinds))):
        if num_faults >= flags.faults:
            break
        seed = flags.seed + number
        if (kind, seed) not in done:
            place = folder / f"{kind}-{seed}"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            trial = Trial(base, place, random.Random(f"{kind} {seed}"))
            began = time.monotonic()
            try:
                KINDS[kind][0](trial)
            except Exception as error:
                trial.problems.append(f"the trial itself failed: {type(error).__name__}: {error}")
            fault = {"kind": kind, "seed": seed, "what": trial.what, "victim": trial.victim}
            fault |= {"num_faults": trial.num_faults, "problems": trial.problems}
            fault |= {"secs": round(time.monotonic() - began, 1)}
            with record.open("a") as stream:
                stream.write(json.dumps(fault) + "\n")
            done[kind, seed] = fault
            if not trial.problems:
                shutil.rmtree(place, ignore_errors=True)
            _show(fault)
        faults.append(done[kind, seed])
        num_faults += faults[-1]["num_faults"]
    _table(faults)
    return int(any(fault["problems"] for fault in faults))


def _show(fault: dict) -> None:
    state = "FAILED" if fault["problems"] else "ok"
    print(
        f"{state:6} --kinds={fault['kind']} --seed={fault['seed']}  {fault['what']}-> "
        f"{fault['victim']}{fault['secs']} s",
        flush=True,
    )
    for problem in fault["problems"]:
        print(f"     {problem}", flush=True)


def _table(faults: list[dict]) -> None:
    """A line a kind: trials, their faults, processes killed or stopped with a message, failures."""
    rows = collections.defaultdict(list)
    for fault in faults:
        rows[fault["kind"]].append(fault)
    head = ("kind", "trials", "faults", "killed", "refused", "failed", "secs")
    print(("{:20}" + "{:>8}" * 6).format(*head))
    for kind, entries in [*sorted(rows.items()), ("all", faults)]:
        injected = sum(fault["num_faults"] for fault in entries)
        killed = sum(fault["victim"].count("was killed") for fault in entries)
        refused = sum(fault["victim"].count(" said ") for fault in entries)
        failed = sum(bool(fault["problems"]) for fault in entries)
        secs = round(sum(fault["secs"] for fault in entries))
        numbers = (len(entries), injected, killed, refused, failed, secs)
        print(("{:20}" + "{:8d}" * 6).format(kind, *numbers))


if __name__ == "__main__":
    sys.exit(main())
