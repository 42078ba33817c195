"""The wordings of all tasks: the files of `tasks/templates/`, each read once a process."""

import functools
from collections.abc import Mapping
from pathlib import Path

from instruct.errors import unknown_name
from instruct.prompts.template import TemplateSet, load_template_sets

FOLDER = Path(__file__).parent / "templates"


@functools.cache
def wordings(*files: str) -> Mapping[str, TemplateSet]:
    """Template sets by name, from one or several files `<file>.toml`.

    Raises:
        UserError: a file cannot be read or contains no template sets.
    """
    if len(files) == 1:
        return load_template_sets(FOLDER / f"{files[0]}.toml")
    return {name: template_set for file in files for name, template_set in wordings(file).items()}


def wording(name: str, *files: str) -> TemplateSet:
    """The template set of that name in these files.

    Raises:
        UserError: no set has the name.
    """
    sets = wordings(*files)
    if name not in sets:
        raise unknown_name("template set", name, sets)
    return sets[name]
