"""Code around the first import of a module, whoever imports it and however."""

import contextlib
import importlib
import importlib.util
import sys

import pytest

from instruct.import_hook import after_import, around_import, hidden
from tests.data.toy import fresh_name


def module_file(folder, monkeypatch, text="value = 1\n"):
    name = fresh_name("hooked").replace(".", "_")
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    return name


def test_the_context_is_open_while_the_module_executes(tmp_path, monkeypatch):
    events: list[str] = []
    monkeypatch.setattr(sys, "import_hook_events", events, raising=False)
    name = module_file(
        tmp_path, monkeypatch, "import sys\nsys.import_hook_events.append('module')\nvalue = 1\n"
    )

    @contextlib.contextmanager
    def around(module):
        events.append(f"before {hasattr(module, 'value')}")
        yield
        events.append(f"after {module.value}")

    around_import(name, around)
    around_import(name, around)  # asked for twice, it runs once
    assert importlib.util.find_spec(name) is not None and events == []  # a search imports nothing
    importlib.import_module(name)
    assert events == ["before False", "module", "after 1"]
    around_import(name, around)
    importlib.import_module(name)
    assert len(events) == 3
    assert not [finder for finder in sys.meta_path if getattr(finder, "name", None) == name]


def test_a_function_follows_the_import_or_runs_at_once(tmp_path, monkeypatch):
    calls: list[bool] = []
    name = module_file(tmp_path, monkeypatch)
    for _ in range(2):
        after_import(name, lambda: calls.append(name in sys.modules))
        importlib.import_module(name)
    assert calls == [True, True]


def test_a_hidden_package_seems_absent_until_the_context_ends(tmp_path, monkeypatch):
    name = module_file(tmp_path, monkeypatch)
    with hidden(name), pytest.raises(ImportError):
        importlib.import_module(name)
    assert importlib.import_module(name).value == 1
    with hidden(name):
        assert importlib.import_module(name).value == 1
