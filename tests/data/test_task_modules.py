"""Task modules by name and by file; what goes wrong with them is one clear message."""

import sys

import pytest
import seqio  # noqa: F401 (has the registries from the first test on)

from instruct.data import registry
from instruct.data.task_modules import load_modules
from instruct.errors import UserError
from tests.data.toy import fresh_name
from tests.workspaces import workspace


def test_modules_by_name_and_by_file(tmp_path, monkeypatch):
    file = tmp_path / f"{fresh_name('module')}.py"
    file.write_text("loaded = True\n")
    load_modules([str(file), "json"])
    assert sys.modules[file.stem].loaded
    load_modules([str(file)])
    with pytest.raises(UserError, match="cannot find module 'no_such_module'"):
        load_modules(["no_such_module"])
    with pytest.raises(UserError, match="cannot find module file"):
        load_modules([str(tmp_path / "missing.py")])
    broken = tmp_path / f"{fresh_name('module')}.py"
    broken.write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in (broken.stem, str(broken), str(broken)):  # a second try does not find it loaded
        with pytest.raises(UserError, match=r"'no_such_dependency' \(.*\.py, line 1\)"):
            load_modules([name])
    script = tmp_path / f"{fresh_name('module')}.py"
    script.write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(UserError, match=r"cannot be imported: SystemExit: 0 \(.*\.py, line 2\)"):
        load_modules([str(script)])
    namesake = tmp_path / "json.py"
    namesake.write_text("")
    with pytest.raises(UserError, match="rename the file"):
        load_modules([str(namesake)])


_WHOLE = """
from instruct.data.registry import add_task
from tests.data.toy import toy_spec

add_task(toy_spec(name="{family}.whole"))
"""
_FAILS_ONCE = """
import pathlib
import {family}_whole
from instruct.data.registry import add_discovery, add_mixture, add_task
from tests.data.toy import toy_spec

add_task(toy_spec(name="{family}.first"))
add_mixture("{family}.both", {{"{family}.first": 1, "{family}.whole": 1}}, cap=5, description="Two")
add_discovery(lambda workspace: [])
flag = pathlib.Path(__file__).with_name("flag")
if not flag.exists():
    flag.touch()
    raise {error}
add_task(toy_spec(name="{family}.second"))
"""


@pytest.fixture(params=["ValueError('no')", "KeyboardInterrupt"])
def fails_once(request, tmp_path, monkeypatch):
    """A family whose module fails when it is imported for the first time."""
    family = fresh_name("family")
    (tmp_path / f"{family}_whole.py").write_text(_WHOLE.format(family=family))
    text = _FAILS_ONCE.format(family=family, error=request.param)
    (tmp_path / f"{family}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return family


def known(family):
    names = (f"{family}.{name}" for name in ("whole", "first", "both", "second"))
    return [name.rpartition(".")[2] for name in names if registry._is_known(name)]


@pytest.mark.parametrize("seqio_was_imported", [False, True])
def test_a_failed_import_on_demand_leaves_nothing(fails_once, monkeypatch, seqio_was_imported):
    monkeypatch.setattr(registry, "_on_demand", {fails_once: (fails_once,)})
    monkeypatch.setattr(registry, "_joined_seqio", [True] * seqio_was_imported)
    discoveries = dict(registry._discoveries)
    with pytest.raises((ValueError, KeyboardInterrupt)):
        registry.check_name(workspace(), f"{fails_once}.both")
    assert known(fails_once) == ["whole"]  # its module was imported to its end
    assert registry._discoveries == discoveries
    assert registry.rates_of(f"{fails_once}.both") is None
    shares = registry.shares(workspace(), f"{fails_once}.both")
    assert list(shares) == [f"{fails_once}.{name}.zs_noopt" for name in ("first", "whole")]
    assert known(fails_once) == ["whole", "first", "both", "second"]
    assert not registry._on_demand


def test_a_failed_users_module_leaves_nothing(fails_once, tmp_path):
    name = str(tmp_path / f"{fails_once}.py")
    with pytest.raises((UserError, KeyboardInterrupt)):
        load_modules([name])
    assert known(fails_once) == ["whole"]
    load_modules([name])
    assert known(fails_once) == ["whole", "first", "both", "second"]
