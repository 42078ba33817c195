"""Converts rows of the Flan 2021 data sets to records: text, labels, references.

Rows come as TensorFlow Datasets gives them (text as bytes, numbers and lists as numpy values) or
as plain Python values; the functions here take both. A missing column raises KeyError, which the
source reports; a row that makes no example becomes `Dropped`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from instruct.prompts.record import Record
from instruct.prompts.render import Dropped

Row = Mapping[str, Any]

_LINE_END_BLANKS = re.compile(r"[ \t\u00a0]+(?=\n)")
_BLANK_LINES = re.compile(r"\n{3,}")
_BEFORE_PUNCTUATION = re.compile(r" +(?=[.,;:!?](?:\s|$))")


def text(value: Any) -> str:
    """A text without blanks at its ends and at the ends of its lines, which end in "\\n".

    Raises:
        UnicodeDecodeError: bytes that are not UTF-8.
    """
    decoded = value.decode("utf-8") if isinstance(value, bytes) else str(value)
    lines = decoded.replace("\r\n", "\n").replace("\r", "\n")
    return _BLANK_LINES.sub("\n\n", _LINE_END_BLANKS.sub("", lines)).strip()


def texts(values: Iterable[Any]) -> list[str]:
    """`text` of every value of a list or array."""
    return [text(value) for value in values]


def columns(row: Row, *names: str, **renamed: str) -> dict[str, str]:
    """Record fields from texts of a row: columns of the same name, then field=column."""
    return {field: text(row[name]) for field, name in ({n: n for n in names} | renamed).items()}


def one_line(value: Any) -> str:
    """A text on one line, with single blanks."""
    return " ".join(text(value).split())


def distinct(values: Iterable[str]) -> tuple[str, ...]:
    """The texts that are not empty, each once, in order."""
    return tuple(dict.fromkeys(value for value in values if value))


def as_question(value: Any) -> str:
    """A question that ends in exactly one question mark; "" stays empty.

    >>> as_question("who won ? "), as_question("who won"), as_question(" ?")
    ('who won?', 'who won?', '')
    """
    asked = one_line(value).rstrip("? ")
    return f"{asked}?" if asked else ""


def tight(value: str) -> str:
    """Text without the blanks that some releases put before punctuation.

    >>> tight("He left . Why ?")
    'He left. Why?'
    """
    return _BEFORE_PUNCTUATION.sub("", value)


def numbered(items: Sequence[str]) -> str:
    """Items one a line, counted from 1.

    >>> numbered(["a", "b"])
    '1. a\\n2. b'
    """
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))


def _empty_field(fields: Mapping[str, str], may_be_empty: str = "") -> Dropped | None:
    empty = (name for name, value in fields.items() if not value and name != may_be_empty)
    return next((Dropped(f"empty {name}") for name in empty), None)


def choice_record(
    identity: str,
    fields: Mapping[str, str],
    options: Sequence[str],
    answer_index: Any,
    metadata: Mapping[str, Any] | None = None,
    may_be_empty: str = "",
) -> Record | Dropped:
    """A record whose answer is one of its options.

    Args:
        answer_index: any whole number; one outside the options means "no label".
        may_be_empty: a field that may lack text.
    """
    index = int(answer_index)
    if not 0 <= index < len(options):
        return Dropped("no label")
    if not all(options):
        return Dropped("empty option")
    if len(set(options)) < len(options):
        return Dropped("two options are the same")
    return _empty_field(fields, may_be_empty) or Record(
        identity, fields, options[index], tuple(options), index, metadata=metadata or {}
    )


def free_record(
    identity: str, fields: Mapping[str, str], answer: str, references: Iterable[str] = ()
) -> Record | Dropped:
    """A record whose answer is any text.

    Args:
        references: accepted answers besides `answer`, which may be among them.
    """
    if not answer:
        return Dropped("empty answer")
    accepted = distinct((answer, *references))
    return _empty_field(fields) or Record(
        identity, fields, answer, references=accepted if len(accepted) > 1 else ()
    )
