"""Does an output say what its input does not? Invented and missed names, numbers, dates, places.

*Invented*: a mention of the output that nothing in the input says. *Missed*: a mention of the
references that nothing in the output says; where there are several references, one that at least
half of them have. Each counts once an example. Speakers' tags (#Person1#) can be invented but not
missed: who they are may be said in other words.

This compares what is mentioned, not what is claimed: an output that puts the right names into the
wrong roles has nothing invented.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence

from instruct.report.faithfulness.detector import Detector
from instruct.report.faithfulness.mentions import Mention, word_set
from instruct.report.faithfulness.names import Word, places, word_keys, words_of

# Short forms that do not begin like the name.
_NICKNAMES = word_set(
    "mike-michael bob-robert bill-william billy-william will-william liz-elizabeth beth-elizabeth "
    "kate-katherine kathy-katherine jim-james jimmy-james tony-anthony dick-richard rick-richard "
    "peggy-margaret jack-john ted-edward harry-henry becky-rebecca chuck-charles larry-lawrence"
)
_COUNTRY_ENDINGS = re.compile(r"(?:land|any|ain|en|ey|ea|ia|a|o|y)$")
_PEOPLE_ENDINGS = re.compile(r"(?:n?ese|ians?|eans?|ans?|ish|is?|ic)$")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a text says, as keys; see `Mention`."""

    keys: frozenset[str]
    capitalised: frozenset[str]

    def says(self, mention: Mention) -> bool:
        """Whether the text says what the mention says."""
        if mention.whole & self.keys:
            return True
        return all(part & self.keys or self._nearly(part) for part in mention.parts)

    def _nearly(self, part: frozenset[str]) -> bool:
        """Whether a short or long form of a name is there."""
        words = {key.removeprefix("word ") for key in part if key.startswith("word ")}
        return any(_same_name(word, other) for word in words for other in self.capitalised)


@functools.cache
def _same_name(one: str, other: str) -> bool:
    """Whether two words name one: Tim and Timothy, Mike and Michael, Canada and Canadians."""
    short, long = sorted((one, other), key=len)
    if f"{short}-{long}" in _NICKNAMES:
        return True
    for country, people in ((one, other), (other, one)):
        stem = _PEOPLE_ENDINGS.sub("", people)
        if country in places() and stem in {country, _COUNTRY_ENDINGS.sub("", country)} - {people}:
            return True
    if len(short) < 3 or {one, other} & places():
        return False
    return long.startswith(short) and short.isalpha() and len(long) - len(short) <= 6


def evidence_of(text: str, detector: Detector) -> Evidence:
    """Everything a text is evidence for: its words, its quantities, what its capitals spell."""
    keys: set[str] = set()
    capitalised: set[str] = set()
    words = words_of(text)
    for word in words:
        for low in {word.low, *word.low.split("-")}:
            keys |= word_keys(low)
        if word.text[0].isupper():
            capitalised.add(word.low)
            keys.add(f"Word {word.low}")
            if len(word.text) > 1 and word.text.isupper():
                keys.add(f"initials {word.low.replace('.', '')}")
    for first, second in itertools.pairwise(words):
        keys |= {key for key in word_keys(f"{first.low}-{second.low}") if key.startswith("place ")}
    keys |= _spelled(words)
    for mention in detector.find(text, ""):
        # Other keys of the whole are what it needs, not what it says.
        keys |= mention.emits | {key for key in mention.whole if key.startswith("place ")}
    return Evidence(frozenset(keys), frozenset(capitalised))


def _spelled(words: Sequence[Word]) -> set[str]:
    """What runs of capitalised words abbreviate to: WHO for World Health Organization."""
    found: set[str] = set()
    initials = ""
    for word in words:
        if word.text[0].isupper():
            initials += word.low[0]
        elif word.low not in ("of", "the", "for", "and"):
            initials = ""
        for size in range(2, min(len(initials), 6) + 1):
            found.add(f"spelled {initials[-size:]}")
    return found


@dataclasses.dataclass(frozen=True)
class Checked:
    """One output against its input and its references.

    Attributes:
        mentions: of the output, those that count, each once.
        invented: of them, what the input does not say.
        spans: (start, end, kind) of every invented mention in the output, repetitions included.
        expected: what the references want said.
        missed: of it, what the output does not say.
    """

    mentions: tuple[Mention, ...]
    invented: tuple[Mention, ...]
    spans: tuple[tuple[int, int, str], ...]
    expected: tuple[Mention, ...]
    missed: tuple[Mention, ...]


def check(source: str, output: str, references: Sequence[str], detector: Detector) -> Checked:
    """What the output invents and misses.

    Args:
        source: the text that the output is about.
        output: the model's. references: how people put it; () for none known.
        detector: see `detector.load_detector`.
    """
    input_says = evidence_of(source, detector)
    found = [m for m in detector.find(output, source) if m.counts]
    invented = [m for m in found if not input_says.says(m)]
    expected = _expected(references, source, detector)
    output_says = evidence_of(output, detector)
    return Checked(
        mentions=_distinct(found),
        invented=_distinct(invented),
        spans=tuple((m.start, m.end, m.kind) for m in invented),
        expected=expected,
        missed=tuple(m for m in expected if not output_says.says(m)),
    )


def _distinct(mentions: Sequence[Mention]) -> tuple[Mention, ...]:
    return tuple({m.identity: m for m in reversed(mentions)}.values())[::-1]


def _expected(references: Sequence[str], source: str, detector: Detector) -> tuple[Mention, ...]:
    """Mentions that at least half of the references say."""
    given = [text for text in dict.fromkeys(references) if text.strip()]
    evidence = [evidence_of(text, detector) for text in given]
    found = [m for text in given for m in detector.find(text, source) if m.counts]
    wanted = []
    for mention in _distinct(found):
        is_tag = any(key.startswith("speaker ") for part in mention.parts for key in part)
        if not is_tag and 2 * sum(e.says(mention) for e in evidence) >= len(given):
            wanted.append(mention)
    # Two references word the same thing in two ways: one of them is enough.
    return tuple(m for place, m in enumerate(wanted) if not _said_before(m, wanted[:place]))


def _said_before(mention: Mention, earlier: Sequence[Mention]) -> bool:
    return any(
        all(any(part & other for other in m.parts) for part in mention.parts) for m in earlier
    )
