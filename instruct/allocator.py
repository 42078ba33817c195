"""The C library's allocator on CPUs: memory that a program frees stays with the process.

XLA allocates the buffers of a compiled program anew at every call. glibc maps those above 32 MB
from the system and returns them afterwards, so that the next call takes a page fault, with zeroing,
for every 4 KB: a fifth to a third of a training step's CPU seconds (docs/performance.md).
"""

import ctypes
import functools
import importlib.util
import os

# mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_ARENA_MAX. glibc before 2.35 refuses the
# first. It comes first because the second alone would hold glibc's own threshold at 128 KB, so that
# it maps more. Without the last, each thread allocates from heaps of 64 MB and maps what does not
# fit.
_SETTINGS = {-3: 2**31 - 1, -1: 2**31 - 1, -8: 1}
_USERS_OWN = ("MALLOC_", "LD_PRELOAD")
_HUGE_PAGES = "glibc.malloc.hugetlb="  # goes well with these settings


@functools.cache
def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory of any size below 2 GB, in the whole process; True if it did.

    Call it before JAX starts its threads (`jax.devices()`): their heaps stay as they are. Without
    effect where JAX may find an accelerator, where the environment sets the allocator (MALLOC_*,
    LD_PRELOAD, or more in GLIBC_TUNABLES than huge pages), and where the C library is not glibc
    2.35 or newer.
    """
    tunables = filter(None, os.environ.get("GLIBC_TUNABLES", "").split(":"))
    is_set = any(name.startswith(_USERS_OWN) for name in os.environ)
    if is_set or not all(t.startswith(_HUGE_PAGES) for t in tunables) or not only_cpus():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda parameter, value: 0)
    return all(mallopt(*setting) == 1 for setting in _SETTINGS.items())


def only_cpus() -> bool:
    """Whether JAX computes on CPUs, without starting a backend."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    return not any(map(importlib.util.find_spec, ("libtpu", "jax_plugins")))
