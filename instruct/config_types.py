"""Types and sizes of the fields of a `*Config`: gin passes on whatever was written."""

import types
import typing
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
        kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        plain = [one for one in kinds if one is not types.NoneType]
        if len(plain) == 1 and plain[0] in _KINDS:
            value = getattr(config, name)
            if value is not None or types.NoneType not in kinds:
                check_value(f"{type(config).__name__}.{name}", value, plain[0])


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
    if kind is not str and isinstance(value, str):
        hint = f" Write it without quotes: {value}."
    raise UserError(f"{name} must be {allowed}, got {value!r} ({type(value).__name__}).{hint}")


def _short(value: int) -> str:
    return str(value) if value.bit_length() < 128 else f"of {value.bit_length():,} bits"
