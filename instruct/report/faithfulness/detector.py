"""`load_detector`: the rules, or a pipeline of spaCy's for names and places."""

import dataclasses
from collections.abc import Callable, Iterable

from instruct.errors import UserError
from instruct.report.faithfulness import names, spacy_names
from instruct.report.faithfulness.mentions import Mention
from instruct.report.faithfulness.quantities import find_quantities


@dataclasses.dataclass(frozen=True)
class Detector:
    """A way to find mentions.

    Attributes:
        name: "rules", "spacy:en_core_web_sm".
        find_names: (text, context) -> names and places, without speakers' tags.
    """

    name: str
    find_names: Callable[[str, str], Iterable[Mention]]

    def find(self, text: str, context: str = "") -> list[Mention]:
        """Every mention of a text, in order; where a number and a name overlap, the longer.

        Args:
            text: what is read.
            context: more text of the same example, to learn from how words are written there.
        """
        tags = list(names.speaker_tags(text))
        found = [*tags, *(n for n in self.find_names(text, context) if not _overlap(n, tags))]
        quantities = [
            quantity
            for quantity in find_quantities(text)
            # "Station 3", "LX200", "Second Street": the number is part of the name.
            if not _overlap(quantity, [n for n in found if _length(n) > _length(quantity)])
        ]
        kept = [name for name in found if not _overlap(name, quantities)]
        return sorted([*quantities, *kept], key=lambda mention: mention.start)


def _overlap(mention: Mention, others: Iterable[Mention]) -> bool:
    return any(mention.start < other.end and other.start < mention.end for other in others)


def _length(mention: Mention) -> int:
    return mention.end - mention.start


def load_detector(name: str = "rules") -> Detector:
    """A detector by name: "rules", or "spacy:MODEL" with an installed pipeline of spaCy's.

    Raises UserError for another name, or where spaCy or the model is not installed.
    """
    if name == "rules":
        return Detector(name, names.find_names)
    package, _, model = name.partition(":")
    if package == "spacy" and model:
        return Detector(name, spacy_names.name_finder(model))
    raise UserError(
        f"no NER detector {name!r}; allowed: rules, or spacy:MODEL (spacy:en_core_web_sm)"
    )
