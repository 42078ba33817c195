"""Tabular files in the layouts of data hubs: finds the files of a split and streams their rows.

Formats, in order of preference where a folder has several: Parquet, Arrow (the cache of the
`datasets` library), JSON lines, a JSON array, CSV with a header, TFRecord, TSV with a header; texts
also compressed (.gz, .zst), all or some of them. Layouts:

    train.parquet    train-00000-of-00002.parquet    train/0000.parquet    name-train.arrow
    any *.jsonl without a split in its name          (read as the split "train")
"""

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from instruct.data.sources.files import read_csv
from instruct.data.sources.json_files import NOT_UTF8, NoJson, read_values
from instruct.data.sources.tfrecord import read_examples
from instruct.errors import UserError
from instruct.packed_files import PACKED_ENDINGS, refuse_pointer
from instruct.prompts.render import Dropped

# Our split -> names that publishers give it.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# (column, value or several values): rows to keep.
Where = tuple[str, Any]

_PACKED = ("", *PACKED_ENDINGS)
_FORMATS = (
    *(".parquet", ".arrow"),
    *(f"{text}{end}" for text in (".jsonl", ".ndjson", ".json", ".csv") for end in _PACKED),
    *(".tfrecord", *(f".tsv{end}" for end in _PACKED)),
)
_BATCH_ROWS = 1024
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?$")
_NUMBERED = re.compile(r"[-_.]\d+$")
_METADATA_FILE = re.compile(r"[._]|(info|stats|state|dataset_(infos?|dict))\.")
# Files with these words are of no other split. "training" is not among them: "my-training.csv" is
# of the split "train", whose files may have any name without one of these.
_OF_A_SPLIT = {*itertools.chain.from_iterable(SPLIT_NAMES.values())} - {"training"}
_ANY_SPLIT = re.compile(rf"(?:^|[-_.])({'|'.join(sorted(_OF_A_SPLIT))})(?:[-_.]|$)", re.I)


class _DataFile(NamedTuple):
    """A file "train-00000-of-00002.parquet": its stem, format ".parquet", path."""

    stem: str
    format: str
    path: Path

    @property
    def unpacked_format(self) -> str:
        """The format but for compression: ".jsonl" of ".jsonl.gz"."""
        packed = next((end for end in PACKED_ENDINGS if self.format.endswith(end)), "")
        return self.format.removesuffix(packed)

    def is_of(self, split: str, any_case: bool = False) -> bool:
        """Whether the file's name is that of a split."""
        name = _SHARD.sub("", self.stem)
        if any_case:
            name, split = name.lower(), split.lower()
        cached = self.format == ".arrow" and name.endswith(f"-{split}")
        return cached or split in (name, _NUMBERED.sub("", name))


def _data_file(path: Path) -> _DataFile | None:
    """The stem and format of a file; None if its format is unknown."""
    stem, mark, shard = path.name.partition(".tfrecord")
    if mark and (not shard or _SHARD.match(shard)):
        return _DataFile(stem + shard, ".tfrecord", path)
    for suffix in _FORMATS:
        if path.name.lower().endswith(suffix):  # capitals: files of other systems
            return _DataFile(path.name[: -len(suffix)], suffix, path)
    return None


