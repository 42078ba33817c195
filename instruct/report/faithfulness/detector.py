"""`load_detector`: mentions by rules, or names and places by a spaCy pipeline (the `ner` extra).

Install with `pip install 'instruct[ner]'` and `python -m spacy download en_core_web_sm`; this
module downloads nothing. spaCy pipelines hold MessagePack and JSON, never pickles.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from instruct.errors import UserError
from instruct.report.faithfulness import names
from instruct.report.faithfulness.mentions import Mention
from instruct.report.faithfulness.quantities import find_quantities

_SPACY_KINDS = dict.fromkeys(("GPE", "LOC", "FAC"), "place") | dict.fromkeys(
    ("PERSON", "NORP", "ORG", "PRODUCT", "EVENT", "WORK_OF_ART", "LAW", "LANGUAGE"), "name"
)


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
        """Find all mentions in order; of two that overlap, the longer one.

        Args:
            text: the text to read.
            context: more text of the same example, which shows how words are written.
        """
        kept: list[Mention] = []
        mentions = [
            *names.speaker_tags(text),
            *find_quantities(text),
            *self.find_names(text, context),
        ]
        for mention in sorted(mentions, key=lambda m: m.start - m.end):
            if not any(mention.start < other.end and other.start < mention.end for other in kept):
                kept.append(mention)
        return sorted(kept, key=lambda m: m.start)


def load_detector(name: str = "rules") -> Detector:
    """Load a detector by name: "rules", or "spacy:MODEL" with an installed spaCy pipeline.

    Raises:
        UserError: another name, or spaCy or the pipeline is not installed or finds no entities.
    """
    if name == "rules":
        return Detector(name, names.find_names)
    package, _, model = name.partition(":")
    if package == "spacy" and model:
        return Detector(name, _spacy_names(model))
    raise UserError(
        f"no NER detector {name!r}; allowed: rules, or spacy:MODEL (spacy:en_core_web_sm)"
    )


def _spacy_names(model: str) -> Callable[[str, str], Iterator[Mention]]:
    try:
        import spacy

        pipeline = spacy.load(model, exclude=["lemmatizer", "attribute_ruler", "textcat"])
    except ImportError:
        raise UserError(
            "spaCy is not installed. Run `pip install 'instruct[ner]'`, or use --ner=rules."
        ) from None
    except OSError:
        raise UserError(
            f"spaCy pipeline {model!r} is not installed. Run `python -m spacy download {model}`, "
            "or use --ner=rules."
        ) from None
    if "ner" not in pipeline.pipe_names:
        raise UserError(
            f"spaCy pipeline {model!r} has no `ner` component, only "
            f"{', '.join(pipeline.pipe_names)}. Use one that has, such as en_core_web_sm."
        )

    def find_names(text: str, context: str) -> Iterator[Mention]:
        del context
        # Tags are odd words to spaCy; with a common name in their place it parses the sentence.
        masked = names.SPEAKER_TAG.sub(
            lambda m: "Somebody".ljust(len(m.group()))[: len(m.group())], text
        )
        words = names.words_of(masked)
        for entity in pipeline(masked).ents:
            inside = [w for w in words if entity.start_char <= w.start < entity.end_char]
            kind = _SPACY_KINDS.get(entity.label_)
            mention = names.name_mention(text, inside, kind) if kind and inside else None
            if mention is not None:
                yield mention

    return find_names
