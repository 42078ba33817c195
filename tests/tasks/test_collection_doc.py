"""docs/collection.md is what the tasks give, and claims no check that is not there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from instruct.data.registry import task_specs
from instruct.errors import UserError
from tasks import collection_doc, collection_notes
from tests.workspaces import workspace

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_tasks_give():
    written = (ROOT / "docs" / "collection.md").read_text(encoding="utf-8")
    # In a process of its own: other tests register tasks that are none of the project's.
    code = "import sys; from tasks import collection_doc as d; sys.stdout.write(d.page())"
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.stdout == written, "run `python -m tasks.collection_doc`\n" + made.stderr[-800:]


def test_every_family_of_the_project_is_on_the_page():
    modules = [path.read_text(encoding="utf-8") for path in (ROOT / "tasks").glob("*.py")]
    families = {name for text in modules for name in re.findall(r'^FAMILY = "(\w+)"', text, re.M)}
    assert len(families) >= 8 and families <= set(collection_notes.TITLES)
    assert set(collection_notes.CHECKS) == set(collection_notes.TITLES)
    assert set(collection_notes.TITLES) <= {
        spec.family for spec in task_specs(workspace()).values()
    }


@pytest.mark.parametrize(
    "check", [check for checks in collection_notes.CHECKS.values() for check in checks]
)
def test_every_check_is_a_test(check):
    """Of the kind it is said to be: the test, or what it calls, shows it."""
    file, name = check.test.split("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    found = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    assert found, check.test
    if check.how == "real files":
        assert "shared_data" in [argument.arg for argument in found[0].args.args]
    if check.how == "mock_data":
        assert "mock_data" in text


def test_tables_of_the_counting_rule_are_counted():
    text = collection_doc.SECTIONS["What counts as a task, a data set, a category"]()
    assert "{" not in text and "1,836 tasks" in text
    assert (
        len({leaf.rpartition(".")[0] for leaf in collection_doc.shares(workspace(), "flan2022")})
        == 1836
    )


def test_main_writes_and_compares(tmp_path, monkeypatch, capsys):
    page = tmp_path / "collection.md"
    monkeypatch.setattr(collection_doc, "PAGE", page)
    monkeypatch.setattr(collection_doc, "SECTIONS", {"One": lambda: "text\n"})
    assert collection_doc.main([]) == 0 and page.read_text().endswith("## One\n\ntext\n")
    assert collection_doc.main(["--check"]) == 0
    page.write_text("other")
    assert collection_doc.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    with pytest.raises(UserError, match="--chek"):
        collection_doc.main(["--chek"])
