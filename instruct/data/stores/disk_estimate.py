"""Estimate of the disk space that the missing stores will take, before anything is written.

Tasks declare their rows, or sources know them. Bytes per record come from the task's own finished
stores, else from its source's files, else from finished stores of its family or of the mixture,
else from a default. Record stores are compressed, so a source's files are an upper bound.
"""

import collections
import contextlib
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

# A record takes 200 bytes (question, answer, some options) to 1,500 bytes (an article) in a store.
DEFAULT_RECORD_BYTES = 1000
# Estimates above this multiple of the free space are refused; less may be the estimate's error.
_CLEARLY_MORE = 1.25


@dataclasses.dataclass(frozen=True)
class DiskEstimate:
    """Rows and bytes of the stores to build.

    Attributes:
        rows: job -> rows, where they are known.
        num_bytes: job -> bytes, where anything is known.
        free_bytes: of the disk of `store_dir`.
        record_bytes: mean bytes per record of the finished stores; None if there are none.
    """

    jobs: tuple[Job, ...]
    rows: Mapping[Job, int]
    num_bytes: Mapping[Job, float]
    store_dir: Path
    free_bytes: int
    record_bytes: float | None

    @property
    def total_bytes(self) -> float:
        return sum(self.num_bytes.values())

    def describe(self) -> str:
        """One line to print."""
        record_bytes = self.record_bytes or DEFAULT_RECORD_BYTES
        origin = "as measured" if self.record_bytes else "as a guess"
        unknown = len(self.jobs) - len(self.num_bytes)
        not_counted = f"; {unknown} of unknown size not counted" if unknown else ""
        return (
            f"{len(self.jobs)} stores to build: {sum(self.rows.values()):,} known rows, about "
            f"{_size(self.total_bytes)} (where nothing nearer is known, {record_bytes:,.0f} "
            f"bytes a record {origin}); free: {_size(self.free_bytes)}{not_counted}"
        )

    def check(self) -> None:
        """Raises UserError if the stores take far more than the free space."""
        if self.total_bytes > _CLEARLY_MORE * self.free_bytes:
            raise UserError(
                f"the stores would take about {_size(self.total_bytes)}, and {self.store_dir} has "
                f"{_size(self.free_bytes)} free. Set STORE_DIR to a larger disk, prepare parts of "
                "the mixture, or build anyway with --ignore_disk_estimate; nothing was written"
            )

    def biggest_first(self) -> list[Job]:
        """The jobs by size (mean size if unknown), so that no huge one runs alone at the end."""
        mean = self.total_bytes / max(1, len(self.num_bytes))
        return sorted(self.jobs, key=lambda job: -self.num_bytes.get(job, mean))


def _size(num_bytes: float) -> str:
    unit, name = (1 << 30, "GiB") if num_bytes >= 1 << 30 else (1 << 20, "MiB")
    return f"{num_bytes / unit:,.1f} {name}"


def estimate_disk(
    workspace: Workspace, jobs: Sequence[Job], finished: Mapping[Job, Manifest]
) -> DiskEstimate:
    """Estimates `jobs` from sizes of files and `finished` stores of the mixture; reads no data."""
    by_task = _mean_bytes((job.task, manifest) for job, manifest in finished.items())
    by_family = _mean_bytes((job.family, manifest) for job, manifest in finished.items())
    overall = _mean_bytes(("", manifest) for manifest in finished.values()).get("")
    rows, num_bytes = {}, {}
    for job in jobs:
        source_rows, source_bytes = source_size(workspace, job.source, job.source_split)
        count = source_rows if job.rows is None else job.rows
        if count is not None:
            rows[job] = count
        if source_bytes is not None and job.task not in by_task:
            num_bytes[job] = float(source_bytes)
        elif count is not None:
            means = (by_task.get(job.task), by_family.get(job.family), overall)
            num_bytes[job] = count * next(filter(None, means), DEFAULT_RECORD_BYTES)
    store_dir = workspace.store_dir
    existing = next(path for path in (store_dir, *store_dir.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return DiskEstimate(tuple(jobs), rows, num_bytes, store_dir, free, overall)


def _mean_bytes(manifests: Iterable[tuple[str, Manifest]]) -> dict[str, float]:
    """Name -> mean bytes per record, for names with records."""
    num_bytes, records = collections.Counter(), collections.Counter()
    for name, manifest in manifests:
        num_bytes[name] += manifest.num_bytes
        records[name] += manifest.num_records
    return {name: num_bytes[name] / count for name, count in records.items() if count}


def source_size(
    workspace: Workspace, source: Source | None, split: str
) -> tuple[int | None, int | None]:
    """(rows, bytes) of a source's split, each None if unknown without reading it."""
    if isinstance(source, Alternates):
        ready = (one for one in source.sources if one.available(workspace) is None)
        return source_size(workspace, next(ready, None), split)
    if isinstance(source, TfdsSource):
        return _tfds_size(source.path(workspace), source.parts.get(split, ""))
    if isinstance(source, FileSource) and split in source.parts:
        part = source.parts[split]
        # `paths` are the parts' files in their order, each once.
        names = list(dict.fromkeys(part.path for part in source.parts.values()))
        with contextlib.suppress(OSError):
            size = source.paths(workspace)[names.index(part.path)].stat().st_size
            return None, round(size * (min(part.high, 1.0) - max(part.low, 0.0)))
    return None, None


def _share(piece: str, rows: int) -> float:
    """Share of a split's rows in a TFDS slice: "" all of them, "10%:", ":-200", "5%:50%"."""

    def position(text: str, default: int) -> float:
        number = float(text.removesuffix("%") or default)
        number *= rows / 100 if text.endswith("%") else 1
        return min(max(number + rows if text.startswith("-") else number, 0.0), rows)

    low, _, high = piece.replace(" ", "").partition(":")
    return max(0.0, position(high, rows) - position(low, 0)) / rows if rows else 1.0


def _tfds_size(path: Path, part: str) -> tuple[int | None, int | None]:
    """(rows, bytes) from the JSON file beside prepared rows; a slice has its share of a split."""
    sizes = []
    try:
        info = parse_json((path / "dataset_info.json").read_bytes())
        splits = {split["name"]: split for split in info["splits"]}
        for name, piece in re.findall(r"([A-Za-z_]\w*)(?:\[([^\]]*)\])?", part):
            if name in splits:
                rows = sum(map(int, splits[name]["shardLengths"]))
                share, num_bytes = _share(piece, rows), int(splits[name].get("numBytes") or 0)
                sizes.append((round(share * rows), round(share * num_bytes)))
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
    if not sizes:
        return None, None
    return sum(rows for rows, _ in sizes), sum(num_bytes for _, num_bytes in sizes) or None
