"""The map stays true: who imports whom, names, and that every module has a mirror."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for folder in ("instruct", "tasks")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__init__.py"
)

# Packages of instruct/, lowest first; one imports itself and lower ones. docs/architecture.md.
RANKS = {
    "prompts": 1,
    "report": 1,  # of what a run leaves behind; it imports no other package
    "capacity": 1,  # of compiled programs and data sheets
    "study": 1,  # of texts, folders and processes; it imports no other package
    "data": 2,
    "models": 2,
    "checkpoints": 3,
    "train": 4,
    "eval": 4,
    "serve": 5,
    "cli": 6,
    "api": 7,  # one module: what Python calls of the command line's modes, of models and results
}
# Packages inside instruct/data/, lowest first. Modules beside them are the lowest, but for those
# that know tasks by name and stand above all.
DATA_ORDER = ("", "sources", "stores", "overlap", "feed", "seqio", "named")
NAMED = (
    *("instruct.data.registry", "instruct.data.mixture_shares"),
    *("instruct.data.rate_tables", "instruct.data.task_modules"),
    *("instruct.data.task_file", "instruct.data.own_task"),
)
# They take functions and arrays: no data, no model, no file.
PURE = (
    *("instruct.train.loss", "instruct.train.metrics", "instruct.train.optimizer"),
    *("instruct.train.step", "instruct.eval.decoding.beam", "instruct.eval.decoding.search"),
    *("instruct.eval.decoding.decode", "instruct.eval.decoding.slots"),
    *("instruct.eval.scoring.score", "instruct.eval.scoring.options", "instruct.eval.metrics"),
)
# Third-party packages that only these may import.
REACH = {
    "gin": ("instruct.gin_config",),
    "tensorflow": ("instruct.data.seqio.", "instruct.data.sources.tfds", "tasks."),
    "seqio": ("instruct.data.seqio.", "tasks."),
    "grain": ("instruct.data.",),
    "flax": ("instruct.models.", "instruct.checkpoints."),
    "optax": ("instruct.train.",),
    "orbax": ("instruct.checkpoints.",),
    "tensorstore": ("instruct.checkpoints.", "instruct.buckets"),
    "starlette": ("instruct.serve.",),
    "uvicorn": ("instruct.serve.",),
}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "types", "core", "base", "lib", "manager"}


def module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def package_of(module: str) -> str:
    """`data` for `instruct.data.feed.plan`; "" for a module that lies beside the packages."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or module == "instruct.api" else ""


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


def of_every_source(check):
    """One test of all modules, since a test of each would take longer than what it checks."""

    def test():
        problems = []
        for path in SOURCES:
            try:
                check(path)
            except AssertionError as error:
                problems.append(f"{module_name(path)}: {error}")
        assert not problems, "\n".join(problems)

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


@of_every_source
def test_imports_point_downward(path):
    module = module_name(path)
    package = package_of(module)
    for name in imports(path):
        if name.startswith("tasks"):
            assert module.startswith("tasks"), f"{module} imports {name}: the library knows no task"
        if not name.startswith("instruct."):
            continue
        if module.startswith("tasks."):
            metrics = name.startswith("instruct.eval.metrics")
            assert metrics or package_of(name) in ("", "data", "prompts"), (
                f"{module} imports {name}"
            )
            continue
        if package_of(name) != package:
            lower = RANKS.get(package_of(name), 0) < RANKS.get(package, 0)
            assert lower, f"{module} imports {name}, which is no lower package"
        if package == "report":
            assert package_of(name) in ("", "report"), f"{module} imports {name}"
        if module in PURE:
            pure = package_of(name) in ("", "prompts", package)
            pure |= name.startswith("instruct.checkpoints.train_state")
            assert pure, f"{module} imports {name}: takes functions"


def data_rank(module: str) -> int:
    """Place in DATA_ORDER."""
    parts = module.split(".")
    package = "named" if module in NAMED else parts[2] if len(parts) > 3 else ""
    return DATA_ORDER.index(package)


@of_every_source
def test_data_packages_have_an_order(path):
    module = module_name(path)
    for name in imports(path):
        if package_of(module) == package_of(name) == "data":
            assert data_rank(name) <= data_rank(module), f"{module} imports {name}, which is higher"


def test_packages_have_no_import_circles():
    """Folders as nodes, the two kinds of modules beside the packages of data apart."""

    def node(module: str) -> str:
        if package_of(module) == "data" and len(module.split(".")) == 3:
            return f"instruct.data: {DATA_ORDER[data_rank(module)] or 'lowest'}"
        return module.rpartition(".")[0] if module.count(".") > 1 else module

    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        own = node(module_name(path))
        names = (name for name in imports(path) if name.startswith("instruct."))
        graph.setdefault(own, set()).update({node(name) for name in names} - {own})
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from error


