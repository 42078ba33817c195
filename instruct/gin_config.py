"""gin, kept at arm's length: the only module of the library that imports it.

gin wires entry functions (`train`, `evaluate`, `infer`) and the frozen `*Config` dataclasses they
take, nothing deeper. gin-config 0.5 accepts three mistakes in silence: a misspelt macro, a misspelt
scope, and a `%gin.REQUIRED` that nobody set (unless the configuration is finalized). `load`
refuses all three, names every missing macro at once, and says what a wrong name was near to.
"""

import argparse
import ast
import dataclasses
import inspect
import pathlib
import re
import tokenize
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gin

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
    RuntimeError,
)
ROOT = pathlib.Path(__file__).resolve().parents[1]
_BINDING = re.compile(r"^(?P<name>[\w./]+)\s*=\s*(?P<value>.*)$", re.DOTALL)
_COMMENT_OR_TEXT = re.compile(
    r"""^\#.*$ | '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" """, re.MULTILINE | re.VERBOSE
)
_UNKNOWN_PARAMETER = re.compile(r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'")
_UNKNOWN_CONFIGURABLE = re.compile(r"No configurable matching '?([\w./]+)'?")


def quote_value(value: str) -> str:
    """A command-line value as gin source: literals, references and macros stay, words are quoted.

    >>> quote_value("3"), quote_value("runs/demo"), quote_value("%MODEL_DIR")
    ('3', "'runs/demo'", '%MODEL_DIR')
    """
    text = value.strip()
    if text.startswith(("%", "@")):
        return text
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if text[:1] in "[({":  # may hold references, such as [@a(), %B]
            return text
        return repr(value)
    return text


def binding_from_flag(flag: str) -> str:
    """`--gin.NAME=VALUE` as one line of gin. Raises UserError without a name and a value."""
    name, separator, value = flag.removeprefix("--gin.").partition("=")
    if not separator or not name.strip():
        raise UserError(f"{flag!r}: write --gin.NAME=VALUE, for example --gin.TRAIN_STEPS=100.")
    return f"{name.strip()} = {quote_value(value)}"


def flag_bindings(flags: argparse.Namespace) -> list[str]:
    """Lines of gin from `--gin_bindings=LINE` and `--gin.NAME=VALUE`, which wins."""
    return [*flags.gin_bindings, *(binding_from_flag(flag) for flag in flags.gin_flags)]


def load(gin_files: Sequence[str], bindings: Sequence[str] = ()) -> None:
    """Parses files, then bindings (later ones win), and finalizes.

    Paths are taken from the working folder first, then from the project's root.

    Raises:
        UserError: a file is missing, a line does not parse, a name is unknown, or a macro that
            must be set is not (all of them in one message).
    """
    gin.clear_config()
    for path in (".", str(ROOT)):
        gin.add_config_file_search_path(path)
    for path in gin_files:
        if not any((pathlib.Path(folder) / path).is_file() for folder in ("", ROOT)):
            near = [str(p.relative_to(ROOT)) for p in ROOT.glob("gin/**/*.gin")]
            raise unknown_name("gin file", path, near)
        _parse(lambda path=path: gin.parse_config_file(path), path)
    for binding in bindings:
        _parse(lambda binding=binding: gin.parse_config(binding), binding)
    _refuse_missing_macros()
    _parse(gin.finalize, "the configuration as a whole")


def _parse(action: Callable[[], Any], origin: str) -> None:
    """Runs one step of gin's parser; its many exception types become one readable UserError."""
    try:
        action()
    except UserError as error:  # gin appends where it was building; the message says enough
        raise UserError(str(error).split("\n  In call to")[0]) from None
    except OSError as error:
        raise UserError(f"{origin}: {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{origin}: not UTF-8 text ({error.reason} at byte {error.start})."
        ) from None
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


def _refuse_missing_macros() -> None:
    missing = [name for name, value in macros().items() if str(value) == "%gin.REQUIRED"]
    undefined = sorted(_referenced_macros() - set(macros()))
    if missing or undefined:
        flags = " ".join(f"--gin.{name}=..." for name in missing + undefined)
        raise UserError(f"these macros must be set: {', '.join(missing + undefined)}. Add {flags}")


def _referenced_macros() -> set[str]:
    """Names used as `%NAME` in any binding, not in its texts. `%gin.REQUIRED` is gin's own."""
    bindings = _COMMENT_OR_TEXT.sub("''", gin.config_str())
    return set(re.findall(r"%([A-Za-z_]\w*)(?![\w.])", bindings))


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
        used |= {_bound_key(entry, name) for name in holder}
    _refuse_unused(used)
    return arguments


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


def _refuse_unused(used: set[str]) -> None:
    """Compares what was bound with what building every entry really read."""
    text = gin.config_str(max_line_length=10**6)
    bound = _configured_keys(text)
    read = _configured_keys(gin.operative_config_str(max_line_length=10**6)) | used
    read |= _macros_reached(text, read)
    unused = sorted(bound - read)
    if not unused:
        return
    known = sorted(bound & read)
    if len(unused) == 1:
        raise unknown_name("or unused binding", unused[0], known)
    raise UserError(
        f"nothing uses these bindings: {', '.join(unused)}. Misspelt? In use: {', '.join(known)}."
    )


def _macros_reached(config_text: str, read: set[str]) -> set[str]:
    """Macros that a used binding refers to, directly or through other macros."""
    references = {}
    for line in config_text.splitlines():
        match = _BINDING.match(line)
        if match:
            key = next(iter(_configured_keys(line)), "")
            references[key] = set(re.findall(r"%([A-Za-z_]\w*)", match.group("value")))
    reached: set[str] = set()
    frontier = set(read)
    while frontier:
        found = set().union(*(references.get(key, set()) for key in frontier)) - reached
        reached |= found
        frontier = found
    return reached


def config_text() -> str:
    """What was bound (`config.gin`)."""
    return gin.config_str()


def operative_text() -> str:
    """What was used, defaults included (`operative.gin`); call it after the entry was built."""
    return gin.operative_config_str()
