"""Names and places by simple rules for English capitals.

A name is a run of capitalised words. The first word of a sentence, where every word is capitalised,
is a name if it stands capitalised inside a sentence elsewhere, or if it is no stop word, is nowhere
written small, and another capital or what reads like a verb of one person follows. A place is a
country or a city of the time zone database, ends in a word like Street, or follows "in".
"""

import dataclasses
import functools
import importlib.resources
import re
from collections.abc import Collection, Iterator, Sequence

from instruct.report.faithfulness.mentions import Mention, word_set
from instruct.report.faithfulness.numbers import NUMBER_WORDS

SPEAKER_TAG = re.compile(r"#\s?Person_?\s?(\d+)\s?#|\bPerson_?(\d+)\b", re.IGNORECASE)
# Also one that the end of the output cut short: "#Person".
_TAG_OR_ITS_BEGINNING = re.compile(SPEAKER_TAG.pattern + r"|#\s?Person_?\d*", re.IGNORECASE)
# A word may hold dots (U.S.), apostrophes (O'Brien), hyphens (Jean-Luc), digits (LX200), "&".
# First the initials of tokenised text: "U. S.", "B. A.".
_WORD = re.compile(
    r"(?<!\w)(?:[A-Z]\. ?){1,4}[A-Z]\.(?!\w)"
    r"|[^\W_](?:[^\W_]|['’\-&](?=[^\W_])|\.(?=[^\W\d_]\.))*\.?"
)
_SENTENCE_END = re.compile(r"[.!?:;…\n\"“”(\[]|^-|(?<=\s)[-–—*•](?=\s)")

_SHORT_TITLES = word_set("mr mrs ms dr prof st sgt capt gen rev jr")
_TITLES = _SHORT_TITLES | word_set(
    "miss doctor professor sir madam judge queen king president prince princess lord lady aunt "
    "uncle officer detective inspector captain general minister senator mayor sister brother saint "
    "chancellor chairman director coach nurse chef pope governor chief agent"
)
_LINKS = word_set("of de van von la le du der den da di el al & the")
_FUNCTION_WORDS = word_set(
    "a an the and or but if of in on at to for from by with as is are was were be been has have "
    "had do does did not no yes he she it they we you his her its their our your my him me them us "
    "this that these those there here what who whose when where why how which so then than very i"
)
# Capitalised, but no names: kin, and shorthand for common things.
_NEVER_NAMES = _FUNCTION_WORDS | word_set(
    "ok okay tv dvd cd pc id am pm atm vip asap ceo mom mum dad mommy mummy daddy mother father "
    "grandpa grandma granny god internet lol omg diy dj bbq mba phd gps dna app wifi wi-fi x-ray "
    "x-rays hi hey hello oh ah um wow yeah sir madam ma'am mr mrs ms miss dr please thanks monday "
    "tuesday wednesday thursday friday saturday sunday january february april june july august "
    "september october november december"
)
# More words that a sentence begins with.
_STARTERS = word_set(
    "about after again all also although another any anyone anything because before besides both "
    "can could during each either even every everybody everyone everything finally first good "
    "however instead just last later let like many may maybe more most much must never next nobody "
    "none nothing now often once one only other others people perhaps several shall should since "
    "some somebody someone something sometimes soon still such take though through thus therefore "
    "today together tomorrow tonight too two under unless unlike until wait well whatever whether "
    "while will without would yesterday yet see look read turn try watch call great new old nice"
)
_AFTER_NAMES = word_set(
    "and from of will would can could must may might had did said told asked called wanted agreed "
    "came went paid left met took made got gave bought felt thought thinks saw found knew stayed"
)
_COMMON_ENDINGS = ("ing", "ly", "ed", "tion", "tions", "ness", "ment", "ments", "able", "ity")
_PLACE_STARTS = word_set("mount lake cape port fort river")
_PLACE_ENDS = word_set(
    "street road avenue lane drive boulevard square park airport station lake river mountain "
    "mountains island islands beach bay valley city town county village bridge hotel inn cafe café "
    "restaurant museum library hospital clinic harbour harbor garden gardens hill hills mall plaza "
    "tower castle cathedral church palace stadium theatre theater zoo farm court st rd ave desert"
)
_GENERIC = _PLACE_ENDS | _PLACE_STARTS | word_set("university school company line club group bank")
# Words for one place, where neither spelling nor initials show it.
_SAME_PLACES = [
    frozenset(group.split("/"))
    for group in word_set(
        "america/american/us/usa/united-states britain/british/uk/united-kingdom england/english "
        "france/french spain/spanish netherlands/holland/dutch denmark/danish greece/greek "
        "wales/welsh switzerland/swiss ireland/irish scotland/scottish norway/norwegian "
        "peru/peruvian finland/finnish portugal/portuguese philippines/filipino germany/german"
    )
]
# Well-known ones that name no time zone.
_MORE_PLACES = word_set(
    "us usa uk america england scotland wales europe africa asia north-korea south-korea "
    "united-kingdom south-america north-america beijing california washington edinburgh michigan "
    "quebec hollywood florence seattle oregon florida milan hawaii ottawa cambridge liverpool "
    "las-vegas atlantic-ocean caribbean utah iowa minnesota tibet"
)
# The capitalised words of "in X", "moves to X", "trains between X and Y"; not "in X's".
_PLACED = re.compile(
    r"\b(?:[Ii]n|[Nn]ear|(?:north|south|east|west|outside|coast|city|town|village) of|(?:com(?:e|es"
    r"|ing)|came|fl(?:y|ies|ying|ew)|flights?|trips?|travel\w*|mov(?:e|es|ed|ing)|trains?|buse?s?"
    r"|is|driv(?:e|es|ing)|drove|born|visiting)(?: \w+)? (?:to|from|between)) (\b[A-Z][a-z-]+\b)"
    r"(?! ?['’]s)(?: (?:and|or) ([A-Z][a-z-]+\b))?"
)
_LANGUAGE = re.compile("(?:ish|ese|[ai]an|nch)$")
_SPELLINGS = (("ntre", "nter"), ("atre", "ater"), ("our", "or"), ("ours", "ors"))


