"""Building stores with Apache Beam: every element of the pipeline is one store.

Beam workers run the same `build_store` as local processes, so the bytes are the same. They write
into STORE_DIR and report through a folder there, because a pipeline returns nothing. So STORE_DIR
must be the same folder, at the same path, on every worker (a network file system, a mounted
bucket), and so must the files that sources read. Workers need this package and the task modules.
"""

import dataclasses
import functools
import json
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from instruct.data.sources.json_files import write_json
from instruct.data.stores.jobs import Job, PreparedStore, build_store, failed
from instruct.errors import RunFailed, UserError, unknown_name

RUNNERS = {
    "direct": "DirectRunner",
    "dataflow": "DataflowRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
}
_NOT_SHARED = "does not hold what the starting process wrote there"


@dataclasses.dataclass(frozen=True)
class BeamBuilder:
    """Builds stores with a Beam pipeline; an `elsewhere` of `prepare`.

    Attributes:
        runner: one of RUNNERS.
        options: Beam's own, KEY=VALUE each: "project=my-project", "direct_num_workers=4".

    Raises:
        UserError: unknown runner, an option without a value.
    """

    runner: str
    options: Sequence[str] = ()
    console: Console | None = None

    def __post_init__(self) -> None:
        if self.runner not in RUNNERS:
            raise unknown_name("runner", self.runner, ("local", *RUNNERS))
        for option in self.options:
            key, equals, _ = option.partition("=")
            if not equals or not key or key.startswith("-"):
                raise UserError(
                    f"--beam_option={option!r}: write KEY=VALUE with a name of Beam's without "
                    "dashes, for example --beam_option=direct_num_workers=4"
                )
            if key == "runner":
                raise UserError("the runner is chosen with --runner, not with --beam_option")

    def flags(self) -> list[str]:
        """Command-line flags for Beam."""
        return [f"--runner={RUNNERS[self.runner]}", *(f"--{option}" for option in self.options)]

    def __call__(self, jobs: Sequence[Job]) -> dict[Job, PreparedStore]:
        """Builds every store.

        Raises:
            UserError: Beam is not installed, or STORE_DIR is not a folder that workers reach.
            RunFailed: the pipeline failed before it built anything.
        """
        beam, pipeline_options = _import_beam()
        sent = [absolute(job) for job in jobs]
        if sent[0].workspace.store_bucket is not None:
            raise UserError(
                f"STORE_DIR {sent[0].workspace.store_bucket} is in a bucket, where workers cannot "
                "write their reports. Build with --runner=local, or set STORE_DIR to a folder that "
                "all workers reach, and copy it to the bucket"
            )
        store_dir = sent[0].workspace.store_dir
        exchange = _make_exchange(store_dir)
        if self.console is not None:
            text = (
                f"building {len(jobs)} stores with Beam's {RUNNERS[self.runner]}; every worker "
                f"must reach {store_dir} under this path"
            )
            self.console.print(Text(text), soft_wrap=True)
        problem, cause = "the pipeline ended without reporting it", None
        try:
            options = pipeline_options.PipelineOptions(self.flags())
            try:
                work = functools.partial(build_element, exchange=str(exchange))
                pipeline = beam.Pipeline(options=options)
                _ = pipeline | beam.Create(list(enumerate(sent))) | beam.Map(work)
                pipeline.run().wait_until_finish()
            except Exception as error:  # whatever a runner raises; finished stores are kept
                problem, cause = str(error), error
            results = {}
            for number, job in enumerate(jobs):
                report = exchange / f"{number}.json"
                if report.exists():
                    results[job] = PreparedStore(**json.loads(report.read_bytes()))
        finally:
            shutil.rmtree(exchange, ignore_errors=True)
        if len(results) < len(jobs) and _NOT_SHARED in problem:
            # Without the text that Beam adds to an error of a worker.
            start = problem.rindex("STORE_DIR", 0, problem.index(_NOT_SHARED))
            raise UserError(problem[start:].split("\n")[0].split(" [while running")[0]) from cause
        failure = RunFailed(f"the Beam pipeline failed: {problem}")
        if not results:
            raise failure from cause
        return {job: results.get(job) or failed(job, failure) for job in jobs}


def _import_beam() -> tuple[Any, Any]:
    try:
        import apache_beam as beam  # pyright: ignore[reportMissingImports]
        from apache_beam.options import (  # pyright: ignore[reportMissingImports]
            pipeline_options,
        )
    except ImportError as error:
        raise UserError(
            f"--runner needs Apache Beam ({error}). Install it with `pip install 'instruct[beam]'`,"
            " or build with processes of this machine: --runner=local --workers=N"
        ) from error
    return beam, pipeline_options


def absolute(job: Job) -> Job:
    """The job with absolute paths: a worker starts in another folder, with another home."""
    return dataclasses.replace(job, workspace=job.workspace.absolute(), path=job.path.absolute())


def _make_exchange(store_dir: Path) -> Path:
    """Makes a folder in STORE_DIR for the reports of workers."""
    try:
        store_dir.mkdir(parents=True, exist_ok=True)
        exchange = Path(tempfile.mkdtemp(prefix=".beam-", dir=store_dir))
        exchange.chmod(0o777)  # workers may run as another user
        (exchange / "started").write_text(socket.gethostname(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to STORE_DIR {store_dir}: {error.strerror}") from error
    return exchange


def build_element(element: tuple[int, Job], exchange: str) -> int:
    """Builds one store on a worker and writes its result to the exchange folder.

    Returns:
        The element's number.

    Raises:
        UserError: the worker's STORE_DIR is not that of the starting process.
    """
    number, job = element
    if not (Path(exchange) / "started").is_file():
        raise UserError(
            f"STORE_DIR {job.workspace.store_dir} on {socket.gethostname()} {_NOT_SHARED}. Set "
            "STORE_DIR to a folder that all workers reach under the same path"
        )
    result = build_store(job, lambda rows: None)
    write_json(Path(exchange) / f"{number}.json", dataclasses.asdict(result))
    return number
