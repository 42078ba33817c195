"""Reads users' JSON and JSON-lines files value by value; writes JSON files atomically."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from instruct.data.sources.files import NOT_UTF8, read_lines
from instruct.errors import UserError
from instruct.files import replace_file
from instruct.json_text import parse_json
from instruct.packed_files import open_unpacked


class NoJson(NamedTuple):
    """The reason why a line is not JSON."""

    reason: str


def read_values(path: Path, unique_names: bool = False) -> Iterator[tuple[str, int, Any]]:
    """Yields ("line" or "row", its number from 1, value or `NoJson`) of JSON lines or one array.

    A line's number counts blank lines. An array is read whole, lines one by one. The file's
    content, not its name, decides whether it is compressed or an array.

    Raises:
        OSError: the file cannot be read.
        UserError: it is compressed and damaged, an array that is not JSON, or one object on
            several lines.
    """
    if _holds_array(path):
        try:
            with open_unpacked(path) as stream:
                values = parse_json(stream.read(), unique_names)
        except ValueError as error:
            raise UserError(f"{path} is neither JSON lines nor a JSON array: {error}") from error
        yield from (("row", number, value) for number, value in enumerate(values, start=1))
        return
    for place, (number, _, text) in enumerate(read_lines(path)):
        try:
            value = NoJson(NOT_UTF8) if text is None else parse_json(text, unique_names)
        except ValueError as error:
            value = NoJson(f"not JSON: {error}")
            if place == 0 and (names := _names_of_object(path)) is not None:
                raise UserError(
                    f"{path} is one JSON object on several lines, with {', '.join(names)}. Write "
                    "one object a line, or a list of objects: [{...}, {...}]."
                ) from None
        yield "line", number + 1, value


def _names_of_object(path: Path) -> list[str] | None:
    """The first names of a file that is one JSON object; None if it is anything else."""
    try:
        with open_unpacked(path) as stream:
            value = parse_json(stream.read())
    except ValueError:
        return None
    return [repr(name) for name in value][:5] if isinstance(value, dict) else None


def _holds_array(path: Path) -> bool:
    """Whether the file is one JSON array, not lines of which the first is an array."""
    lines = read_lines(path)
    _, raw, text = next(lines, (0, b"", ""))
    if not raw.lstrip().startswith(b"["):
        return False
    try:
        parse_json(text or "")
    except ValueError:
        return True
    return next(lines, None) is None


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` atomically and creates its folder; equal values give equal bytes.

    Raises:
        OSError: no space or no permission; an existing file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
