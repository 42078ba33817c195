"""Measures the matrix-multiply peak of this machine, the reference for a step's speed.

Measured, because data sheets do not cover shared or throttled machines, and no program reaches a
CPU's figures.
"""

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Sizes grow until one product takes this long: short ones measure launch overhead.
_LONG_ENOUGH_SECS = 0.05
_SIZES = (1024, 2048, 4096, 8192, 16384)
_REPEATS = 5


def matmul_peak(dtype: str = "float32", devices: Sequence[Any] | None = None) -> float:
    """FLOP/s of square matrix products on all devices together, measured once per process.

    Args:
        dtype: of the factors, 'float32' or 'bfloat16', at jax's default precision.
        devices: those of a mesh; None: all. They compute at the same time, since they may share
            cores, memory and power. With several processes this one's devices are measured, and
            the result is scaled to all.
    """
    return _measure(dtype, tuple(jax.devices() if devices is None else devices))


def forget() -> None:
    """Makes the next call measure again: on a shared machine the peak changes."""
    _measure.cache_clear()


@functools.cache
def _measure(dtype: str, devices: tuple[Any, ...]) -> float:
    local = [device for device in devices if device.process_index == jax.process_index()]
    mesh = Mesh(np.asarray(local), ("devices",))
    sharding = NamedSharding(mesh, PartitionSpec("devices"))
    multiply = jax.jit(lambda a: jnp.matmul(a, a), out_shardings=sharding)
    best = 0.0
    for size in _SIZES:
        # Created on the devices: for many devices it would be gigabytes of host memory.
        fill = functools.partial(jnp.full, (len(local), size, size), 0.01, jnp.dtype(dtype))
        factors = jax.jit(fill, out_shardings=sharding)()
        multiply(factors).block_until_ready()
        times = []
        for _ in range(_REPEATS):
            started = time.perf_counter()
            multiply(factors).block_until_ready()
            times.append(time.perf_counter() - started)
            if times[-1] > 10 * _LONG_ENOUGH_SECS:
                break
        best = max(best, 2.0 * size**3 * len(local) / min(times))
        if min(times) >= _LONG_ENOUGH_SECS:
            break
    return best * len(devices) / len(local)
