"""Three tasks over JSON lines; a task module for the runs of this package."""

import json
import pathlib

from instruct.data.registry import add_mixture, add_task
from instruct.data.sources.files import FieldMap, JsonLinesSource, Part
from instruct.data.spec import TaskSpec
from instruct.prompts.template import Template, TemplateSet

NAMES = ("faults.next", "faults.double", "faults.parity")
MIXTURE = "faults.all"
_ANSWERS = (lambda n: n + 1, lambda n: 2 * n, lambda n: ("even", "odd")[n % 2])
_SIZES = {"train": 40, "validation": 8}
_TEMPLATES = TemplateSet(
    "faults", ("question",), truncate_field="question", zs_noopt=(Template("ask", "{question}"),)
)


def write_data(folder: pathlib.Path) -> None:
    """The tasks' files, as DATA_DIR holds them."""
    folder.mkdir(parents=True)
    for name, answer in zip(NAMES, _ANSWERS):
        for split, size in _SIZES.items():
            rows = [{"q": f"{name} {n}?", "a": str(answer(n))} for n in range(size)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{name}.{split}.jsonl").write_text(text)


for task in NAMES:
    parts = {split: Part(f"{task}.{split}.jsonl") for split in _SIZES}
    add_task(
        TaskSpec(
            name=task,
            family="faults",
            dataset=task,
            category=task.partition(".")[2],
            source=JsonLinesSource(task, parts, field_map=FieldMap({"question": "q"}, "a")),
            templates=_TEMPLATES,
            splits={split: split for split in _SIZES},
        )
    )
add_mixture(MIXTURE, dict.fromkeys(NAMES, 1))
