"""Hash of Python code that is equal in every process while the code does the same.

    fingerprint = CodeFingerprint()
    fingerprint.add(preprocessor)
    fingerprint.hexdigest(), fingerprint.unseen

Functions are hashed by bytecode, constants, defaults, closures and attributes, and by what they use
of the user's modules: helper functions, classes and module constants, transitively. Comments,
docstrings, formatting, names of local variables, memory addresses, hash seeds and the folder of a
module do not count. Installed packages are hashed by name only. State that the code does not show
(C objects, files that the code opens) is listed in `unseen`.
"""

import collections
import contextlib
import dataclasses
import dis
import enum
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import random
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePath
from typing import Any

import numpy as np

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}")
_PLAIN = bool | int | float | complex | range | slice | types.EllipsisType
_CONTAINERS = dict | list | set | collections.deque | types.MappingProxyType
_INSTALLED_FOLDERS = tuple(
    {
        os.path.join(form(folder), "")
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
        for folder in [sysconfig.get_path(name)]
        for form in (os.path.normpath, os.path.realpath)
    }
)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Class attributes that do not change what a class does, or that repeat others.
_CLASS_NOISE = _names(
    "__module__ __qualname__ __doc__ __dict__ __weakref__ __annotations__ __abstractmethods__ "
    "_abc_impl __dataclass_fields__ __dataclass_params__ __firstlineno__ __static_attributes__ "
    "__match_args__ __parameters__ __orig_bases__"
)
_MODULE_NOISE = _names("__file__ __cached__ __path__ __name__ __package__ __spec__")
# Packages whose objects are described by their attributes; those of others hold handles and caches.
_OPEN_PACKAGES = _names("seqio t5")
# Packages whose objects either print their whole state or an address (tables, variables).
_PRINTING_PACKAGES = _names("numpy tensorflow")
# Packages whose objects do not affect what a function returns.
_STATELESS_PACKAGES = _names("weakref threading _thread logging abc _abc absl")
_MUTATORS = _names("append add update setdefault extend insert pop popitem remove discard clear")
# Names by which code reads data from outside.
_READERS = _names(
    "open GFile read_text read_bytes read_csv read_json read_parquet load_dataset TextLineDataset "
    "TFRecordDataset FixedLengthRecordDataset CsvDataset make_csv_dataset loadtxt genfromtxt "
    "urlopen environ getenv"
)


