"""A second process reads what the first compiled; folders that cannot be used are refused."""

import subprocess
import sys

import jax
import pytest

from instruct import compilation_cache
from instruct.errors import UserError

PROGRAM = """
import sys, jax, jax.numpy as jnp
from instruct import compilation_cache

compilation_cache._LEAST_COMPILE_SECS = 0.0  # a fast machine may take less than a tenth
compilation_cache.use(sys.argv[1])
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))

@jax.jit
def program(x):
    for _ in range(60):
        x = jnp.tanh(x @ x) + jnp.sort(x)
    return x

print(hits.count("/jax/compilation_cache/cache_hits"), float(program(jnp.ones((9, 9))).sum()))
print(hits.count("/jax/compilation_cache/cache_hits"))
"""


def started(folder) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.slow
def test_a_second_start_compiles_nothing_again(tmp_path):
    folder = tmp_path / "a" / "cache"
    before, value, after = started(folder)
    assert (before, after) == ("0", "0")
    files = sorted(path.name for path in folder.iterdir() if path.name.endswith("-cache"))
    assert any("program" in name for name in files)
    before, same, after = started(folder)
    assert before == "0" and int(after) >= 1 and same == value
    assert files == sorted(p.name for p in folder.iterdir() if p.name.endswith("-cache"))


def test_without_a_folder_jax_s_own_setting_stays():
    before = jax.config.jax_compilation_cache_dir
    compilation_cache.use()
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.parametrize("wrong", ["", 5, "file", "gs://"])
def test_folders_that_cannot_be_used(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    before = jax.config.jax_compilation_cache_dir
    with pytest.raises(UserError, match="COMPILATION_CACHE_DIR"):
        compilation_cache.use(wrong)
    assert jax.config.jax_compilation_cache_dir == before
