"""Numbers, amounts, times and dates as mentions whose keys are equal for equal values. English.

"5 pm" and "five o'clock in the afternoon" share a key, so do "$20" and "twenty bucks", "90 minutes"
and "an hour and a half", "June 3rd" and "the third of June".
"""

import dataclasses
import datetime
import decimal
from collections.abc import Callable, Collection

import dateutil.parser
import regex

from instruct.report.faithfulness.mentions import Mention
from instruct.report.faithfulness.numbers import TENS, as_digits, key_of

_CURRENCIES = {"$": "USD", "£": "GBP", "€": "EUR", "¥": "CNY", "₹": "INR", "buck": "USD"}
_CURRENCIES |= {"dollar": "USD", "usd": "USD", "quid": "GBP", "pound": "GBP", "gbp": "GBP"}
_CURRENCIES |= {"euro": "EUR", "eur": "EUR", "yuan": "CNY", "rmb": "CNY", "rupee": "INR"}
# A month and a year are longer than any number of days that is written as days.
_MINUTES = {"minute": 1, "min": 1, "hour": 60, "hr": 60, "day": 1440, "week": 10080}
_MINUTES |= {"fortnight": 20160, "month": 43830, "year": 525960, "decade": 5259600}
_DECADES = [f"{tens.removesuffix('y')}ies" for tens in TENS]
_CHAT_WORDS = {"tmrw": "tomorrow", "tmr": "tomorrow", "2moro": "tomorrow", "2nite": "tonight"}
_WHICH = {"following": "next", "coming": "next", "previous": "last", "past": "last"}
_DAY_PARTS = ((5, "night"), (12, "morning"), (17, "afternoon"), (21, "evening"), (24, "night"))

_NAMED = {
    "N": r"(?<![\w.,])(?P<n>\d+(?:\.\d+)?)",
    "UNIT": rf"(?P<unit>{'|'.join(_MINUTES)})s?\b",
    "MONEY": r"(?P<unit>dollar|buck|usd|pound|quid|gbp|euro|eur|yuan|rmb|rupee|yen|peso|cent|pence)"
    r"s?\b",
    "H": r"(?<![\w.:,])(?P<h>[01]?\d|2[0-4])",
    "HALF": r"(?: ?(?P<half>[ap])(?:\. ?m\.|m\b)| (?:in the (?P<part>morning|afternoon|evening)"
    r"|at (?P<part>night))\b)",
    "WEEKDAY": r"(?:mon|tues|wednes|thurs|fri|satur|sun)day",
    "LONG": r"(?:january|february|august|september|october|november|december)",
    "SHORT": r"(?-i:April|June|July|Jan|Feb|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)",
    "MONTH": r"(?:@LONG|@SHORT|(?-i:Mar(?:ch)?|May))\b(?:\.(?= ?\d))?",
    "DAY": r"(?<![\w.:,$£€])\d{1,2}(?:st|nd|rd|th)?(?![\w:%]|\.\d)",
    "PREPOSITION": r"\b(?:at|by|until|till|from|before|after|around|about|since|between|to)",
    # "At five" is a time, "at five shops" is not.
    "END": r"(?=$|\n|\s*[^\w\s%°$£€/.,:-]|[.,:](?!\d)|\s+[.,:-]"
    r"| (?:in|on|and|to|till|until|but|at|with|for|because|when|or|if|so|tomorrow"
    r"|today|tonight|every|sharp|as|since|while|from|by|then|before|after|who|which|that"
    r"|instead|@WEEKDAY|@MONTH)\b)",
    "PART": r"(?P<period>spring|summer|autumn|fall|winter|morning|afternoon|evening|night)",
    "PERIOD": r"(?:@PART|(?P<period>week|weekend|month|year|term|semester|quarter|season|decade"
    r"|century))",
}

Match = regex.Match[str]
# Kind, needed keys of each part, emitted keys, whether it counts.
Keys = tuple[str, list[set[str]], set[str], bool]
_READERS: list[tuple[regex.Pattern[str], Callable[[Match], Keys | None]]] = []


def _reads(pattern: str) -> Callable[[Callable[[Match], Keys | None]], object]:
    """Registers the reader of a pattern, in which @NAME stands for one of `_NAMED`."""
    while "@" in pattern:
        pattern = regex.sub("@([A-Z]+)", lambda match: _NAMED[match[1]], pattern)
    compiled = regex.compile(pattern, regex.IGNORECASE)
    return lambda read: _READERS.append((compiled, read)) or read


