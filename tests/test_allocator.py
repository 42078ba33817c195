"""Programs that allocate much take no page faults for it again; the user's settings come first."""

import os
import subprocess
import sys
import types

import pytest

from instruct import allocator
from instruct.allocator import keep_freed_memory

OWN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
# 64 MB of temporary arrays a call.
PROGRAM = """
import resource, sys
from instruct.allocator import keep_freed_memory

kept = sys.argv[1] == "keep" and keep_freed_memory()
import jax, jax.numpy as jnp

# A loop's array is in memory, however little there is to compute.
program = jax.jit(lambda x, n: jax.lax.fori_loop(0, n, lambda _, y: y + 1, x[:, None] * x).max())
x = jnp.linspace(0, 1, 4096)
faults = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    program(x, 1).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, min(faults))
"""
RUN = """

from instruct import allocator
from instruct.cli import arguments

arguments.main = lambda: print(allocator.keep_freed_memory.cache_info().misses)
arguments.run_program()
"""


def output(program: str, *arguments: str, **variables: str) -> list[str]:
    environment = {name: v for name, v in os.environ.items() if not name.startswith(OWN)}
    environment |= {"JAX_PLATFORMS": "cpu"} | variables
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's mallopt")
def test_memory_of_one_call_serves_the_next():
    kept, few = output(PROGRAM, "keep")
    left, many = output(PROGRAM, "leave")
    assert (kept, left) == ("True", "False")
    # Blocks that were freed may be a little too small for the first calls.
    assert int(many) > 10_000 and int(few) < int(many) / 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables", [{"MALLOC_ARENA_MAX": "4"}, {"JAX_PLATFORMS": "cuda,cpu"}], ids=["user", "gpu"]
)
def test_settings_of_users_and_accelerators_stay(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not keep_freed_memory.__wrapped__()


def test_older_glibc_keeps_its_own_settings(monkeypatch):
    """One that refuses to map only above 2 GB, where the other settings alone would do harm."""
    asked = []

    def mallopt(parameter, value):
        asked.append(parameter)
        return int(parameter != -3)

    for name in [name for name in os.environ if name.startswith(OWN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    library = types.SimpleNamespace(mallopt=mallopt)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: library)
    assert not keep_freed_memory.__wrapped__()
    assert asked == [-3]


@pytest.mark.slow
def test_run_py_keeps_memory():
    assert output(RUN) == ["1"]
