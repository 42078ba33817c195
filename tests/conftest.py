"""Shared test settings: eight fake CPU devices, no network, no user folders."""

import atexit
import os
import shutil
import tempfile

from tests.xla_flags import QUICK_COMPILATION

# Before the first import of jax anywhere in the test process.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + f" --xla_force_host_platform_device_count=8 {QUICK_COMPILATION}"
    # Eight devices share two cores: on a busy machine a thread may come late, and is waited for.
    + " --xla_cpu_collective_call_warn_stuck_timeout_seconds=120"
    + " --xla_cpu_collective_call_terminate_timeout_seconds=900"
)
os.environ["JAX_PLATFORMS"] = "cpu"
# Threads of torch and of NumPy's products spin while they wait for one another, which takes three
# times the work of small arrays where all cores are busy.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.pop("INSTRUCT_FLAN_CHECKOUT", None)
if "PYTEST_XDIST_WORKER" not in os.environ:
    # Equal programs compile once for all tests, workers of pytest-xdist and child processes. A file
    # that a killed process left unfinished is a warning of JAX, and the program compiles again.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="instruct-tests-xla-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import collections
import gc
import pathlib
import subprocess
import sys
import uuid
from typing import Any

import pytest

from tests.gcs_emulator import GcsEmulator
from tests.program_server import client_text
from tests.workspaces import workspace

gc.disable()  # imports leave no garbage worth a search; `pytest_collection_finish` enables it

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the longest slow tests first, so that the workers of pytest-xdist end together."""
    secs = collections.Counter()
    for item in items:
        if marker := item.get_closest_marker("slow"):
            secs[item.path] += marker.kwargs.get("secs", 1)
    items.sort(key=lambda item: -secs[item.path])


def pytest_collection_finish() -> None:
    """Takes the imported libraries out of garbage collection, a seventh of the time of a trace."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()
    _keep_programs()


def _keep_programs() -> None:
    """Programs that this process took from JAX's cache on disk, or put there, stay loaded.

    To load one takes half as long as to compile it, and tests need equal ones many times.
    """
    if "jax" not in sys.modules:
        return
    from jax._src import compilation_cache, config

    read = compilation_cache.get_executable_and_time
    write = compilation_cache.put_executable_and_time
    loaded: dict[Any, Any] = {}

    def keep(place: Any, found: Any) -> None:
        loaded.pop(place, None)
        loaded[place] = found
        if len(loaded) > 256:
            del loaded[next(iter(loaded))]  # the one that was not used for longest

    def read_once(key: str, *rest: Any) -> Any:
        place = (config.compilation_cache_dir.value, key)
        found = loaded.get(place) or read(key, *rest)
        if found[0] is not None:
            keep(place, found)
        return found

    def write_and_keep(key: str, name: str, executable: Any, backend: Any, secs: int) -> None:
        write(key, name, executable, backend, secs)
        keep((config.compilation_cache_dir.value, key), (executable, secs))

    compilation_cache.get_executable_and_time = read_once
    compilation_cache.put_executable_and_time = write_and_keep


@pytest.fixture(autouse=True)
def _private_folders(tmp_path, monkeypatch):
    """Stores and data of the person who runs the tests are never touched, by SeqIO neither."""
    monkeypatch.setenv("INSTRUCT_STORE_DIR", str(tmp_path / "stores"))
    monkeypatch.delenv("INSTRUCT_DATA_DIR", raising=False)
    bridge = sys.modules.get("instruct.data.seqio.bridge")
    if bridge is not None:
        monkeypatch.setattr(bridge.RecordTask, "workspace", workspace())


@pytest.fixture(scope="session")
def _gcs_server():
    # TensorStore reads these variables once in a process.
    from instruct import buckets

    with GcsEmulator() as emulator, pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "_RETRIES", buckets._RETRIES | {"initial_delay": "10ms"})
        for name, value in emulator.environment().items():
            patch.setenv(name, value)
        yield emulator


@pytest.fixture
def gcs(_gcs_server):
    """An emulated Google Cloud Storage with the empty bucket gs://bucket, without errors."""
    _gcs_server.clear()
    yield _gcs_server
    _gcs_server.clear()


@pytest.fixture(scope="session")
def forked_python(tmp_path_factory):
    """A `python` whose programs have imported the project when they start (`program_server`)."""
    path, name = tmp_path_factory.mktemp("bin") / "python", uuid.uuid4().hex
    path.write_text(client_text(name))
    path.chmod(0o755)
    with (path.parent / "server.log").open("w+") as errors:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.program_server", name],
            cwd=ROOT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # with one no thread is started
            stdin=subprocess.PIPE,  # ends with this process, however that ends
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n", errors.seek(0) or errors.read()
            yield path
        finally:
            server.kill()
            server.communicate()


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Folder of small real public files; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"small real data not found at {SHARED_DATA}")
    return SHARED_DATA