def find_quantities(text: str) -> list[Mention]:
    """Every number, amount, time and date of a text, in order, without overlaps.

    Those with `counts` False are no facts by themselves ("one of them"), but are evidence.
    """
    digits = as_digits(text)
    mentions: list[Mention] = []
    taken = bytearray(len(digits.text))
    for pattern, read in _READERS:
        for match in pattern.finditer(digits.text):
            begin, end = match.span()
            keys = None if any(taken[begin:end]) else read(match)
            if keys is None:
                continue
            taken[begin:end] = b"x" * (end - begin)
            kind, parts, emits, counts = keys
            span = digits.starts[begin], digits.ends[end - 1]
            needs = tuple(map(frozenset, parts))
            mention = Mention(kind, *span, text[slice(*span)], needs, frozenset(emits))
            mentions.append(dataclasses.replace(mention, counts=counts))
    return sorted(mentions, key=lambda mention: mention.start)


def _date(key: str, needs: Collection[str] = (), emits: Collection[str] = ()) -> Keys:
    return "date", [{key, *needs}], {key, *emits}, True


# Parts of a date that are the same with both defaults were stated.
_DEFAULTS = (datetime.datetime(1904, 2, 29), datetime.datetime(1928, 1, 30))


def _calendar_date(match: Match) -> Keys | None:
    written = regex.sub(r"\bthe\b|\bof\b|(?<=\d)(?:st|nd|rd|th)\b", " ", match.group().lower())
    try:
        one, other = (dateutil.parser.parse(written, default=default) for default in _DEFAULTS)
    except (ValueError, OverflowError):
        return None
    parts, emits = [], set()
    for name in ("month", "day", "year"):
        value = getattr(one, name)
        if value == getattr(other, name):
            needs = {f"n {value}"} if name == "year" else {f"{name} {value}"}
            emits |= needs | ({f"n {value}"} if name == "day" else set())
            parts.append(needs | ({f"bare {value}", f"nth {value}"} if name == "day" else set()))
    return "date", parts, emits, True


_reads(r"(?<![\w-])\d{4}-\d\d-\d\d(?![\w-])")(_calendar_date)


@_reads(
    r"(?<![\w.])(?:\d,?[ -](?:(?:\d|oh),?[ -]){3,}(?:\d|oh)|\d{3,}(?: ?[ -] ?\d{2,})+)\b(?![.,]\d)"
)
def _phone(match: Match) -> Keys | None:
    key = "digits " + regex.sub(r"\D", "", match.group().lower().replace("oh", "0"))
    is_number = len(key) > 13 or not match.group()[1].isdigit()
    return ("number", [{key}], {key}, True) if is_number else None


@_reads(
    r"(?P<past>half|(?:a )?quarter) (?P<relation>past|after|to|before|of) @H(?![\w:])@HALF?"
    r"|(?P<past>5|10|20|25) (?:(?:minutes )?(?P<relation>past)"
    r"|minutes (?P<relation>after|to|before)|(?<=\b(?:at|it|is|it's) \d\d? )(?P<relation>to))"
    r" @H(?![\w:])@HALF?"
    r"|@H:(?P<m>[0-5]\d)(?![\d%:])@HALF?|@H\.(?P<m>[0-5]\d)@HALF|@H o['’]?clock\b@HALF?|@H@HALF"
    r"|(?<=@PREPOSITION )@H (?P<m>[1-5]\d)(?:@HALF|@END)|\b(?P<noon>noon|midday|midnight)\b"
)
def _time(match: Match) -> Keys | None:
    groups = {name: (text or "").lower() for name, text in match.groupdict().items()}
    hour, minute = int(groups["h"] or 12), int(groups["m"] or 0)
    if past := groups["past"].removeprefix("a "):
        minute = {"half": 30, "quarter": 15}.get(past) or int(past)
        if groups["relation"] in ("to", "before", "of"):
            hour, minute = (hour - 1) or 12, 60 - minute
    half = groups["half"] or ({"midnight": "a"}.get(groups["noon"], "p") if groups["noon"] else "")
    if groups["part"] and hour <= 12:
        half = "a" if groups["part"] == "morning" else "p"
    if groups["half"] and hour > 12:
        return None
    clock = hour % 12 * 60 + minute
    needs, emits = {f"clock {clock}", f"read {hour}.{minute:02d}"}, {f"clock {clock}"}
    if minute == 0:
        emits |= {f"n {hour % 12 or 12}"}
        needs |= {f"bare {hour}", f"bare {hour % 12 or 12}"}
    if half or not 0 < hour <= 12 or (groups["h"][:1] == "0" and groups["m"]):
        time = clock + 720 * (half == "p" if half else hour >= 12)
        part = next(name for until, name in _DAY_PARTS if time < 60 * until)
        needs = needs - {f"clock {clock}"} | {f"time {time}", f"open {clock}"}
        return "date", [needs], emits | {f"time {time}", f"part {part}"}, True
    return "date", [needs], emits | {f"open {clock}"}, True


