"""Natural-Instructions task files, old and new schema (Wang et al. 2022), under the data folder:

natural_instructions/tasks/*.json

Copies of the collection spell file names in several ways: a hyphen or an underscore, the whole
name or what stands before its first full stop. A source finds its file under each of them, and by
the whole name only: some numbers belong to two tasks.
"""

import dataclasses
import functools
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instruct.data.sources.files import (
    FileSource,
    Part,
    Row,
    clean,
    hash_unit,
    hashed_parts,
    identity,
)
from instruct.json_text import parse_json
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

FINGERPRINT_MODULE = (
    "instruct.data.natural_instructions"  # fingerprints of stores name functions so
)

EXEMPLARS = "exemplars"
FOLDER = "natural_instructions/tasks"

_NO_WORD = re.compile(r"[^a-z0-9]+")


def normalized_stem(stem: str) -> str:
    """A task file's name without extension, in the one form that all its spellings share.

    >>> normalized_stem("task1529_scitail1.1_Classification"), normalized_stem("task1_a-b")
    ('task1529_scitail1_1_classification', 'task1_a_b')
    """
    return _NO_WORD.sub("_", stem.lower()).strip("_")


def cut_stem(stem: str) -> str:
    """`normalized_stem` of what stands before the first full stop, another spelling in use."""
    return normalized_stem(stem.partition(".")[0])


@dataclasses.dataclass(frozen=True)
class NaturalInstructionsSource(FileSource):
    """One Natural-Instructions task file: a definition, examples, instances.

    Newer files have lists (`Definition`, outputs) and ids, older ones plain texts and none.
    Records have the fields `definition` and `input`; all outputs are references, the first is the
    answer. The task's positive examples are the split "exemplars", in the file's order, with their
    explanations as rationales: few-shot prompts show these, as Tk-Instruct's do. The k-th negative
    example is `metadata["negative"]` of the k-th exemplar: {"input", "output", "explanation"}.

    Attributes:
        num_test: so many instances at the file's beginning are the split "test", as the publisher
            evaluates its test tasks, and what repeats them is dropped from the other splits; 0
            for splits by hash alone.
        revision: counts up when the same file gives other records.
    """

    origin: str = "https://github.com/allenai/natural-instructions (tasks)"
    num_test: int = 0
    revision: int = 3

    @property
    def splits(self) -> tuple[str, ...]:
        return (*self.parts, EXEMPLARS)

    def paths(self, workspace: Workspace) -> tuple[Path, ...]:
        """The task's file under the spelling that exists, else under the published one."""
        return tuple(_find(path) for path in super().paths(workspace))

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        if split == EXEMPLARS:
            yield from self._exemplars(self.paths(workspace)[0])
        elif self.num_test:
            yield from self._records_beside_test(self.paths(workspace)[0], split)
        else:
            yield from super().records(workspace, split)

    def _records_beside_test(self, path: Path, split: str) -> Iterator[Record | Dropped]:
        part = self.parts[split]
        rows = self.rows(path)
        tested = set()
        for item, text in itertools.islice(rows, self.num_test):
            tested.add(text)
            if split == "test":
                yield item
        if split == "test":
            return
        for item, text in rows:
            if part.low <= hash_unit(text) < part.high:
                yield Dropped("repeats a test instance") if text in tested else item

    def _exemplars(self, path: Path) -> Iterator[Record | Dropped]:
        task = _read_task(path)
        if isinstance(task, Dropped):
            yield task
            return
        negatives = [shown for n in _examples(task, "Negative") if (shown := _negative(n))]
        definition = _definition(task)
        for number, example in enumerate(_examples(task, "Positive")):
            item = _instance(example, definition, f"{self.name}-positive-{number}")
            if isinstance(item, Record) and number < len(negatives):
                item = dataclasses.replace(item, metadata={"negative": negatives[number]})
            yield item

    def rows(self, path: Path) -> Iterator[Row]:
        task = _read_task(_find(path))
        if isinstance(task, Dropped):
            yield task, self.name
            return
        definition = _definition(task)
        if not definition:
            yield Dropped("task has no definition"), self.name
            return
        for number, instance in enumerate(task["Instances"]):
            default_id = f"{self.name}-{number}"
            item = _instance(instance, definition, default_id)
            yield item, default_id if isinstance(item, Dropped) else identity(item)


