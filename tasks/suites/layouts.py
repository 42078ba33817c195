"""The layouts of the suites: template sets of `tasks/templates/suites.toml`, by name."""

from instruct.errors import unknown_name
from instruct.prompts.template import TemplateSet
from tasks.wordings import wordings


def layout(name: str) -> TemplateSet:
    """The layout of that name."""
    layouts = wordings("suites")
    if name not in layouts:
        raise unknown_name("layout", name, layouts)
    return layouts[name]
