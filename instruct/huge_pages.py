"""Huge pages for the large arrays of a process.

XLA allocates a program's temporary memory anew at each call on a CPU, and the C library returns it
to the kernel afterwards. In pages of 4 KiB a training step then takes a page fault for each, a
fifth to a third of its CPU seconds (docs/performance.md).
"""

import os
import pathlib
import sys

_SETTING = "glibc.malloc.hugetlb"
_KERNEL_MODE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Restarts this process with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`, which is read at start.

    Call it first, before anything is imported that takes time. Returns without a restart where the
    setting is given (0 declines) or the kernel does not give huge pages on request ('madvise').
    Other C libraries than glibc from 2.35 on ignore the setting.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    try:
        on_request = "[madvise]" in _KERNEL_MODE.read_text()
    except OSError:  # no Linux
        return
    if _SETTING in tunables or not on_request or not sys.executable:
        return
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{_SETTING}=1".lstrip(":")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
