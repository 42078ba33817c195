"""Find numbers, amounts, times and dates; equal values share a key. English.

"5 pm" and "five o'clock in the afternoon" share a key, and so do "$20" and "twenty bucks", "90
minutes" and "an hour and a half", "June 3rd" and "the third of June".
"""

import collections
import decimal
from collections.abc import Callable, Collection, Mapping

import regex

from instruct.report.faithfulness.mentions import Mention
from instruct.report.faithfulness.numbers import as_digits, key_of

# A month and a year equal no number of days.
_MINUTES = {"minute": 1, "min": 1, "hour": 60, "hr": 60, "day": 1440, "week": 10080}
_MINUTES |= {"fortnight": 20160, "month": 43830, "year": 525960, "decade": 5259600}
_UNITS = {"$": "USD", "£": "GBP", "€": "EUR", "¥": "CNY", "₹": "INR", "buck": "USD", "eur": "EUR"}
_UNITS |= {"dollar": "USD", "usd": "USD", "quid": "GBP", "pound": "GBP", "gbp": "GBP"}
_UNITS |= {"euro": "EUR", "yuan": "CNY", "rmb": "CNY", "rupee": "INR", "%": "percent"}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_SYNONYMS = {"following": "next", "coming": "next", "previous": "last", "past": "last"}
_SYNONYMS |= {"tmrw": "tomorrow", "tmr": "tomorrow", "2moro": "tomorrow", "2nite": "tonight"}
_DAY_PARTS = ((5, "night"), (12, "morning"), (17, "afternoon"), (21, "evening"), (24, "night"))

_NAMED = {
    "N": r"(?<![\w.,])(?P<n>\d+(?:\.\d+)?)",
    "MONEY": rf"(?P<unit>{'|'.join(filter(str.isalpha, _UNITS))}|yen|peso|cent|pence)s?\b",
    "DURATION": rf"(?P<unit>{'|'.join(_MINUTES)})s?\b",
    "HOUR": r"(?<![\w.:,])(?P<hour>[01]?\d|2[0-4])",
    "HALF": r"(?: ?(?P<half>[ap])(?:\. ?m\.|m\b)"
    r"| (?:in the|at) (?P<part>morning|afternoon|evening|night)\b)",
    "WEEKDAY": r"(?P<weekday>mon|tue|wed|thu|fri|sat|sun)(?:s|nes|rs|ur)?days?\b",
    # Names that are also other words, or parts of them, must be capitalised.
    "MONTH": r"(?P<month>january|february|august|september|october|november|december"
    r"|(?-i:April|June|July|Jan|Feb|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec))\b",
    "ANY_MONTH": r"(?:@MONTH|(?P<month>(?-i:Mar(?:ch)?|May))\b)(?:\.(?= ?\d))?",
    "DAY": r"(?<![\w.:,$£€])(?P<day>[0-2]?\d|3[01])(?:st|nd|rd|th)?(?![\w:%]|\.\d)",
    "BEFORE_TIME": r"\b(?:at|by|until|till|from|before|after|around|about|since|between|to)",
    # "At five" is a time, "at five shops" is not.
    "END": r"(?=\W*$|\s*[^\w\s%°$£€/.:-]|[.:](?!\d)|\s[.,:-]"
    r"| (?:in|on|and|to\w*|till|until|but|at|with|for|because|when|or|if|so|every|sharp|as|since"
    r"|while|from|by|then|before|after|who|which|that|instead)\b)",
    "PART": r"(?P<part>spring|summer|autumn|fall|winter|morning|afternoon|evening|night)",
}

# The named groups of a match in lower case, "" where one did not match, and all of it as "text".
Groups = Mapping[str, str]
# Kind, parts, emitted keys, whether it counts: see `Mention`.
Fields = tuple[str, list[set[str]], set[str], bool]
Reader = Callable[[Groups], Fields | None]
_READERS: list[tuple[regex.Pattern[str], Reader]] = []


def _reads(pattern: str) -> Callable[[Reader], Reader]:
    """Register the reader of a pattern, in which @NAME stands for one of `_NAMED`."""
    while "@" in pattern:
        pattern = regex.sub("@([A-Z_]+)", lambda match: _NAMED[match[1]], pattern)
    compiled = regex.compile(pattern, regex.IGNORECASE)

    def register(read: Reader) -> Reader:
        _READERS.append((compiled, read))
        return read

    return register


def find_quantities(text: str) -> list[Mention]:
    """Find every number, amount, time and date of a text, in order, without overlaps."""
    digits, spans = as_digits(text)
    mentions: list[Mention] = []
    taken = bytearray(len(digits))
    for pattern, read in _READERS:
        for match in pattern.finditer(digits):
            begin, end = match.span()
            groups = {name: t.lower() for name, t in match.groupdict().items() if t is not None}
            groups = collections.defaultdict(str, groups, text=match.group().lower())
            if any(taken[begin:end]) or (fields := read(groups)) is None:
                continue
            taken[begin:end] = b"x" * (end - begin)
            kind, parts, emits, counts = fields
            span = spans[begin][0], spans[end - 1][1]
            needs, keys = tuple(map(frozenset, parts)), frozenset(emits)
            mentions.append(Mention(kind, *span, text[slice(*span)], needs, keys, counts=counts))
    return sorted(mentions, key=lambda mention: mention.start)


