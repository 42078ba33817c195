"""Building stores with Apache Beam: every element of the pipeline is one store.

Workers run the function that processes of this machine run, so the bytes are the same. They write
into STORE_DIR and leave what became of each store in a file there, as a pipeline hands nothing
back to the process that started it. So STORE_DIR must be the same folder, at the same path, on
every worker (a network file system, a mounted bucket), and so must what sources read; the workers
need this package and the modules that define the tasks.

Apache Beam is imported when a pipeline is started: `pip install 'instruct[beam]'`.
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

from instruct.data.sources.json_files import write_json
from instruct.data.stores.jobs import Job, PreparedStore, build_reported, failed
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
        options: KEY=VALUE each, Beam's own: "project=my-project", "direct_num_workers=4".
        console: where it says what it starts.

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
        """Command-line flags as Beam reads them."""
        return [f"--runner={RUNNERS[self.runner]}", *(f"--{option}" for option in self.options)]

    def __call__(self, jobs: Sequence[Job]) -> dict[Job, PreparedStore]:
        """Builds every store.

        Raises:
            UserError: Beam is not installed, or STORE_DIR is not a folder that workers reach.
            RunFailed: the pipeline failed before it built anything.
        """
        beam, pipeline_options = _import_beam()
        sent = [absolute(job) for job in jobs]
        store_dir = sent[0].workspace.store_dir
        folder = _make_exchange(store_dir)
        if self.console is not None:
            self.console.print(
                f"building {len(jobs)} stores with Beam's {RUNNERS[self.runner]}; every worker "
                f"must reach {store_dir} under this path",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        try:
            work = functools.partial(build_element, exchange=str(folder))
            options = pipeline_options.PipelineOptions(self.flags())
            error = None
            try:
                pipeline = beam.Pipeline(options=options)
                _ = pipeline | beam.Create(list(enumerate(sent))) | beam.Map(work)
                pipeline.run().wait_until_finish()
            except Exception as caught:  # whatever a runner raises; what was built stays
                error = caught
            return _collect(jobs, folder, error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


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


def _make_exchange(folder: Path) -> Path:
    """A folder in STORE_DIR through which workers are recognised and answer."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        exchange = Path(tempfile.mkdtemp(prefix=".beam-", dir=folder))
        exchange.chmod(0o777)  # workers may run as another user
        (exchange / "started").write_text(socket.gethostname(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to STORE_DIR {folder}: {error.strerror}") from error
    return exchange


def build_element(element: tuple[int, Job], exchange: str) -> int:
    """Builds one store on a worker and leaves what became of it in the exchange folder.

    Returns:
        The element's number.

    Raises:
        UserError: STORE_DIR here is not that of the starting process.
    """
    number, job = element
    if not (Path(exchange) / "started").is_file():
        raise UserError(
            f"STORE_DIR {job.workspace.store_dir} on {socket.gethostname()} {_NOT_SHARED}. Set "
            "STORE_DIR to a folder that all workers reach under the same path"
        )
    result = build_reported(job, lambda rows: None)
    write_json(Path(exchange) / f"{number}.json", dataclasses.asdict(result))
    return number


def _collect(
    jobs: Sequence[Job], folder: Path, error: Exception | None
) -> dict[Job, PreparedStore]:
    """What the workers left behind; a store that nobody reports has failed."""
    results = {}
    for number, job in enumerate(jobs):
        try:
            values = json.loads((folder / f"{number}.json").read_text(encoding="utf-8"))
            results[job] = PreparedStore(**values)
        except FileNotFoundError:
            continue
    if len(results) == len(jobs):
        return results
    why = str(error) if error is not None else "the pipeline ended without a word of it"
    if _NOT_SHARED in why:
        start = why.rindex("STORE_DIR", 0, why.index(_NOT_SHARED))
        raise UserError(why[start:].split("\n")[0].split(" [while running")[0]) from error
    if not results:
        raise RunFailed(f"the Beam pipeline failed: {why}") from error
    for job in jobs:
        if job not in results:
            lost = failed(job, RuntimeError(f"the Beam pipeline failed: {why}"))
            results[job] = dataclasses.replace(lost, machine=True)
    return results
