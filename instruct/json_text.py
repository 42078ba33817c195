"""JSON text of users, other programs or earlier runs, parsed with one kind of error."""

import json
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
