"""Tabular files in the layouts of data hubs: finds the files of a split and streams their rows.

Formats, in this order of preference where a folder has several: Parquet, Arrow (the cache of the
`datasets` library), JSON lines (also .gz), a JSON array, CSV with a header, TFRecord. Layouts,
under any of several folders:

    train.parquet    train-00000-of-00002.parquet    train/0000.parquet    name-train.arrow
    any *.jsonl without a split in its name          (taken as the split "train")
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from instruct.data.sources.files import csv_rows
from instruct.data.sources.json_files import NOT_UTF8, NoJson, read_values
from instruct.data.sources.tfrecord import read_examples
from instruct.errors import UserError
from instruct.packed_files import refuse_pointer
from instruct.prompts.render import Dropped

# (column, value or several values): rows to keep.
Where = tuple[str, Any]

_FORMATS = (".parquet", ".arrow", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".tfrecord")
_BATCH_ROWS = 1024
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?$")
_NUMBERED = re.compile(r"[-_.]\d+$")
# Names by which a file says that it is another split's.
_OTHER_SPLIT = re.compile(r"(?:^|[-_.])(train|validation|valid|val|dev|test)(?:[-_.]|$)")


def _name_and_format(path: Path) -> tuple[str, str] | None:
    """("train-00000-of-00002", ".parquet"), or None for a file of another kind."""
    stem, mark, rest = path.name.partition(".tfrecord")
    if mark and (not rest or _SHARD.match(rest)):
        return stem + rest, ".tfrecord"
    for suffix in _FORMATS:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix), suffix
    return None


def _belongs(name: str, suffix: str, split: str) -> bool:
    name = _SHARD.sub("", name)
    names = (name, _NUMBERED.sub("", name))
    return split in names or (suffix == ".arrow" and name.endswith(f"-{split}"))


def find_split(folders: Sequence[Path], split: str) -> list[Path]:
    """The files of a split in the first folder that has any, in the order of their names.

    Args:
        folders: where to look, best first.
        split: the split's name in the files' names.

    Returns:
        Files of one format; [] if there are none.
    """
    for folder in folders:
        by_format: dict[str, list[Path]] = {}
        inside = folder / split
        plain, nameless = _listing(folder), []
        for path in plain:
            name_and_format = _name_and_format(path)
            if name_and_format and _belongs(*name_and_format, split):
                by_format.setdefault(name_and_format[1], []).append(path)
            elif name_and_format and not _OTHER_SPLIT.search(name_and_format[0]):
                nameless.append((name_and_format[1], path))
        for path in _listing(inside) if not by_format else ():
            name_and_format = _name_and_format(path)
            if name_and_format:
                by_format.setdefault(name_and_format[1], []).append(path)
        if not by_format and split == "train":
            for suffix, path in nameless:
                by_format.setdefault(suffix, []).append(path)
        for suffix in _FORMATS:
            if suffix in by_format:
                return by_format[suffix]
    return []


def _listing(folder: Path) -> list[Path]:
    """Data files of a folder, sorted: no hidden files and no notes; [] without such a folder."""
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.is_file() and not re.match(r"[._]|(info|stats|state|dataset_\w+)\.", path.name)
        )
    except OSError:
        return []


def missing_shards(files: Sequence[Path]) -> list[str]:
    """Names of missing shards, after the "-00000-of-00002" of the files that exist."""
    names = {path.name for path in files}
    missing = []
    for path in files:
        shard = re.search(r"-\d{5}-of-(\d{5})", path.name)
        if shard is None:
            continue
        for number in range(int(shard.group(1))):
            pattern = path.name[: shard.start()] + f"-{number:05d}-of-{shard.group(1)}"
            if not any(name.startswith(pattern) for name in names):
                missing.append(pattern + path.name[shard.end() :])
        break
    return missing


def read_rows(
    files: Sequence[Path], columns: Sequence[str] | None = None, where: Where | None = None
) -> Iterator[dict[str, Any] | Dropped]:
    """Rows of files of one format, in order, with at most a few thousand in memory.

    A JSON array is the exception: its file is read whole. Rows that `where` excludes are skipped;
    rejected rows come as `Dropped`.

    Args:
        columns: columns to keep, None for all; others are not even read from Parquet and Arrow.
        where: column and value, or a tuple of values, of the rows to keep. Parquet skips
            whole row groups whose statistics rule it out.

    Raises:
        UserError: a file is damaged or Git LFS's pointer to it, or has no such column.
    """
    for path in files:
        refuse_pointer(path)
        name_and_format = _name_and_format(path)
        suffix = name_and_format[1] if name_and_format else path.suffix
        if suffix in (".parquet", ".arrow"):
            yield from _arrow_rows(path, suffix, columns, where)
            continue
        if suffix == ".tfrecord":
            needed = None if columns is None else {*columns, *((where[0],) if where else ())}
            rows: Iterator[Any] = read_examples(path, needed)
        elif suffix == ".csv":
            rows = _csv_file_rows(path)
        else:
            rows = _json_rows(path)
        for row in rows:
            if isinstance(row, Dropped) or where is None or _fits(row, where):
                yield row


def _values(where: Where) -> tuple[Any, ...]:
    value = where[1]
    return tuple(value) if isinstance(value, tuple | list | set | frozenset) else (value,)


def _fits(row: dict[str, Any], where: Where) -> bool:
    value = row.get(where[0])
    values = _values(where)
    # A feature of a TFRecord is a list.
    return value in values or (isinstance(value, list) and len(value) == 1 and value[0] in values)


def _arrow_rows(
    path: Path, suffix: str, columns: Sequence[str] | None, where: Where | None
) -> Iterator[dict[str, Any] | Dropped]:
    import pyarrow as pa

    try:
        yield from _batches_to_rows(_arrow_batches(path, suffix, columns, where))
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
    """Record batches of a Parquet or Arrow file, filtered, one after another."""
    import pyarrow.dataset as ds

    if suffix == ".arrow" and not _is_arrow_file(path):
        yield from _stream_batches(path, columns, where)
        return
    table = ds.dataset(str(path), format=_format(suffix))
    _check_columns(path, table.schema.names, columns, where)
    chosen = None if columns is None else [c for c in columns if c in table.schema.names]
    yield from table.scanner(
        columns=chosen,
        filter=None
        if where is None
        else ds.field(where[0]).isin(_value_set(path, table.schema, where)),
        batch_size=_BATCH_ROWS,
        batch_readahead=1,
        fragment_readahead=1,
        use_threads=False,
    ).to_batches()


def _format(suffix: str) -> Any:
    import pyarrow.dataset as ds

    if suffix == ".arrow":
        return ds.IpcFileFormat()
    # Buffering ahead keeps all that was read of a file in memory until its end.
    options = ds.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
    return ds.ParquetFileFormat(default_fragment_scan_options=options)


def _is_arrow_file(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(6) == b"ARROW1"


def _value_set(path: Path, schema: Any, where: Where) -> Any:
    """The wanted values as an array of the column's own type."""
    import pyarrow as pa

    kind = schema.field(where[0]).type
    try:
        return pa.array(list(_values(where)), type=kind)
    except pa.ArrowException as error:
        raise UserError(
            f"column {where[0]!r} of {path} holds {kind}; {where[1]!r} is none to filter by"
        ) from error


