"""Names and places by a pipeline of spaCy's (the `ner` extra).

Install with `pip install 'instruct[ner]'` and `python -m spacy download en_core_web_sm`. Nothing is
downloaded from here. spaCy's pipelines read MessagePack and JSON, never pickles.
"""

from collections.abc import Callable, Iterator

from instruct.errors import UserError
from instruct.report.faithfulness.mentions import Mention
from instruct.report.faithfulness.names import SPEAKER_TAG, name_mention, words_of

_KINDS = dict.fromkeys(("GPE", "LOC", "FAC"), "place") | dict.fromkeys(
    ("PERSON", "NORP", "ORG", "PRODUCT", "EVENT", "WORK_OF_ART", "LAW", "LANGUAGE"), "name"
)


def name_finder(model: str) -> Callable[[str, str], Iterator[Mention]]:
    """A function (text, context) -> names and places with the named pipeline.

    Raises UserError if spaCy or the pipeline is not installed, or has no entity recogniser.
    """
    try:
        import spacy
    except ImportError:
        raise UserError(
            "spaCy is not installed. Run `pip install 'instruct[ner]'`, or use --ner=rules."
        ) from None
    try:
        pipeline = spacy.load(model, exclude=["lemmatizer", "attribute_ruler", "textcat"])
    except OSError:
        raise UserError(
            f"spaCy has no pipeline {model!r} here. Run `python -m spacy download {model}`, or use "
            "--ner=rules."
        ) from None
    if "ner" not in pipeline.pipe_names:
        raise UserError(
            f"spaCy's pipeline {model!r} has no entity recogniser (it has "
            f"{', '.join(pipeline.pipe_names)}). Use one with `ner`, such as en_core_web_sm."
        )

    def find_names(text: str, context: str) -> Iterator[Mention]:
        del context
        # A tag is one strange word to spaCy; a usual name in its place keeps the sentence whole.
        masked = SPEAKER_TAG.sub(lambda m: "Somebody".ljust(len(m.group()))[: len(m.group())], text)
        words = words_of(masked)
        for entity in pipeline(masked).ents:
            inside = [w for w in words if entity.start_char <= w.start < entity.end_char]
            kind = _KINDS.get(entity.label_)
            mention = name_mention(text, inside, kind) if kind and inside else None
            if mention is not None:
                yield mention

    return find_names
