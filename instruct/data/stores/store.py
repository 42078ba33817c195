"""Record stores: one split of a data set on disk, with random access and a manifest.

    STORE_DIR/<key>/<split>/records.array_record     one JSON object a record
    STORE_DIR/<key>/<split>/manifest.json            counts, hashes, drops and why

Invariants: a store is complete or absent (built in a temporary folder, synced, renamed); equal
records give equal bytes and hashes on every machine.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from array_record.python.array_record_module import ArrayRecordReader

from instruct.data.config import DataConfig
from instruct.data.spec import Leaf, TaskSpec
from instruct.data.token_record import TokenRecord
from instruct.data.vocab import load_vocabulary
from instruct.errors import LOST_FILE, UserError, naming_file, storage_error_number
from instruct.json_text import parse_json
from instruct.prompts.record import Record
from instruct.workspace import Workspace

FORMAT = 1
RECORDS_FILE = "records.array_record"
MANIFEST_FILE = "manifest.json"
_READER_OPTIONS = "readahead_buffer_size:0"
_STREAM_BLOCK = 256  # records

R = TypeVar("R", Record, TokenRecord)
_KINDS: dict[str, Any] = {"records": Record, "tokens": TokenRecord}


def spec_key(spec: TaskSpec) -> str:
    """Folder name of a task's stores."""
    return f"{spec.name}@{spec.version}"


def store_path(workspace: Workspace, key: str, split: str) -> Path:
    """Folder of a store, whether or not it exists."""
    return workspace.store_dir / key / split


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Contents of a store.

    Attributes:
        kind: "records" (rendered at read time) or "tokens" (a plain seqio task's examples).
        source_fingerprint: of the data it was built from; if it changes, the store is rebuilt.
        num_bytes, sha256: of the records file.
        dropped: reason -> rows that did not become records.
        majority_answer, majority_share: the most frequent answer and its share, for baselines.
    """

    task: str
    split: str
    kind: str
    version: str
    source_fingerprint: str
    num_records: int
    num_bytes: int
    sha256: str
    dropped: dict[str, int]
    majority_answer: str
    majority_share: float
    format: int = FORMAT

    def to_json(self) -> str:
        """Indented JSON with a hash of itself, which detects edits."""
        values = dataclasses.asdict(self)
        values["manifest_sha256"] = _hash_json(values)
        return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Inverse of `to_json`. Raises ValueError if the text was changed or is not a manifest."""
        values = parse_json(text)
        if not isinstance(values, dict) or values.pop("manifest_sha256", 0) != _hash_json(values):
            raise ValueError("its hash does not match its contents")
        if values.get("format") != FORMAT:
            raise ValueError(f"format {values.get('format')}, this program reads {FORMAT}")
        return cls(**values)


def _hash_json(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _detecting_damage(path: Path) -> Iterator[None]:
    """Raises UserError for errors of a store's files that indicate damage; re-raises all others.

    Nobody should delete a store, or wait for it to be built again, because a drive failed.
    """
    try:
        with naming_file(path):
            yield
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        number = storage_error_number(error)
        if number is not None and number not in LOST_FILE:
            raise
        raise _damaged(path.parent, f"{path.name}: {error}") from error


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(
        f"the record store {path} is damaged: {problem}. Delete that folder and run "
        "`python run.py prepare` again"
    )


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of the store at `path`; None if there is no store.

    Raises:
        UserError: the manifest is damaged.
        OSError: the storage failed.
    """
    file = path / MANIFEST_FILE
    with _detecting_damage(file):
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return Manifest.from_json(text)


class Store(Generic[R]):
    """Random access to the records of one split. Thread-safe.

    Raises:
        UserError: no store at `path`, or one that does not match its manifest.
        OSError, RuntimeError: the storage failed (`instruct.errors.storage_failure`).
    """

    def __init__(self, path: Path) -> None:
        manifest = read_manifest(path)
        if manifest is None:
            raise UserError(
                f"no record store at {path}. Build it with `python run.py prepare`, or set "
                "STORE_DIR to where the stores are"
            )
        self.path = path
        self.manifest = manifest
        self._parse = _KINDS[manifest.kind].from_json
        self._file = path / RECORDS_FILE
        with _detecting_damage(self._file):
            num_bytes = self._file.stat().st_size
            if num_bytes != manifest.num_bytes:
                problem = f"{RECORDS_FILE} has {num_bytes} bytes, expected {manifest.num_bytes}"
                raise _damaged(path, problem)
            self._reader = ArrayRecordReader(str(self._file), options=_READER_OPTIONS)
            num_records = self._reader.num_records()
        if num_records != manifest.num_records:
            raise _damaged(path, f"{num_records} records, expected {manifest.num_records}")

    def __len__(self) -> int:
        return self.manifest.num_records

    def __getitem__(self, index: int) -> R:
        return self.read([index])[0]

    def read(self, indices: Sequence[int]) -> list[R]:
        """Records by number, in this order; one call is much cheaper than many.

        Raises:
            UserError: a block is damaged.
            RuntimeError: the storage failed.
        """
        if not indices:
            return []
        with _detecting_damage(self._file):
            return [self._parse(line) for line in self._reader.read(list(indices))]

    def stream(self, indices: Sequence[int]) -> Iterator[R]:
        """`read` of many records, a block at a time."""
        for start in range(0, len(indices), _STREAM_BLOCK):
            yield from self.read(indices[start : start + _STREAM_BLOCK])

    def verify(self) -> None:
        """Compares the whole file with the manifest's hash (`prepare --verify`)."""
        if hash_file(self.path / RECORDS_FILE) != self.manifest.sha256:
            raise _damaged(self.path, f"the SHA-256 of {RECORDS_FILE} is not the manifest's")


def store_key(leaf: Leaf, config: DataConfig) -> str:
    """Folder name of a leaf's stores.

    A plain seqio task's pipeline tokenises and trims, so its name has lengths and vocabulary.
    """
    if leaf.spec is not None:
        return spec_key(leaf.spec)
    fingerprint = load_vocabulary(config.vocabulary).fingerprint[:8]
    return f"{leaf.name}@seqio-{config.lengths[0]}-{config.lengths[1]}-{fingerprint}"


def leaf_manifest(
    workspace: Workspace, leaf: Leaf, split: str, config: DataConfig
) -> tuple[Manifest | None, str]:
    """(manifest of the leaf's store of a split, None if there is none; path of that store)."""
    path = store_path(workspace, store_key(leaf, config), split)
    return read_manifest(path), str(path)


def hash_file(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