@dataclasses.dataclass(frozen=True)
class Word:
    """A word where it stands.

    Attributes:
        text, low: without "'s", which makes it `possessive`; `low` in lower case.
        first: in its sentence.
    """

    text: str
    start: int
    end: int
    low: str
    first: bool
    possessive: bool

    @property
    def is_title(self) -> bool:
        """Whether it is "Mr.", "Queen" ..."""
        return self.low.rstrip(".") in _TITLES

    @property
    def stems(self) -> set[str]:
        """Also "he" for "he'll", "do" for "don't"."""
        return {self.low, re.sub("(?:n't|'.*)$", "", self.low)}


def words_of(text: str) -> list[Word]:
    """All words of a text."""
    words: list[Word] = []
    last = 0
    for match in _WORD.finditer(text):
        word = match.group()
        if word.endswith(".") and word[:-1].lower() not in _SHORT_TITLES:
            # The dot of an initial or of "U.S." belongs to the word, that of a sentence does not.
            is_initial = (len(word) == 2 and word[0].isupper()) or "." in word[:-1]
            word = word if is_initial else word[:-1]
        first = not words or _SENTENCE_END.search(text[last : match.start()]) is not None
        bare = re.sub("['’]s?$", "", word)
        low = bare.lower().replace("’", "'").replace(" ", "")
        end = match.start() + len(bare)
        words.append(Word(bare, match.start(), end, low, first, bare != word))
        last = match.start() + len(word)
    return words


def speaker_tags(text: str) -> Iterator[Mention]:
    """The speakers of a dialogue that are only numbered."""
    for match in SPEAKER_TAG.finditer(text):
        keys = frozenset([f"speaker {match.group(1) or match.group(2)}"])
        yield Mention("name", match.start(), match.end(), match.group(), (keys,), keys)


def find_names(text: str, context: str = "") -> Iterator[Mention]:
    """Names and places of a text, without speakers' tags.

    Args:
        text: what is read.
        context: more text of the same example, to learn from how words are written there.
    """
    masked = _TAG_OR_ITS_BEGINNING.sub(lambda m: " " * len(m.group()), text)
    words = words_of(masked)
    known = _Writing(words, words_of(context))
    matches = _PLACED.findall(f"{masked}\n{context}")
    placed = {word.lower() for match in matches for word in match if word}
    at = 0
    while at < len(words):
        if not _begins_name(words, at, known):
            at += 1
            continue
        end = _run_end(masked, words, at, known)
        mention = name_mention(text, words[at:end], _kind(words[at:end], placed))
        if mention is not None:
            yield mention
        at = end


class _Writing:
    """How words are written in a text and its context."""

    def __init__(self, words: Sequence[Word], context: Sequence[Word]) -> None:
        self.small = {w.low for w in (*words, *context) if w.text[0].islower()}
        capitals = sum(w.text[0].isupper() for w in words)
        small = [w for w in words if w.text.islower() and w.low not in _FUNCTION_WORDS]
        # Titles In Capitals and shouted texts: capitals say nothing.
        self.all_capitals = len(words) > 3 and not small and capitals > 0.7 * len(words)
        telling = context if self.all_capitals else (*words, *context)
        self.inside = {w.low for w in telling if w.text[0].isupper() and not w.first}