_reads(
    r"(?:(?<!\w)@MONTH (?:the )?@DAY|@DAY(?: of)? @MONTH)(?:(?:,| of)? \d{4}\b)?"
    r"|(?<!\w)@MONTH,? \d{4}\b|\b(?:@LONG|@SHORT)\b"
    r"|(?<=\b(?:in|since|until|till|by|of|this|next|last|early|late|mid|during|from|@MONTH"
    r" (?:and|to|or))[ -])(?-i:May|March)\b"
)(_calendar_date)


@_reads(
    r"\b@WEEKDAYs?\b|(?<=(?:\b(?:on|this|next|last)|@PREPOSITION) )"
    r"(?-i:Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun)\b"
)
def _weekday(match: Match) -> Keys:
    return _date(f"weekday {match.group()[:3].lower()}")


@_reads(
    rf"\b(?:day after tomorrow|day before yesterday|{'|'.join(_CHAT_WORDS)}|today|tonight|tomorrow"
    r"|yesterday|(?P<which>next|following|coming|last|previous|past|this) @PERIOD)\b"
)
def _relative(match: Match) -> Keys:
    low, which, period = (match[group] and match[group].lower() for group in (0, "which", "period"))
    key = (
        f"rel {_WHICH.get(which, which)} {period}" if which else f"rel {_CHAT_WORDS.get(low, low)}"
    )
    if key == "rel tonight":
        return _date(key, ["rel this evening"], ["part evening", "part night"])
    is_today = which == "this" and period in ("morning", "afternoon", "evening", "night")
    needs = ["rel tonight", "rel today"] if is_today else []
    return _date(key, ["rel yesterday"] if key == "rel last night" else needs, [f"part {period}"])


@_reads(
    r"(?P<counts>(?<=\b(?:(?:in|by|during|on|of|for|@PREPOSITION) the|at|every) )"
    r"|(?<=\b(?:in|by|during|@PREPOSITION) )(?=spring|summer|autumn|winter))?\b@PART\b"
)
def _part_of_day(match: Match) -> Keys:
    key = f"part {match['period'].lower()}"
    return "date", [{key}], {key}, match["counts"] is not None


@_reads(
    r"\b(?P<name>christmas|xmas|easter|halloween|thanksgiving|new year|valentine|ramadan|diwali"
    r"|(?:boxing|independence|labou?r|mother|father)(?=['’]?s? day))(?:['’]?s)?(?: day| eve)?\b"
)
def _holiday(match: Match) -> Keys:
    return _date(f"holiday {match['name'].lower().replace('xmas', 'christmas')}")


@_reads(
    rf"(?:\b(?:1[5-9]|20)|(?<=\bthe ['’]?))(?P<n>\d0)['’]?s\b|(?<=\bthe )(?:{'|'.join(_DECADES)})\b"
)
def _decade(match: Match) -> Keys:
    word = match.group().lower()
    return _date(f"decade {match['n'] if match['n'] else 20 + 10 * _DECADES.index(word)}")


@_reads(
    r"(?<=(?:\b(?:in|of|during|year|and|the)|@PREPOSITION) |[,(] ?)(?P<n>1[5-9]\d\d|20\d\d)\b"
    r"(?![.,:]\d|[%-]| (?:@MONEY|@UNIT|people|men|women|k?m\b|miles|met))"
)
def _year(match: Match) -> Keys:
    return _date(f"n {match['n']}", emits=[f"bare {match['n']}"])