def _data_files(folder: Path) -> list[_DataFile]:
    """Data files of a folder, sorted, without hidden files and metadata; [] if it is missing."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
    paths = [path for path in paths if not _METADATA_FILE.match(path.name)]
    return [file for file in map(_data_file, paths) if file is not None]


def find_split(folder: Path, split: str) -> list[Path]:
    """The files of a split in a folder, all of one format, sorted by name; [] if there are none.

    Of a file and its compressed copy only the file.
    """
    files = _data_files(folder)
    matches = [file for file in files if file.is_of(split)] or _data_files(folder / split)
    # Train.csv and Test.csv, which are no files without a split in their names.
    matches = matches or [file for file in files if file.is_of(split, any_case=True)]
    if not matches and split == "train":
        matches = [file for file in files if not _ANY_SPLIT.search(file.stem)]
    matches.sort(key=lambda file: _FORMATS.index(file.format))
    best = {file.stem: file for file in reversed(matches) if _alike(file, matches[0])}
    return sorted(file.path for file in best.values())


def _alike(one: _DataFile, other: _DataFile) -> bool:
    return one.unpacked_format == other.unpacked_format


def unread_files(files: Sequence[Path]) -> list[str]:
    """Names of the data files beside these, which belong to no split or have another format."""
    folders = dict.fromkeys(path.parent for path in files)
    beside = [file.path for folder in folders for file in _data_files(folder)]
    return [path.name for path in beside if path not in files]


def missing_shards(files: Sequence[Path]) -> list[str]:
    """Names of missing shards, according to the "-00000-of-00002" of the files that exist."""
    for path in files:
        shard = re.search(r"-\d{5}-of-(\d{5})", path.name)
        if shard:
            start, end = path.name[: shard.start()], path.name[shard.end() :]
            starts = [f"{start}-{n:05d}-of-{shard[1]}" for n in range(int(shard[1]))]
            # A hash may follow, another one in each shard.
            absent = [s for s in starts if not any(file.name.startswith(s) for file in files)]
            return [start + end for start in absent]
    return []


def read_rows(
    files: Sequence[Path],
    columns: Sequence[str] | None = None,
    where: Where | None = None,
    format: str = "",
) -> Iterator[dict[str, Any] | Dropped]:
    """Streams the rows of files, with at most a few thousand in memory; a JSON array is read whole.

    Rows that `where` excludes are skipped; rejected rows are yielded as `Dropped`.

    Args:
        columns: columns to keep, None for all; others are not even read from Parquet and Arrow.
        where: column and value, or a tuple of values, of the rows to keep. Parquet skips
            whole row groups whose statistics exclude it.
        format: ".parquet" or ".arrow", whatever the files are called; "": by their names.

    Raises:
        UserError: a file is damaged or a Git LFS pointer, or has no such column.
    """
    if where is not None:
        several = isinstance(where[1], tuple | list | set | frozenset)
        where = (where[0], tuple(where[1]) if several else (where[1],))
    for path in files:
        refuse_pointer(path)
        file = _data_file(path)
        suffix = format or (file.format if file else path.suffix)
        if suffix in (".parquet", ".arrow"):
            yield from _arrow_rows(path, suffix, columns, where)
            continue
        rows: Iterator[Any] = _json_rows(path)
        if suffix == ".tfrecord":
            needed = None if columns is None else {*columns, *((where[0],) if where else ())}
            rows = read_examples(path, needed)
        elif suffix.startswith((".csv", ".tsv")):
            delimiter = "\t" if suffix.startswith(".tsv") else ","
            # Quotes count in both, as the `datasets` library reads .csv and .tsv.
            rows = (line.row for line in read_csv(path, delimiter=delimiter))
        for row in rows:
            if isinstance(row, Dropped) or where is None or _fits(row, where):
                yield row


def _fits(row: dict[str, Any], where: Where) -> bool:
    value = row.get(where[0])
    if isinstance(value, list) and len(value) == 1:  # a feature of a TFRecord
        value = value[0]
    return value in where[1]


def _arrow_rows(
    path: Path, suffix: str, columns: Sequence[str] | None, where: Where | None
) -> Iterator[dict[str, Any] | Dropped]:
    import pyarrow as pa

    try:
        for batch in _arrow_batches(path, suffix, columns, where):
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield from _batch_rows(batch.slice(start, _BATCH_ROWS))
    except UnicodeEncodeError as error:
        raise UserError(
            f"{str(path)!r} cannot be read as a table: the path is not UTF-8. Rename it"
        ) from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{path} cannot be read as a table ({reason}). Delete the file and get it again"
        ) from error


def _arrow_batches(
    path: Path, suffix: str, columns: Sequence[str] | None, where: Where | None
) -> Iterator[Any]:
    """Yields the filtered record batches of a Parquet or Arrow file one at a time."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    with contextlib.ExitStack() as stack:
        if suffix == ".arrow" and not _is_arrow_file(path):  # the stream that `datasets` writes
            source = stack.enter_context(pa.memory_map(str(path)))
            table: Any = stack.enter_context(pa.ipc.open_stream(source))
            make_scanner: Any = ds.Scanner.from_batches
        else:
            # Buffering ahead would keep all that was read of a file in memory until its end.
            options = ds.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
            parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
            kind = parquet if suffix == ".parquet" else ds.IpcFileFormat()
            table, make_scanner = ds.dataset(str(path), format=kind), ds.Scanner.from_dataset
        names = table.schema.names
        if where is not None and where[0] not in names:
            raise UserError(
                f"{path} has no column {where[0]!r} to filter by; it has {', '.join(names)}"
            )
        if columns and not set(columns) & set(names):
            raise UserError(f"{path} has none of {', '.join(columns)}; it has {', '.join(names)}")
        scanner = make_scanner(
            table,
            columns=None if columns is None else [c for c in columns if c in names],
            filter=None if where is None else _filter(path, table.schema, where),
            batch_size=_BATCH_ROWS,
            batch_readahead=1,
            fragment_readahead=1,
            use_threads=False,
        )
        yield from scanner.to_batches()


def _is_arrow_file(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(6) == b"ARROW1"


def _filter(path: Path, schema: Any, where: Where) -> Any:
    """An expression with the wanted values as an array of the column's own type."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    column, kind = where[0], schema.field(where[0]).type
    try:
        return ds.field(column).isin(pa.array(list(where[1]), type=kind))
    except pa.ArrowException as error:
        raise UserError(
            f"column {column!r} of {path} holds {kind}; it cannot be filtered by {list(where[1])}"
        ) from error


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | Dropped]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # reading does not validate text columns
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield Dropped(NOT_UTF8)


def _json_rows(path: Path) -> Iterator[dict[str, Any] | Dropped]:
    """The objects of JSON lines or of one array."""
    for kind, _, value in read_values(path):
        if isinstance(value, dict):
            yield value
        else:
            is_not_utf8 = isinstance(value, NoJson) and value.reason == NOT_UTF8
            yield Dropped(NOT_UTF8 if is_not_utf8 else f"{kind} is not a JSON object")
