"""JSON text of users, other programs or earlier runs, parsed with one kind of error.

`sealed` documents and lines hold a hash of themselves: a changed digit is still valid JSON.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

# Far below the limit of Python's parser, writer and comparison (about 1,000 levels, fewer in a deep
# call), so that every value read can also be written and compared.
MAX_DEPTH = 200
_TOO_DEEP = f"nested too deep: more than {MAX_DEPTH} levels"


def parse_json(text: str | bytes, unique_names: bool = False) -> Any:
    """The value of a JSON text; bytes are UTF-8, and a byte-order mark is ignored.

    Args:
        text: the whole text, or one line of JSON lines.
        unique_names: refuse objects with a repeated name (else the last one counts).

    Raises:
        ValueError: the text is unusable; the message is the reason, as in "is not JSON (<reason>)".
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        decoded = decoded.removeprefix("\ufeff")
        value = json.loads(decoded, object_pairs_hook=_unique if unique_names else None)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {error.reason} at byte {error.start}") from error
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:
        if "integer string conversion" in str(error):  # sys.get_int_max_str_digits
            raise ValueError("it holds a whole number of thousands of digits") from None
        raise
    # The number of brackets bounds the depth, and is quicker to count.
    if decoded.count("[") + decoded.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    return value


_HASH = "sha256"
_CHANGED = "is not what was written"
_LINE_SEAL = re.compile(rb', "crc32": "([0-9a-f]{8})"\}\n?$')


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a hash of itself."""
    plain = json.loads(json.dumps(document))
    return {**plain, _HASH: _hash_of(plain)}


def unsealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `sealed`; an object without a hash as it is. Raises ValueError if it changed."""
    plain = dict(document)
    seal = plain.pop(_HASH, None)
    if seal is not None and seal != _hash_of(plain):
        raise ValueError(_CHANGED)
    return plain


def _hash_of(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def sealed_line(text: str) -> str:
    """The text of a JSON object with a checksum of it as its last value, without a line end."""
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}'


def unsealed_line(line: bytes) -> bytes:
    """Inverse of `sealed_line`; a line without a checksum as it is.

    Raises ValueError if the line is not what was written.
    """
    match = _LINE_SEAL.search(line)
    text = line if match is None else line[: match.start()] + b"}"
    changed = b'"crc32"' in line if match is None else int(match[1], 16) != zlib.crc32(text)
    if changed:
        raise ValueError(_CHANGED)
    return text


def _depth(value: Any) -> int:
    """Levels of lists and objects; stops counting above `MAX_DEPTH`."""
    level, depth = [value], 0
    while depth <= MAX_DEPTH:
        parents = [value for value in level if isinstance(value, list | dict)]
        if not parents:
            break
        depth += 1
        level = [v for p in parents for v in (p.values() if isinstance(p, dict) else p)]
    return depth


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!a:.80} occurs twice in one object")
    return values
