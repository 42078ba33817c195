"""Appends this version's speed to the table `Over versions` of docs/performance.md: `make bench`.

    PYTHONPATH=. python benchmarks/over_versions.py [--only train_step decode] [--page PAGE]

Runs a short fixed set of the benchmarks, each in a process of its own, and reads the JSON of its
last line. Figures are shares of a peak or ratios to another program of the same run, which another
load changes less than seconds; start-up has CPU seconds. The set takes less than ten minutes on two
idle cores. A benchmark that fails or takes too long leaves `failed` in the row and its reason on
standard error; the exit status is 1. `public.sample` is read from $INSTRUCT_DATA_DIR.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
HEADING = "## Over versions"
VERSION_COLUMNS = ("date", "commit", "jax", "CPU")
NOT_RUN = "not run"


class Benchmark(NamedTuple):
    """A command, and the columns that it fills.

    Attributes:
        name: for `--only`.
        command: of the interpreter, in the root folder. "{folder}" is a temporary folder.
        columns: column -> keys of its figure in the JSON, from the outermost; or two such paths,
            of which the first figure is divided by the second.
        form: of the figures.
        output: a file of which the last line is the JSON; "": standard output.
        limit_secs: after which the benchmark counts as failed.
    """

    name: str
    command: Sequence[str]
    columns: Mapping[str, tuple[Any, ...]]
    form: str = "{:.2f}"
    output: str = ""
    limit_secs: float = 240


def _step(vocab: int, dropout: float) -> Benchmark:
    flags = (f"--vocab={vocab}", f"--dropout={dropout}")
    column = f"step, {vocab:,} words" + (f", dropout {dropout}" if dropout else "")
    command = ("benchmarks/train_step.py", *flags)
    return Benchmark("train_step", command, {column: ("peak_share",)}, "{:.1%}")


def _train(examples: str) -> Benchmark:
    columns = {
        f"training, {examples}, {order}": (order, "ratio_wall", 0)
        for order in ("random", "grouped")
    }
    command = ("benchmarks/train.py", "--size=tiny", f"--examples={examples}")
    return Benchmark("train", command, columns)


BENCHMARKS = (
    *(_step(vocab, dropout) for vocab in (512, 32_128) for dropout in (0.0, 0.05)),
    *(_train(examples) for examples in ("sample", "flan")),
    Benchmark(
        "decode",
        ("benchmarks/decode.py", "--parts=fixed"),
        {
            "decoding, greedy": ("fixed, greedy", "Hugging Face", 0),
            "decoding, beam-4": ("fixed, beam-4", "Hugging Face", 0),
        },
    ),
    Benchmark(
        "input_pipeline",
        ("benchmarks/input_pipeline.py", "--tasks=20", "--workers=0", "--secs=5", "--seqio"),
        {
            "input pipeline": (
                ("workers", "0", "examples_per_core_sec"),
                ("workers", "seqio", "examples_per_core_sec"),
            )
        },
    ),
    Benchmark(
        "start_up",
        ("benchmarks/start_up.py", "--repeats=1"),
        {f"`{name}`, CPU s": (name, "CPU s") for name in ("show", "train", "infer")},
        "{:.1f}",
    ),
    Benchmark(
        "demo",
        (
            *("run.py", "train", "--gin_file=gin/recipes/replica_counting.gin"),
            *("--gin.TRAIN_STEPS=60", "--gin.loop.train.log_every_steps=10"),
            *("--gin.MODEL_DIR={folder}/run", "--gin.STORE_DIR={folder}/stores"),
        ),
        {"demo's step": ("peak_share",)},
        "{:.1%}",
        output="{folder}/run/metrics.jsonl",
    ),
)


def run(benchmark: Benchmark) -> dict[str, str] | str:
    """Column -> figure as text; or why there is none, in one line."""
    with tempfile.TemporaryDirectory() as folder:
        command = [part.replace("{folder}", folder) for part in benchmark.command]
        process = subprocess.Popen(
            [sys.executable, *command],
            **{"cwd": ROOT, "env": os.environ | {"PYTHONPATH": str(ROOT)}},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
            start_new_session=True,
        )
        try:
            printed, errors = process.communicate(timeout=benchmark.limit_secs)
        except BaseException as error:
            # Processes of its own would slow down the next benchmark.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f"no result in {benchmark.limit_secs:.0f} s"
        if process.returncode:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            return f"exit status {process.returncode}: {last}"
        output = pathlib.Path(benchmark.output.replace("{folder}", folder))
        text = output.read_text() if benchmark.output else printed
    try:
        result = json.loads(text.strip().splitlines()[-1])
        return {
            column: benchmark.form.format(_figure(result, path))
            for column, path in benchmark.columns.items()
        }
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"unexpected output ({type(error).__name__}: {error})"


def _figure(result: Any, path: tuple[Any, ...]) -> float:
    if isinstance(path[0], tuple):
        over, under = (_figure(result, part) for part in path)
        return over / under
    for key in path:
        result = result[key]
    return float(result)


def version() -> dict[str, str]:
    """Date, commit, jax and processor of the row."""
    git = ("git", "-C", str(ROOT))

    def answer(*command: str) -> str:
        return subprocess.run([*git, *command], capture_output=True, text=True).stdout.strip()

    commit = answer("rev-parse", "--short", "HEAD") or "unknown"
    # The page itself has the rows of earlier runs.
    changed = answer("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    models = [
        line.split(":", 1)[1].strip()
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    cpu = f"{len(os.sched_getaffinity(0))} x {models[0] if models else 'unknown'}"
    values = time.strftime("%Y-%m-%d"), commit + (" and changes" if changed else "")
    return dict(zip(VERSION_COLUMNS, (*values, importlib.metadata.version("jax"), cpu)))


def with_row(page: str, cells: Mapping[str, str]) -> str:
    """The page with a row at the end of the table of the section HEADING.

    Args:
        page: Markdown; the section's first table has a column for each of `cells`.
        cells: column -> text; columns without a cell get NOT_RUN.

    Raises:
        ValueError: the page lacks the section, its table or a column.
    """
    lines = page.splitlines()
    if HEADING not in lines:
        raise ValueError(f"the page has no section {HEADING!r}")
    start = lines.index(HEADING) + 1
    while start < len(lines) and not lines[start].startswith(("|", "## ")):
        start += 1
    if start == len(lines) or not lines[start].startswith("|"):
        raise ValueError(f"the section {HEADING!r} has no table")
    columns = [cell.strip() for cell in lines[start].strip("|").split("|")]
    missing = [column for column in cells if column not in columns]
    if missing:
        raise ValueError(f"the table of {HEADING!r} has no column {', '.join(missing)}")
    end = start
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    row = [cells.get(column, NOT_RUN).replace("|", "/") for column in columns]
    return "\n".join([*lines[:end], f"| {' | '.join(row)} |", *lines[end:]]) + "\n"


def main(benchmarks: Sequence[Benchmark] = BENCHMARKS) -> int:
    """Runs the benchmarks and appends the row; 1 if a figure is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(dict.fromkeys(benchmark.name for benchmark in benchmarks))
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--page", type=pathlib.Path, default=PAGE)
    flags = parser.parse_args()
    cells, failed = version(), False
    with_row(flags.page.read_text(), cells | {c: "" for b in benchmarks for c in b.columns})
    for benchmark in benchmarks:
        if benchmark.name not in flags.only:
            continue
        started = time.perf_counter()
        figures = run(benchmark)
        if isinstance(figures, str):
            failed = True
            print(f"{' '.join(benchmark.command)}: {figures}", file=sys.stderr, flush=True)
            figures = dict.fromkeys(benchmark.columns, "failed")
        cells |= figures
        secs = time.perf_counter() - started
        print(f"{benchmark.name:15}{secs:4.0f} s  {figures}", flush=True)
    flags.page.write_text(with_row(flags.page.read_text(), cells))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
