"""Every wording that ships: its file loads, its set passes the lint, no layout doubles a label."""

from pathlib import Path

import pytest

from instruct.prompts.template import TemplateSet, load_template_sets
from tests.template_lint import doubled_labels, lint

FILES = sorted(Path(__file__).parents[2].joinpath("tasks", "templates").glob("*.toml"))
SETS = [
    pytest.param(template_set, id=f"{path.stem}-{name}")
    for path in FILES
    for name, template_set in load_template_sets(path).items()
]


def test_the_files_are_found():
    assert {"entailment", "reading", "summaries"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("template_set", SETS)
def test_lint_finds_nothing(template_set: TemplateSet):
    assert lint(template_set) == []


@pytest.mark.parametrize("template_set", SETS)
def test_no_label_is_printed_twice(template_set: TemplateSet):
    assert doubled_labels(template_set) == []
