"""One task of a suite, worded by a layout of `tasks/templates/suites.toml`."""

from typing import Any

from instruct.data.spec import Source, TaskSpec
from tasks.wordings import wording


def suite_task(
    name: str, source: Source, layout: str, dataset: str = "", **values: Any
) -> TaskSpec:
    """The spec of task `name`, `<family>.<...>`, with every split of its source.

    Args:
        layout: name of its template set.
        dataset: "" for the family's name.
        values: further fields of `TaskSpec`.
    """
    family = name.partition(".")[0]
    return TaskSpec(
        name,
        family,
        dataset or family,
        source=source,
        templates=wording(layout, "suites"),
        splits={split: split for split in source.splits},
        **values,
    )
