"""Numbers, amounts, times and dates as mentions whose keys are equal for equal values. English.

"5 pm" and "five o'clock in the afternoon" share a key, so do "$20" and "twenty bucks", "90 minutes"
and "an hour and a half", "June 3rd" and "the third of June".
"""

import datetime
import decimal

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
_CHAT_WORDS = {"tmrw": "tomorrow", "tmr": "tomorrow", "2moro": "tomorrow", "2day": "today"}
_CHAT_WORDS |= {"tonite": "tonight", "2nite": "tonight"}
_WHICH = {"following": "next", "coming": "next", "previous": "last", "past": "last"}
_TODAY = ("morning", "afternoon", "evening", "night")
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
    "MONTH": r"(?:january|february|august|september|october|november|december"
    r"|(?-i:March|April|May|June|July|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec))\b(?:\.(?= ?\d))?",
    "DAY": r"(?<![\w.:,$£€])\d{1,2}(?:st|nd|rd|th)?(?![\w:%]|\.\d)",
    "PREPOSITION": r"(?:at|by|until|till|from|before|after|around|about|since|between|to)",
    # "At five" is a time, "at five shops" is not.
    "END": r"(?=$|\s*[^\w\s]|\n| (?:in|on|and|to|till|until|but|at|with|for|because|when|or|if|so"
    r"|tomorrow|today|tonight|every|sharp|as|since|while|from|by|then|before|after|who|which|that"
    r"|instead|@WEEKDAY|@MONTH)\b)",
    "SEASON": r"(?:spring|summer|autumn|fall|winter)",
    "PART": r"(?P<period>@SEASON|morning|afternoon|evening|night)",
    "PERIOD": r"(?:@PART|(?P<period>week|weekend|month|year|term|semester|quarter|season|decade"
    r"|century))",
}


def _pattern(text: str) -> regex.Pattern[str]:
    """A pattern with `_NAMED` filled in where it says @NAME."""
    while "@" in text:
        text = regex.sub("@([A-Z]+)", lambda match: _NAMED[match[1]], text)
    return regex.compile(text, regex.IGNORECASE)


def find_quantities(text: str) -> list[Mention]:
    """Every number, amount, time and date of a text, in order, without overlaps.

    Those with `counts` False are no facts by themselves ("one of them"), but are evidence.
    """
    digits = as_digits(text)
    mentions: list[Mention] = []
    taken = bytearray(len(digits.text))
    for pattern, read in _PATTERNS:
        for match in pattern.finditer(digits.text):
            begin, end = match.span()
            keys = None if any(taken[begin:end]) else read(match)
            if keys is None:
                continue
            taken[begin:end] = b"x" * (end - begin)
            kind, parts, emits, counts = keys
            start, stop = digits.starts[begin], digits.ends[end - 1]
            needs = tuple(map(frozenset, parts))
            shown = text[start:stop]
            mentions.append(
                Mention(kind, start, stop, shown, needs, frozenset(emits), counts=counts)
            )
    return sorted(mentions, key=lambda mention: mention.start)


Match = regex.Match[str]
# Kind, needed keys of each part, emitted keys, whether it counts.
Keys = tuple[str, list[set[str]], set[str], bool]


def _date(key: str, needs: set[str] = frozenset(), emits: set[str] = frozenset()) -> Keys:
    return "date", [{key, *needs}], {key, *emits}, True


def _phone(match: Match) -> Keys | None:
    number = "".join(c for c in match.group().lower().replace("oh", "0") if c.isdigit())
    key = f"digits {number}"
    is_short = len(number) < 7 and not regex.match(r"\d\W", match.group())
    return None if is_short else ("number", [{key}], {key}, True)


