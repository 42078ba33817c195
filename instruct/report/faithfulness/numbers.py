"""Number words as digits: "two hundred and fifty" becomes "250", "$1.5m" "$1500000". English."""

import dataclasses
import decimal
import re
from collections.abc import Sequence

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen", "twenty thirty forty fifty sixty seventy eighty ninety",
)  # fmt: skip
_SMALL, TENS = (words.split() for words in _WORDS)
_CARDINALS = {word: value for value, word in enumerate(_SMALL)}
_CARDINALS |= {word: 10 * value for value, word in enumerate(TENS, start=2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12}
_SHORT_SCALES = {"k": 1000, "m": 10**6, "mn": 10**6, "bn": 10**9}
_ORDINALS = {re.sub("y$", "ie", word) + "th": value for word, value in _CARDINALS.items()}
_ORDINALS |= {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9}
_ORDINALS |= {"twelfth": 12, "hundredth": 100, "thousandth": 1000}
NUMBER_WORDS = frozenset({*_CARDINALS, *_ORDINALS, *_SCALES} - {"dozen"})

_TOKEN = re.compile(
    r"(?<=[$£€] )\d+\. \d\d(?!\d)|(?<![\w.])\d{1,3}(?:, 000)+(?!\d)"  # tokenised "$ 32. 42"
    r"|(?<![\w.])\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|(?<![\w.])(?:\d+(?:\.\d+)?|\.\d+)"
    r"|[^\W\d_]+"
)


@dataclasses.dataclass(frozen=True)
class Digits:
    """A text whose numbers are digits without separators.

    Attributes:
        text: the changed text.
        starts, ends: where each of its characters begins and ends in the original.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


def as_digits(text: str) -> Digits:
    """Writes every number of a text in digits; ordinals get the ending "th".

    >>> as_digits("Two hundred and fifty people, twenty-third, half a dozen").text
    '250 people, 23th, 6'
    """
    tokens = list(_TOKEN.finditer(text))
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    copied = at = 0

    def append(piece: str, start: int, end: int | None = None) -> None:
        pieces.append(piece)
        starts.extend(start + (0 if end else i) for i in range(len(piece)))
        ends.extend(end or start + i + 1 for i in range(len(piece)))

    while at < len(tokens):
        number = _read_number(text, tokens, at)
        if number is None:
            at += 1
            continue
        shown, after = number
        start, end = tokens[at].start(), tokens[after - 1].end()
        append(text[copied:start], copied)
        append(shown, start, end)
        copied, at = end, after
    append(text[copied:], copied)
    return Digits("".join(pieces), starts, ends)


def key_of(value: decimal.Decimal) -> str:
    """The same text for the same value: "20" for 20.0."""
    return f"{value.normalize():f}"


Tokens = Sequence[re.Match[str]]
# Value, next token, is ordinal.
Number = tuple[decimal.Decimal, int, bool]


def _word(text: str, tokens: Tokens, at: int) -> str:
    """Token `at` in lower case; "" unless one space or hyphen divides it from the token before."""
    if not 0 < at < len(tokens):
        return ""
    gap = text[tokens[at - 1].end() : tokens[at].start()]
    return tokens[at].group().lower() if gap in (" ", "-") else ""


def _read_number(text: str, tokens: Tokens, at: int) -> tuple[str, int] | None:
    """(digits, next token) of the number that begins at token `at`."""
    low = tokens[at].group().lower()
    if low == "half" and _word(text, tokens, at + 1) == "a":
        scale = _SCALES.get(_word(text, tokens, at + 2))
        return (key_of(decimal.Decimal(scale) / 2), at + 3) if scale else None
    if low[-1].isdigit():
        number = (decimal.Decimal(re.sub("[, ]", "", low)), at + 1, False)
    elif low in ("a", "an") and _word(text, tokens, at + 1) in _SCALES:
        number = (decimal.Decimal(1), at + 1, False)
    else:
        number = _read_below_hundred(text, tokens, at)
    if number is None:
        return None
    value, end, is_ordinal = _with_scales(text, tokens, number)
    is_joined = end < len(tokens) and tokens[end - 1].end() == tokens[end].start()
    if end == at + 1 and is_joined and (short := _SHORT_SCALES.get(tokens[end].group().lower())):
        value, end = value * short, end + 1
    if end == at + 1 and low[-1].isdigit():
        return re.sub("[, ]", "", low), end  # with its leading and trailing zeros
    return key_of(value) + ("th" if is_ordinal else ""), end


def _with_scales(text: str, tokens: Tokens, number: Number) -> Number:
    """The number with "and a half", "hundred", "million" ... and what follows them."""
    value, end, is_ordinal = number
    if [_word(text, tokens, end + i) for i in range(3)] == ["and", "a", "half"]:
        value, end = value + decimal.Decimal("0.5"), end + 3
    while not is_ordinal and (scale := _SCALES.get(_word(text, tokens, end))):
        value, end = value * scale, end + 1
        rest_at = end + (_word(text, tokens, end) == "and")
        rest = _read_below_hundred(text, tokens, rest_at) if _word(text, tokens, rest_at) else None
        if rest is not None and scale >= 1000:
            rest = _with_scales(text, tokens, rest)
        if rest is not None and rest[0] < scale != _SCALES["dozen"]:
            value, end, is_ordinal = value + rest[0], rest[1], rest[2]
    return value, end, is_ordinal


def _read_below_hundred(text: str, tokens: Tokens, at: int) -> Number | None:
    """The number in words below a hundred, or the year, that begins at token `at`."""
    low = tokens[at].group().lower()
    if low in _ORDINALS:
        return decimal.Decimal(_ORDINALS[low]), at + 1, True
    if low not in _CARDINALS:
        return None
    value, end = _CARDINALS[low], at + 1
    following = _word(text, tokens, end)
    if value >= 20 and 0 < _CARDINALS.get(following, 0) < 10:
        value, end = value + _CARDINALS[following], end + 1
    elif value >= 20 and 0 < _ORDINALS.get(following, 0) < 10:
        return decimal.Decimal(value + _ORDINALS[following]), end + 1, True
    elif 16 <= value <= 20 and following:  # "nineteen eighty-four"
        rest = _read_below_hundred(text, tokens, end)
        if rest is not None and 10 <= rest[0] < 100 and not rest[2]:
            return 100 * value + rest[0], rest[1], False
    return decimal.Decimal(value), end, False