@_reads(
    r"(?<=(?:(?:\b(?:on|of|and|or)|@PREPOSITION|@WEEKDAYs?,?) the|\d(?:st|nd|rd|th) (?:or|and|to)"
    r"(?: the)?) )(?P<n>[12]?\d|3[01])(?P<th>st|nd|rd|th)@END"
    r"|(?<=@PREPOSITION )(?P<n>1[0-2]|[1-9])(?P<th>)@END"
)
def _day_or_hour(match: Match) -> Keys:
    value = int(match["n"])
    if match["th"]:
        return _date(
            f"day {value}", [f"bare {value}", f"nth {value}"], [f"nth {value}", f"n {value}"]
        )
    needs = {f"bare {value}", f"clock {value % 12 * 60}"}
    return "date", [needs], {f"bare {value}", f"n {value}"}, True


@_reads(
    r"(?P<sign>[$£€¥₹]) ?@N(?P<cents>)"
    r"|@N[ -]?@MONEY(?:,?(?: and)? (?P<cents>\d\d?) (?:cents?|pence|p)\b)?(?P<sign>)"
)
def _money(match: Match) -> Keys:
    value = decimal.Decimal(match["n"]) + decimal.Decimal(match["cents"] or 0) / 100
    unit, shown = (match["sign"] or match["unit"]).lower(), key_of(value)
    key = f"money {_CURRENCIES.get(unit, unit)} {shown}"
    needs = {key, f"bare {shown}", f"read {value:.2f}"}
    needs |= {f"n {shown}"} if unit == "pound" else set()  # may be a weight
    return "number", [needs], {key, f"n {shown}"}, True


@_reads(r"@N ?(?:%|per ?cent\b)")
def _percent(match: Match) -> Keys:
    shown = key_of(decimal.Decimal(match["n"]))
    return (
        "number",
        [{f"percent {shown}", f"bare {shown}"}],
        {f"percent {shown}", f"n {shown}"},
        True,
    )


@_reads(
    r"@N[ -]?@UNIT(?P<more> and a half)?(?P<share>)(?=(?P<ago> ago\b)|)"
    r"|\b(?:(?:a )?(?P<share>half|quarter)(?: of)?(?:[ -]an?)?|an?)[ -]@UNIT"
    r"(?P<more> and a half)?(?P<n>)"
)
def _duration(match: Match) -> Keys:
    minutes, more = _MINUTES[match["unit"].lower()], decimal.Decimal("0.5" if match["more"] else 0)
    if not match["n"]:
        share = {"half": "0.5", "quarter": "0.25"}.get((match["share"] or "").lower(), "1")
        key = f"lasts {key_of((decimal.Decimal(share) + more) * minutes)}"
        return "number", [{key}], {key, "n 1"} if share == "1" else {key}, key != f"lasts {minutes}"
    value = decimal.Decimal(match["n"]) + more
    key, shown = f"lasts {key_of(value * minutes)}", key_of(value)
    kind = "date" if match["ago"] else "number"
    return kind, [{key, f"bare {shown}"}], {key, f"n {shown}"}, (shown, minutes) != ("1", 1440)


@_reads(
    r"(?P<moment>(?<=\b(?:a|one|per) )(?=2th))?(?<![\w.,])(?P<n>\d+)(?:st|nd|rd|th)\b(?P<list>,)?"
)
def _ordinal(match: Match) -> Keys:
    keys = {f"n {match['n']}", f"nth {match['n']}"}
    counts = match["n"] != "1" and not match["list"] and match["moment"] is None
    return "number", [keys], keys, counts


@_reads(
    r"(?P<the>(?<=\bthe ))?@N(?=(?:am|pm|s|h|k?m|[km]?g|cm|mm|p|m?l)?(?!\w)(?! past\b))"
    r"(?= (?P<then>[1-9]\d)(?![\w.%])|)"
)
def _plain(match: Match) -> Keys:
    value = decimal.Decimal(match["n"])
    shown = key_of(value)
    emits = {f"n {shown}", f"bare {shown}"}
    if match["then"]:  # "eight fifty": a price or a time
        emits |= {f"read {shown}.{match['then']}"}
        emits |= {f"clock {int(value) % 12 * 60 + int(match['then'])}"}
    return "number", [{f"n {shown}"}], emits, value not in (0, 1) and match["the"] is None


@_reads(r"\b(?:(?P<one>once|single)|twice|both|pair|couple|double|(?P<half>half))\b(?! past\b)")
def _multiple(match: Match) -> Keys:
    if match["half"]:
        return "number", [{"n 0.5"}], {"n 0.5", "bare 0.5", "percent 50"}, False
    key = "n 1" if match["one"] else "n 2"
    return "number", [{key}], {key}, False
