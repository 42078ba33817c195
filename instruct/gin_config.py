"""gin, kept at arm's length: the only module of the library that imports it.

gin wires entry functions (`train`, `evaluate`, `infer`) and the frozen `*Config` dataclasses they
take, nothing deeper. gin-config 0.5 accepts three mistakes in silence: a misspelt macro, a misspelt
scope, and a `%gin.REQUIRED` that nobody set (unless the configuration is finalized). `load`
refuses all three, names every missing macro at once, and says what a wrong name was near to.
"""

import argparse
import ast
import codecs
import contextlib
import dataclasses
import inspect
import io
import os
import pathlib
import re
import tokenize
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import gin
import gin.config

from instruct.errors import UserError, unknown_name

TRAIN = "instruct.train.loop.train"
EVALUATE = "instruct.eval.runner.evaluate"
INFER = "instruct.eval.infer.infer"
MODEL = "instruct.models.config.ModelConfig"  # so that a file of sizes alone can be checked
ENTRIES = (TRAIN, EVALUATE, INFER, MODEL)

# What gin's tokenizer, parser, imports and calls raise for text that a user wrote.
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
# Folder that holds gin/: the checkout's, or what a wheel carries (setup.cfg).
_PACKAGE = pathlib.Path(__file__).resolve().parent
ROOT = _PACKAGE.parent if (_PACKAGE.parent / "gin" / "runs").is_dir() else _PACKAGE / "resources"
_BINDING = re.compile(r"^(?P<name>[\w./]+)\s*=\s*(?P<value>.*)$", re.DOTALL)
_COMMENT_OR_TEXT = re.compile(
    r"""^\#.*$ | '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" """, re.MULTILINE | re.VERBOSE
)
_UNKNOWN_PARAMETER = re.compile(r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'")
_UNKNOWN_CONFIGURABLE = re.compile(r"No configurable matching (?:reference )?'?@?([\w./]+)")

# What the files of this project hold that the configuration was read from.
_project_texts: list[str] = []


def quote_value(value: str, kinds: frozenset[str] = frozenset()) -> str:
    """A command-line value as gin source: literals, references and macros stay, words are quoted.

    Where text is allowed, what would be a literal of a kind that is not allowed is text as well.

    >>> quote_value("3"), quote_value("runs/demo"), quote_value("%MODEL_DIR")
    ('3', "'runs/demo'", '%MODEL_DIR')
    >>> quote_value("3", frozenset({"str"})), quote_value("3", frozenset({"str", "int"}))
    ("'3'", '3')

    Args:
        kinds: kinds of value that the setting may have, as `_kinds` names them; none if not known.
    """
    text = value.strip()
    wants_text = "str" in kinds
    if text.startswith(("%", "@")) and not (wants_text and not _refers(text)):
        return text
    try:
        literal = ast.literal_eval(text)
        repr(literal)  # of a number of thousands of digits there is none
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        holds_more = text.startswith(("[", "(", "{")) and (
            not wants_text or kinds & {"sequence", "mapping"}
        )
        return text if holds_more else repr(value)  # such as [@a(), %B]
    return repr(value) if wants_text and _kind(type(literal)) not in kinds else text


def _refers(text: str) -> bool:
    """Whether `%NAME` or `@name()` names something that there is."""
    if text.startswith("%"):
        return text[1:] in macros() or text.startswith("%gin.")
    return _is_registered(text[1:].removesuffix("()").rpartition("/")[2])


def _kind(kind: Any) -> str:
    """Name of a kind of value, of a type or of what stands for one in an annotation."""
    origin = typing.get_origin(kind) or kind
    if not isinstance(origin, type):
        return "other"
    if issubclass(origin, Sequence) and not issubclass(origin, str | bytes):
        return "sequence"
    return "mapping" if issubclass(origin, Mapping) else origin.__name__


def _kinds(configurable: Any, parameter: str) -> frozenset[str]:
    """Kinds of value that a parameter is declared to take; none if it does not say."""
    try:
        hints = typing.get_type_hints(
            configurable if isinstance(configurable, type) else inspect.unwrap(configurable)
        )
    except (NameError, TypeError):
        return frozenset()
    hint = hints.get(parameter, Any)
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = frozenset(map(_kind, typing.get_args(hint) if union else (hint,)))
    return frozenset() if "other" in kinds else kinds


def _declared_kinds(name: str) -> frozenset[str]:
    """Kinds of value that all allow that a macro feeds, directly or through other macros.

    Args:
        name: a macro, or a parameter such as `loop.train.model_dir`.
    """
    if "." in name:
        selector, _, parameter = name.rpartition("/")[2].rpartition(".")
        known = _is_registered(selector)
        return _kinds(gin.get_configurable(selector), parameter) if known else frozenset()
    fed = [
        match.group("name")
        for line in gin.config_str(max_line_length=10**6).splitlines()
        if (match := _BINDING.match(line)) and match.group("value").strip() == f"%{name}"
    ]
    every = [kinds for one in fed if (kinds := _declared_kinds(one))]
    return frozenset.intersection(*every) if every else frozenset()


def binding_from_flag(flag: str) -> str:
    """`--gin.NAME=VALUE` as one line of gin. Raises UserError without a name and a value.

    What NAME feeds must be bound already for its declared type to count.
    """
    name, separator, value = flag.removeprefix("--gin.").partition("=")
    if not (separator and name.strip() and value.strip()):
        raise UserError(f"{flag!r}: write --gin.NAME=VALUE, for example --gin.TRAIN_STEPS=100.")
    return f"{name.strip()} = {quote_value(value, _declared_kinds(name.strip()))}"


def flag_bindings(flags: argparse.Namespace) -> list[str]:
    """What `load` takes from `--gin_bindings=LINE` and `--gin.NAME=VALUE`, which wins."""
    return [*flags.gin_bindings, *flags.gin_flags]


def find_gin_file(path: str) -> pathlib.Path:
    """A gin file, from the working folder, else from the project's root.

    Raises:
        UserError: it is in neither, or a folder; the message has the nearest names.
    """
    # os.path's functions, unlike pathlib's, take a name that is too long for absent.
    if os.path.isdir(path):
        raise UserError(f"--gin_file={path} is a folder; give one file, repeat it for several.")
    for folder in (pathlib.Path(), ROOT):
        if os.path.isfile(os.path.join(folder, path)):
            return folder / path
    raise unknown_name(
        "gin file", path, [str(p.relative_to(ROOT)) for p in ROOT.glob("gin/**/*.gin")]
    )


def _open_gin_file(path: str) -> io.StringIO:
    """A gin file's text: UTF-8, or UTF-16 or UTF-32 with a byte order mark; any line ends."""
    file = find_gin_file(path)
    data = file.read_bytes()
    marks = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    names = ("utf-32", "utf-32", "utf-16", "utf-16")
    found = (name for mark, name in zip(marks, names) if data.startswith(mark))
    encoding = next(found, "utf-8-sig")
    try:
        text = data.decode(encoding)
        if "\0" in text:
            raise UnicodeDecodeError("utf-8", data, data.index(0), data.index(0) + 1, "a zero byte")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not {encoding.removesuffix('-sig').upper()} text ({error.reason} at byte "
            f"{error.start}). Save the file as UTF-8."
        ) from None
    if (ROOT / "gin").resolve() in file.resolve().parents:
        _project_texts.append(text)
    return io.StringIO(text, newline=None)


def load(
    gin_files: Sequence[str],
    bindings: Sequence[str] = (),
    stand_ins: Mapping[str, Any] | None = None,
) -> list[str]:
    """Parses files, then bindings (later ones win), and finalizes.

    Paths, of includes too, are taken from the working folder first, then from the project's root.

    Args:
        bindings: lines of gin, and flags as `--gin.NAME=VALUE`.
        stand_ins: kind of value (as "str") -> what stands for a macro of that kind that must be
            set and is not, with "{name}" for its name in text. Without it such a macro is refused.

    Returns:
        The macros that have stand-ins, sorted.

    Raises:
        UserError: a file is missing, a line does not parse, a name is unknown, or a macro that
            must be set is not (all of them in one message).
    """
    gin.clear_config()
    _project_texts.clear()
    with _our_file_reader():
        for path in gin_files:
            _parse(lambda path=path: gin.parse_config_file(path), path)
    for binding in bindings:
        line = binding_from_flag(binding) if binding.startswith("--gin.") else binding
        _parse(lambda line=line: gin.parse_config(line), line)
    assumed = _assume_missing_macros(stand_ins or {})
    _refuse_missing_macros()
    _parse(gin.finalize, "the configuration as a whole")
    return assumed


@contextlib.contextmanager
def _our_file_reader() -> Iterator[None]:
    """gin's own readers know no encodings, and report each place where a file is not."""
    readers: list[Any] = getattr(gin.config, "_FILE_READERS")  # noqa: B009 (no public name)
    earlier = list(readers)
    readers[:] = [(_open_gin_file, find_gin_file)]
    try:
        yield
    finally:  # other code of this process may read gin files too
        readers[:] = earlier


def _parse(action: Callable[[], Any], origin: str) -> None:
    """Runs one step of gin's parser; its many exception types become one readable UserError."""
    try:
        action()
    except UserError as error:  # gin appends where it was building; the message says enough
        raise UserError(re.split(r"\n\s*In (?:call to|file|bindings)", str(error))[0]) from None
    except OSError as error:
        raise UserError(f"{origin}: {error}") from error
    except _GIN_ERRORS as error:
        text = str(error).strip().split("\n  In ")[0]
        match = _UNKNOWN_CONFIGURABLE.search(text)
        if match and "." not in match.group(1):
            raise unknown_name("macro or configurable", match.group(1), macros()) from error
        match = _UNKNOWN_PARAMETER.search(text)
        if match:
            known = _parameter_names(gin.get_configurable(match.group(1)))
            raise unknown_name(f"parameter of {match.group(1)}", match.group(2), known) from error
        raise UserError(f"{origin}: {text}") from error


def _parameter_names(configurable: Any) -> list[str]:
    if dataclasses.is_dataclass(configurable):  # gin hides the signature of a class
        return [field.name for field in dataclasses.fields(configurable)]
    return list(inspect.signature(configurable).parameters)


def macros() -> dict[str, Any]:
    """Every macro that is bound, with its value (`%gin.REQUIRED` where it is still to be set)."""
    names = re.findall(r"^([A-Za-z_]\w*) = ", gin.config_str(), flags=re.MULTILINE)
    return {name: gin.query_parameter(f"{name}/gin.macro.value") for name in names}


def _missing_macros() -> list[str]:
    return [name for name, value in macros().items() if str(value) == "%gin.REQUIRED"]


def _assume_missing_macros(stand_ins: Mapping[str, Any]) -> list[str]:
    """Binds what must be set and is not to what stands for its kind; returns the names."""
    assumed = []
    for name in _missing_macros():
        kinds = _declared_kinds(name)
        for kind in (kind for kind in stand_ins if kind in kinds):
            value = stand_ins[kind]
            value = value.format(name=name) if isinstance(value, str) else value
            gin.parse_config(f"{name} = {value!r}")
            assumed.append(name)
            break
    return sorted(assumed)


def _refuse_missing_macros() -> None:
    missing = _missing_macros()
    undefined = sorted(_referenced_macros() - set(macros()))
    if missing or undefined:
        flags = " ".join(f"--gin.{name}=..." for name in missing + undefined)
        raise UserError(f"these macros must be set: {', '.join(missing + undefined)}. Add {flags}")


def _referenced_macros() -> set[str]:
    """Names used as `%NAME` in any binding. `%gin.REQUIRED` is gin's own."""
    return _macro_names(gin.config_str())


def _macro_names(source: str) -> set[str]:
    """Names that stand as `%NAME` in gin source, outside of its texts and comments."""
    return set(re.findall(r"%([A-Za-z_]\w*)(?![\w.])", _COMMENT_OR_TEXT.sub("''", source)))


def entry_arguments(entries: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The arguments gin binds for each entry function, with every `*Config` built and checked.

    All entries that the files bind are built together, so that one recipe serves `train`, `eval`
    and `infer`, while a binding that none of them uses is an error.

    Args:
        entries: dotted names; the arguments of those the files do not mention are empty.

    Raises:
        UserError: a `*Config` refuses a value, or a binding or macro is used by nothing.
    """
    arguments: dict[str, dict[str, Any]] = {entry: {} for entry in entries}
    used = set()
    for entry, holder in arguments.items():

        def build(entry: str = entry, holder: dict[str, Any] = holder) -> None:
            holder.update(gin.get_bindings(entry, resolve_references=True))

        if _is_registered(entry):
            _parse(build, entry)
            _check_texts(entry, holder)
        used |= {_bound_key(entry, name) for name in holder}
    _refuse_unused(used, any(arguments.get(entry) for entry in ENTRIES))
    return arguments


def _check_texts(entry: str, arguments: Mapping[str, Any]) -> None:
    """Raises UserError for a number where an entry function takes text, such as a folder."""
    for name, value in arguments.items():
        kinds = _kinds(gin.get_configurable(entry), name)
        if kinds and kinds <= {"str", "NoneType"} and _kind(type(value)) not in kinds:
            raise UserError(
                f"{name} ({name.upper()}) is {value!r}; it must be text"
                + (" or None" if "NoneType" in kinds else "")
                + f". In a gin file write it in quotes: {name.upper()} = '{value}'."
            )


def _is_registered(selector: str) -> bool:
    try:
        gin.get_configurable(selector)
    except (KeyError, ValueError):
        return False
    return True


def _bound_key(selector: str, parameter: str) -> str:
    """Key as `_configured_keys` writes it: the last two parts of the dotted name suffice."""
    return ".".join((*selector.split(".")[-2:], parameter))


def _configured_keys(config_text: str) -> set[str]:
    """Left-hand sides of a gin text: macros as `NAME`, parameters as `module.name.parameter`."""
    keys = set()
    for line in config_text.splitlines():
        match = _BINDING.match(line)
        if match and not line.startswith(("from ", "import ", "include ", "#", " ")):
            name = match.group("name")
            scope, _, tail = name.rpartition("/")
            short = ".".join(tail.split(".")[-3:])
            keys.add(f"{scope}/{short}" if scope else short)
    return keys


def _refuse_unused(used: set[str], is_configured: bool) -> None:
    """Compares what was bound with what building every entry really read.

    Args:
        used: keys that the entries read.
        is_configured: any file or flag configures an entry.
    """
    text = gin.config_str(max_line_length=10**6)
    bound = _configured_keys(text)
    read = _configured_keys(gin.operative_config_str(max_line_length=10**6)) | used
    read |= _macros_reached(text, read)
    unused = sorted(bound - read)
    unused = sorted(set(unused) - _replaced_defaults(text))
    if not unused:
        return
    known = sorted(bound & read)
    if len(unused) == 1:
        message = str(unknown_name("or unused binding", unused[0], known))
    else:
        message = f"nothing uses these bindings: {', '.join(unused)}. Misspelt? In use: "
        message += f"{', '.join(known)}."
    if not is_configured:
        message += (
            " No gin file says what runs; is --gin_file missing, such as gin/runs/train.gin, "
            "eval.gin, infer.gin or a recipe?"
        )
    raise UserError(message)


def _replaced_defaults(config_text: str) -> set[str]:
    """Keys that files of this project bind for a configurable in whose place another one is bound.

    `gin/runs/train.gin` sets `OptimizerConfig.learning_rate`, which nobody reads where
    `loop.train.optimizer` is another optimiser. A value from elsewhere does not count: whoever set
    it expects something of it.
    """
    bound = _bindings(config_text)
    referred = set(re.findall(r"@([\w./]+)", " ".join(bound.values())))
    defaults = [_bindings(text) for text in _project_texts]
    kept = {key for key, value in bound.items() if any(d.get(key) == value for d in defaults)}
    values = [value for default in defaults for value in default.values()]
    replaced = set(re.findall(r"@([\w./]+)", " ".join(values))) - referred
    keys = {key for key in kept if key.rpartition(".")[0] in replaced}
    return keys | (_macros_reached(config_text, keys) & kept)


def _bindings(config_text: str) -> dict[str, str]:
    """Key, as in `_configured_keys`, -> value as text, of the bindings of one line each."""
    matches = (_BINDING.match(line) for line in config_text.splitlines())
    lines = {match.group(): match.group("value") for match in matches if match}
    values = {line: value.partition(" #")[0].strip() for line, value in lines.items()}
    return {key: values[line] for line in lines for key in _configured_keys(line)}


def _macros_reached(config_text: str, read: set[str]) -> set[str]:
    """Macros that a used binding refers to, directly or through other macros."""
    references = {}
    for line in config_text.splitlines():
        match = _BINDING.match(line)
        if match:
            key = next(iter(_configured_keys(line)), "")
            references[key] = _macro_names(match.group("value"))
    reached: set[str] = set()
    frontier = set(read)
    while frontier:
        found = set().union(*(references.get(key, set()) for key in frontier)) - reached
        reached |= found
        frontier = found
    return reached


def reference_text(entry: str, parameter: str) -> str | None:
    """What a parameter is bound to, and every value that the functions it calls were given.

    Stable from start to start: macros are replaced by their values, and defaults that a function
    was called with are included. Call it after the entry was built. For example
    '@my_module.my_optimizer(); my_module.my_optimizer.learning_rate = 0.001'; None if unbound.
    """
    try:
        text = repr(gin.query_parameter(f"{entry}.{parameter}"))
    except ValueError:
        return None
    bindings = [
        match.groups()
        for line in gin.operative_config_str(max_line_length=10**6).splitlines()
        if (match := _BINDING.match(line))
    ]
    values = macros()
    parts, frontier, called = [], [text], set()
    while frontier:
        value = frontier.pop(0)
        while names := _macro_names(value) & set(values):
            for name in names:
                value = re.sub(rf"%{name}(?![\w.])", lambda _, n=name: repr(values[n]), value)
        parts.append(value)
        for name in re.findall(r"@([\w./]+)", value):
            if name not in called:
                called.add(name)
                frontier += [f"{k} = {v}" for k, v in bindings if k.rpartition(".")[0] == name]
    return "; ".join(parts)


def config_text() -> str:
    """What was bound (`config.gin`)."""
    return gin.config_str()


def operative_text() -> str:
    """What was used, defaults included (`operative.gin`); call it after the entry was built."""
    return gin.operative_config_str()