def _time(match: Match) -> Keys | None:
    groups = match.groupdict()
    hour, minute = int(groups["h"] or 12), int(groups["m"] or 0)
    if groups["past"]:
        minute = {"half": 30, "quarter": 15}.get(groups["past"].lower().split()[-1]) or int(
            groups["past"]
        )
        if groups["relation"].lower() in ("to", "before", "of"):
            hour, minute = (hour - 1) or 12, 60 - minute
    half = (groups["half"] or "").lower()
    if groups["noon"]:
        half = "a" if groups["noon"].lower() == "midnight" else "p"
    elif groups["part"] and hour <= 12:
        half = "a" if groups["part"].lower() == "morning" else "p"
    if minute > 59 or (half and hour > 12 and groups["half"]):
        return None
    clock = hour % 12 * 60 + minute
    needs, emits = {f"clock {clock}", f"read {hour}.{minute:02d}"}, {f"clock {clock}"}
    if minute == 0:
        emits |= {f"n {hour % 12 or 12}"}
        needs |= {f"bare {hour}", f"bare {hour % 12 or 12}"}
    is_24 = (groups["h"] or "").startswith("0") and bool(groups["m"])
    if hour > 12 or hour == 0 or half or is_24:
        time = clock + 720 * (half == "p" if half else hour >= 12)
        part = next(name for until, name in _DAY_PARTS if time < 60 * until)
        needs = needs - {f"clock {clock}"} | {f"time {time}", f"open {clock}"}
        return "date", [needs], emits | {f"time {time}", f"part {part}"}, True
    return "date", [needs], emits | {f"open {clock}"}, True


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
        if value != getattr(other, name):
            continue
        needs = {f"n {value}"} if name == "year" else {f"{name} {value}"}
        emits |= needs | ({f"n {value}"} if name == "day" else set())
        parts.append(needs | ({f"bare {value}", f"nth {value}"} if name == "day" else set()))
    return "date", parts, emits, True


def _weekday(match: Match) -> Keys:
    return _date(f"weekday {match.group()[:3].lower()}")


def _relative(match: Match) -> Keys:
    low = match.group().lower()
    which, period = (match["which"] or "").lower(), (match["period"] or "").lower()
    if not which:
        key = f"rel {_CHAT_WORDS.get(low, low)}"
        if key == "rel tonight":
            return _date(key, {"rel this evening"}, {"part evening", "part night"})
        return _date(key)
    key = f"rel {_WHICH.get(which, which)} {period}"
    if key == "rel last night":
        return _date(key, {"rel yesterday"}, {"part night"})
    needs = {"rel tonight", "rel today"} if which == "this" and period in _TODAY else set()
    return _date(key, needs, {f"part {period}"})


def _part_of_day(match: Match) -> Keys:
    key = f"part {match['period'].lower()}"
    return "date", [{key}], {key}, match["counts"] is not None


def _holiday(match: Match) -> Keys:
    return _date(f"holiday {match['name'].lower().replace('xmas', 'christmas')}")


def _decade(match: Match) -> Keys:
    word = match.group().lower()
    tens = 20 + 10 * _DECADES.index(word) if word in _DECADES else int(match["n"]) % 100
    return _date(f"decade {tens}")


def _year(match: Match) -> Keys:
    return _date(f"n {match['n']}", emits={f"bare {match['n']}"})


def _hour_or_day(match: Match) -> Keys | None:
    value = int(match["n"])
    if match["th"]:
        keys = {f"day {value}", f"nth {value}"}
        return ("date", [keys | {f"bare {value}"}], keys | {f"n {value}"}, True)
    if not 1 <= value <= 12:
        return None
    bare = f"bare {value}"
    return "date", [{bare, f"clock {value % 12 * 60}"}], {bare, f"n {value}"}, True


def _money(match: Match) -> Keys:
    value = decimal.Decimal(match["n"]) + decimal.Decimal(match["cents"] or 0) / 100
    unit = (match["sign"] or match["unit"]).lower()
    shown = key_of(value)
    key = f"money {_CURRENCIES.get(unit, unit)} {shown}"
    needs = {key, f"bare {shown}", f"read {value:.2f}"}
    needs |= {f"n {shown}"} if unit == "pound" else set()  # may be a weight
    return "number", [needs], {key, f"n {shown}"}, True


