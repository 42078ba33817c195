"""Rewrite English number words as digits: "two hundred and fifty" becomes "250"."""

import decimal
import re
from collections.abc import Iterable

_ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_STEMS = ["thir", "four", "fif", "six", "seven", "eigh", "nine"]
_TEENS = ["ten", "eleven", "twelve", *(f"{stem}teen" for stem in _STEMS)]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_CARDINALS = {word: value for value, word in enumerate(["zero", *_ONES, *_TEENS])}
_CARDINALS |= {word: 10 * value for value, word in enumerate(_TENS, start=2)}
_ORDINALS = {re.sub("y$", "ie", word) + "th": value for word, value in _CARDINALS.items()}
_ORDINALS |= {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9}
_ORDINALS |= {"twelfth": 12, "hundredth": 100, "thousandth": 1000}
_DECADES = {re.sub("y$", "ies", word): 10 * value for value, word in enumerate(_TENS, start=2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12}
_SHORT_SCALES = {"k": 1000, "m": 10**6, "mn": 10**6, "bn": 10**9}
_VALUES = _CARDINALS | _ORDINALS | {"half": decimal.Decimal("0.5")}
NUMBER_WORDS = frozenset({*_CARDINALS, *_ORDINALS, *_SCALES} - {"dozen"})


def _any(words: Iterable[str]) -> str:
    return rf"\b(?:{'|'.join(words)})\b"


_ONE_TO_NINE = _any(word for word, value in (_CARDINALS | _ORDINALS).items() if 0 < value < 10)
_BELOW_100 = rf"(?:{_any(_TENS)}[ -]{_ONE_TO_NINE}|{_any([*_CARDINALS, *_ORDINALS])})"
_SCALE = rf"[ -]{_any(_SCALES)}"
_NUMBER = re.compile(
    # Tokenized text: "$ 32. 42", "3, 000".
    r"(?<=[$£€] )\d+\. \d\d(?!\d)|(?<![\w.])\d{1,3}(?:, 000)+(?!\d)"
    rf"|(?P<decade>{_any(_DECADES)})"
    rf"|(?P<century>{_any(['sixteen', 'seventeen', 'eighteen', 'nineteen', 'twenty'])})[ -]"
    rf"(?P<year>{_any(_TENS)}(?:[ -]{_any(_ONES)})?|{_any(_TEENS)})"
    rf"|(?:(?<![\w.])(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    rf"|{_BELOW_100}|\b(?:half )?an?(?={_SCALE}))"
    r"(?:(?:k|mn?|bn)\b|(?: and a half)?"
    rf"(?:{_SCALE}(?:(?: and)?[ -]{_BELOW_100})?)*)",
    re.IGNORECASE,
)


def as_digits(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Rewrite every number in digits without separators; ordinals end in "th", decades in "s".

    Returns:
        The new text, and for each of its characters the span (start, end) in the original text.

    >>> as_digits("Two hundred and fifty people, twenty-third, half a dozen")[0]
    '250 people, 23th, 6'
    """
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    copied = 0
    for match in _NUMBER.finditer(text):
        digits = _digits(match)
        pieces += [text[copied : match.start()], digits]
        spans += [(i, i + 1) for i in range(copied, match.start())]
        spans += [match.span()] * len(digits)
        copied = match.end()
    spans += [(i, i + 1) for i in range(copied, len(text))]
    return "".join([*pieces, text[copied:]]), spans


def _digits(match: re.Match[str]) -> str:
    low = match.group().lower()
    if match["decade"]:
        return f"{_DECADES[low]}s"
    if match["century"]:
        return f"{_CARDINALS[match['century'].lower()]}{_value(match['year'].lower())}"
    if not re.search("[a-z]", low):
        return re.sub("[, ]", "", low)  # leading and trailing zeros stay: "07:30", "$8.50"
    return key_of(_value(low)) + ("th" if re.split("[ -]", low)[-1] in _ORDINALS else "")


def _value(low: str) -> decimal.Decimal:
    """The value of a number in words and digits, in lower case."""
    total = group = decimal.Decimal(0)
    for word in re.findall(r"[\d.]+|[a-z]+", low.replace(",", "")):
        scale = _SCALES.get(word) or _SHORT_SCALES.get(word)
        if scale is None:  # "a", "an" and "and" have no value
            group += decimal.Decimal(_VALUES.get(word, 0) if word.isalpha() else word)
        elif scale < 1000:
            group = (group or 1) * scale
        else:
            total, group = total + (group or 1) * scale, decimal.Decimal(0)
    return total + group


def key_of(value: decimal.Decimal) -> str:
    """Equal text for equal values: "20" for 20.0."""
    return f"{value.normalize():f}"
