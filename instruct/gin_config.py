"""gin configuration: loads files and flags, builds arguments. The only module that imports gin.

gin binds the entry functions (`train`, `evaluate`, `infer`, `serve`) and the frozen `*Config`
dataclasses they take, nothing deeper. gin-config 0.5 silently accepts a misspelt macro, a misspelt
scope, and a `%gin.REQUIRED` that nobody set (unless the configuration is finalized). `load` refuses
all three, names every missing macro at once, and suggests the nearest known name.
"""

import ast
import codecs
import contextlib
import functools
import inspect
import io
import os
import pathlib
import re
import tokenize
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import gin
import gin.config

from instruct.errors import UserError, unknown_name
from instruct.files import is_address, path_of

TRAIN = "instruct.train.loop.train"
EVALUATE = "instruct.eval.runner.evaluate"
INFER = "instruct.eval.infer.infer"
SERVE = "instruct.serve.server.serve"
# `check` and `convert` accept a model file alone, which binds the fields of one of these.
MODELS = (
    "instruct.models.config.ModelConfig",
    "instruct.models.decoder_config.DecoderConfig",
    "instruct.models.pair_config.PairConfig",
)
SUITES = "instruct.eval.eval_config.SuitesConfig"  # evaluation while training
COMPILATION_CACHE = "instruct.compilation_cache.use"  # of every mode that computes
ENTRIES = (TRAIN, EVALUATE, INFER, SERVE, *MODELS, SUITES, COMPILATION_CACHE)