def _fields(
    kind: str, keys: Collection[str], values: Collection[object] = (), counts: bool = True
) -> Fields:
    """Fields of a value with a unit; `values` are numbers that say the same without the unit."""
    needs, emits = (f"bare {v}" for v in values), (f"n {v}" for v in values)
    return kind, [{*keys, *needs}], {*keys, *emits}, counts


@_reads(r"(?<![\w-])(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(?![\w-])")
def _calendar_date(groups: Groups) -> Fields:
    parts, emits = [], set()
    if month := groups["month"]:
        number = int(month) if month.isdigit() else _MONTHS.index(month[:3]) + 1
        parts.append({f"month {number}"})
        emits.add(f"month {number}")
    if day := groups["day"].lstrip("0"):
        parts.append({f"day {day}", f"nth {day}", f"bare {day}"})
        emits |= {f"day {day}", f"nth {day}", f"n {day}"}
    if year := groups["year"]:
        parts.append({f"n {year}"})
        emits |= {f"n {year}", f"bare {year}"}
    return "date", parts, emits, True


@_reads(r"(?<![\w.])(?=\d{1,4},?[ -](?:\d|oh))\d(?:(?:,?[ -])?(?:\d|oh\b)){6,}\b(?![.,]\d)")
def _phone(groups: Groups) -> Fields:
    digits = regex.sub(r"\D", "", groups["text"].replace("oh", "0"))
    return _fields("number", [f"digits {digits}"])


@_reads(
    r"(?:(?:a )?(?P<past>half|quarter)|(?:(?<=\b(?:at|is|it's) )|(?=\d+ (?:minutes|past)))"
    r"(?P<past>5|10|20|25)(?: minutes)?) (?P<relation>past|after|to|before|of) @HOUR(?![\w:])"
    r"@HALF?|@HOUR:(?P<minute>[0-5]\d)(?![\d%:])@HALF?|@HOUR\.(?P<minute>[0-5]\d)@HALF"
    r"|@HOUR(?: o['’]?clock\b@HALF?|@HALF)|\b(?P<noon>noon|midday|midnight)\b"
    r"|(?<=@BEFORE_TIME )@HOUR (?P<minute>[1-5]\d)(?:@HALF|@END)"
)
def _time(groups: Groups) -> Fields | None:
    hour, minute = int(groups["hour"] or 12), int(groups["minute"] or 0)
    if past := groups["past"]:
        minute = {"half": 30, "quarter": 15}.get(past) or int(past)
        if groups["relation"] in ("to", "before", "of"):
            hour, minute = (hour - 1) or 12, 60 - minute
    half = groups["half"] or {"noon": "p", "midday": "p", "midnight": "a"}.get(groups["noon"], "")
    if half and hour > 12:
        return None
    if groups["part"] and hour <= 12:
        half = "a" if groups["part"] == "morning" else "p"
    elif not half and (not 0 < hour <= 12 or (groups["hour"][:1] == "0" and minute)):
        half = "p" if hour >= 12 else "a"
    # Without am or pm, both.
    times = [hour % 12 * 60 + minute + 720 * (each == "p") for each in half or "ap"]
    values = {hour, hour % 12 or 12} if minute == 0 else {f"{hour}.{minute:02d}".rstrip("0")}
    kind, parts, emits, counts = _fields("date", [f"time {time}" for time in times], values)
    if half:
        emits.add(f"part {next(name for until, name in _DAY_PARTS if times[0] < 60 * until)}")
    return kind, parts, emits, counts


_reads(
    r"(?:(?<!\w)@ANY_MONTH (?:the )?@DAY|@DAY(?: of)? @ANY_MONTH)(?:(?:,| of)? (?P<year>\d{4})\b)?"
    r"|(?<!\w)@ANY_MONTH,? (?P<year>\d{4})\b|\b@MONTH"
    r"|(?<=\b(?:in|since|until|till|by|of|this|next|last|early|late|mid|during|from|@ANY_MONTH"
    r" (?:and|to|or))[ -])(?P<month>(?-i:May|March))\b"
)(_calendar_date)


@_reads(
    r"\b@WEEKDAY|(?<=(?:\b(?:on|this|next|last)|@BEFORE_TIME) )"
    r"(?-i:(?P<weekday>Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?:s|rs?)?)\b"
    r"|\b(?P<holiday>christmas|xmas|easter|halloween|thanksgiving|new year|valentine|ramadan"
    r"|diwali|(?:boxing|independence|labou?r|mother|father)(?=['’]?s? day))(?:['’]?s)?"
    r"(?: day| eve)?\b|(?:\b(?:1[5-9]|20)|(?<=\bthe ['’]?))(?P<decade>\d0)['’]?s\b"
)
def _named(groups: Groups) -> Fields:
    """A weekday, holiday, decade or part of the day or year: the first group that matched."""
    name = next(iter(groups))
    key = f"{name} {groups[name].replace('xmas', 'christmas')}"
    return _fields("date", [key], counts="uncounted" not in groups)