def _percent(match: Match) -> Keys:
    shown = key_of(decimal.Decimal(match["n"]))
    key = f"percent {shown}"
    return "number", [{key, f"bare {shown}"}], {key, f"n {shown}"}, True


def _duration(match: Match) -> Keys:
    minutes = _MINUTES[match["unit"].lower()]
    if not match["n"]:
        share = {"half": "0.5", "quarter": "0.25"}.get((match["share"] or "").lower(), "1")
        share = "1.5" if match["more"] else share
        key = f"lasts {key_of(decimal.Decimal(share) * minutes)}"
        return "number", [{key}], {key, *({"n 1"} if share == "1" else ())}, share != "1"
    value = decimal.Decimal(match["n"]) + decimal.Decimal("0.5" if match["more"] else 0)
    key, shown = f"lasts {key_of(value * minutes)}", key_of(value)
    is_some_day = shown == "1" and minutes == 1440
    kind = "date" if match["ago"] else "number"
    return kind, [{key, f"bare {shown}"}], {key, f"n {shown}"}, not is_some_day


def _ordinal(match: Match) -> Keys:
    value = match["n"]
    keys = {f"n {value}", f"nth {value}"}
    return "number", [keys], keys, value != "1" and not match["list"]


def _plain(match: Match) -> Keys:
    value = decimal.Decimal(match["n"])
    shown = key_of(value)
    emits = {f"n {shown}", f"bare {shown}"}
    counts = value not in (0, 1) and not match["the"]  # "the three persons"
    if match["then"]:  # "eight fifty": a price or a time
        emits |= {f"read {shown}.{match['then']}"}
        emits |= {f"clock {int(value) % 12 * 60 + int(match['then'])}"}
    return "number", [{f"n {shown}"}], emits, counts


def _multiple(match: Match) -> Keys:
    if match.group().lower() == "half":
        return "number", [{"n 0.5"}], {"n 0.5", "bare 0.5", "percent 50"}, False
    key = "n 1" if match.group().lower() in ("once", "single") else "n 2"
    return "number", [{key}], {key}, False


