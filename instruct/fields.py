"""Declared types, ranges and choices of `*Config` fields, checked when one is built.

@dataclasses.dataclass(frozen=True)
class AConfig:
    steps: int = bounded(100, least=1)
    rate: float | None = bounded(None, above=0, note=", for example 0.1")
    kind: str = one_of("plain", ("plain", "fancy"))

    __post_init__ = check_fields
"""

import ast
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from instruct.errors import UserError, unknown_name

_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
# Steps, sizes and seeds are 32-bit numbers on the device.
LARGEST, LARGEST_FLOAT = 2**32 - 1, 3.4028235e38
_RULE = "rule"


@dataclasses.dataclass(frozen=True)
class Range:
    """A range of allowed numbers.

    Attributes:
        least, most: inclusive bounds. above, below: exclusive bounds.
        also: one more allowed number.
        note: end of the sentence that error messages print, such as ", for example 0.1".
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    also: float | None = None
    note: str = ""

    def holds(self, value: float) -> bool:
        """Whether the range has a number."""
        return value == self.also or (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """' of at least 1', ' from 1 to 9', ' in [0, 1)', ' above 0, for example 0.1'."""
        low, high = self.least, self.most
        if low is not None and high is not None:
            return f" from {low} to {high}{self.note}"
        if self.below is not None or self.most is not None:
            start = f"({self.above}" if low is None else f"[{low}"
            end = f"{self.below})" if high is None else f"{high}]"
            return f" in {start}, {end}{self.note}"
        if low is not None:
            return f" of at least {low}{self.note}"
        return (f" above {self.above}" if self.above is not None else "") + self.note


def bounded(default: Any = dataclasses.MISSING, **bounds: Any) -> Any:
    """Declares a dataclass field with a number in a `Range`, or None if its type allows None."""
    return dataclasses.field(default=default, metadata={_RULE: Range(**bounds)})


def one_of(default: str, allowed: Collection[str]) -> Any:
    """Declares a dataclass field with one of several names."""
    return dataclasses.field(default=default, metadata={_RULE: tuple(allowed)})


def check_fields(config: Any) -> None:
    """Raises UserError unless every field of a dataclass has a type and value that it declares.

    Checks fields of type `int`, `float`, `str` and `bool`, also with `| None`. Numbers must be
    finite and fit into 32 bits; bools and numbers in quotes are not numbers.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value = f"{type(config).__name__}.{field.name}", getattr(config, field.name)
        rule = field.metadata.get(_RULE)
        if isinstance(rule, tuple):
            if value not in rule:
                raise unknown_name(name, value, rule)
        else:
            _check(name, value, hints[field.name], rule or Range())


def check_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], except_for: Collection[str] = ()
) -> None:
    """Raises UserError unless `arguments` has all that a function needs, of the declared types.

    Args:
        function: an entry such as `train`. Its annotations declare types, and
            `Annotated[int, Range(least=1)]` ranges.
        arguments: the arguments that gin binds.
        except_for: names to skip; they may be missing.
    """
    parameters = inspect.signature(function).parameters
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name not in (*arguments, *except_for)
    ]
    if missing:
        raise UserError(
            f"{function.__name__} needs {', '.join(missing)}, which no gin file binds. Start from "
            "a file in gin/runs and one in gin/models, which bind every required argument."
        )
    for name, kind in typing.get_type_hints(function, include_extras=True).items():
        if name in arguments and name not in except_for:
            kind, *rules = typing.get_args(kind) if hasattr(kind, "__metadata__") else (kind,)
            _check_list(f"{function.__name__}.{name}", arguments[name], kind)
            _check(f"{function.__name__}.{name}", arguments[name], kind, *rules)


def _check_list(name: str, value: Any, kind: Any) -> None:
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    allowed = (list, tuple, *(one for one in kinds if one is types.NoneType))
    is_list = any(typing.get_origin(one) is Sequence for one in kinds)
    if is_list and not isinstance(value, allowed):
        raise UserError(f"{name} is {value!r:.200}; use a list: [...].")


def _check(name: str, value: Any, kind: Any, allowed: Range = Range()) -> None:
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    plain = [one for one in kinds if one is not types.NoneType]
    if value is None and types.NoneType in kinds:
        return
    if len(plain) == 1 and plain[0] in _KINDS:
        check_value(name, value, plain[0], allowed)
    elif all(map(dataclasses.is_dataclass, plain)) and type(value) not in plain:
        config = " or ".join(one.__name__ for one in plain)
        fix = f"{name} = @{plain[0].__name__}()"
        raise UserError(f"{name} is {value!r}; bind {config}'s fields and {fix}.")


def check_value(name: str, value: Any, kind: type, allowed: Range = Range()) -> None:
    """Raises UserError unless a value has the type (int, float, str or bool) and is in range."""
    hint = ""
    if type(value) is kind or (kind is float and type(value) is int):
        if type(value) is float and not abs(value) <= LARGEST_FLOAT:  # NaN too
            hint = " It must be finite and fit into 32 bits."
        elif type(value) is int and abs(value) > LARGEST:
            hint = f" The largest number allowed is {LARGEST}."
        elif kind in (str, bool) or allowed.holds(value):
            return
    elif kind is str and isinstance(value, int | float):
        hint = f" Write it in quotes: '{value}'."
    elif isinstance(value, str) and _reads_as(value, kind):
        hint = f" Write it without quotes: {value}."
    raise UserError(f"{name} is {_short(value)}; use {_KINDS[kind]}{allowed}.{hint}")


def _reads_as(text: str, kind: type) -> bool:
    """Whether a text is the literal of an int, float or bool."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return type(value) is kind or (kind is float and type(value) is int)


def _short(value: Any) -> str:
    if type(value) is int and value.bit_length() >= 128:
        return f"of {value.bit_length():,} bits"
    return repr(value)