class CodeFingerprint:
    """SHA-256 of a sequence of Python objects (see the module's docstring).

    Args:
        replace_fn: maps an object to its replacement, such as a vocabulary to the bytes of its
            file, or to itself.

    Attributes:
        unseen: phrases that name what the hash does not cover (keys, in order).
    """

    def __init__(self, replace_fn: Callable[[Any], Any] = lambda value: value) -> None:
        self._replace_fn = replace_fn
        self._hash = hashlib.sha256()
        # id -> (order of the first visit, object); the reference keeps the id from being reused.
        self._visited: dict[int, tuple[int, Any]] = {}
        self._folders: set[str] = set()
        self.unseen: dict[str, None] = {}

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def add(self, value: Any) -> None:
        """Adds an object and all that it uses."""
        value = self._replace_fn(value)
        if isinstance(value, enum.Enum):
            self.add(("enum", type(value), value.name, value.value))
        elif value is None or isinstance(value, _PLAIN):
            self._emit(type(value).__name__, repr(value))
        elif isinstance(value, str | PurePath):
            # Paths inside a folder of the user's modules are relative: both may be moved.
            text = str(value)
            # Of nested folders the innermost: the order of a set differs between processes.
            folder = max(filter(text.startswith, self._folders), key=len, default=None)
            self._emit("text", f"<module folder>/{text[len(folder) :]}" if folder else text)
        elif isinstance(value, bytes | bytearray):
            self._emit("bytes", bytes(value))
        elif isinstance(value, tuple):
            self._emit("tuple", str(len(value)))
            if type(value) is not tuple:
                self.add(type(value))
            for item in value:
                self.add(item)
        elif isinstance(value, frozenset):
            self._add_set(value)
        elif isinstance(value, re.Pattern):
            self.add(("pattern", value.pattern, value.flags))
        elif isinstance(value, types.CodeType):
            self._add_code(value, {})
        elif id(value) in self._visited:
            self._emit("again", str(self._visited[id(value)][0]))
        else:
            self._visited[id(value)] = (len(self._visited), value)
            self._add_object(value)

    def add_state(self, value: Any, without: Collection[str] = ()) -> None:
        """Adds an object by class and attributes, also if an installed package has the class."""
        self.add(type(value))
        for name, attribute in sorted(_attributes(value).items()):
            if name not in without:
                self._emit("attribute", name)
                self.add(attribute)

    def _emit(self, kind: str, content: str | bytes) -> None:
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        self._hash.update(f"{kind} {len(data)} ".encode())
        self._hash.update(data)

    def _add_object(self, value: Any) -> None:
        if isinstance(value, types.FunctionType):
            self._add_function(value)
        elif isinstance(value, types.MethodType):
            self.add(("method", value.__func__, value.__self__))
        elif isinstance(value, functools.partial | functools.partialmethod):
            self.add(("partial", value.func, value.args))
            self._add_sorted(value.keywords)
            self._add_mapping(getattr(value, "__dict__", {}))
        elif isinstance(value, staticmethod | classmethod):
            self.add((type(value).__name__, value.__func__))
        elif isinstance(value, property):
            self.add(("property", value.fget, value.fset, value.fdel))
        elif isinstance(value, types.ModuleType):
            if _is_installed(value):
                self._emit("module", value.__name__)
            else:  # a user's module that is used as a whole
                members = {k: v for k, v in vars(value).items() if not k.startswith("__")}
                self._add_members(members)
        elif isinstance(value, type):
            self._add_class(value)
        elif isinstance(value, types.BuiltinFunctionType):
            self._emit("builtin", value.__qualname__)
            if value.__self__ is not None and not isinstance(value.__self__, types.ModuleType):
                self.add(value.__self__)
        else:
            if not _is_installed(type(value)):
                self.add_state(value)
            elif not isinstance(value, _CONTAINERS):
                self._add_installed(value)
            # Subclasses of containers count by attributes and items.
            if isinstance(value, set | frozenset):
                self._add_set(value)
            elif isinstance(value, Mapping):
                self._add_mapping(value)
                self.add(getattr(value, "default_factory", None))
            elif isinstance(value, list | collections.deque):
                self._emit("items", str(len(value)))
                for item in value:
                    self.add(item)

    def _add_set(self, values: AbstractSet[Any]) -> None:
        digests = []
        for value in values:
            single = CodeFingerprint(self._replace_fn)
            single._folders = self._folders
            single.add(value)
            self.unseen |= single.unseen
            digests.append(single.hexdigest())
        self._emit("set", " ".join(sorted(digests)))

    def _add_mapping(self, values: Mapping[Any, Any]) -> None:
        self._emit("items", str(len(values)))
        for key, value in values.items():
            self.add(key)
            self.add(value)

    def _add_sorted(self, values: Mapping[Any, Any]) -> None:
        self._add_mapping(dict(sorted(values.items())))

    def _add_members(self, values: Mapping[str, Any]) -> None:
        for name, value in sorted(values.items()):
            self._emit("member", name)
            self.add(value)

    def _add_installed(self, value: Any) -> None:
        """An object of an installed class: by its attributes, else by its `repr`."""
        package = type(value).__module__.partition(".")[0]
        kind = type(value).__qualname__
        if package != "builtins":
            kind = f"{type(value).__module__}.{kind}"
        self._emit("instance", kind)
        if isinstance(value, np.ndarray | np.generic):
            self._add_array(np.asarray(value))
        elif hasattr(value, "__wrapped__") or hasattr(value, "python_function"):
            self.add(getattr(value, "python_function", None) or value.__wrapped__)
        elif kind == "gin.config.ConfigurableReference":  # @scope/function, %MACRO
            bindings = sys.modules["gin.config"].get_bindings(value.scoped_selector, False)
            self.add((value.scoped_selector, value.evaluate, value.configurable.wrapped))
            self._add_sorted(bindings)
        elif callable(getattr(value, "numpy", None)):  # an eager tensor
            self._add_array(np.asarray(value.numpy()))
        elif package in _STATELESS_PACKAGES or type(value) is object:
            return
        elif package in _OPEN_PACKAGES or dataclasses.is_dataclass(value):
            self.add_state(value)
        else:
            shown, standard = _shown(value), package in sys.stdlib_module_names
            stateful = isinstance(value, random.Random) or not hasattr(value, "__dict__")
            if shown is not None and (standard or package in _PRINTING_PACKAGES):
                self._emit("shown", shown)
            elif standard and not stateful:
                self.add_state(value)
            else:
                self._emit("shown", shown or "")
                self.unseen[f"the state of a {kind}"] = None

    def _add_array(self, array: np.ndarray) -> None:
        self._emit("array", f"{array.dtype} {array.shape}")
        if array.dtype.hasobject:
            for item in array.ravel().tolist():
                self.add(item)
        else:
            self._emit("values", np.ascontiguousarray(array).tobytes())

    def _add_class(self, kind: type) -> None:
        if _is_installed(kind):
            self._emit("class", f"{kind.__module__}.{kind.__qualname__}")
            return
        self._emit("class", str(len(kind.__bases__)))
        if type(kind) is not type:
            self.add(type(kind))
        for base in kind.__bases__:
            self.add(base)
        slot = types.MemberDescriptorType | types.GetSetDescriptorType
        self._add_members(
            {
                name: value
                for name, value in vars(kind).items()
                if name not in _CLASS_NOISE and not isinstance(value, slot)
            }
        )

    def _add_function(self, function: types.FunctionType) -> None:
        code = function.__code__
        installed = _is_installed(function)
        if installed:
            self._emit("function", f"{function.__module__}.{function.__qualname__}")
        else:
            file = function.__globals__.get("__file__")
            if file:
                self._folders.add(os.path.join(os.path.dirname(os.path.abspath(file)), ""))
            self._add_code(code, function.__globals__)
            self.add(function.__defaults__)
            self._add_sorted(function.__kwdefaults__ or {})
        state = _changed(code)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if name not in state:
                self._emit("cell", name)
                self.add(content)
            elif not installed:
                self.unseen[f"variable {name}, which {code.co_qualname} changes"] = None
        self._add_sorted({k: v for k, v in vars(function).items() if k != "__wrapped__"})
        if installed and code.co_name == "gin_wrapper":  # of a configurable: its gin bindings
            selector = inspect.getclosurevars(function).nonlocals["selector"]
            for (scope, name), values in sorted(function.__globals__["_CONFIG"].items()):
                if name == selector:
                    self.add(scope)
                    self._add_sorted(values)

    def _add_code(self, code: types.CodeType, namespace: Mapping[str, Any]) -> None:
        """Bytecode without positions in the source, and the globals that it uses."""
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        num_names = code.co_argcount + code.co_kwonlyargcount
        for flag in (inspect.CO_VARARGS, inspect.CO_VARKEYWORDS):
            num_names += bool(code.co_flags & flag)
        names = code.co_varnames[:num_names]
        self.add(("code", *counts, code.co_flags, names, code.co_exceptiontable))
        # Formatting changes these: they mark lines for debuggers, or widen arguments.
        steps = list(dis.get_instructions(code))
        kept = [step for step in steps if step.opname not in ("NOP", "EXTENDED_ARG", "RESUME")]
        numbers, number = {}, 0
        for step in steps:
            numbers[step.offset] = number
            number += number < len(kept) and step is kept[number]
        state = _changed(code)
        for number, step in enumerate(kept):
            if step.opcode in dis.hasconst:  # names of keywords too, whose argval Python 3.11 lacks
                content: Any = code.co_consts[step.arg or 0]
            elif step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
                content = numbers.get(step.argval)
            elif step.opcode in dis.hasname:
                content = step.argval
            else:
                content = step.arg
            self._emit("step", step.opname)
            if isinstance(content, types.CodeType):
                self._add_code(content, namespace)
            else:
                self.add(content)
            if step.opcode in dis.hasname and step.argval in _READERS:
                self.unseen[f"what {step.argval} reads in {code.co_qualname}"] = None
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in namespace:
                if step.argval in state:
                    self.unseen[f"variable {step.argval}, which {code.co_qualname} changes"] = None
                elif step.argval not in _MODULE_NOISE:
                    self._add_path(namespace[step.argval], kept[number + 1 :])
            elif step.opname == "IMPORT_NAME":
                level, names = kept[number - 2].argval, kept[number - 1].argval
                self._add_import("." * level + step.argval, names, namespace)

    def _add_path(self, value: Any, following: Sequence[dis.Instruction]) -> None:
        """A global, or the value of `module.submodule.name` in a user's module."""
        for number, step in enumerate(following):
            is_module = isinstance(value, types.ModuleType)
            if not is_module or step.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                break
            if _is_installed(value):
                self._add_replaced(value, following[number:])
                break
            if step.argval in _MODULE_NOISE or not hasattr(value, step.argval):
                return
            value = getattr(value, step.argval)
        self.add(value)

    def _add_replaced(self, value: Any, following: Sequence[dis.Instruction]) -> None:
        """A user's function or class that replaces one in a module of an installed package."""
        for step in following:
            if not isinstance(value, types.ModuleType):
                break
            # `vars`, as `getattr` would make a module import its lazy members.
            value = vars(value).get(step.argval) if step.opcode in dis.hasname else None
        if isinstance(value, types.FunctionType | type) and not _is_installed(value):
            self.add(value)

    def _add_import(self, name: str, members: Any, namespace: Mapping[str, Any]) -> None:
        """Whatever an import inside a function takes from a user's module."""
        try:
            package = str(namespace.get("__package__") or "")
            absolute = importlib.util.resolve_name(name, package)
            spec = importlib.util.find_spec(absolute)
            if spec is None or _is_installed_file(spec.origin):
                return
            module = importlib.import_module(absolute)
        except Exception:  # a user's module may raise anything; running the step reports it
            self.unseen[f"module {name.lstrip('.')}, which cannot be imported here"] = None
            return
        if members is None:
            self.add(module)
        for member in members or ():
            if not hasattr(module, member):  # a submodule that is not imported yet
                with contextlib.suppress(Exception):
                    importlib.import_module(f"{absolute}.{member}")
            self.add(getattr(module, member, None))


