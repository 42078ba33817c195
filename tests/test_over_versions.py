"""The row that `make bench` appends: figures from the benchmarks' JSON, holes that are said."""

import pathlib
import sys

import pytest

from benchmarks import over_versions
from benchmarks.over_versions import Benchmark
from tests.waiting import is_running, wait_until

PAGE = """# Speed

## Over versions

Text.

| date | commit | jax | CPU | old | share | ratio |
|---|---|---|---|---|---|---|
| 2020-01-01 | abc | 0.1 | one | 1 | 2 | 3 |

## After

| another | table |
|---|---|
"""


def benchmark(script: pathlib.Path, text: str, **settings) -> Benchmark:
    script.write_text(text)
    columns = settings.pop("columns", {"share": ("peak_share",)})
    return Benchmark(script.stem, (str(script), "{folder}"), columns, **settings)


def rows(page: pathlib.Path) -> list[dict[str, str]]:
    section = page.read_text().split(over_versions.HEADING)[1].split("## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, own, strict=True)) for own in cells]


def test_a_row_holds_the_figures_and_says_what_is_missing(tmp_path, monkeypatch, capsys):
    benchmarks = [
        benchmark(
            tmp_path / "good.py", "print('| a table |\\n{\"peak_share\": 0.5214}')", form="{:.1%}"
        ),
        benchmark(
            tmp_path / "bad.py",
            "import sys; print('{}'); sys.exit('no such file')",
            columns={"ratio": ("ours", 0)},
        ),
    ]
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    monkeypatch.setattr(sys, "argv", ["over_versions.py", "--page", str(page)])
    assert over_versions.main(benchmarks) == 1
    old, new = rows(page)
    assert old["old"] == "1"
    assert (new["share"], new["ratio"], new["old"]) == ("52.1%", "failed", "not run")
    assert all(new[column] for column in over_versions.VERSION_COLUMNS)
    assert "exit status 1: no such file" in capsys.readouterr().err
    assert page.read_text().replace(page.read_text().splitlines()[9] + "\n", "") == PAGE

    monkeypatch.setattr(sys, "argv", ["over_versions.py", "--only", "good", "--page", str(page)])
    assert over_versions.main(benchmarks) == 0
    assert [row["ratio"] for row in rows(page)] == ["3", "failed", "not run"]


def test_a_figure_is_read_or_its_reason_said(tmp_path):
    silent = benchmark(tmp_path / "silent.py", "")
    other = benchmark(tmp_path / "other.py", "print('{\"secs\": 1}')")
    for kind in (silent, other):
        assert "unexpected output" in over_versions.run(kind)
    text = "import pathlib, sys; pathlib.Path(sys.argv[1], 'log').write_text('{\"peak_share\": 1}')"
    ratio = benchmark(
        tmp_path / "ratio.py",
        'print(\'{"ours": {"rate": 6}, "theirs": [4]}\')',
        columns={"ratio": (("ours", "rate"), ("theirs", 0))},
    )
    assert over_versions.run(ratio) == {"ratio": "1.50"}
    written = benchmark(tmp_path / "written.py", text, output="{folder}/log")
    assert over_versions.run(written) == {"share": "1.00"}


@pytest.mark.slow
def test_what_a_slow_benchmark_started_ends_with_it(tmp_path):
    started = tmp_path / "started"
    text = (
        "import pathlib, subprocess\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        f"pathlib.Path({str(started)!r}).write_text(str(child.pid))\n"
        "child.wait()"
    )
    limits = (limit for limit in (2, 20, 200))  # a busy machine may start less in two seconds
    while not started.exists():
        limit = next(limits)
        slow = benchmark(tmp_path / "slow.py", text, limit_secs=limit)
        assert over_versions.run(slow) == f"no result in {limit} s"
    wait_until(lambda: not is_running(int(started.read_text())))


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("# Speed\n", "no section"),
        ("## Over versions\n\n## After\n\n| share |\n|---|\n", "no table"),
        (PAGE.replace("share", "part"), "no column share"),
    ],
)
def test_a_page_without_a_place_for_the_row_is_refused(page, message):
    with pytest.raises(ValueError, match=message):
        over_versions.with_row(page, {"share": "1"})


def test_the_page_has_a_column_for_every_figure():
    cells = {column: "1" for one in over_versions.BENCHMARKS for column in one.columns}
    cells |= over_versions.version()
    page = over_versions.PAGE.read_text()
    missing = over_versions.NOT_RUN
    assert over_versions.with_row(page, cells).count(missing) == page.count(missing)
