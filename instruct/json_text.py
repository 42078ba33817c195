"""JSON text that users, other programs or earlier runs wrote, parsed with one kind of error."""

import json
from typing import Any

# Far below where Python's parser, writer and comparison run out of stack (some 1,000 levels, less
# in a deep call), so that what was read can always be written and compared as well.
MAX_DEPTH = 200


def parse_json(text: str | bytes, unique_names: bool = False) -> Any:
    """The value of a JSON text; bytes are UTF-8, and a byte-order mark is ignored.

    Args:
        text: the whole text, or one line of JSON lines.
        unique_names: refuse an object in which a name occurs twice (else the last one counts).

    Raises:
        ValueError: it cannot be used; the message is the reason, as in "is no JSON (<reason>)".
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
    # Fewer brackets than levels are allowed: no need to look.
    if decoded.count("[") + decoded.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    return value


_TOO_DEEP = f"nested too deep: more than {MAX_DEPTH} levels"


def _depth(value: Any) -> int:
    """Levels of lists and objects; stops counting above `MAX_DEPTH`."""
    level, depth = [value], 0
    while depth <= MAX_DEPTH:
        level = [one for one in level if isinstance(one, list | dict)]
        if not level:
            break
        depth += 1
        level = [v for one in level for v in (one.values() if isinstance(one, dict) else one)]
    return depth


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!a:.80} occurs twice in one object")
    return values
