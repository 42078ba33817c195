"""docs/collection.md is what the tasks give, and claims no check that is not there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from instruct.data.registry import task_specs
from instruct.errors import UserError
from tasks.collection import page
from tests.workspaces import workspace

ROOT = Path(__file__).parents[3]
CHECKS = [
    [cell.strip(" `") for cell in line.strip("| ").split(" | ")]
    for line in page.TEMPLATE.read_text(encoding="utf-8").splitlines()
    if line.endswith("` |") and "::" in line
]


@pytest.mark.slow
def test_the_page_is_what_the_tasks_give():
    written = page.PAGE.read_text(encoding="utf-8")
    # In a process of its own: other tests register tasks that are none of the project's.
    code = "import sys; from tasks.collection import page; sys.stdout.write(page.page())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == written, "run `python -m tasks.collection.page`\n" + done.stderr[-800:]
    assert len({leaf.rpartition(".")[0] for leaf in page.shares(workspace(), "flan2022")}) == 1836


def test_every_family_of_the_project_is_on_the_page():
    paths = [*(ROOT / "tasks").glob("*.py"), *(ROOT / "tasks").glob("*/family.py")]
    modules = [path.read_text(encoding="utf-8") for path in paths]
    families = {name for text in modules for name in re.findall(r'^FAMILY = "(\w+)"', text, re.M)}
    assert len(families) >= 8 and families <= set(page.TITLES)
    assert set(page.TITLES) <= {spec.family for spec in task_specs(workspace()).values()}
    assert {check[0] for check in CHECKS} == set(page.TITLES)
    assert len(CHECKS) == 17


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check[-1])
def test_every_check_is_a_test(check):
    """Of the kind it is said to be: the test, or what it calls, shows it."""
    _, _, how, _, test = check
    file, name = test.split("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    found = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    assert found, test
    if how == "real files":
        assert "shared_data" in [argument.arg for argument in found[0].args.args]
    if how == "mock_data":
        assert "mock_data" in text


def test_main_writes_and_compares(tmp_path, monkeypatch, capsys):
    path = tmp_path / "collection.md"
    monkeypatch.setattr(page, "PAGE", path)
    monkeypatch.setattr(page, "page", lambda: "text\n")
    assert page.main([]) == 0 and path.read_text() == "text\n"
    assert page.main(["--check"]) == 0
    path.write_text("other")
    assert page.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    with pytest.raises(UserError, match="--chek"):
        page.main(["--chek"])
