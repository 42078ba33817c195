"""Find names and places by rules for English capitals.

A name is a run of capitalised words. The first word of a sentence, which is always capitalised,
starts a name if it is capitalised inside another sentence, or if it is no common word, occurs
nowhere in lower case, and a capitalised word or a verb in the third person singular follows.
A place is a country or a city of the time zone database, ends in a word like Street, or follows
"in".
"""

import functools
import importlib.resources
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from instruct.report.faithfulness.mentions import WORDS, Mention
from instruct.report.faithfulness.numbers import NUMBER_WORDS

SPEAKER_TAG = re.compile(r"#\s?Person_?\s?(\d+)\s?#|\bPerson_?(\d+)\b", re.IGNORECASE)
# Also a tag that the end of the output cuts: "#Person".
_TAG_OR_PREFIX = re.compile(SPEAKER_TAG.pattern + r"|#\s?Person_?\d*", re.IGNORECASE)
# "U.S.", "U. S." of tokenized text; else letters and digits with inner ' - & (O'Brien, Jean-Luc).
_WORD = re.compile(r"(?<!\w)[A-Z]\.(?: ?[A-Z]\.)+(?!\w)|[^\W_](?:[^\W_]|['’&-](?=[^\W_]))*")
_SENTENCE_END = re.compile(r"[.!?:;…\n\"“”(\[]|^-|(?<=\s)[-–—*•](?=\s)")

_SHORT_TITLES = WORDS["short_titles"]
_TITLES = _SHORT_TITLES | WORDS["titles"]
_NEVER_NAMES, _STARTERS = WORDS["never_names"], WORDS["starters"]
_SAME_PLACES = [frozenset(group.split("/")) for group in WORDS["same_places"]]
_COMMON_ENDINGS = ("ing", "ly", "ed", "tion", "tions", "ness", "ment", "ments", "able", "ity")
_SINGULAR_VERB = re.compile(r"(?!(?:as|yes|its|his|us|this)$)[a-z]+s")
_AFTER_NAMES = re.compile(
    r"and|from|of|will|would|can|could|must|may|might|had|did|said|told|came|went|paid|left|met"
    r"|took|made|got|gave|bought|felt|thought|saw|found|knew|[a-z]+ed"
)
# The capitalised words of "in X", "moves to X", "trains between X and Y"; not "in X's", "in Dutch".
_PLACED = re.compile(
    r"\b(?:[Ii]n|[Nn]ear|(?:north|south|east|west|outside|coast|city|town|village) of"
    r"|(?:com|fl|trip|travel|mov|go|went|drive|drove|train|bus|born|visit|came)\w*(?: \w+)?"
    r" (?:to|from|between)) ([A-Z][a-z-]+\b(?<!ish|ese|[ai]an|nch))(?! ?['’]s)"
    r"(?: and ([A-Z][a-z-]+\b))?"
)


class Word(NamedTuple):
    """A word of a text.

    Attributes:
        text: without "'s", which sets `possessive`. low: in lower case.
        first: whether it starts a sentence.
        joined: whether only a space or the dot of an abbreviation is between it and the last word.
    """

    text: str
    low: str
    start: int
    end: int
    first: bool
    joined: bool
    possessive: bool

    @property
    def is_capital(self) -> bool:
        """Whether it has a capital letter: Laura, LX200, iPhone."""
        return self.text != self.text.lower()

    @property
    def is_title(self) -> bool:
        return self.low in _TITLES

    @property
    def stem(self) -> str:
        """The word without a contraction: "he" for "he'll", "do" for "don't"."""
        return re.sub("(?:n't|'.*)$", "", self.low)


def words_of(text: str) -> list[Word]:
    """Split a text into words."""
    words: list[Word] = []
    last = None
    for match in _WORD.finditer(text):
        gap = text[last.end if last else 0 : match.start()]
        abbreviated = last and (last.low in _SHORT_TITLES or re.fullmatch("[A-HJ-Z]", last.text))
        between = r"\.? *(?:& )?" if abbreviated else " *(?:& )?"
        joined = last is not None and re.fullmatch(between, gap) is not None
        first = last is None or (not joined and _SENTENCE_END.search(gap) is not None)
        bare = re.sub("['’]s$", "", match.group())
        low = bare.lower().replace("’", "'").replace(" ", "")
        end = match.start() + len(bare)
        last = Word(bare, low, match.start(), end, first, joined, bare != match.group())
        words.append(last)
    return words


def speaker_tags(text: str) -> Iterator[Mention]:
    """Find numbered speakers of a dialogue."""
    for match in SPEAKER_TAG.finditer(text):
        keys = frozenset([f"speaker {match[1] or match[2]}"])
        yield Mention("name", *match.span(), match.group(), (keys,), keys)