_PATTERNS = tuple(
    (_pattern(text), read)
    for text, read in (
        (r"(?<![\w-])\d{4}-\d\d-\d\d(?![\w-])", _calendar_date),
        (
            r"(?<![\w.])(?:\d,?[ -](?:(?:\d|oh),?[ -]){3,}(?:\d|oh)|\d{3,}(?:[ -]\d{2,})+)\b(?![.,]\d)",
            _phone,
        ),
        (
            r"(?:(?P<past>half|(?:a )?quarter) (?P<relation>past|after|to|before|of) @H(?![\w:])@HALF?"
            r"|(?P<past>5|10|20|25) (?:minutes (?P<relation>after|to|before)|(?:minutes )?(?P<relation>past)) @H(?![\w:])@HALF?"
            r"|(?<=\b(?:at|it|is|it's) )(?P<past>5|10|20|25) (?P<relation>to) @H(?![\w:])@HALF?"
            r"|@H:(?P<m>[0-5]\d)(?![\d%:])@HALF?|@H\.(?P<m>[0-5]\d)@HALF|@H o['’]?clock\b@HALF?|@H@HALF"
            r"|(?<=\b@PREPOSITION )@H (?P<m>[1-5]\d)(?:@HALF|@END)|\b(?P<noon>noon|midday|midnight)\b)",
            _time,
        ),
        (
            r"(?:(?<!\w)@MONTH (?:the )?@DAY|@DAY(?: of)? @MONTH)(?:(?:,| of)? \d{4}\b)?"
            r"|(?<!\w)@MONTH,? \d{4}\b",
            _calendar_date,
        ),
        (
            r"\b(?:january|february|august|september|october|november|december|(?-i:April|June|July"
            r"|Jan|Feb|Apr|Jun|Jul|Aug|Sept|Oct|Nov|Dec))\b"
            r"|(?<=\b(?:in|since|until|till|by|of|this|next|last|early|late|mid|during|from|@MONTH"
            r" (?:and|to|or))[ -])(?-i:May|March)\b",
            _calendar_date,
        ),
        (
            r"\b@WEEKDAY(?=s?\b)s?|(?<=\b(?:on|@PREPOSITION|this|next|last) )(?-i:Mon|Tues?|Wed|Thu(?:rs?)?"
            r"|Fri|Sat|Sun)\b",
            _weekday,
        ),
        (
            rf"\b(?:day after tomorrow|day before yesterday|{'|'.join(_CHAT_WORDS)}"
            r"|today|tonight|tomorrow|yesterday|(?P<which>next|following|coming|last|previous|past|this) @PERIOD)\b",
            _relative,
        ),
        (
            r"(?P<counts>(?<=\b(?:(?:in|by|during|@PREPOSITION) the|at|every) )|(?<=\b(?:in|by|during"
            r"|@PREPOSITION) )(?=@SEASON))?\b@PART\b",
            _part_of_day,
        ),
        (
            r"\b(?P<name>christmas|xmas|easter|halloween|thanksgiving|new year|valentine|ramadan"
            r"|diwali|hanukkah|passover|(?:mother|father)(?=['’]?s['’]? day))(?:['’]?s)?(?: day| eve)?\b",
            _holiday,
        ),
        (rf"\b(?P<n>(?:1[5-9]|20)?\d0)['’]?s\b|(?<=\bthe )(?:{'|'.join(_DECADES)})\b", _decade),
        (
            r"(?<=(?:\b(?:in|since|until|by|of|from|before|after|during|year|around|about|and|to|the"
            r"|between) |[,(] ?))(?P<n>1[5-9]\d\d|20\d\d)\b(?![.,:]\d|[%-]| (?:@MONEY|@UNIT|people"
            r"|men|women|k?m\b|miles|met))",
            _year,
        ),
        (
            r"(?<=\b(?:(?:on|@PREPOSITION|of|and|or)|@WEEKDAYs?,?) the |\dth (?:or|and|to) (?:the )?)(?P<n>[12]?\d|3[01])"
            r"(?P<th>st|nd|rd|th)@END|(?<=\b@PREPOSITION )(?P<n>\d\d?)(?P<th>)@END",
            _hour_or_day,
        ),
        (
            r"(?P<sign>[$£€¥₹]) ?@N(?P<cents>)|@N[ -]?@MONEY(?:,?(?: and)? (?P<cents>\d\d?)"
            r" (?:cents?|pence|p)\b)?(?P<sign>)",
            _money,
        ),
        (r"@N ?(?:%|per ?cent\b)", _percent),
        (
            r"@N[ -]?@UNIT(?P<more> and a half)?(?P<share>)(?=(?P<ago> ago\b)|)|\b(?:(?P<share>half)(?: an?)?"
            r"|(?:a )?(?P<share>half|quarter)(?: of)? an?|an?) @UNIT(?P<more> and a half)?(?P<n>)",
            _duration,
        ),
        (r"(?<![\w.,])(?P<n>\d+)(?:st|nd|rd|th)\b(?P<list>,)?", _ordinal),
        (
            r"(?P<the>(?<=\bthe ))?@N(?=(?:am|pm|s|h|k?m|[km]?g|cm|mm|p|m?l)?(?!\w)(?! past\b))(?= (?P<then>[1-9]\d)(?![\w.%])|)",
            _plain,
        ),
        (r"\b(?:once|twice|both|pair|couple|double|single|half(?! an?\b| past\b))\b", _multiple),
    )
)
