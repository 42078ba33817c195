"""How much disk the stores that are missing will take, before anything is written.

Rows come from what tasks declare or what their sources know; bytes a record from the task's own
finished stores, else from its source's files, else from finished stores of its family or of the
mixture, else from a default. Record stores are compressed, so a source's files are an upper bound.
"""

import dataclasses
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from instruct.data.sources.alternates import Alternates
from instruct.data.sources.files import FileSource
from instruct.data.sources.tfds import TfdsSource
from instruct.data.spec import Source
from instruct.data.stores.jobs import Job
from instruct.data.stores.store import Manifest
from instruct.errors import UserError
from instruct.json_text import parse_json
from instruct.workspace import Workspace

# A record of a question, an answer and some options takes 200 bytes in a store, one with an
# article 1,500.
DEFAULT_RECORD_BYTES = 1000
# An estimate of this much more than the free space is refused; less may be the estimate's error.
_PLAINLY_MORE = 1.25
_GIB = 1 << 30
_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class DiskEstimate:
    """What building stores takes.

    Attributes:
        rows: job -> rows, where they are known.
        num_bytes: job -> bytes, where anything is known.
        store_dir: folder of all stores.
        free_bytes: of its disk.
        record_bytes: mean bytes of a record, where nothing nearer is known.
        measured: whether that comes from finished stores.
    """

    jobs: tuple[Job, ...]
    rows: Mapping[Job, int]
    num_bytes: Mapping[Job, float]
    store_dir: Path
    free_bytes: int
    record_bytes: float
    measured: bool

    @property
    def total_bytes(self) -> float:
        return sum(self.num_bytes.values())

    def describe(self) -> str:
        """One line for people."""
        unknown = len(self.jobs) - len(self.num_bytes)
        origin = "as measured" if self.measured else "as a guess"
        return (
            f"{len(self.jobs)} stores to build: {sum(self.rows.values()):,} known rows, about "
            f"{_size(self.total_bytes)} (where nothing nearer is known, {self.record_bytes:,.0f} "
            f"bytes a record {origin}); free: {_size(self.free_bytes)}"
            + (f"; {unknown} of unknown size not counted" if unknown else "")
        )

    def check(self) -> None:
        """Raises UserError if it is plainly more than what is free."""
        if self.total_bytes > _PLAINLY_MORE * self.free_bytes:
            raise UserError(
                f"the stores would take about {_size(self.total_bytes)}, and {self.store_dir} has "
                f"{_size(self.free_bytes)} free. Set STORE_DIR to a larger disk, prepare parts of "
                "the mixture, or give --ignore_disk_estimate to go on; nothing was written"
            )

    def biggest_first(self) -> list[Job]:
        """The jobs by size, so that none that is huge is left to run alone at the end.

        One of unknown size counts as the mean of the others.
        """
        mean = self.total_bytes / max(1, len(self.num_bytes))
        return sorted(self.jobs, key=lambda job: -self.num_bytes.get(job, mean))


def _size(num_bytes: float) -> str:
    if num_bytes >= _GIB:
        return f"{num_bytes / _GIB:,.1f} GiB"
    return f"{num_bytes / _MIB:,.1f} MiB"


def estimate_disk(
    workspace: Workspace, jobs: Sequence[Job], there: Mapping[Job, Manifest]
) -> DiskEstimate:
    """Estimates the stores of `jobs`. Reads sizes of files and no data.

    Args:
        there: finished stores of the same mixture, to measure records by.
    """
    tasks = _Means((job.task, manifest) for job, manifest in there.items())
    families = _Means((job.family, manifest) for job, manifest in there.items())
    every = _Means(("", manifest) for manifest in there.values())
    overall = every.of("")
    rows, num_bytes = {}, {}
    for job in jobs:
        source_rows, source_bytes = source_size(workspace, job.source, job.source_split)
        count = source_rows if job.rows is None else job.rows
        if count is not None:
            rows[job] = count
        mean = tasks.of(job.task)
        if mean is None and source_bytes is not None:
            num_bytes[job] = float(source_bytes)
        elif count is not None:
            mean = mean or families.of(job.family) or overall or DEFAULT_RECORD_BYTES
            num_bytes[job] = count * mean
    return DiskEstimate(
        tuple(jobs),
        rows,
        num_bytes,
        workspace.store_dir,
        free_bytes(workspace.store_dir),
        overall or DEFAULT_RECORD_BYTES,
        overall is not None,
    )


class _Means:
    """Mean bytes of a record by name."""

    def __init__(self, manifests: Iterable[tuple[str, Manifest]]) -> None:
        self._sums: dict[str, tuple[int, int]] = {}
        for name, manifest in manifests:
            size, records = self._sums.get(name, (0, 0))
            self._sums[name] = (size + manifest.num_bytes, records + manifest.num_records)

    def of(self, name: str) -> float | None:
        size, records = self._sums.get(name, (0, 0))
        return size / records if records else None


def free_bytes(folder: Path) -> int:
    """Free space of the disk that `folder` is on, or would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def source_size(
    workspace: Workspace, source: Source | None, split: str
) -> tuple[int | None, int | None]:
    """(rows, bytes) of a source's split, each None where it is not known without reading it."""
    if isinstance(source, Alternates):
        ready = [one for one in source.sources if one.available(workspace) is None]
        return source_size(workspace, ready[0], split) if ready else (None, None)
    if isinstance(source, TfdsSource):
        return _tfds_size(source.path(workspace), source.parts.get(split, ""))
    if isinstance(source, FileSource):
        part = source.parts.get(split)
        if part is None:
            return None, None
        try:
            # Paths are the parts' files in their order, each once.
            names = list(dict.fromkeys(part.path for part in source.parts.values()))
            size = source.paths(workspace)[names.index(part.path)].stat().st_size
        except OSError:
            return None, None
        return None, round(size * (min(part.high, 1.0) - max(part.low, 0.0)))
    return None, None


def _share(piece: str, rows: int) -> float:
    """Share of a split's rows that a slice takes: "" all of them, "10%:", ":-200", "5%:50%"."""

    def position(text: str, default: int) -> float:
        number = float(text.strip().removesuffix("%") or default)
        if text.strip().endswith("%"):
            number *= rows / 100
        return min(max(number + rows if text.strip().startswith("-") else number, 0.0), rows)

    if not rows or not piece.strip():
        return 1.0
    low, _, high = piece.partition(":")
    return max(0.0, position(high, rows) - position(low, 0)) / rows


def _tfds_size(path: Path, part: str) -> tuple[int | None, int | None]:
    """From the JSON file beside prepared rows; of a slice of a split its share."""
    try:
        info = parse_json((path / "dataset_info.json").read_bytes())
        splits = {
            one["name"]: (sum(map(int, one["shardLengths"])), int(one.get("numBytes") or 0))
            for one in info["splits"]
        }
        parts = re.findall(r"([A-Za-z_]\w*)(?:\[([^\]]*)\])?", part)
        found = [
            tuple(round(_share(piece, splits[name][0]) * number) for number in splits[name])
            for name, piece in parts
            if name in splits
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
    if not found:
        return None, None
    return sum(rows for rows, _ in found), sum(size for _, size in found) or None
