"""The restart with huge pages: once, with the same arguments, only where it is of use."""

import os
import subprocess
import sys

import pytest

from instruct import huge_pages

PROGRAM = """
import os, pathlib, sys
from instruct import huge_pages
huge_pages._KERNEL_MODE = pathlib.Path(sys.argv[1])
huge_pages.use_huge_pages()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[2:])
"""
ON_REQUEST = "always [madvise] never\n"


@pytest.mark.parametrize(
    ("mode", "tunables", "expected"),
    [
        (ON_REQUEST, None, "glibc.malloc.hugetlb=1"),
        (ON_REQUEST, "glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        (ON_REQUEST, "glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
        ("[always] madvise never\n", None, None),
        ("always madvise [never]\n", None, None),
    ],
)
def test_a_process_restarts_in_place_where_the_kernel_gives_huge_pages_on_request(
    tmp_path, mode, tunables, expected
):
    path = tmp_path / "enabled"
    path.write_text(mode)
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    environment |= {"GLIBC_TUNABLES": tunables} if tunables else {}
    command = [sys.executable, "-c", PROGRAM, str(path), "--a b", "c"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        output = process.communicate()[0]
    assert output == f"{process.pid} {expected} ['--a b', 'c']\n" and process.returncode == 0


def test_a_kernel_without_huge_pages_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(huge_pages, "_KERNEL_MODE", tmp_path / "missing")
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("restarted"))
    huge_pages.use_huge_pages()