def find_names(text: str, context: str = "") -> Iterator[Mention]:
    """Find names and places, without speakers' tags.

    Args:
        text: the text to read.
        context: more text of the same example, which shows how words are written.
    """
    masked = _TAG_OR_PREFIX.sub(lambda m: " " * len(m.group()), text)
    words, others = words_of(masked), words_of(context)
    # In Titles Like This One and IN SHOUTED TEXTS, capitals carry no information.
    all_capitals = len(words) > 3 and sum(w.is_capital for w in words) > 0.7 * len(words)
    all_capitals &= not any(w.text.islower() and w.low not in _NEVER_NAMES for w in words)
    lower = {w.low for w in (*words, *others) if not w.is_capital}
    telling = others if all_capitals else [*words, *others]
    inside = {w.low for w in telling if w.is_capital and not w.first}
    placed = {p.lower() for pair in _PLACED.findall(f"{masked}\n{context}") for p in pair}

    def starts_name(word: Word, after: Word | None) -> bool:
        if not word.is_capital or word.low in NUMBER_WORDS or word.stem in _NEVER_NAMES:
            return False
        if word.is_title:
            return after is not None and after.is_capital
        if not (word.first or all_capitals):
            return True
        is_subject = after is not None and _SINGULAR_VERB.fullmatch(after.text) is not None
        if word.stem in _STARTERS:  # "Will goes", but not "Will you"
            return word.low == "will" and is_subject
        if word.low in inside or word.low in places():
            return True
        if word.low in lower or word.low.endswith(_COMMON_ENDINGS) or all_capitals:
            return False
        if word.text.isupper() or word.possessive or is_subject:
            return True
        # "Workers protested": most unknown words in s are plurals.
        return after is not None and (
            after.is_capital
            or (_AFTER_NAMES.fullmatch(after.low) is not None and not word.low.endswith("s"))
        )

    # Two letters a word: whether it is joined to the word before, and its role.
    codes = ""
    for word, after in itertools.zip_longest(words, words[1:]):
        codes += " " if word.joined else "|"
        if starts_name(word, None if after is None or after.first else after):
            codes += "N"
        elif word.is_capital and word.stem not in _NEVER_NAMES and not all_capitals:
            codes += "c"
        else:
            codes += "t" if word.low == "the" else "l" if word.low in WORDS["links"] else "-"
    for run in re.finditer("N(?:(?: l(?: [lt])?)? [Nc])*", codes):
        name = words[run.start() // 2 : (run.end() + 1) // 2]
        mention = name_mention(text, name, _kind(name, placed))
        if mention is not None:
            yield mention


def _content(words: Sequence[Word]) -> list[str]:
    """The words in lower case, without titles and links."""
    return [w.low.replace(".", "") for w in words if not w.is_title and w.low not in WORDS["links"]]


def _kind(words: Sequence[Word], placed: Collection[str]) -> str:
    """Tell "name" from "place"; `placed` are words that follow "in" and the like somewhere."""
    lows = _content(words)
    if not lows or words[0].is_title:
        return "name"
    marked = (
        lows[-1] in WORDS["place_ends"] or lows[0] in WORDS["place_starts"]
        if len(lows) > 1
        else lows[0] in placed
    )
    return "place" if marked or " ".join(lows) in places() else "name"


def name_mention(text: str, words: Sequence[Word], kind: str) -> Mention | None:
    """The mention of a run of words; None if it holds only titles."""
    lows = _content(words)
    if not lows:
        return None
    start, end = words[0].start, words[-1].end
    # The verb "will" does not support Will: such words must be capitalised there as well.
    parts = (
        frozenset({f"Word {low}"}) if low in _STARTERS else word_keys(low)
        for low in [low for low in lows if low not in WORDS["place_ends"]] or lows
    )
    whole = same_place("-".join(lows))
    if len(lows) > 1:
        whole |= {f"initials {''.join(low[0] for low in lows)}"}
    elif text[start:end].isupper():
        whole |= {f"spelled {lows[0]}"}
    return Mention(kind, start, end, text[start:end], tuple(parts), frozenset(), whole)


@functools.cache
def word_keys(low: str) -> frozenset[str]:
    """Keys of a word: itself in American spelling, its singular, the country of a people."""
    plain = low.replace(".", "") or low
    plain = re.sub("(?<=nt|at)re$", "er", re.sub(r"(?<=\w\w)our(s?)$", r"or\1", plain))
    keys = same_place(plain) | {f"word {plain}"}
    return keys | {f"word {plain[:-1]}"} if len(plain) > 3 and plain.endswith("s") else keys


def same_place(low: str) -> frozenset[str]:
    """The key of a place with several names; empty for another word."""
    groups = [group for group in _SAME_PLACES if group & {low, low.removesuffix("s")}]
    return frozenset(f"place {min(group)}" for group in groups)


@functools.cache
def places() -> frozenset[str]:
    """Countries and cities of the time zone database, in lower case."""
    tables = importlib.resources.files("tzdata") / "zoneinfo"
    names = {name.replace("-", " ") for name in WORDS["more_places"]}
    for table, column in (("iso3166.tab", 1), ("zone.tab", 2)):
        for line in (tables / table).read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                name = line.split("\t")[column].rpartition("/")[2].replace("_", " ").lower()
                names |= {name, re.sub(r" \(.*", "", name)}
    return frozenset(names)
