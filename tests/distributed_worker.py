"""A process of a made-up run, for `tests/test_distributed.py`: joins, agrees, steps, misbehaves.

    python -m tests.distributed_worker MODE COORDINATOR NUM_PROCESSES PROCESS_ID

The process with the highest number misbehaves as MODE says: ok, die, hang, fail, differ, sigterm;
with `die0` process 0 does, and with `problem` all but process 0 have one. Two fake CPU devices
each; a step is one sum over all devices.
"""

import os
import signal
import sys
import time

from instruct import distributed
from instruct.errors import UserError
from tests.waiting import LIMIT_SECS


def main() -> int:
    mode, address = sys.argv[1:3]
    count, number = (int(word) for word in sys.argv[3:])
    last = number == count - 1
    # No process is late or dead because the machine is slow; that one died is seen at once.
    hang_secs = 5 if mode == "hang" else 0
    config = distributed.ClusterConfig(
        address, count, number, startup_secs=LIMIT_SECS, dead_secs=LIMIT_SECS, hang_secs=hang_secs
    )
    distributed.start(config)
    distributed.watch_preemption()

    import jax
    import numpy as np
    from jax.experimental import multihost_utils
    from jax.sharding import NamedSharding, PartitionSpec

    if mode == "problem":
        problem = "no file" if number else ""
        print(distributed.first_problem(problem), distributed.first_problem("of all"), sep="; ")
        print(f"none: {distributed.first_problem('')!r}")
    distributed.agree("start", {"code": "abc", "lr": 0.1 if mode == "differ" and last else 0.2})
    mesh = jax.make_mesh((2 * count,), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.make_array_from_process_local_data(rows, np.full((2,), number + 1.0, np.float32))
    total = jax.jit(lambda x: x.sum(), out_shardings=NamedSharding(mesh, PartitionSpec()))
    # The processes compile and find each other, however long it takes: no step that hangs.
    total(x).block_until_ready()
    distributed.barrier("compiled")
    for step in range(1, 10_000):
        value = total(x)
        distributed.report_progress(step)
        value.block_until_ready()
        if step == 10 and last:
            if mode == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if mode == "hang":
                time.sleep(1000)
            if mode == "fail":
                distributed.leave(1, "the disk is full")
                return 1
            if mode == "sigterm":
                os.kill(os.getpid(), signal.SIGTERM)
        if step == 10 and number == 0 and mode == "die0":
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "sigterm" and multihost_utils.reached_preemption_sync_point(step):
            print(f"stopped at {step}", flush=True)
            break
        if mode == "problem":
            break
        if mode == "ok" and step == 20:
            print(f"total {float(value):g}", flush=True)
            break
        time.sleep(0.05)
    distributed.barrier("end")
    distributed.leave(0)
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        status = 2
    os._exit(status)