def natural_instructions_source(path: str) -> NaturalInstructionsSource:
    """The source of one task file, `path` relative to the data folder."""
    return NaturalInstructionsSource(Path(path).stem, hashed_parts(path))


def natural_instructions_task_source(stem: str, num_test: int = 0) -> NaturalInstructionsSource:
    """The source of a task of the collection, whose file is looked for in `FOLDER`.

    Args:
        stem: the file's published name without ".json"; it may have full stops in it.
        num_test: as in `NaturalInstructionsSource`.
    """
    path = f"{FOLDER}/{stem}.json"
    parts = hashed_parts(path)
    if num_test:
        parts = {"train": Part(path, 0.05), "validation": Part(path, 0.0, 0.05), "test": Part(path)}
    return NaturalInstructionsSource(stem, parts, num_test=num_test)


# ---------------------------------------------------------------- finding a file


def _find(path: Path) -> Path:
    """The file at `path`, else one beside it with another spelling of its name, else `path`."""
    try:
        names, by_stem = _task_files(str(path.parent), path.parent.stat().st_mtime_ns)
    except OSError:
        return path
    if path.name in names:
        return path
    stem = path.name.removesuffix(".json")
    name = by_stem.get(normalized_stem(stem)) or by_stem.get(cut_stem(stem))
    return path.parent / name if name else path


@functools.lru_cache(maxsize=8)  # all tasks of a listing ask for the same folder
def _task_files(folder: str, mtime_ns: int) -> tuple[frozenset[str], Mapping[str, str]]:
    """Names of the task files in a folder, and the same by normalised stem."""
    del mtime_ns
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    by_stem = {normalized_stem(name.removesuffix(".json")): name for name in names}
    return frozenset(names), by_stem


# ---------------------------------------------------------------- reading a file


def _read_task(path: Path) -> dict[str, Any] | Dropped:
    """A task file as JSON. At most some 50 MB by its publisher's rule, so read at once."""
    status = path.stat()
    return _parse_task(str(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)  # the splits of a task are read one after another
def _parse_task(path: str, size: int, mtime_ns: int) -> dict[str, Any] | Dropped:
    del size, mtime_ns
    try:
        task = parse_json(Path(path).read_bytes().decode("utf-8"))
    except UnicodeDecodeError:
        return Dropped("file is not UTF-8")
    except ValueError:
        return Dropped("file is not JSON")
    if not isinstance(task, dict) or not isinstance(task.get("Instances"), list):
        return Dropped("file has no list of instances")
    return task


def _definition(task: Mapping[str, Any]) -> str:
    """The definition: a text in old files, a list of wordings in new ones (the first is used)."""
    definition = task.get("Definition") or ""
    if isinstance(definition, list):
        definition = definition[0] if definition else ""
    return definition.strip() if isinstance(definition, str) else ""


def _examples(task: Mapping[str, Any], kind: str) -> list[Any]:
    """The "Positive" or "Negative" examples; some old files have a text where they have none."""
    examples = task.get(f"{kind} Examples")
    return examples if isinstance(examples, list) else []


def _negative(example: Any) -> dict[str, str] | None:
    """A negative example as texts; None if its input or output is missing."""
    item = _instance(example, "", "negative")
    if isinstance(item, Dropped):
        return None
    return {"input": item.fields["input"], "output": item.answer, "explanation": item.rationale}


def _instance(instance: Any, definition: str, default_id: str) -> Record | Dropped:
    if not isinstance(instance, dict):
        return Dropped("instance is not a JSON object")
    source, outputs = instance.get("input"), instance.get("output")
    if isinstance(outputs, str | int | float):
        outputs = [outputs]
    if not isinstance(source, str) or not isinstance(outputs, list):
        return Dropped("input or output is missing")
    if not all(isinstance(output, str | int | float) for output in outputs):
        return Dropped("an output is not text")
    answers = tuple(dict.fromkeys(text for o in outputs if (text := str(o).strip())))
    if not source.strip() or not answers:
        return Dropped("empty input or output")
    identifier = instance.get("id")
    explanation = instance.get("explanation")
    return Record(
        identifier if isinstance(identifier, str) and identifier else default_id,
        {"definition": definition, "input": clean(source)},
        answers[0],
        references=answers if len(answers) > 1 else (),
        rationale=explanation.strip() if isinstance(explanation, str) else "",
    )