def _begins_name(words: Sequence[Word], at: int, known: _Writing) -> bool:
    word, low = words[at], words[at].low
    after = words[at + 1] if at + 1 < len(words) and not words[at + 1].first else None
    if not any(c.isupper() for c in word.text) or low in NUMBER_WORDS:
        return False
    if word.is_title:
        return after is not None and after.text[0].isupper()
    if word.stems & _NEVER_NAMES:
        return False
    if not (word.first or known.all_capitals):
        return True
    if word.stems & _STARTERS:  # "Will goes", but not "Will you"
        return low == "will" and after is not None and _is_verb_of_one(after)
    if low in known.inside or low in places():
        return True
    if low in known.small or low.endswith(_COMMON_ENDINGS) or known.all_capitals:
        return False
    if word.text.isupper() or word.possessive:
        return True
    if after is None or after.text[0].isupper():
        return after is not None
    # "Poems are", "Workers protested": most unknown words in s are plurals.
    return _is_verb_of_one(after) or (after.low in _AFTER_NAMES and not low.endswith("s"))


def _is_verb_of_one(word: Word) -> bool:
    is_verb = word.low.endswith("s") and word.low not in _FUNCTION_WORDS
    return word.text.islower() and (is_verb or word.low in ("is", "was", "has", "does"))


def _run_end(text: str, words: Sequence[Word], at: int, known: _Writing) -> int:
    """The index after the name that begins at `at`."""
    end = at + 1
    while end < len(words):
        gap = text[words[end - 1].end : words[end].start]
        if gap.strip(" .") or "\n" in gap or (gap.strip() and not words[end - 1].is_title):
            break
        if _continues_name(words[end]):
            if known.all_capitals and not _begins_name(words, end, known):
                break
            end += 1
            continue
        links = end
        while links < len(words) and words[links].low in _LINKS and links < end + 2:
            links += 1
        is_linked = end < links < len(words) and _continues_name(words[links])
        between = text[words[end - 1].end : words[links].start] if is_linked else "."
        if words[end].low == "the" or re.search(r"[^\w\s&]", between):
            break
        end = links + 1
    return end


def _continues_name(word: Word) -> bool:
    if not word.text[0].isupper():
        return word.text[0].isdigit() and any(c.isupper() for c in word.text)
    return not word.stems & _NEVER_NAMES or word.is_title


def _content(words: Sequence[Word]) -> list[Word]:
    return [w for w in words if not w.is_title and w.low not in _LINKS]


def _kind(words: Sequence[Word], placed: Collection[str]) -> str:
    """ "name" or "place"; `placed` are words that follow "in" and the like somewhere."""
    lows = [word.low.replace(".", "") for word in _content(words)]
    if not lows or words[0].is_title:
        return "name"
    if len(lows) == 1:
        is_place = lows[0] in placed and not _LANGUAGE.search(lows[0])
    else:
        is_place = lows[-1] in _PLACE_ENDS or lows[0] in _PLACE_STARTS
    return "place" if is_place or " ".join(lows) in places() else "name"


def name_mention(text: str, words: Sequence[Word], kind: str) -> Mention | None:
    """The mention that a run of words is; None if it holds only titles."""
    content = _content(words)
    if not content:
        return None
    specific = [w for w in content if w.low not in _GENERIC] or content
    start, end = words[0].start, words[-1].end
    parts = tuple(_needs(word) for word in specific)
    whole = set(_same_place("-".join(w.low.replace(".", "") for w in content)))
    if len(content) > 1:
        whole.add(f"initials {''.join(w.low[0] for w in content)}")
    elif end - start <= 6 and text[start:end].isupper():
        whole.add(f"spelled {content[0].low}")
    return Mention(kind, start, end, text[start:end], parts, frozenset(), frozenset(whole))


def _needs(word: Word) -> frozenset[str]:
    # The verb "will" is no evidence for Will: such words must be capitalised there as well.
    return frozenset({f"Word {word.low}"}) if word.low in _STARTERS else word_keys(word.low)


@functools.cache
def word_keys(low: str) -> frozenset[str]:
    """The keys of a word: itself, its singular, the country that it belongs to."""
    plain = low.replace(".", "") or low
    for ending, american in _SPELLINGS:
        if plain.endswith(ending) and len(plain) > len(ending) + 1:
            plain = plain.removesuffix(ending) + american
    keys = {f"word {plain}", *_same_place(plain)}
    if len(plain) > 3 and plain.endswith("s"):
        keys.add(f"word {plain[:-1]}")
    return frozenset(keys)


def _same_place(low: str) -> Iterator[str]:
    for group in _SAME_PLACES:
        if low in group or low.removesuffix("s") in group:
            yield f"place {min(group)}"


@functools.cache
def places() -> frozenset[str]:
    """Countries and cities of the time zone database, in lower case."""
    tables = importlib.resources.files("tzdata") / "zoneinfo"
    names = {name.replace("-", " ") for name in _MORE_PLACES}
    for table, column in (("iso3166.tab", 1), ("zone.tab", 2)):
        for line in (tables / table).read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                name = line.split("\t")[column].rpartition("/")[2].replace("_", " ").lower()
                names |= {name, re.sub(r" \(.*", "", name)}
    return frozenset(names)
