"""`Mention`: a name, place, number or date of a text, and keys that its synonyms share."""

import dataclasses
import types

from instruct.files import read_package_toml

KINDS = ("name", "place", "number", "date")
_LISTS = read_package_toml("instruct.report.faithfulness", "words.toml")
# Word lists by name; see words.toml.
WORDS = types.MappingProxyType({name: frozenset(text.split()) for name, text in _LISTS.items()})


@dataclasses.dataclass(frozen=True)
class Mention:
    """One name, place, number or date of a text.

    A key is a text such as "time 1020" (minutes since midnight) or "word laura".

    Attributes:
        kind: one of `KINDS`.
        start, end, text: its span in the text.
        parts: each part ("Monday" and "the 21st") needs one of its keys in the other text.
        emits: keys that other texts' mentions find here.
        whole: keys of which a single one covers all parts (WHO, World Health Organization).
        counts: False for evidence that is never scored ("one of them").
    """

    kind: str
    start: int
    end: int
    text: str
    parts: tuple[frozenset[str], ...]
    emits: frozenset[str]
    whole: frozenset[str] = frozenset()
    counts: bool = True
