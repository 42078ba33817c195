"""One task of a suite, worded by a layout of `tasks/templates/suites.toml`."""

from typing import Any

from instruct.data.spec import Source, TaskSpec
from instruct.errors import unknown_name
from instruct.prompts.template import TemplateSet
from tasks.wordings import wordings


def layout(name: str) -> TemplateSet:
    """The layout of that name."""
    layouts = wordings("suites")
    if name not in layouts:
        raise unknown_name("layout", name, layouts)
    return layouts[name]


def suite_task(name: str, source: Source, wording: str, **values: Any) -> TaskSpec:
    """The spec of task `name`, `<family>.<...>`, with every split of its source.

    Args:
        wording: name of its layout.
        values: further fields of `TaskSpec`; the default of `dataset` is the family.
    """
    family = name.partition(".")[0]
    return TaskSpec(
        name,
        family,
        source=source,
        templates=layout(wording),
        splits={split: split for split in source.splits},
        **({"dataset": family} | values),
    )
