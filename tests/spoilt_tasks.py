"""A user's module of tasks, over the files of tests/spoilt.py."""

from instruct.data.registry import add_task
from instruct.data.sources.files import FieldMap, JsonLinesSource, Part
from instruct.data.spec import TaskSpec
from instruct.prompts.template import Template, TemplateSet

TEMPLATES = TemplateSet(
    "spoilt", ("question",), truncate_field="question", zs_noopt=(Template("ask", "{question}"),)
)


def add(name, path):
    parts = {"train": Part(path), "validation": Part(path)}
    source = JsonLinesSource(name, parts, field_map=FieldMap({"question": "q"}, "a"))
    add_task(
        TaskSpec(
            name=name,
            family="spoilt",
            dataset=name,
            category="sums",
            source=source,
            templates=TEMPLATES,
            splits={"train": "train", "validation": "validation"},
        )
    )


add("spoilt.sums", "sums.jsonl")
add("spoilt.blank", "blank.jsonl")
add("spoilt.absent", "absent.jsonl")
