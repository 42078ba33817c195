"""Documents in a user's folder, cut into segments, and the pretraining task over them."""

import dataclasses
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instruct.data.sources.files import NOT_UTF8, FileSource, JsonLinesSource, Row
from instruct.data.spec import Source, TaskSpec
from instruct.fields import bounded, check_fields
from instruct.packed_files import open_unpacked
from instruct.prompts.denoising import DenoiserSet
from instruct.prompts.modes import OBJECTIVES
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

_FILE = re.compile(r".+\.(txt|jsonl)(\.gz|\.zst)?")
_ENDS = ("\n\n", "\n", " ")  # where a document is cut, best first

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DocumentSource(FileSource):
    """Texts of all .txt files (a document each) and .jsonl files (one a line) below a folder.

    Hidden files and folders are left out: editors keep copies of documents there.
    A longer document becomes several records, which `records` logs. `parts` are folders, such as
    `hashed_parts("my_text")`; splits go by the text of each segment.

    Attributes:
        text_key: key of the text in a JSON line.
        segment_characters: most characters of a record.
    """

    text_key: str = "text"
    segment_characters: int = bounded(2000, least=100)

    __post_init__ = check_fields

    def paths(self, workspace: Workspace) -> tuple[Path, ...]:
        """The files in order of their names; without any, a path that does not exist."""
        folders = super().paths(workspace)
        found = [path for folder in folders for path in _files(folder)]
        return tuple(found) or tuple(folder / "*.txt or *.jsonl" for folder in folders)

    def rows(self, path: Path) -> Iterator[Row]:
        documents = longer = segments = 0
        for item in (item for file in _files(path) for item in self._documents(file)):
            if isinstance(item, Dropped):
                yield item, item.reason
                continue
            parts = [part for part in cut_text(item, self.segment_characters) if part.strip()]
            for number, part in enumerate(parts):
                yield Record(f"{self.name}-{documents}-{number}", {}, part), part
            documents, segments = documents + 1, segments + len(parts)
            longer += len(parts) > 1
        if longer:
            _log.warning(
                "%s: %d of %d documents are longer than %d characters (segment_characters) and "
                "are cut: %d segments in all splits",
                *(self.name, longer, documents, self.segment_characters, segments),
            )

    def _documents(self, file: Path) -> Iterator[str | Dropped]:
        if (kind := _FILE.fullmatch(file.name)) and kind[1] == "txt":
            with open_unpacked(file) as stream:
                try:
                    text = stream.read().decode("utf-8-sig")
                except UnicodeDecodeError:
                    text = None
            yield _checked(text, Dropped(NOT_UTF8))
            return
        for _, _, row in JsonLinesSource(self.name, self.parts).parsed_rows(file):
            if isinstance(row, Dropped):
                yield row
                continue
            otherwise = Dropped(f"line has no text {self.text_key!r}").of_row(row)
            yield _checked(row.get(self.text_key), otherwise)


def _checked(text: Any, otherwise: Dropped) -> str | Dropped:
    if not isinstance(text, str):
        return otherwise
    return text if text.strip() else Dropped("empty text")


def _files(folder: Path) -> list[Path]:
    paths = (p for p in folder.rglob("*") if _FILE.fullmatch(p.name) and not p.is_dir())
    return sorted(p for p in paths if not _is_hidden(p.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def cut_text(text: str, most: int) -> Iterator[str]:
    """Yields pieces of `most` characters at most: to the end of a paragraph, line or word.

    >>> list(cut_text("one two three", 9))
    ['one two ', 'three']
    """
    start = 0
    while len(text) - start > most:
        low, high = start + most // 2, start + most
        ends = ((text.rfind(end, low, high), len(end)) for end in _ENDS)
        stop = next((at + length for at, length in ends if at >= 0), high)
        yield text[start:stop]
        start = stop
    yield text[start:]


def document_task(name: str, source: Source, **changes: Any) -> TaskSpec:
    """A task with the objectives as modes: span corruption, and the others for mixtures.

    Args:
        name: `<family>.<dataset>`.
        source: of records whose answer is the text, such as `DocumentSource`.
        changes: other attributes of `TaskSpec`, such as `templates=DenoiserSet(...)`.
    """
    family, _, dataset = name.rpartition(".")
    values: dict[str, Any] = {
        "family": family or name,
        "dataset": dataset,
        "category": "pretraining",
        "templates": DenoiserSet(),
        "modes": {OBJECTIVES[0]: 1.0},
        "extra_modes": OBJECTIVES[1:],
    }
    return TaskSpec(name=name, source=source, **(values | changes))
