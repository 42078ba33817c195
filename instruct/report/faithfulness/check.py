"""Compare an output with its input: invented and missed names, numbers, dates and places.

*Invented*: a mention of the output that the input does not support. *Missed*: a mention of at least
half of the references that the output does not support. Each counts once an example. Speakers' tags
(#Person1#) can be invented but not missed: other words may name the speakers.

The comparison is of mentions, not of claims: the right names in the wrong roles are not invented.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence

from instruct.report.faithfulness.detector import Detector
from instruct.report.faithfulness.mentions import WORDS, Mention
from instruct.report.faithfulness.names import places, same_place, word_keys, words_of

# Words that imply a number.
_MULTIPLES = {"once": {"n 1"}, "single": {"n 1"}, "half": {"n 0.5", "percent 50"}}
_MULTIPLES |= dict.fromkeys(("twice", "both", "pair", "couple", "double"), frozenset({"n 2"}))
_PEOPLE_ENDING = re.compile(r"(?:ese|i?ans?|ish|is?|ic|s)$")


def evidence_of(text: str, detector: Detector) -> frozenset[str]:
    """Collect the keys that a text supports; see `Mention`."""
    words = words_of(text)
    capitals = [w for w in words if w.is_capital]
    keys = {f"Word {w.low}" for w in capitals}
    keys |= {f"initials {w.low.replace('.', '')}" for w in capitals if w.text.isupper()}
    # Abbreviations of runs of capitalised words: WHO for World Health Organization.
    initials = "".join(
        w.low[0] if w.is_capital else "" if w.low in ("of", "the", "for", "and") else " "
        for w in words
    )
    keys |= {f"spelled {initials[i : i + n]}" for n in range(2, 7) for i in range(len(initials))}
    return frozenset(keys).union(
        *(_MULTIPLES.get(w.low, ()) for w in words),
        *(word_keys(low) for w in words for low in (w.low, *w.low.split("-"))),
        *(same_place(f"{one.low}-{other.low}") for one, other in itertools.pairwise(words)),
        *(mention.emits for mention in detector.find(text)),
    )


def _supports(evidence: frozenset[str], mention: Mention) -> bool:
    """Whether a text says the same as a mention, in these or other words."""
    return bool(mention.whole & evidence) or all(
        part & evidence or _has_form_of(evidence, part) for part in mention.parts
    )


def _has_form_of(evidence: frozenset[str], part: frozenset[str]) -> bool:
    words = [key.removeprefix("word ") for key in part if key.startswith("word ")]
    names = [key.removeprefix("Word ") for key in evidence if key.startswith("Word ")]
    return any(_same_name(word, name) for word in words for name in names)


@functools.cache
def _same_name(one: str, other: str) -> bool:
    """Whether one word is a form of the other: Tim, Timothy; Mike, Michael; Italian, Italy."""
    short, long = sorted((one, other), key=len)
    if f"{short}-{long}" in WORDS["nicknames"]:
        return True
    for country, people in ((one, other), (other, one)):
        stem = country[:-1] if len(country) > 4 else country
        if country in places() and people.startswith(stem) and _PEOPLE_ENDING.search(people):
            return True
    if {one, other} & places() or len(short) < 3:
        return False
    return long.startswith(short) and short.isalpha() and len(long) - len(short) <= 6


@dataclasses.dataclass(frozen=True)
class Checked:
    """One output against its input and its references.

    Attributes:
        mentions: distinct scored mentions of the output.
        invented: those that the input does not support.
        spans: (start, end, kind) of every invented mention in the output, repetitions included.
        expected: distinct mentions of the references.
        missed: those that the output does not support.
    """

    mentions: tuple[Mention, ...]
    invented: tuple[Mention, ...]
    spans: tuple[tuple[int, int, str], ...]
    expected: tuple[Mention, ...]
    missed: tuple[Mention, ...]


def check(source: str, output: str, references: Sequence[str], detector: Detector) -> Checked:
    """Find what an output invents and misses.

    Args:
        source: the text that the output is about.
        output: the model's text.
        references: accepted texts; () if there are none.
        detector: see `detector.load_detector`.
    """
    input_evidence = evidence_of(source, detector)
    output_evidence = evidence_of(output, detector)
    mentions = [m for m in detector.find(output, source) if m.counts]
    invented = [m for m in mentions if not _supports(input_evidence, m)]
    expected = _expected(references, source, detector)
    return Checked(
        mentions=_distinct(mentions),
        invented=_distinct(invented),
        spans=tuple((m.start, m.end, m.kind) for m in invented),
        expected=expected,
        missed=tuple(m for m in expected if not _supports(output_evidence, m)),
    )


def _distinct(mentions: Sequence[Mention]) -> tuple[Mention, ...]:
    return tuple({m.parts: m for m in reversed(mentions)}.values())[::-1]


def _expected(references: Sequence[str], source: str, detector: Detector) -> tuple[Mention, ...]:
    """Mentions that at least half of the references support."""
    texts = [text for text in dict.fromkeys(references) if text.strip()]
    evidence = [evidence_of(text, detector) for text in texts]
    expected: list[Mention] = []
    for mention in _distinct(
        [m for text in texts for m in detector.find(text, source) if m.counts]
    ):
        is_tag = any(key.startswith("speaker ") for part in mention.parts for key in part)
        is_common = 2 * sum(_supports(e, mention) for e in evidence) >= len(texts)
        # Two references may word one thing in two ways.
        is_repeated = any(
            all(any(part & other for other in earlier.parts) for part in mention.parts)
            for earlier in expected
        )
        if is_common and not is_tag and not is_repeated:
            expected.append(mention)
    return tuple(expected)
