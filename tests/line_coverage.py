"""pytest plugin: line coverage of `instruct`, measured by SlipCover and reported by coverage.py.

    python -m pytest -p tests.line_coverage

SlipCover puts a probe before each line of `instruct`, which costs nothing elsewhere. On Python 3.11
the tracer of coverage.py sees every line of every module and takes half as long as the tests.
"""

import io
import pathlib

import coverage
import pytest
import slipcover
from slipcover.importer import FileMatcher, ImportManager

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCE = ROOT / "instruct"
DATA_FILE = ROOT / ".coverage"

# A probe stays, and does nothing, once its line has run: removing it would replace the code of
# functions that are running.
_KEEP = -1
_probes = slipcover.Slipcover(d_miss_threshold=_KEEP)
# pytest loads this plugin before conftest.py imports anything of `instruct`.
ImportManager(_probes, FileMatcher([SOURCE])).__enter__()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        for stale in ROOT.glob(f"{DATA_FILE.name}.*"):
            stale.unlink()


def pytest_sessionfinish() -> None:
    """Writes the lines that ran in this process; of files that nothing imported none did."""
    files = _probes.get_coverage()["files"]
    data = coverage.CoverageData(str(DATA_FILE), suffix=True)
    data.add_lines({str(ROOT / name): file["executed_lines"] for name, file in files.items()})
    data.touch_files([str(path) for path in SOURCE.rglob("*.py")])
    data.write()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Combines what the processes of pytest-xdist wrote, and prints the table."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # workers come here as well, and would combine what the others have not written yet
    total = coverage.Coverage(str(DATA_FILE), config_file=str(ROOT / "setup.cfg"))
    total.combine([str(ROOT)])
    total.save()
    table = io.StringIO()
    total.report(file=table)
    terminalreporter.section("coverage")
    terminalreporter.write(table.getvalue())
