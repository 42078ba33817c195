"""Numbers in running text, parsed by the conventions of its language.

A language decides between dot and comma (`NumberForm.decimal`): one is its decimal sign, the other
groups thousands. Unambiguous forms are the same in all languages:

    blanks       group thousands (ISO 80000-1): plain, no-break, narrow, thin, full-width
    apostrophes  group thousands (Switzerland): ' and the typographic ones
    digits       of any script, full-width ones with their signs
    two signs    "1.234,56" and "1,234.56": the last one is the decimal sign
    one, twice   "1.000.000" and "1,000,000" group, "1,00,000" as in India; "1.5.2020" is three

A group has exactly three digits and the first does not begin with 0, so "3.5" and "0.125" are
decimals in German too. If both readings are numbers ("1.000"), the language's own counts.
"""

import decimal
import functools
import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

# Long numbers must not be rounded, and no input may raise.
_EXACT = decimal.Context(prec=200, traps=[])
_OTHER = {".": ",", ",": "."}
_QUOTIENT = decimal.Context(prec=28, traps=[])


class NumberForm(NamedTuple):
    """A language's conventions for numbers.

    Attributes:
        decimal: its decimal sign, "." or ","; the other one groups thousands.
        scales: lower-case word after a number and its power of ten ("70 thousand", "7万").
        scale_first: whether the word may also precede the number (Swahili "elfu 70").
    """

    decimal: str
    scales: tuple[tuple[str, int], ...] = ()
    scale_first: bool = False


ENGLISH = NumberForm(".", (("thousand", 3), ("million", 6), ("billion", 9), ("trillion", 12)))

_BLANKS = "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000"
_SAME_SIGN: Mapping[int, str | None] = str.maketrans(
    {
        **dict.fromkeys(_BLANKS, " "),
        **dict.fromkeys("\u2018\u2019\u02bc\uff07\u00b4`", "'"),
        **dict.fromkeys("\u2012\u2013\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\u2044\u2215\uff0f", "/"),
        **dict.fromkeys("\uff0c\ufe50", ","),
        **dict.fromkeys("\uff0e\ufe52", "."),
        **dict.fromkeys("\u200b\u200e\u200f\u2060", None),  # not to be seen
        "\uff0b": "+",
    }
)
_LATEX = (
    (re.compile(r"\{([.,])\}|([.,])\\!"), r"\1\2"),  # "70{,}000"
    (re.compile(r"\\[,;: ]"), " "),
)
_NATIVE_DIGIT = re.compile(r"(?![0-9])\d")
_VULGAR = re.compile(r"[\u00bc-\u00be\u2150-\u215e]")
_CURRENCY = (
    "(?:[A-Z]{0,3}[$\u00a2-\u00a5\u058f\u060b\u09f2\u09f3\u0e3f\u17db\u20a0-\u20c0\uff04\uffe0"
    "\uffe1\uffe5\uffe6]|(?:EUR|USD|CHF|INR|BDT|KES|TZS|JPY|CNY|RMB|RUB|THB|KSh|TSh)"
    r"|(?:Rs|Tk|Sh|Fr)\.?)\s?"
)
# A letter before digits makes them part of a name ("x7") in scripts that separate words by blanks
# and attach no endings to digits.
_NO_NAME = r"(?<![0-9A-Za-z_\u00c0-\u024f\u0370-\u052f])(?<![0-9]\.)"


@functools.cache
def _number(form: NumberForm) -> re.Pattern[str]:
    """Pattern of a number with its sign; the name of the matching group is its notation."""
    point = re.escape(form.decimal)
    group = re.escape(_OTHER[form.decimal])
    first, three = r"[1-9][0-9]{0,2}", r"[0-9]{3}(?![0-9])"
    blank = rf" {three}(?!-[^\W0-9_])"  # "3 100-dollar notes" are three
    ways = {
        "mixed": r"[0-9]+ [1-9][0-9]?/[1-9][0-9]?(?![0-9/]|[.,][0-9])",
        "fraction": r"(?<!/)[0-9]+/[1-9][0-9]*(?![0-9/]|[.,][0-9])",
        "indian": rf"[1-9][0-9]?(?:,[0-9]{{2}})+,{three}(?:\.[0-9]+)?",
        "own": rf"{first}(?:{group}{three})+(?:{point}[0-9]+)?",
        "neutral": rf"{first}(?:(?:'{three})+|(?:{blank})+)(?:[.,][0-9]+(?! ?[0-9]))?",
        "foreign": rf"{first}(?:(?:{point}{three})+{group}[0-9]+|(?:{point}{three}){{2,}})"
        r"(?![.,]?[0-9])",
        "series": r"[0-9]+(?P<between>[.,])[0-9]+(?:(?P=between)[0-9]+)+",
        # Dots do not separate list items, so they are decimal signs in every language.
        "plain": rf"[0-9]+(?:[.{form.decimal}][0-9]+)?|(?<![\w.])\.[0-9]+",
    }
    body = "|".join(f"(?P<{way}>{pattern})" for way, pattern in ways.items())
    return re.compile(rf"{_NO_NAME}(?P<sign>[-+])?(?:{_CURRENCY})?(?P<inner_sign>[-+])?(?:{body})")


