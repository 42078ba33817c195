"""Types and sizes of what gin binds: it passes on whatever was written."""

import ast
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from instruct.errors import UserError

_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
# Steps, sizes and seeds reach the devices as 32-bit numbers.
LARGEST, LARGEST_FLOAT = 2**32 - 1, 3.4028235e38


def check_types(config: Any) -> None:
    """Raises UserError unless every field of a dataclass holds what its annotation says.

    Fields of `int`, `float`, `str` and `bool`, also `| None`, are checked: "12" is no number, a
    number is not "True or False", and numbers are finite and fit into 32 bits.
    """
    for name, kind in typing.get_type_hints(type(config)).items():
        _check(f"{type(config).__name__}.{name}", getattr(config, name), kind)


def check_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], besides: Collection[str] = ()
) -> None:
    """Raises UserError unless `function(**arguments)` has what it needs, of the right types.

    Args:
        function: an entry, such as `train`; its annotations say what is right.
        arguments: what gin binds for it.
        besides: names that need not be there and are checked elsewhere.
    """
    parameters = inspect.signature(function).parameters
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name not in (*arguments, *besides)
    ]
    if missing:
        raise UserError(
            f"{function.__name__} needs {', '.join(missing)}, which no gin file binds. Start from "
            "a file of gin/runs, which binds all that is needed."
        )
    for name, kind in typing.get_type_hints(function).items():
        if name in arguments and name not in besides:
            _check(f"{function.__name__}.{name}", arguments[name], kind)


def _check(name: str, value: Any, kind: Any) -> None:
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    plain = [one for one in kinds if one is not types.NoneType]
    if len(plain) != 1 or (value is None and types.NoneType in kinds):
        return
    if plain[0] in _KINDS:
        check_value(name, value, plain[0])
    elif dataclasses.is_dataclass(plain[0]) and type(value) is not plain[0]:
        config = plain[0].__name__
        raise UserError(f"{name} is {value!r}; bind {config}'s fields and {name} = @{config}().")


def check_value(name: str, value: Any, kind: type) -> None:
    """Raises UserError unless a value is of one of the four kinds; see `check_types`."""
    allowed = _KINDS[kind]
    if type(value) is kind or (kind is float and type(value) is int):
        if type(value) is float and not abs(value) <= LARGEST_FLOAT:  # nor if it is no number
            raise UserError(f"{name} is {value!r}; it must be a finite number of 32 bits.")
        if type(value) is int and abs(value) > LARGEST:
            raise UserError(f"{name} is {_short(value)}; the largest number allowed is {LARGEST}.")
        return
    hint = ""
    if kind is not str and isinstance(value, str) and _reads_as(value, kind):
        hint = f" Write it without quotes: {value}."
    raise UserError(f"{name} must be {allowed}, got {value!r} ({type(value).__name__}).{hint}")


def _reads_as(text: str, kind: type) -> bool:
    """Whether a value of this kind was put in quotes."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return type(value) is kind or (kind is float and type(value) is int)


def _short(value: int) -> str:
    return str(value) if value.bit_length() < 128 else f"of {value.bit_length():,} bits"
