"""The map stays true: who imports whom, names, and that every module has a mirror."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for folder in ("instruct", "tasks")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__init__.py"
)

# Layer of each module of instruct/; a module imports its own layer or lower. docs/architecture.md.
LAYERS = {
    "instruct.errors": 0,
    "instruct.batch": 0,
    "instruct.lineage": 0,
    "instruct.mean": 0,
    "instruct.permissions": 0,
    "instruct.results": 0,
    "instruct.prompts": 0,
    "instruct.mesh": 1,
    "instruct.peak": 1,
    "instruct.summaries": 1,
    "instruct.models.config": 1,
    "instruct.eval.metrics": 1,
    "instruct.data": 2,
    "instruct.models": 2,
    "instruct.train": 3,
    "instruct.eval": 3,
    "instruct.interop": 4,
    "instruct.train.checkpoint": 4,
    "instruct.train.checkpoint_files": 4,
    "instruct.train.inputs": 4,
    "instruct.train.loop": 4,
    "instruct.train.session": 4,
    "instruct.eval.runner": 4,
    "instruct.eval.suite_run": 4,
    "instruct.eval.infer": 4,
    "instruct.report": 5,
    "instruct.gin_config": 5,
    "instruct.cli": 6,
}
# Third-party packages that only these may import.
REACH = {
    "gin": ("instruct.gin_config",),
    "tensorflow": ("instruct.data.seqio_", "instruct.data.tfds_source", "tasks."),
    "seqio": ("instruct.data.registry", "instruct.data.seqio_", "tasks."),
    "grain": ("instruct.data.",),
    "flax": ("instruct.models.",),
    "optax": ("instruct.train.",),
    "orbax": ("instruct.train.",),
    "tensorstore": ("instruct.interop.",),
    "msgpack": ("instruct.interop.",),
}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "types", "core", "base", "lib", "manager"}


def module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def layer_of(module: str) -> int:
    matches = [name for name in LAYERS if module == name or module.startswith(name + ".")]
    return LAYERS[max(matches, key=len)]


def imports(path: pathlib.Path) -> set[str]:
    """Dotted names of everything a module imports, wherever the statement stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT / (full.replace(".", "/") + ".py")).is_file()
                names.add(full if is_module else node.module)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_downward(path):
    module = module_name(path)
    for name in imports(path):
        if name.startswith("tasks"):
            assert module.startswith("tasks"), f"{module} imports {name}: the library knows no task"
        if not name.startswith("instruct") or name == "instruct":
            continue
        if module.startswith("tasks."):
            allowed = (
                "instruct.prompts",
                "instruct.data",
                "instruct.eval.metrics",
                "instruct.errors",
            )
            assert name.startswith(allowed), f"{module} imports {name}"
            continue
        assert layer_of(name) <= layer_of(module), f"{module} imports {name}, a higher layer"
        data, models = "instruct.data.", "instruct.models."
        if module.startswith(models) and module != "instruct.models.config":
            assert not name.startswith(data), f"{module} imports {name}"
        if module.startswith(data):
            assert not name.startswith(models), f"{module} imports {name}"
        if module.startswith("instruct.report."):
            layer_zero = layer_of(name) == 0 or name.startswith("instruct.report")
            assert layer_zero, f"{module} imports {name}: reports read files only"
        if layer_of(module) == 3:
            same_package = name.split(".")[:2] == module.split(".")[:2]
            assert layer_of(name) < 2 or same_package, f"{module} imports {name}: takes functions"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_third_party_reach(path):
    module = module_name(path)
    for name in imports(path):
        package = name.split(".")[0]
        if package in REACH:
            allowed = any(module.startswith(prefix) for prefix in REACH[package])
            assert allowed, f"{module} imports {package}; only {REACH[package]} may"


@pytest.mark.parametrize("path", [*SOURCES, ROOT / "run.py"], ids=module_name)
def test_names_and_docstrings(path):
    assert path.stem not in FORBIDDEN_NAMES
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no module docstring"


def test_package_files_hold_only_a_docstring():
    for path in (ROOT / "instruct").rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1 and isinstance(body[0], ast.Expr), path


def test_gin_folders_do_not_hide_gin_config():
    assert not list((ROOT / "gin").rglob("__init__.py"))


def test_every_module_is_tested_by_its_mirror_or_beside_it():
    """`instruct/x/y.py` has `tests/x/test_y.py`, or a test in `tests/x` imports it."""
    untested = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        parts = parts[1:] if parts[0] == "instruct" else parts
        mirror = ROOT / "tests" / pathlib.Path(*parts).with_name("test_" + parts[-1])
        beside = (ROOT / "tests" / pathlib.Path(*parts).parent).glob("*.py")
        if not mirror.is_file() and not any(module_name(path) in imports(p) for p in beside):
            untested.append(module_name(path))
    assert not untested


def test_no_unpickling_and_no_remote_code():
    for path in [*SOURCES, ROOT / "run.py"]:
        text = path.read_text()
        for forbidden in ("pickle.load", "allow_pickle=True", "trust_remote_code", "nnx.jit"):
            assert forbidden not in text, f"{path}: {forbidden}"