@functools.cache
def _scale_words(form: NumberForm) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a scale word after a number, blank included, and of one before it."""
    words = "|".join(sorted((_whole_word(word) for word, _ in form.scales), key=len, reverse=True))
    after = rf"\s?({words})" if words else "(?!)"
    before = rf"\b({words})\s\Z" if form.scale_first else "(?!)"
    return re.compile(after, re.IGNORECASE), re.compile(before, re.IGNORECASE)


def _whole_word(word: str) -> str:
    """Pattern of a word; in scripts with word boundaries no letter may follow."""
    divided = unicodedata.name(word[-1]).startswith(("LATIN", "CYRILLIC"))
    # Thai words for "breed" and "thousand" begin alike.
    return re.escape(word) + (r"(?!\w)" if divided else "(?!\u0e18)")


def numbers_in(text: str, form: NumberForm = ENGLISH) -> list[Decimal]:
    """All numbers of a text, in order.

    >>> numbers_in("70.000 Euro, also 3,5 %", NumberForm(","))
    [Decimal('70000'), Decimal('3.5')]
    """
    text = _plain_signs(text, form)
    powers = dict(form.scales)
    follows, precedes = _scale_words(form)
    numbers: list[Decimal] = []
    end, room = -1, Decimal(0)  # end of the last scaled number, and its scale
    for match in _number(form).finditer(text):
        values = _values(match, form)
        before = precedes.search(text, max(match.start() - 20, 0), match.start())
        scale = Decimal(1).scaleb(powers[before[1].lower()] if before else 0)
        position = match.end()
        while (word := follows.match(text, position)) is not None:
            scale, position = scale.scaleb(powers[word[1].lower()]), word.end()
        if scale > 1:
            values[-1] = _EXACT.multiply(values[-1], scale)
        if match.start() == end and len(values) == 1 and values[0] < room:
            # "7万5千" is one number.
            numbers[-1] = _EXACT.add(numbers[-1], values[0].copy_sign(numbers[-1]))
        else:
            numbers += values
        if scale > 1:
            end, room = position, scale
    return numbers


def canonical(number: Decimal) -> str:
    """All digits of a number, without an exponent and without zeros at the end of its fraction.

    >>> canonical(Decimal("1200.50")), canonical(Decimal("-0.0")), canonical(Decimal("1E+2"))
    ('1200.5', '0', '100')
    """
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _plain_signs(text: str, form: NumberForm) -> str:
    """Replaces digits and signs by ASCII ones, and fraction characters by "1/2"."""
    for pattern, sign in _LATEX:
        text = pattern.sub(sign, text)
    text = _VULGAR.sub(_spelled_fraction, text)
    text = _NATIVE_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit.group())), text)
    # The Arabic decimal and thousands separators are unambiguous.
    return text.translate({**_SAME_SIGN, 0x066B: form.decimal, 0x066C: _OTHER[form.decimal]})


def _spelled_fraction(match: re.Match[str]) -> str:
    """ "1/2" for the sign of a half, with a blank after a digit: "3 1/2"."""
    spelled = unicodedata.normalize("NFKC", match.group())
    return " " * match.string[: match.start()][-1:].isdecimal() + spelled


def _values(match: re.Match[str], form: NumberForm) -> list[Decimal]:
    """The number of a match; several for a series such as a date."""
    way = str(match.lastgroup)
    written = match[way]
    if way == "series":
        values = [Decimal(part) for part in written.split(match["between"])]
    elif way in ("fraction", "mixed"):
        whole, _, part = written.rpartition(" ")
        above, below = map(Decimal, part.split("/"))
        values = [_EXACT.add(Decimal(whole or 0), _QUOTIENT.divide(above, below))]
    else:
        points = {"own": form.decimal, "foreign": _OTHER[form.decimal], "indian": "."}
        point = points.get(way, "," if "," in written else ".")
        kept = re.sub(rf"[^0-9{point}]", "", written)
        values = [Decimal(kept.replace(point, "."))]
    if "-" in (match["sign"], match["inner_sign"]):
        values[0] = values[0].copy_negate()
    return values
