"""Natural-Instructions task files, old and new schema (Wang et al. 2022), under the data folder:

natural_instructions/tasks/*.json

Copies of the collection spell file names in several ways: with hyphens or underscores, the whole
name or what precedes its first full stop. A source finds its file under each of them, and only by
the whole name: some numbers belong to two tasks.
"""

import dataclasses
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
    cached_by_file,
    clean,
    hashed_parts,
    identity,
)
from instruct.json_text import parse_json
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

# Functions are named by this module in the fingerprints of stores.
FINGERPRINT_MODULE = "instruct.data.natural_instructions"

EXEMPLARS = "exemplars"
FOLDER = "natural_instructions/tasks"

_NO_WORD = re.compile(r"[^a-z0-9]+")


def normalized_stem(stem: str) -> str:
    """The form of a task file's name (without extension) that all its spellings share.

    >>> normalized_stem("task1529_scitail1.1_Classification"), normalized_stem("task1_a-b")
    ('task1529_scitail1_1_classification', 'task1_a_b')
    """
    return _NO_WORD.sub("_", stem.lower()).strip("_")


def cut_stem(stem: str) -> str:
    """`normalized_stem` of what precedes the first full stop, another spelling in use."""
    return normalized_stem(stem.partition(".")[0])


@dataclasses.dataclass(frozen=True)
class NaturalInstructionsSource(FileSource):
    """One Natural-Instructions task file: a definition, examples, instances.

    Newer files have lists (`Definition`, outputs) and ids; older ones have texts and no ids.
    Records have the fields `definition` and `input`; all outputs are references, the first is the
    answer. The positive examples, in file order, are the split "exemplars", with their
    explanations as rationales: few-shot prompts show them, as Tk-Instruct's do. The k-th negative
    example is `metadata["negative"]` of the k-th exemplar: {"input", "output", "explanation"}.

    Attributes:
        num_test: the first `num_test` instances are the split "test", as the publisher evaluates
            its test tasks, and other splits drop repetitions of them; 0 for splits by hash alone.
        revision: increment when the same file gives other records.
    """

    origin: str = "https://github.com/allenai/natural-instructions (tasks)"
    num_test: int = 0
    revision: int = 3

    @property
    def splits(self) -> tuple[str, ...]:
        return (*self.parts, EXEMPLARS)

    def locate(self, workspace: Workspace, name: str) -> Path:
        """The file, or one beside it with another spelling of its name; else the published path."""
        path = super().locate(workspace, name)
        try:
            by_stem = _task_files(path.parent)
        except OSError:
            return path
        stem = path.name.removesuffix(".json")
        keys = (path.name, normalized_stem(stem), cut_stem(stem))
        return path.with_name(next((by_stem[key] for key in keys if key in by_stem), path.name))

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        if split == EXEMPLARS:
            yield from self._exemplars(self.paths(workspace)[0])
        elif self.num_test:
            yield from self._records_beside_test(self.paths(workspace)[0], split)
        else:
            yield from super().records(workspace, split)

    def _records_beside_test(self, path: Path, split: str) -> Iterator[Record | Dropped]:
        part, rows = self.parts[split], self.rows(path)
        test_rows = list(itertools.islice(rows, self.num_test))
        if split == "test":
            yield from (item for item, _ in test_rows)
            return
        test_texts = {text for _, text in test_rows}
        for item, text in rows:
            if part.contains(text):
                yield Dropped("repeats a test instance") if text in test_texts else item

    def _exemplars(self, path: Path) -> Iterator[Record | Dropped]:
        task = _read_task(path)
        if isinstance(task, Dropped):
            yield task
            return
        items = (_instance(example, "", "") for example in _examples(task, "Negative"))
        negatives = [
            {"input": item.fields["input"], "output": item.answer, "explanation": item.rationale}
            for item in items
            if isinstance(item, Record)
        ]
        definition = _definition(task)
        for number, example in enumerate(_examples(task, "Positive")):
            item = _instance(example, definition, f"{self.name}-positive-{number}")
            if isinstance(item, Record) and number < len(negatives):
                item = dataclasses.replace(item, metadata={"negative": negatives[number]})
            yield item

    def rows(self, path: Path) -> Iterator[Row]:
        task = _read_task(path)
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
    """The source of a task whose file is in `FOLDER`.

    Args:
        stem: the file's published name without ".json"; it may contain full stops.
        num_test: see `NaturalInstructionsSource`.
    """
    path = f"{FOLDER}/{stem}.json"
    parts = hashed_parts(path)
    if num_test:
        parts = {"train": Part(path, 0.05), "validation": Part(path, 0.0, 0.05), "test": Part(path)}
    return NaturalInstructionsSource(stem, parts, num_test=num_test)


@cached_by_file(maxsize=8)  # all tasks of a listing ask for the same folder
def _task_files(folder: Path) -> Mapping[str, str]:
    """Names of the task files in a folder, by that name and by its normalized stem."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    by_stem = {normalized_stem(name.removesuffix(".json")): name for name in names}
    return by_stem | {name: name for name in names}


@cached_by_file(maxsize=1)  # the splits of a task are read one after another
def _read_task(path: Path) -> dict[str, Any] | Dropped:
    """A task file's JSON, read whole: the publisher's rule is at most about 50 MB."""
    try:
        task = parse_json(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError:
        return Dropped("file is not UTF-8")
    except ValueError:
        return Dropped("file is not JSON")
    if not isinstance(task, dict) or not isinstance(task.get("Instances"), list):
        return Dropped("file has no list of instances")
    return task


def _definition(task: Mapping[str, Any]) -> str:
    """The definition: a text in old files, the first of a list of wordings in new ones."""
    definition = task.get("Definition") or ""
    if isinstance(definition, list):
        definition = definition[0] if definition else ""
    return definition.strip() if isinstance(definition, str) else ""


def _examples(task: Mapping[str, Any], kind: str) -> list[Any]:
    """The "Positive" or "Negative" examples; some old files have a text instead of none."""
    examples = task.get(f"{kind} Examples")
    return examples if isinstance(examples, list) else []


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
    # What pandas writes for a missing text, NaN, is none.
    texts = (str(output).strip() for output in outputs if output == output)
    answers = tuple(dict.fromkeys(filter(None, texts)))
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
