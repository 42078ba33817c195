"""Numbers in running text, in digits or in words: "1,200", "$1.5m", "ninety-one", "half a dozen".

English only. A number becomes its value (`decimal.Decimal`), so that "twenty", "20" and "20.0" are
the same.
"""

import dataclasses
import decimal
import re
from collections.abc import Sequence

Value = decimal.Decimal

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
SMALL = {word: value for value, word in enumerate(_WORDS.split())}
TENS = {
    word: 10 * place
    for place, word in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2
    )
}
SCALES = {
    "hundred": 100,
    "thousand": 1000,
    "k": 1000,
    "million": 10**6,
    "m": 10**6,
    "mn": 10**6,
    "billion": 10**9,
    "bn": 10**9,
    "dozen": 12,
}
_ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fifth": 5,
    "eighth": 8,
    "ninth": 9,
    "twelfth": 12,
}
for _word, _value in (SMALL | TENS | {"hundred": 100, "thousand": 1000}).items():
    if _value > 3 and _value not in _ORDINALS.values():
        _ORDINALS[_word.removesuffix("y") + ("ieth" if _word.endswith("y") else "th")] = _value
ORDINALS = dict(_ORDINALS)
NUMBER_WORDS = frozenset({*SMALL, *TENS, *ORDINALS, "hundred", "thousand", "million", "billion"})

_TOKEN = re.compile(
    r"(?<=[$£€] )\d+\. \d\d(?!\d)|\d{1,3}(?:, 000)+(?!\d)"  # "$ 32. 42", "3, 000" (tokenised text)
    r"|\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"  # 1,200.50  3.5  .5
    r"|[^\W\d_]+(?:['’][^\W\d_]+)*"  # a word, with its apostrophes
    r"|[^\w\s]|_"
)
_DIGITS = re.compile(r"[\d., ]*\d")


_POSSESSIVE = re.compile(r"(?<=\w)['’]s$")


@dataclasses.dataclass(frozen=True)
class Token:
    """A word without "'s", a number in digits, or a sign. `low`: in lower case, without spaces."""

    text: str
    start: int
    end: int
    low: str

    @property
    def is_digits(self) -> bool:
        """Whether it is a number in digits."""
        return _DIGITS.fullmatch(self.text) is not None


def tokens_of(text: str) -> list[Token]:
    """All tokens of a text with their places in it."""
    found = []
    for match in _TOKEN.finditer(text):
        word = _POSSESSIVE.sub("", match.group())
        low = word.lower().replace("’", "'").replace(" ", "")
        found.append(Token(word, match.start(), match.start() + len(word), low))
    return found


@dataclasses.dataclass(frozen=True)
class Number:
    """A number that was read.

    Attributes:
        value: what it is worth.
        end: number of the first token after it.
        ordinal: "third", "3rd". spelled: in words.
        scaled: has a scale word ("million", "dozen"), which no time and no year has.
    """

    value: Value
    end: int
    ordinal: bool = False
    spelled: bool = False
    scaled: bool = False


def read_number(tokens: Sequence[Token], at: int) -> Number | None:
    """The number that begins at token `at`, as long as it goes; None if none begins there.

    >>> read_number(tokens_of("two hundred and fifty people"), 0).value
    Decimal('250')
    """
    token = tokens[at]
    if token.is_digits:
        return _digits(tokens, at)
    special = _half_or_dozen(tokens, at)
    if special is not None:
        return special
    low = token.low
    if low in ("a", "an") and at + 1 < len(tokens) and tokens[at + 1].low in SCALES:
        if len(tokens[at + 1].low) <= 2:  # "a k", "a m"
            return None
        return _with_scales(tokens, at + 1, Value(1))
    if low in SMALL or low in TENS or low in ORDINALS:
        return _words(tokens, at)
    return None


def _low(tokens: Sequence[Token], at: int) -> str:
    return tokens[at].low if 0 <= at < len(tokens) else ""


def _joined(tokens: Sequence[Token], at: int) -> bool:
    """Whether token `at` follows the one before it without a space."""
    return 0 < at < len(tokens) and tokens[at - 1].end == tokens[at].start