# Errors that gin's tokenizer, parser, imports and calls raise for a user's mistakes.
_GIN_ERRORS = (
    tokenize.TokenError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    NameError,
    RuntimeError,
)
# Folder that holds gin/: the checkout, or the resources in a wheel (setup.cfg).
_PACKAGE = pathlib.Path(__file__).resolve().parent
ROOT = _PACKAGE.parent if (_PACKAGE.parent / "gin" / "runs").is_dir() else _PACKAGE / "resources"
_BINDING = re.compile(r"^([\w./]+)\s*=\s*(.*)$")
# Characters of a line, so that gin prints every binding on one; its headings are as long.
_UNLIMITED = 10**5
_STRING = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")
_UNKNOWN_PARAMETER = re.compile(r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'")
_UNKNOWN_CONFIGURABLE = re.compile(r"No configurable matching (?:reference )?'?@?([\w./]+)")

# Bindings of each file of this project that the loaded configuration includes.
_project_bindings: list[dict[str, str]] = []


def quote_value(value: str, kinds: frozenset[str] = frozenset()) -> str:
    """Converts a command-line value to gin source: quotes words, keeps literals and references.

    If the setting takes text, a literal of a kind that it does not take is quoted as well.

    >>> quote_value("3"), quote_value("runs/demo"), quote_value("%MODEL_DIR")
    ('3', "'runs/demo'", '%MODEL_DIR')
    >>> quote_value("3", frozenset({"str"})), quote_value("3", frozenset({"str", "int"}))
    ("'3'", '3')

    Args:
        kinds: kinds of value that the setting takes (see `_kinds`); empty if unknown.
    """
    text = value.strip()
    takes_text = "str" in kinds
    if text.startswith(("%", "@")) and (not takes_text or _is_known_reference(text)):
        return text
    try:
        literal = ast.literal_eval(text)
        repr(literal)  # fails for integers of thousands of digits
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        takes_container = not takes_text or kinds & {"sequence", "mapping"}
        is_container = text.startswith(("[", "(", "{")) and takes_container
        return text if is_container else repr(value)  # such as [@a(), %B]
    return repr(value) if takes_text and _kind(type(literal)) not in kinds else text


def _is_known_reference(text: str) -> bool:
    """Whether `%NAME` or `@name()` refers to a macro or configurable that exists."""
    if text.startswith("%"):
        return text[1:] in macros() or text.startswith("%gin.")
    return _is_registered(text[1:].removesuffix("()").rpartition("/")[2])


def _kind(kind: Any) -> str:
    """Name of a type or annotation: "sequence", "mapping", a class name, or "other"."""
    origin = typing.get_origin(kind) or kind
    if not isinstance(origin, type):
        return "other"
    if issubclass(origin, Sequence) and not issubclass(origin, str | bytes):
        return "sequence"
    return "mapping" if issubclass(origin, Mapping) else origin.__name__


def _kinds(parameter: str) -> frozenset[str]:
    """Kinds of value that a parameter, such as `loop.train.model_dir`, or a macro takes.

    A macro takes what is allowed for every parameter that it sets, also through other macros.
    Empty if unknown: no such parameter, no annotation, or one that `_kind` does not name.
    """
    if "." not in parameter:
        users = [key for key, value in config_bindings().items() if value == f"%{parameter}"]
        known = [kinds for user in users if (kinds := _kinds(user))]
        return frozenset.intersection(*known) if known else frozenset()
    selector, _, name = parameter.rpartition("/")[2].rpartition(".")
    if not _is_registered(selector):
        return frozenset()
    configurable = gin.get_configurable(selector)
    try:
        hints = typing.get_type_hints(
            configurable if isinstance(configurable, type) else inspect.unwrap(configurable)
        )
    except (NameError, TypeError):
        return frozenset()
    hint = hints.get(name, Any)
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = frozenset(map(_kind, typing.get_args(hint) if is_union else (hint,)))
    return frozenset() if "other" in kinds else kinds


def binding_from_flag(flag: str) -> str:
    """Converts `--gin.NAME=VALUE` to a line of gin. Raises UserError without a name or a value.

    Bind whatever NAME sets before the call: the value is quoted according to its declared type.
    """
    name, _, value = flag.removeprefix("--gin.").partition("=")
    if not (name.strip() and value.strip()):
        raise UserError(f"{flag!r}: write --gin.NAME=VALUE, for example --gin.TRAIN_STEPS=100.")
    return f"{name.strip()} = {quote_value(value, _kinds(name.strip()))}"


def find_gin_file(path: str) -> pathlib.Path:
    """Finds a gin file in the working folder, else in the project's root, or at its address.

    Raises:
        UserError: it is in neither (the message has the nearest names), or it is a folder.
    """
    if is_address(path):
        return path_of(path)
    # os.path, unlike pathlib, treats a name that is too long as a missing file.
    if os.path.isdir(path):
        raise UserError(f"--gin_file={path} is a folder; give one file, repeat it for several.")
    for folder in (pathlib.Path(), ROOT):
        if os.path.isfile(os.path.join(folder, path)):
            return folder / path
    raise unknown_name(
        "gin file", path, [str(p.relative_to(ROOT)) for p in ROOT.glob("gin/**/*.gin")]
    )


def _open_gin_file(path: str) -> io.StringIO:
    """Reads a gin file: UTF-8, or UTF-16 or UTF-32 with a byte order mark; any line ends."""
    file = find_gin_file(path)
    data = file.read_bytes()
    marks = {  # that of UTF-16 is a prefix of that of UTF-32
        codecs.BOM_UTF32_LE: "utf-32",
        codecs.BOM_UTF32_BE: "utf-32",
        codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16",
    }
    encoding = next((marks[mark] for mark in marks if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
        if "\0" in text:
            raise UnicodeDecodeError("utf-8", data, data.index(0), data.index(0) + 1, "a zero byte")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not {encoding.removesuffix('-sig').upper()} text ({error.reason} at byte "
            f"{error.start}). Save the file as UTF-8."
        ) from None
    if not is_address(file) and (ROOT / "gin").resolve() in file.resolve().parents:
        _project_bindings.append(_bindings(re.sub(" #.*", "", text)))
    return io.StringIO(text, newline=None)


def load(
    gin_files: Sequence[str],
    bindings: Sequence[str] = (),
    stand_ins: Mapping[str, Any] | None = None,
    macro_values: Mapping[str, Any] | None = None,
) -> list[str]:
    """Parses files, then bindings (later ones win), and finalizes the configuration.

    Files, also included ones, are looked up in the working folder, then in the project's root.

    Args:
        bindings: lines or whole texts of gin, and flags as `--gin.NAME=VALUE`. Errors name the
            first line of a text.
        stand_ins: kind of value (such as "str") -> value to bind to a macro of that kind that is
            read or required and not set; "{name}" in a text stands for the macro's name.
        macro_values: macro -> value, in place of the files' for macros that they bind.

    Returns:
        The macros that were bound to stand-ins, sorted.

    Raises:
        UserError: a file is missing, a line does not parse, a name is unknown, or required macros
            without a stand-in are not set.
    """
    gin.clear_config()
    _project_bindings.clear()
    # gin's own readers know no encodings, and log every folder without the file.
    readers: list[Any] = getattr(gin.config, "_FILE_READERS")  # noqa: B009 (no public name)
    earlier = list(readers)
    readers[:] = [(_open_gin_file, find_gin_file)]
    try:
        for path in gin_files:
            with _readable_errors(path):
                gin.parse_config_file(path)
        if macro_values:
            for name in macros().keys() & macro_values.keys():
                gin.parse_config(f"{name} = {macro_values[name]!r}")
        for binding in bindings:
            text = binding_from_flag(binding) if binding.startswith("--gin.") else binding
            with _readable_errors(text.partition("\n")[0].lstrip("# ")):
                gin.parse_config(text)
    finally:  # other code in this process may read gin files too
        readers[:] = earlier
    assumed = _bind_stand_ins(stand_ins) if stand_ins else []
    if missing := _missing_macros():
        flags = " ".join(f"--gin.{name}=..." for name in missing)
        raise UserError(f"these macros must be set: {', '.join(missing)}. Add {flags}")
    with _readable_errors("the configuration as a whole"):
        gin.finalize()
    return assumed


@contextlib.contextmanager
def _readable_errors(origin: str) -> Iterator[None]:
    """Converts the many exception types of gin's parser to a UserError that names `origin`."""
    try:
        yield
    except UserError as error:  # drop gin's note on what it was building
        raise UserError(re.split(r"\n\s*In (?:call to|file|bindings)", str(error))[0]) from None
    except OSError as error:
        raise UserError(f"{origin}: {error}") from error
    except _GIN_ERRORS as error:
        text = str(error).strip().split("\n  In ")[0]
        match = _UNKNOWN_CONFIGURABLE.search(text)
        if match and "." not in match.group(1):
            raise unknown_name("macro or configurable", match.group(1), macros()) from error
        if match := _UNKNOWN_PARAMETER.search(text):
            target = gin.get_configurable(match.group(1))
            # gin hides the signature of a class.
            fields = getattr(target, "__dataclass_fields__", None)
            known = fields or inspect.signature(target).parameters
            raise unknown_name(f"parameter of {match.group(1)}", match.group(2), known) from error
        raise UserError(f"{origin}: {text}") from error


def macros() -> dict[str, Any]:
    """Every bound macro with its value (`%gin.REQUIRED` if it is still to be set)."""
    return _macros_of(config_bindings())


def _macros_of(bindings: Iterable[str]) -> dict[str, Any]:
    """The macros among bindings, as `macros`."""
    names = [name for name in bindings if name.isidentifier()]
    return {name: gin.query_parameter(f"{name}/gin.macro.value") for name in names}


def _missing_macros() -> list[str]:
    """Macros that are required and not set, then those that values read and nothing binds."""
    bindings = config_bindings()
    bound = _macros_of(bindings)
    required = [name for name, value in bound.items() if str(value) == "%gin.REQUIRED"]
    read = set().union(*map(macro_names, bindings.values()))
    return [*required, *sorted(read - set(bound))]


def _bind_stand_ins(stand_ins: Mapping[str, Any]) -> list[str]:
    """Binds required macros that are not set to the value for their kind; returns their names."""
    assumed = []
    for name in _missing_macros():
        kinds = _kinds(name)
        kind = next((kind for kind in stand_ins if kind in kinds), None)
        if kind is not None:
            value = stand_ins[kind]
            value = value.format(name=name) if isinstance(value, str) else value
            gin.parse_config(f"{name} = {value!r}")
            assumed.append(name)
    return sorted(assumed)


def entry_arguments(entries: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The arguments that gin binds for each entry function, with every `*Config` built.

    All entries are built together: one recipe then serves `train`, `eval` and `infer`, and a
    binding that none of them uses is an error.

    Args:
        entries: dotted names; an entry that no file mentions gets {}.

    Raises:
        UserError: a `*Config` refuses a value, or nothing uses a binding or macro.
    """
    arguments: dict[str, dict[str, Any]] = {entry: {} for entry in entries}
    used = set()
    for entry in arguments:
        if _is_registered(entry):
            with _readable_errors(entry):
                arguments[entry] = gin.get_bindings(entry, resolve_references=True)
        used |= {_short_key(f"{entry}.{name}") for name in arguments[entry]}
    _refuse_unused(used, any(arguments.get(entry) for entry in ENTRIES))
    return arguments


def _is_registered(selector: str) -> bool:
    try:
        gin.get_configurable(selector)
    except (KeyError, ValueError):
        return False
    return True


def _short_key(name: str) -> str:
    """`scope/module.name.parameter`, from a name with any number of packages in front."""
    scope, slash, tail = name.rpartition("/")
    return scope + slash + ".".join(tail.split(".")[-3:])


def _bindings(source: str) -> dict[str, str]:
    """Parses the one-line bindings of gin source: short key (or macro) -> value as source."""
    matches = filter(None, map(_BINDING.match, source.splitlines()))
    return {_short_key(match[1]): match[2].strip() for match in matches}


def config_bindings() -> dict[str, str]:
    """All bindings of the loaded configuration, as `_bindings`."""
    return _bindings(gin.config_str(_UNLIMITED))


def macro_names(source: str) -> set[str]:
    """Names used as `%NAME` in gin source, outside of its strings."""
    return set(re.findall(r"%([A-Za-z_]\w*)(?![\w.])", _STRING.sub("''", source)))


def _refuse_unused(used: set[str], is_configured: bool) -> None:
    """Raises UserError for bindings that building every entry did not read.

    Args:
        used: keys that the entries read.
        is_configured: any file or flag configures an entry.
    """
    bound = config_bindings()
    read = _bindings(gin.operative_config_str(_UNLIMITED)).keys() | used
    # A binding without a scope serves `@scope/name()` too, which is read as `scope/name.parameter`.
    read |= {key.rpartition("/")[2] for key in read}
    read |= _macros_reached(bound, read)
    unused = sorted(bound.keys() - read - _replaced_defaults(bound) - _bindings_of_parts(bound))
    if not unused:
        return
    known = sorted(bound.keys() & read)
    if len(unused) == 1:
        message = str(unknown_name("or unused binding", unused[0], known))
    else:
        message = f"nothing uses these bindings: {', '.join(unused)}. Misspelt? In use: "
        message += f"{', '.join(known)}."
    if not is_configured:
        message += (
            " No gin file says what runs; is --gin_file missing, such as gin/runs/train.gin, "
            "eval.gin, infer.gin, serve.gin or a recipe?"
        )
    raise UserError(message)


def _replaced_defaults(bound: Mapping[str, str]) -> set[str]:
    """Keys that this project's files bind for a configurable that the user replaced by another.

    `gin/runs/train.gin` sets `OptimizerConfig.learning_rate`, which is unused if the user sets
    `loop.train.optimizer` to another optimiser. A value that the user bound is not a default.
    """
    defaults = [item for bindings in _project_bindings for item in bindings.items()]
    kept = {key for key, value in bound.items() if (key, value) in defaults}
    referenced, replaced = (
        set(re.findall(r"@([\w./]+)", " ".join(values)))
        for values in (bound.values(), (value for _, value in defaults))
    )
    keys = {key for key in kept if key.rpartition(".")[0] in replaced - referenced}
    return keys | (_macros_reached(bound, keys) & kept)


def _bindings_of_parts(bound: Mapping[str, str]) -> set[str]:
    """Keys as this project's files of hardware or batches bind them; not every mode uses all."""
    return {key for key, value in bound.items() if (key, value) in _part_bindings()}


@functools.cache
def _part_bindings() -> set[tuple[str, str]]:
    """(key, value) of every line of this project's files of hardware and batches."""
    layouts = [ROOT / f"gin/models/{name}.gin" for name in ("encoder_decoder", "decoder_only")]
    files = [*ROOT.glob("gin/hardware/*.gin"), *layouts]
    return {item for path in files for item in _bindings(path.read_text("utf-8")).items()}


def _macros_reached(bindings: Mapping[str, str], keys: Iterable[str]) -> set[str]:
    """Macros that the values of some keys refer to, directly or through other macros."""
    reached: set[str] = set()
    frontier = set(keys)
    while frontier:
        frontier = set().union(*(macro_names(bindings.get(key, "")) for key in frontier)) - reached
        reached |= frontier
    return reached


def reference_text(entry: str, parameter: str) -> str | None:
    """Describes what a parameter is bound to, with the arguments of every function it references.

    The text is the same on every start: macros are replaced by their values, and the defaults that
    a function was called with are included. Call it after the entry was built. For example
    '@my_module.my_optimizer(); my_module.my_optimizer.learning_rate = 0.001'; None if unbound.
    """
    try:
        text = repr(gin.query_parameter(f"{entry}.{parameter}"))
    except ValueError:
        return None
    lines = gin.operative_config_str(_UNLIMITED).splitlines()
    bindings = [match.groups() for line in lines if (match := _BINDING.match(line))]
    values = macros()
    parts, frontier, called = [], [text], set()
    while frontier:
        value = frontier.pop(0)
        while names := macro_names(value) & set(values):
            for name in names:
                value = re.sub(rf"%{name}(?![\w.])", lambda _, n=name: repr(values[n]), value)
        parts.append(value)
        for name in re.findall(r"@([\w./]+)", value):
            if name not in called:
                called.add(name)
                frontier += [f"{k} = {v}" for k, v in bindings if k.rpartition(".")[0] == name]
    return "; ".join(parts)


def config_text() -> str:
    """The bound values (`config.gin`)."""
    return gin.config_str()


def operative_text() -> str:
    """The used values, defaults included (`operative.gin`); call it after building the entry."""
    return gin.operative_config_str()
