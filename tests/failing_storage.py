"""A storage that fails on demand: `failing_storage.c`, compiled and preloaded.

    python -m tests.failing_storage FOLDER

saves checkpoints below FOLDER while calls fail, in a process that has the library preloaded, and
prints one JSON line a fault: what was raised, and what the next start found.
"""

import ctypes
import errno
import json
import pathlib
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(__file__).with_suffix(".c")
NUMBERS = ("EIO", "EROFS", "EDQUOT", "EACCES", "ESTALE", "ENOENT", "ENOSPC", "ENXIO")
KINDS = ("write", "rename", "fsync", "open", "mkdir")
FAULTS_A_KIND = 4
# In place of an errno: SIGKILL; SIGKILL after half of a write; a jump of the wall clock.
KILL, TEAR, JUMP = -1, -2, -3


def compiled(folder: pathlib.Path) -> pathlib.Path | None:
    """The library, or None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    library = folder / "failing_storage.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def arm(folder: pathlib.Path, kind: str, number: int, call: int, for_ever: bool) -> None:
    """The `call`-th call of that kind below `folder` fails, and those after it if `for_ever`."""
    ctypes.CDLL(None).arm(str(folder).encode(), kind.encode(), number, call, int(for_ever))


def set_jump(secs: int) -> None:
    """The wall clock is off by this many seconds after a call that was armed with `JUMP`."""
    ctypes.CDLL(None).set_jump(ctypes.c_long(secs))


def calls_seen() -> int:
    """Calls below the armed folder so far."""
    return ctypes.CDLL(None).calls_seen()


def disarm() -> int:
    """Nothing fails any more; returns how many calls were seen."""
    library = ctypes.CDLL(None)
    library.arm(b"", b"", 0, 0, 0)
    return library.calls_seen_before()


def main(folder: pathlib.Path) -> None:
    """Faults spread over all calls of a save, every kind and number among them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from instruct.checkpoints.checkpoint import CheckpointConfig, CheckpointStore
    from instruct.checkpoints.train_state import TrainState
    from instruct.cli.arguments import _report_unraisable

    sys.unraisablehook = _report_unraisable

    def state(step: int) -> TrainState:
        params = {"scale": jax.random.normal(jax.random.key(step), (3000,))}
        return TrainState(jnp.int32(step), params, {"scale": {"v": jnp.ones(3000)}})

    def save(store: CheckpointStore) -> Exception | None:
        try:
            store.save(2, state(2), {"at": 2})
            store.wait()
        except Exception as error:
            return error
        finally:
            store.close()
        return None

    for kind in KINDS:
        total = 0
        for fault in range(-1, FAULTS_A_KIND):
            run = folder / f"{kind}{fault}"
            retry = {"save_retries": 2, "first_retry_secs": 0.01}
            store = CheckpointStore(run, CheckpointConfig(async_save=fault % 2 == 0, **retry))
            store.save(1, state(1), {"at": 1})
            store.wait()
            name = NUMBERS[(fault + KINDS.index(kind)) % len(NUMBERS)]
            # The first round only counts the calls.
            call = 10**9 if fault < 0 else 1 + fault * (total - 1) // (FAULTS_A_KIND - 1)
            arm(run, kind, getattr(errno, name), call, for_ever=fault % 3 == 0)
            error = save(store)
            seen = disarm()
            if fault < 0:
                assert error is None and seen, (kind, error)
                total = seen
                continue
            again = CheckpointStore(run)
            newest = again.resume_newest(state(0), True, print)
            same = jax.tree.map(np.array_equal, newest.state, state(newest.step))
            assert save(again) is None and again.steps() == [1, 2]
            report = {"kind": kind, "name": name, "call": call, "newest": newest.step}
            report |= {"same": all(jax.tree.leaves(same))}
            report |= {"error": type(error).__name__, "errno": getattr(error, "errno", None)}
            report |= {"text": str(error), "filename": getattr(error, "filename", None)}
            print(json.dumps(report))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
