"""Prompts of `infer`: reads and validates JSON lines from a file or a pipe.

Accepts what `instruct/data/sources/json_files.py` does: a byte-order mark, blank lines, compressed
files, and one array of objects. A rejected line has a reason.
"""

import contextlib
import json
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from instruct.data.sources.json_files import NOT_UTF8, NoJson, read_values
from instruct.errors import UserError
from instruct.files import local_path

STANDARD_STREAM = "-"
PROMPT_FIELDS = ("inputs", "prompt")
ADDED_FIELDS = ("prediction", "score", "predictions", "scores", "truncated", "unfinished")
_MOST_NAMED = 10  # most rejected lines to name; the others are counted
_EXAMPLE = '{"inputs": "What is 2 + 3?"}'
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Prompt(NamedTuple):
    """`location` is "line 3" or "row 3" (of an array); `line` is the whole object as JSON."""

    location: str
    text: str
    line: str


class BadLine(NamedTuple):
    """A rejected line and the reason."""

    location: str
    reason: str


def read_prompts(path: pathlib.Path) -> Iterator[Prompt | BadLine]:
    """Yields every line that is not blank. Raises UserError if the file cannot be read."""
    try:
        with open(path, "rb") as stream:
            if stream.read(2) in _UTF16:
                raise UserError(
                    f"{path} is UTF-16 text; JSON lines are UTF-8. Convert it: "
                    "iconv -f UTF-16 -t UTF-8"
                )
        for kind, number, value in read_values(path, unique_names=True):
            yield _prompt(f"{kind} {number}", value)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _prompt(location: str, value: Any) -> Prompt | BadLine:
    if isinstance(value, NoJson):
        advice = "" if value.reason == NOT_UTF8 else f"; write {_EXAMPLE}"
        return BadLine(location, value.reason + advice)
    if not isinstance(value, dict):
        return BadLine(location, f"{type(value).__name__} instead of an object like {_EXAMPLE}")
    field = next((name for name in PROMPT_FIELDS if name in value), None)
    if field is None:
        names = ", ".join(sorted(value)) or "no fields"
        return BadLine(location, f"has neither `inputs` nor `prompt` (but {names:.200})")
    text = value[field]
    if not isinstance(text, str):
        value = json.dumps(text)
        short = value if len(value) <= 60 else f"{value[:57]}..."
        return BadLine(location, f"`{field}` is {short}, must be text")
    if not text.strip():
        return BadLine(location, f"`{field}` is empty")
    taken = sorted(set(value) & set(ADDED_FIELDS))
    if taken:
        return BadLine(location, f"has `{taken[0]}` already, which infer adds; rename it")
    line = json.dumps(value, ensure_ascii=False)
    if LONE_SURROGATE.search(line):
        return BadLine(location, "half of a surrogate pair (\\ud800 to \\udfff), which is no text")
    return Prompt(location, text, line)


@contextlib.contextmanager
def prompt_file(path: str) -> Iterator[pathlib.Path]:
    """A file that can be read several times: `path`, or a copy of a pipe or of standard input."""
    source = local_path("--input", path, "prompts.jsonl")
    piped = path == STANDARD_STREAM
    if piped and sys.stdin is None:
        raise UserError("--input=-: standard input is closed.")
    if not piped and (source.is_file() or source.is_dir() or not source.exists()):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="infer-") as folder:
        copy = pathlib.Path(folder) / ("standard input" if piped else source.name)
        with contextlib.ExitStack() as stack, copy.open("wb") as stream:
            pipe = sys.stdin.buffer if piped else stack.enter_context(source.open("rb"))
            shutil.copyfileobj(pipe, stream)
        yield copy


def check_prompts(path: pathlib.Path) -> tuple[int, list[BadLine]]:
    """(number of prompts, rejected lines) of a file.

    Raises:
        UserError: the file cannot be read, or has no valid prompt.
    """
    count, bad = 0, []
    for item in read_prompts(path):
        if isinstance(item, BadLine):
            bad.append(item)
        else:
            count += 1
    if not count:
        reasons = "\n".join(name_bad_lines(path, bad)) or "it is empty"
        raise UserError(f"{path} holds no prompt that can be answered: {reasons}")
    return count, bad


def refused_prompts(path: pathlib.Path, refusal: Callable[[str], str]) -> list[BadLine]:
    """The valid prompts that a model's chat template does not take, with the reason.

    Raises:
        UserError: it takes none.
    """
    reasons = [(prompt.location, refusal(prompt.text)) for prompt in prompts_only(path)]
    refused = [BadLine(*one) for one in reasons if one[1]]
    if len(refused) == len(reasons):
        lines = "\n".join(name_bad_lines(path, refused))
        raise UserError(f"{path} holds no prompt that can be answered: {lines}")
    return refused


def prompts_only(path: pathlib.Path, left_out: Collection[str] = ()) -> Iterator[Prompt]:
    """Yields the valid prompts, in order; `left_out` are locations of further rejected ones."""
    prompts = (item for item in read_prompts(path) if isinstance(item, Prompt))
    return (prompt for prompt in prompts if prompt.location not in left_out)


def name_bad_lines(path: pathlib.Path, bad: Sequence[BadLine]) -> list[str]:
    """One message per rejected line, up to a few, and the number of further ones."""
    named = [f"{path.name}, {line.location}: {line.reason}" for line in bad[:_MOST_NAMED]]
    more = len(bad) - len(named)
    return [*named, f"{path.name}: {more:,} more lines like these"] if more else named
