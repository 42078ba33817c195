"""Format counts, changes, standard errors and p-values for pages."""

import math
from collections.abc import Sequence


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "task"), counted(1200, "task"), counted(0, "entry", "entries")
    ('1 task', '1,200 tasks', '0 entries')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def first_of(names: Sequence[str], most: int = 4) -> str:
    """Names, of many the first ones: `a, b, c, d and 3 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def all_of(count: int, noun: str) -> str:
    """`All 12 tasks`, `1 task`."""
    return f"All {counted(count, noun)}" if count > 1 else counted(count, noun)


def probability(p: float) -> str:
    """A p-value in a table: `0.030`, `0.21`, `< 0.001`."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_equals(p: float) -> str:
    """A p-value in a sentence: `p = 0.030`, `p < 0.001`."""
    return f"p {'' if p < 0.001 else '= '}{probability(p)}"


def number(value: float | None, digits: int = 1) -> str:
    """A value with a fixed number of digits; "–" for None, infinity and NaN."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # never -0.0


def shortened(value: float, form: str, least: float, like: float = 0.0) -> str:
    """`76.9M`, `1.2k`; "" below `least`. 0 takes the suffix of `like`."""
    amount = abs(value) or like
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        # 999,885,952 is 1B, for 1,000M has too many digits. Below 1,000 nothing is rounded.
        rounded = amount if size == 1e3 else float(f"{amount * 1e3 / size:{form}}") * size / 1e3
        if rounded >= size and amount >= least:
            return f"{value / size:{form}}{suffix}"
    return ""


def magnitude(value: float) -> str:
    """A count with three digits: `77M`, `2.85B`, `1.84k`, `282`."""
    return shortened(value, ".3g", 1e3) or f"{value:g}"


def compact(value: float | None) -> str:
    """`76.9M`, `12.3k`, `1,991`, `0.031`; "–" for None, infinity and NaN."""
    if value is None or not math.isfinite(value):
        return "–"
    if short := shortened(value, ".1f", 1e4):
        return short
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share of 1 in per cent."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def signed(change: float) -> str:
    """A change with its sign and one digit; `+0.0` instead of `-0.0`."""
    return f"{round(change, 1) + 0.0:+.1f}"


def plus_minus(stderr: float | None) -> str:
    """` ± 1.3` to append to a value; "" if the error is unknown.

    An error of 0 counts as unknown: all examples scored the same, which proves no certainty.
    """
    if stderr is None or not math.isfinite(stderr) or stderr < 1e-9:
        return ""
    return f" ± {stderr:,.1f}" if stderr >= 0.05 else " ± < 0.1"


def with_error(value: float | None, stderr: float | None) -> str:
    """`41.2 ± 1.3`, without the error if it is unknown."""
    return number(value) + ("" if number(value) == "–" else plus_minus(stderr))