def _shown(value: Any) -> str | None:
    """An object's `repr`; None if it is the default one or holds an address."""
    try:
        shown = repr(value)
    except Exception:
        return None
    own = type(value).__repr__ is not object.__repr__
    return shown if own and not _ADDRESS.search(shown) else None


def _attributes(value: Any) -> dict[str, Any]:
    """Attributes of an object: those of its fields, its `__dict__` and its slots."""
    attributes = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                attributes[name] = getattr(value, name)
        for name, member in vars(kind).items():
            if isinstance(member, functools.cached_property):
                attributes.pop(name, None)
    if dataclasses.is_dataclass(value):
        fields = (field.name for field in dataclasses.fields(value))
        attributes |= {name: getattr(value, name) for name in fields if hasattr(value, name)}
    return attributes


def _is_installed(value: types.FunctionType | type | types.ModuleType) -> bool:
    """Whether code belongs to Python or an installed package, and not to the user."""
    if isinstance(value, types.FunctionType):
        return _is_installed_file(value.__code__.co_filename)
    if isinstance(value, types.ModuleType):
        return _is_installed_file(getattr(value, "__file__", None))
    module = sys.modules.get(value.__module__)
    if module is None:
        return False
    # A module without a file is built in, except the main module of a session or notebook.
    file = getattr(module, "__file__", None)
    return _is_installed_file(file) if file else value.__module__ != "__main__"


