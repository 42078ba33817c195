"""Saving and resuming alone, without a training loop: a tenth of the time of a run."""

import pathlib
import sys
from typing import Any

from tests.faults import oracle
from tests.faults.processes import WRITES, counting, run, value_of

LAST = 5  # step; every step is saved
_SIZE = 3000


def _state(step: int):
    import jax
    import jax.numpy as jnp
    import numpy as np

    from instruct.checkpoints.train_state import TrainState

    draw = np.random.default_rng(step)
    params = {name: {"kernel": draw.random((30, _SIZE // 30), np.float32)} for name in ("a", "b")}
    slots = jax.tree.map(lambda leaf: {"v": leaf.sum(axis=0)}, params)
    return jax.tree.map(jnp.asarray, TrainState(np.int32(step), params, slots))


def resume_and_save(folder: pathlib.Path, last: int = LAST, keep: int = 2) -> int:
    """Resumes from the newest whole checkpoint and saves the steps after it; prints the former.

    Returns the exit status: 1 with a message if the storage failed.
    """
    import jax
    import numpy as np

    from instruct.checkpoints.checkpoint import CheckpointConfig, CheckpointStore
    from instruct.cli.arguments import _report_unraisable
    from instruct.errors import RunFailed, explaining_storage_failures

    sys.unraisablehook = _report_unraisable
    retries = {"save_retries": 2, "first_retry_secs": 0.01}
    try:
        with explaining_storage_failures():
            store = CheckpointStore(folder, CheckpointConfig(keep=keep, keep_best=0, **retries))
            start = 0
            try:
                if store.steps():
                    resumed = store.resume_newest(_state(0), False, print)
                    store.remove_old()
                    start = resumed.step
                    same = jax.tree.map(np.array_equal, resumed.state, _state(start))
                    assert all(jax.tree.leaves(same)), f"another state than step {start} had"
                    assert resumed.input == {"at": start}, resumed.input
                print(f"resumed {start}", flush=True)
                for step in range(start + 1, last + 1):
                    store.save(step, _state(step), {"at": step})
            finally:
                store.close()
    except RunFailed as error:
        print(f"error: {error}")
        return 1
    return 0


def live(folder: pathlib.Path) -> tuple[dict[str, Any], int, float]:
    """(checkpoints of all steps, storage calls, seconds) of an undisturbed run below a folder."""
    checkpoints = folder / "checkpoints"
    ended = run(
        lambda: resume_and_save(checkpoints, keep=99), folder, counting(checkpoints, WRITES)
    )
    if ended.status:
        raise RuntimeError(ended.text)
    steps = [str(step) for step in range(1, LAST + 1)]
    read = lambda: {step: oracle.whole_checkpoint(checkpoints / step) for step in steps}  # noqa: E731
    return value_of(read, folder), ended.calls, ended.secs