@pytest.mark.slow
def test_no_import_circles():
    graph = {module_name(path): imports(path) for path in SOURCES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from error


@of_every_source
def test_third_party_reach(path):
    module = module_name(path)
    for name in imports(path):
        package = name.split(".")[0]
        if package in REACH:
            allowed = any(module.startswith(prefix) for prefix in REACH[package])
            assert allowed, f"{module} imports {package}; only {REACH[package]} may"


@of_every_source
def test_names_and_docstrings(path):
    assert path.stem not in FORBIDDEN_NAMES
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no module docstring"


def test_the_entry_file_has_a_docstring():
    assert ast.get_docstring(ast.parse((ROOT / "run.py").read_text()))


def test_package_files_hold_only_a_docstring():
    for path in (ROOT / "instruct").glob("*/**/__init__.py"):  # instruct's own: tests/test_api.py
        body = ast.parse(path.read_text()).body
        assert len(body) == 1 and isinstance(body[0], ast.Expr), path


def test_gin_folders_do_not_hide_gin_config():
    assert not list((ROOT / "gin").rglob("__init__.py"))


@pytest.mark.slow
def test_every_module_is_tested_by_its_mirror_or_beside_it():
    """`instruct/x/y.py` has `tests/x/test_y.py`, or a test below `tests/x` imports it."""
    untested = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        parts = parts[1:] if parts[0] == "instruct" else parts
        mirror = ROOT / "tests" / pathlib.Path(*parts).with_name("test_" + parts[-1])
        folder = ROOT / "tests" / (parts[0] if len(parts) > 1 else "")
        beside = folder.rglob("*.py") if len(parts) > 1 else folder.glob("*.py")
        if not mirror.is_file() and not any(module_name(path) in imports(p) for p in beside):
            untested.append(module_name(path))
    assert not untested


def test_no_unpickling_and_no_remote_code():
    for path in [*SOURCES, ROOT / "run.py"]:
        text = path.read_text()
        for forbidden in ("pickle.load", "allow_pickle=True", "trust_remote_code", "nnx.jit"):
            assert forbidden not in text, f"{path}: {forbidden}"


# What else reads an environment variable than the command line: those of third-party programs.
ENVIRONMENT_READERS = {
    "instruct.allocator": ("JAX_PLATFORMS", "GLIBC_TUNABLES", "_USERS_OWN"),
    "instruct.mesh": ("JAX_PLATFORMS",),
    "instruct.distributed": ("CUDA_VISIBLE_DEVICES",),
    "instruct.buckets": ("TENSORSTORE_CURL_LOW_SPEED",),
    "instruct.data.quiet_tensorflow": ("TF_CPP_MIN_LOG_LEVEL",),
}


@of_every_source
def test_only_the_command_line_reads_the_environment(path):
    module, text = module_name(path), path.read_text()
    if package_of(module) == "cli":
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
            line = text.splitlines()[node.lineno - 1]
            known = any(name in line for name in ENVIRONMENT_READERS.get(module, ()))
            assert known, f"{module} reads the environment: {line.strip()}"


# Modules with state of the process that outlives a call.
REGISTRIES = (
    "instruct.distributed",  # this process's connection to the others, beside JAX's own
    "instruct.data.registry",  # tasks and mixtures
    "instruct.gin_config",  # texts that gin's own state was read from
    "instruct.report.faithfulness.quantities",  # readers, complete when it is imported
)
MUTABLE = {"dict", "list", "set", "defaultdict", "Counter", "deque", "WeakKeyDictionary"}


def _mutated_names(tree: ast.Module) -> set[str]:
    """Names whose object some function of the module changes."""
    methods = {"add", "append", "clear", "discard", "extend", "pop", "remove", "setdefault"}
    methods |= {"update", "insert", "popitem"}
    names = set()
    for node in ast.walk(tree):
        method = node.func if isinstance(node, ast.Call) else None
        if isinstance(method, ast.Attribute) and method.attr in methods:
            names |= {method.value.id} if isinstance(method.value, ast.Name) else set()
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else ()
        for target in targets:
            if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                names.add(target.value.id)
    return names


@pytest.mark.slow
@of_every_source
def test_no_module_keeps_state(path):
    """No `global`, and no container of a module that its functions change."""
    tree = ast.parse(path.read_text())
    if module_name(path) in REGISTRIES:
        return
    assert not any(isinstance(node, ast.Global) for node in ast.walk(tree)), path
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = ast.Module([statement for function in functions for statement in function.body], [])
    local = {
        target.id
        for node in ast.walk(inside)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        value, target = node.value, node.targets[0] if isinstance(node, ast.Assign) else node.target
        called = value.func if isinstance(value, ast.Call) else None
        kind = getattr(called, "attr", getattr(called, "id", ""))
        container = isinstance(value, ast.Dict | ast.List | ast.Set) or kind in MUTABLE
        if container and isinstance(target, ast.Name) and target.id not in local:
            assert target.id not in _mutated_names(inside), f"{path}: {target.id}"