def _stream_batches(
    path: Path, columns: Sequence[str] | None, where: Where | None
) -> Iterator[Any]:
    """The same for Arrow's streaming format, which the `datasets` library writes."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        _check_columns(path, reader.schema.names, columns, where)
        chosen = None if columns is None else [c for c in columns if c in reader.schema.names]
        for batch in reader:
            table = pa.Table.from_batches([batch])
            if where is not None:
                table = table.filter(ds.field(where[0]).isin(_value_set(path, table.schema, where)))
            table = table if chosen is None else table.select(chosen)
            yield from table.to_batches(max_chunksize=_BATCH_ROWS)


def _check_columns(
    path: Path, names: Sequence[str], columns: Sequence[str] | None, where: Where | None
) -> None:
    """Refuses a filter on a column that is not there, and a file with none of the columns."""
    if where is not None and where[0] not in names:
        raise UserError(
            f"{path} has no column {where[0]!r} to filter by; it has {', '.join(names)}"
        )
    if columns and not set(columns) & set(names):
        raise UserError(f"{path} has none of {', '.join(columns)}; it has {', '.join(names)}")


def _batches_to_rows(batches: Iterator[Any]) -> Iterator[dict[str, Any] | Dropped]:
    for batch in batches:
        try:
            yield from batch.to_pylist()
        except UnicodeDecodeError:  # text columns are not checked when they are read
            for number in range(batch.num_rows):
                try:
                    yield batch.slice(number, 1).to_pylist()[0]
                except UnicodeDecodeError:
                    yield Dropped("text is not UTF-8")


def _csv_file_rows(path: Path) -> Iterator[dict[str, Any] | Dropped]:
    """Rows of a CSV file whose first line names the columns; every value is text."""
    names: list[str] = []
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        for cells in csv_rows(stream, ","):
            if cells is not None and not names:
                names = [cell.strip() for cell in cells]
            elif cells is None:
                yield Dropped("line is not CSV")
            elif any("\udc80" <= sign <= "\udcff" for cell in cells for sign in cell):
                yield Dropped("text is not UTF-8")
            elif len(cells) != len(names):
                yield Dropped(f"line does not have {len(names)} columns")
            else:
                yield dict(zip(names, cells))


def _json_rows(path: Path) -> Iterator[dict[str, Any] | Dropped]:
    """JSON lines, or the objects of one array."""
    for kind, _, value in read_values(path):
        if isinstance(value, dict):
            yield value
        else:
            unreadable = isinstance(value, NoJson) and value.reason == NOT_UTF8
            yield Dropped(NOT_UTF8 if unreadable else f"{kind} is not a JSON object")
