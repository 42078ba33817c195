"""`Mention`: a name, number, date or place where it stands in a text, and what says the same."""

import dataclasses

KINDS = ("name", "place", "number", "date")


@dataclasses.dataclass(frozen=True)
class Mention:
    """One fact-like item of a text.

    Keys are texts such as "time 1020" (minutes since midnight) or "word laura"; two mentions say
    the same if their keys meet.

    Attributes:
        kind: one of `KINDS`.
        start, end, text: where it stands.
        parts: the keys it needs: of each part, at least one ("Monday" and "the 21st").
        emits: the keys that it is evidence for.
        whole: keys of which one alone says all of it (WHO, the World Health Organization).
        counts: False: evidence only, no item by itself ("one of them").
    """

    kind: str
    start: int
    end: int
    text: str
    parts: tuple[frozenset[str], ...]
    emits: frozenset[str]
    whole: frozenset[str] = frozenset()
    counts: bool = True

    @property
    def identity(self) -> tuple[frozenset[str], ...]:
        """The same for every repetition of it in a text."""
        return self.parts


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())