@functools.cache
def _is_installed_file(file: str | None) -> bool:
    if file is None or file.startswith("<frozen") or file in ("built-in", "frozen"):
        return True
    if file.startswith("<"):  # typed into a session, or run by `exec`
        return False
    parts = Path(file).parts
    if "site-packages" in parts or "dist-packages" in parts:
        return True
    forms = (os.path.abspath(file), os.path.realpath(file))
    return any(form.startswith(_INSTALLED_FOLDERS) for form in forms)


@functools.cache
def _changed(code: types.CodeType) -> frozenset[str]:
    """Outer variables that a function, or a function inside it, assigns or changes items of.

    Memos, counters, lazily loaded values: they depend on what ran before.
    """
    changed = set()
    steps = list(dis.get_instructions(code))
    for number, step in enumerate(steps):
        if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF"):
            changed.add(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval in _MUTATORS:
            changed |= _outer_name(code, steps[number - 1])
        elif step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            # The container was pushed right before the key's expression.
            pushed, position = 0, number
            while position > 1 and pushed != 1:
                position -= 1
                before = steps[position]
                pushed += dis.stack_effect(before.opcode, before.arg, jump=False)
            changed |= _outer_name(code, steps[position - 1])
    inner = (_changed(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return frozenset(changed.union(*inner) - set(code.co_cellvars))


def _outer_name(code: types.CodeType, step: dis.Instruction) -> set[str]:
    """The name that an instruction loads from outside a function, if it does."""
    outer = step.opname == "LOAD_GLOBAL" or step.argval in code.co_freevars
    return {step.argval} if outer and step.opname in ("LOAD_GLOBAL", "LOAD_DEREF") else set()