def _digits(tokens: Sequence[Token], at: int) -> Number | None:
    if _joined(tokens, at) and tokens[at - 1].text[-1].isalpha():
        return None  # LX200 is a name
    value = Value(tokens[at].low.replace(",", ""))
    after = _low(tokens, at + 1)
    if _joined(tokens, at + 1) and after in ("st", "nd", "rd", "th"):
        return Number(value, at + 2, ordinal=True)
    if _joined(tokens, at + 1) and after.isalpha() and after not in SCALES:
        is_unit = after in (
            "am",
            "pm",
            "s",
            "h",
            "min",
            "km",
            "kg",
            "g",
            "cm",
            "mm",
            "p",
            "ml",
            "l",
        )
        return Number(value, at + 1) if is_unit else None
    if after in SCALES and (len(after) > 2 or _joined(tokens, at + 1)):
        return _with_scales(tokens, at + 1, value, spelled=False)
    if after == "-" and _low(tokens, at + 2) in SCALES and len(_low(tokens, at + 2)) > 2:
        return _with_scales(tokens, at + 2, value, spelled=False)
    return _and_a_half(tokens, Number(value, at + 1))


def _half_or_dozen(tokens: Sequence[Token], at: int) -> Number | None:
    low = tokens[at].low
    if low == "half" and _low(tokens, at + 1) == "a" and _low(tokens, at + 2) in SCALES:
        scale = SCALES[_low(tokens, at + 2)]
        return Number(Value(scale) / 2, at + 3, spelled=True, scaled=True)
    if low == "half" and not (_low(tokens, at + 1) in ("past", "an") or _joined(tokens, at)):
        return Number(Value("0.5"), at + 1, spelled=True)
    return None


def _with_scales(tokens: Sequence[Token], at: int, value: Value, spelled: bool = True) -> Number:
    while _low(tokens, at) in SCALES and len(_low(tokens, at)) > (2 if spelled else 0):
        value *= SCALES[_low(tokens, at)]
        at += 1
    rest_at = at + 1 if _low(tokens, at) == "and" else at
    if (
        spelled
        and value >= 100
        and (_low(tokens, rest_at) in SMALL or _low(tokens, rest_at) in TENS)
    ):
        rest = _words(tokens, rest_at)
        if rest.value < value:
            return Number(value + rest.value, rest.end, rest.ordinal, True, True)
    return Number(value, at, spelled=spelled, scaled=True)


def _words(tokens: Sequence[Token], at: int) -> Number:
    """A number in words; `tokens[at]` is one of them."""
    low = tokens[at].low
    if low in ORDINALS:
        return Number(Value(ORDINALS[low]), at + 1, ordinal=True, spelled=True)
    if low in SMALL:
        value, end = Value(SMALL[low]), at + 1
    else:
        value, end = Value(TENS[low]), at + 1
        unit = end + 1 if _low(tokens, end) == "-" else end
        word = _low(tokens, unit)
        if 0 < SMALL.get(word, 0) < 10:
            value, end = value + SMALL[word], unit + 1
        elif 0 < ORDINALS.get(word, 0) < 10 and unit > end:
            return Number(value + ORDINALS[word], unit + 1, ordinal=True, spelled=True)
    year = _spelled_year(tokens, value, end)
    if year is not None:
        return year
    halved = _and_a_half(tokens, Number(value, end, spelled=True))
    value, end = halved.value, halved.end
    if _low(tokens, end) in SCALES and len(_low(tokens, end)) > 2:
        return _with_scales(tokens, end, value)
    return halved


def _spelled_year(tokens: Sequence[Token], value: Value, end: int) -> Number | None:
    """ "nineteen eighty-four", "twenty twenty"; the century was read already."""
    if value not in (17, 18, 19, 20) or end >= len(tokens) or tokens[end].low in SCALES:
        return None
    at = end
    if tokens[at].low in TENS or 10 <= SMALL.get(tokens[at].low, 0) < 20:
        rest = _words(tokens, at)
        if rest.value < 100 and not rest.ordinal:
            return Number(value * 100 + rest.value, rest.end, spelled=True)
    return None


def _and_a_half(tokens: Sequence[Token], number: Number) -> Number:
    words = [_low(tokens, number.end + offset) for offset in range(3)]
    if words == ["and", "a", "half"]:
        return dataclasses.replace(number, value=number.value + Value("0.5"), end=number.end + 3)
    return number


def key_of(value: Value) -> str:
    """The same text for the same value: "20" for 20.0."""
    return f"{value.normalize():f}"