@_reads(
    r"\b(?:day after tomorrow|day before yesterday|tmrw?|2moro|2nite|today|tonight|tomorrow"
    r"|yesterday|(?:next|following|coming|last|previous|past|this) (?:@PART|week|weekend|month"
    r"|year|term|semester|quarter|season|decade|century))\b"
)
def _relative(groups: Groups) -> Fields:
    words = [_SYNONYMS.get(word, word) for word in groups["text"].split()]
    key = f"rel {' '.join(words)}"
    needs, emits = {key}, {key, f"part {words[-1]}"}
    if key == "rel tonight":
        needs, emits = {key, "rel this evening"}, {key, "part evening", "part night"}
    elif key == "rel last night":
        needs.add("rel yesterday")
    elif words[0] == "this" and words[1] in ("morning", "afternoon", "evening", "night"):
        needs |= {"rel tonight", "rel today"}
    return "date", [needs], emits, True


_reads(
    r"(?<=\b(?:(?:in|by|during|on|of|for|@BEFORE_TIME) the|at|every) )@PART\b"
    r"|(?<=\b(?:in|by|during|@BEFORE_TIME) )(?=spring|summer|autumn|winter)@PART\b"
)(_named)
_reads(r"\b@PART\b(?P<uncounted>)")(_named)
_reads(
    r"(?<=(?:\b(?:in|of|during|year|and|the)|@BEFORE_TIME) |[,(] ?)(?P<year>1[5-9]\d\d|20\d\d)\b"
    r"(?![.,:]\d|[%-]| (?:@MONEY|@DURATION|people|men|women|k?m\b|miles|met))"
)(_calendar_date)
_reads(
    r"(?<=(?:(?:\b(?:on|of|and|or)|@BEFORE_TIME|@WEEKDAY,?) the|\d(?:st|nd|rd|th) (?:or|and|to)"
    r"(?: the)?) )(?P<day>[12]?\d|3[01])(?:st|nd|rd|th)@END"
)(_calendar_date)
_reads(r"(?<=@BEFORE_TIME )(?P<hour>1[0-2]|[1-9])@END")(_time)


@_reads(
    r"(?P<unit>[$£€¥₹]) ?@N|@N ?(?P<unit>%|per ?cent\b)"
    r"|@N[ -]?@MONEY(?:,?(?: and)? (?P<cents>\d\d?) (?:cents?|pence|p)\b)?"
)
def _with_unit(groups: Groups) -> Fields:
    value = key_of(decimal.Decimal(groups["n"]) + decimal.Decimal(groups["cents"] or 0) / 100)
    unit = groups["unit"].replace(" ", "")
    return _fields("number", [f"{_UNITS.get(unit, unit)} {value}"], [value])


@_reads(
    r"(?:@N[ -]?|\b(?:(?:a )?(?P<share>half|quarter)(?: of)?(?:[ -]an?)?|an?)[ -])@DURATION"
    r"(?P<more> and a half)?(?=(?P<ago> ago\b)|)"
)
def _duration(groups: Groups) -> Fields:
    share = {"half": "0.5", "quarter": "0.25"}.get(groups["share"], "1")
    value = decimal.Decimal(groups["n"] or share) + decimal.Decimal("0.5" if groups["more"] else 0)
    key = f"minutes {key_of(value * _MINUTES[groups['unit']])}"
    # "A week" and "one day" are hardly ever facts.
    counts = value != 1 or (groups["n"] != "" and groups["unit"] != "day")
    return _fields("date" if groups["ago"] else "number", [key], [key_of(value)], counts)


@_reads(
    r"(?P<moment>(?<=\b(?:a|one|per) )(?=2th))?(?<![\w.,])(?P<n>\d+)(?:st|nd|rd|th)\b(?P<list>,)?"
)
def _ordinal(groups: Groups) -> Fields:
    counts = groups["n"] != "1" and not groups["list"] and "moment" not in groups
    return _fields("number", [f"n {groups['n']}", f"nth {groups['n']}"], counts=counts)


@_reads(r"(?P<the>(?<=\bthe ))?@N(?=[a-z]{0,2}\b(?! past\b))(?= (?P<then>[1-9]\d)(?![\w.%])|)")
def _plain(groups: Groups) -> Fields:
    number = key_of(decimal.Decimal(groups["n"]))
    emits = {f"n {number}", f"bare {number}"}
    if groups["then"]:  # "eight fifty" may be a price or a time
        emits.add(f"bare {number}.{groups['then']}".rstrip("0"))
    counts = number not in ("0", "1") and "the" not in groups
    return "number", [{f"n {number}"}], emits, counts
