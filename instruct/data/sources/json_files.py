"""JSON files: those of users, read value by value, and those beside the stores, replaced whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from instruct.data.sources.files import read_lines
from instruct.errors import UserError
from instruct.files import replace_file
from instruct.json_text import parse_json
from instruct.packed_files import open_unpacked

NOT_UTF8 = "text is not UTF-8"


class NoJson(NamedTuple):
    """A line that holds no JSON value, and the reason."""

    reason: str


def read_values(path: Path, unique_names: bool = False) -> Iterator[tuple[str, int, Any]]:
    """("line" or "row", its number from 1, value or `NoJson`) of JSON lines or of one array.

    A line's number counts blank lines. An array is read whole, lines one by one.

    Args:
        path: its content, not its name, decides whether it is packed or an array.
        unique_names: see `parse_json`.

    Raises:
        OSError: the file cannot be read.
        UserError: it is packed and damaged, or an array and no JSON.
    """
    if _holds_array(path):
        with open_unpacked(path) as stream:
            try:
                values = parse_json(stream.read(), unique_names)
            except ValueError as error:
                raise UserError(
                    f"{path} is neither JSON lines nor a JSON array: {error}"
                ) from error
        yield from (("row", number, value) for number, value in enumerate(values, start=1))
        return
    for number, _, text in read_lines(path):
        try:
            value = NoJson(NOT_UTF8) if text is None else parse_json(text, unique_names)
        except ValueError as error:
            value = NoJson(f"not JSON: {error}")
        yield "line", number + 1, value


def _holds_array(path: Path) -> bool:
    """Whether a file begins with an array that is not one line of many."""
    with open_unpacked(path) as stream:
        head = stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.startswith(b"["):
        return False
    lines = read_lines(path)
    _, _, first = next(lines)
    try:
        parse_json(first or "")
    except ValueError:
        return True
    return next(lines, None) is None


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path`, making its folder; equal values give equal bytes.

    Raises:
        OSError: no space, no permission; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
