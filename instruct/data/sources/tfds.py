"""Records from TensorFlow Datasets, prepared once on disk and read in a fixed order.

    TfdsSource("super_glue/rte:1.0.2", {"train": "train[:-200]", ...}, rte)

Prepared data sets in the workspace's `tfds_dir` are read by their own metadata, without the
builder's code or the network. A missing data set is downloaded and prepared only if the workspace
allows downloads.

TensorFlow is imported only when rows are read: availability and fingerprints come from the JSON
file that TFDS keeps beside the rows.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from instruct.data.quiet_tensorflow import keep_quiet
from instruct.data.spec import function_name
from instruct.errors import UserError
from instruct.json_text import parse_json
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import TFDS_VARIABLE, Workspace

_FORMAT = 1  # increment when the same rows give other records
_NAME = re.compile(r"[a-z]\w*(/[\w.\-]+)?:\d+\.\d+\.\d+")
_INFO_FILE = "dataset_info.json"

ToRecord = Callable[[Mapping[str, Any], str], Record | Dropped]


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """One TFDS data set as records.

    Attributes:
        builder: name with version, and configuration if there is one: "glue/sst2:2.0.0".
        parts: our split -> TFDS split expression ("train[:-200]").
        to_record: (row with TFDS's numpy values, id) -> a record or a rejection. A module-level
            function, because worker processes receive it by name.
        version: increment when `to_record` gives other records.
        manual: which files must be downloaded by hand, and from where; "" if none.

    Raises:
        UserError: `builder` does not have that form.
    """

    builder: str
    parts: Mapping[str, str]
    to_record: ToRecord
    version: int = 1
    manual: str = ""

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.builder) is None:
            raise UserError(
                f"TFDS builder {self.builder!r}: write it as name:version or "
                "name/configuration:version, for example 'super_glue/rte:1.0.2'"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def path(self, workspace: Workspace) -> Path:
        """Folder of the prepared rows, whether it exists or not."""
        name, _, version = self.builder.partition(":")
        return workspace.tfds_dir / name / version

    def fingerprint(self, workspace: Workspace) -> str:
        """Hash of the prepared rows' sizes and of how they are read; "absent" without any."""
        splits = self._split_sizes(workspace)
        if splits is None:
            return "absent"
        function = function_name(self.to_record)
        described = [_FORMAT, self.builder, splits, sorted(self.parts.items()), function]
        return hashlib.sha256(json.dumps([*described, self.version]).encode()).hexdigest()

    def available(self, workspace: Workspace) -> str | None:
        """None, or a message: what is missing, which folder was searched, what to do."""
        if self._split_sizes(workspace) is not None or workspace.downloads:
            return None
        prepared = self._prepared_versions(workspace)
        versions = f" (prepared: {', '.join(prepared[:5])})" if prepared else ""
        manual = f" First: {self.manual}" if self.manual else ""
        return (
            f"TFDS data set {self.builder} is not prepared in {self.path(workspace)}{versions}; "
            f"set {TFDS_VARIABLE} to use another folder.{manual} Prepare it with `run.py prepare "
            f"... --download`, or with `tfds build {self.builder} --data_dir={workspace.tfds_dir}`"
        )

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """Streams one split in the order in which TFDS wrote it.

        A missing data set is prepared, if allowed, at the call and not at the first row.

        Raises:
            KeyError: no such split.
            UserError: the data set cannot be prepared, or lacks the split or a column.
        """
        expression = self.parts[split]
        builder = self.download(workspace)
        return self._records(self.path(workspace), builder, split, expression)

    def download(self, workspace: Workspace) -> Any:
        """The TFDS builder of the data set, which TFDS downloads and prepares if it is missing.

        Raises:
            UserError: downloads are not allowed, or TFDS cannot prepare it; the message says why.
        """
        if self._split_sizes(workspace) is None:
            if not workspace.downloads:
                raise UserError(str(self.available(workspace)))
            # Several splits and tasks may need the same data set at the same time.
            with _exclusive(self.path(workspace)):
                if self._split_sizes(workspace) is None:
                    return self._prepare(workspace)
        return _tensorflow_datasets().builder_from_directory(str(self.path(workspace)))

    def _prepare(self, workspace: Workspace) -> Any:
        try:
            builder = _tensorflow_datasets().builder(self.builder, data_dir=str(workspace.tfds_dir))
            builder.download_and_prepare()
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            manual = f" Download by hand first: {self.manual}" if self.manual else ""
            raise UserError(
                f"TFDS data set {self.builder} cannot be prepared in {workspace.tfds_dir}: "
                f"{type(error).__name__}: {reason}{manual}"
            ) from error
        return builder

    def _records(
        self, path: Path, builder: Any, split: str, expression: str
    ) -> Iterator[Record | Dropped]:
        tfds = _tensorflow_datasets()
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        config.options.deterministic = True
        try:
            rows = builder.as_dataset(split=expression, shuffle_files=False, read_config=config)
        except (ValueError, KeyError, NotImplementedError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"TFDS data set {self.builder}: split {expression!r}: {reason}"
            ) from error
        name = self.builder.partition(":")[0].replace("/", "_")
        for number, row in enumerate(tfds.as_numpy(rows)):
            identity = f"{name}-{split}-{number}"
            try:
                item = self.to_record(row, identity)
            except UnicodeDecodeError:
                item = Dropped("text is not UTF-8")
            except KeyError as error:
                raise UserError(
                    f"TFDS data set {self.builder}: row {identity} has no {error}; it has "
                    f"{', '.join(sorted(row))}. Is {path} another data set or version?"
                ) from error
            yield item

    def _split_sizes(self, workspace: Workspace) -> list[Any] | None:
        """(name, rows of each shard, bytes) of every prepared split; None if not prepared."""
        try:
            info = parse_json((self.path(workspace) / _INFO_FILE).read_bytes())
            splits = [(s["name"], s["shardLengths"], s.get("numBytes")) for s in info["splits"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return sorted(splits)

    def _prepared_versions(self, workspace: Workspace) -> list[str]:
        """Prepared versions and configurations of the data set, by name."""
        folder = workspace.tfds_dir / re.split("[/:]", self.builder)[0]
        paths = [*folder.glob(f"*/{_INFO_FILE}"), *folder.glob(f"*/*/{_INFO_FILE}")]
        names = [path.parent.relative_to(workspace.tfds_dir) for path in paths]
        return sorted(f"{name.parent}:{name.name}" for name in names)


def _tensorflow_datasets() -> Any:
    """Imports the package and hides accelerators from TensorFlow: they belong to JAX."""
    keep_quiet()
    import tensorflow as tf
    import tensorflow_datasets as tfds

    with contextlib.suppress(RuntimeError):  # devices are initialized
        tf.config.set_visible_devices([], "GPU")
    return tfds


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Waits until no other process prepares the data set at `path`."""
    lock = path.parent / f".{path.name}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        raise UserError(
            f"cannot write to {lock.parent}: {error.strerror}; set {TFDS_VARIABLE} to a writable "
            "folder"
        ) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
