"""`postprocess_fn`s and metrics that several families share."""

import decimal
import functools
import json
import re
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instruct.eval import metrics
from instruct.prompts import numbers
from instruct.prompts.options import match_option, plain
from instruct.prompts.template import TemplateSet
from tasks.gpt2_tokens import GPT2_TOKENIZER

Example = Mapping[str, Any] | None  # the features that a `postprocess_fn` gets

# Commas group digits in threes, or as in India; "3,4" is no number.
_WHOLE = r"[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3}|\d+"
_NUMBER = re.compile(rf"[-+\u2212]?\$?\s?((?:{_WHOLE})(?:\.\d+)?|\.\d+)\s?%?")


@functools.cache
def word_end(phrase: str) -> str:
    """A pattern after a phrase: no letter continues its last word, so "is" is not in "isn't".

    Empty after punctuation, and in scripts that write words without blanks between them.
    """
    last = phrase.rstrip()[-1:]
    divided = last.isalpha() and unicodedata.name(last, "").startswith(("LATIN", "CYRILLIC"))
    return r"(?![^\W\d_])" if divided else ""


def cut_answer(text: str, closing_phrases: Sequence[tuple[str, str]]) -> str:
    """The answer of a chain of thought: the text after its last closing phrase.

    Args:
        text: the model's reply.
        closing_phrases: (text before, text after) of the answer, as in
            `TemplateSet.closing_phrases`.

    Returns:
        The rest of that line without the phrase's own end; the whole text without a phrase.
    """
    best, ending = 0, ""
    for before, after in closing_phrases:
        # Only the last line of the phrase: earlier lines hold the reasoning.
        words = before.rsplit("\n", 1)[-1].split()
        pattern = r"\s+".join(map(re.escape, words)) + word_end(before)
        for match in re.finditer(pattern, text, re.IGNORECASE) if words else ():
            if match.end() > best:
                best, ending = match.end(), after
    answer = text[best:].strip()
    if best:
        answer = answer.partition("\n")[0].strip().removesuffix(ending).rstrip()
    return answer


def canonical(answer: str) -> str:
    """An answer in one form: a lone number by its value, other text without case and ends.

    >>> canonical("$1,200.0"), canonical("Yes."), canonical("3,4")
    ('1200', 'yes', '3,4')
    """
    text = plain(answer)
    whole = _NUMBER.fullmatch(answer.strip().rstrip(".;,!"))
    if whole is None:
        return text
    value = numbers.canonical(decimal.Decimal(whole.group(1).replace(",", "")))
    return f"-{value}" if answer.strip()[0] in "-\u2212" and value != "0" else value


def text_of(value: Any) -> str:
    """The text of a feature; SeqIO gives it as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def texts_of(example: Example, name: str) -> list[str]:
    """The texts of a feature that is a list; [] without the feature."""
    return [text_of(value) for value in (example or {}).get(name, ())]


def metadata_of(example: Example) -> Mapping[str, Any]:
    """The record's metadata; {} without that feature."""
    return json.loads(text_of((example or {}).get("metadata", "{}")))


def chosen_option(answer: str, example: Example) -> str:
    """The text of the option that an answer names by marker or text; else the answer itself."""
    options = texts_of(example, "options")
    index = match_option(answer, options, texts_of(example, "markers")) if options else None
    return answer if index is None else options[index]


def read_answer(
    decoded: str,
    example: Example = None,
    is_target: bool = False,
    *,
    closing_phrases: Sequence[tuple[str, str]] = (),
) -> str:
    """A `postprocess_fn`: the answer of a direct or reasoned reply, in its canonical form.

    Where the prompt showed options, an answer by marker or by text becomes the option's text.
    """
    del is_target  # both sides are read in the same way
    return canonical(chosen_option(cut_answer(decoded, closing_phrases), example))


def answer_reader(template_set: TemplateSet) -> Callable[..., str]:
    """`read_answer` for the closing phrases of a template set."""
    return functools.partial(read_answer, closing_phrases=template_set.closing_phrases)


def read_references(
    decoded: str, example: Example = None, is_target: bool = False
) -> str | list[str]:
    """A `postprocess_fn`: a target becomes all its references, a prediction only loses white
    space at its ends.
    """
    if is_target and example is not None:
        return [text_of(value) for value in example["references"]]
    return decoded.strip()


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _loose(text: str) -> str:
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def loose_exact_match(
    targets: Sequence[metrics.Target], predictions: Sequence[str]
) -> dict[str, float]:
    """Exact match as Tk-Instruct counts it: without case and punctuation, best reference."""
    references = [[_loose(r) for r in metrics.references_of(target)] for target in targets]
    return metrics.exact_match(references, [_loose(prediction) for prediction in predictions])


def rouge_l(targets: Sequence[metrics.Target], predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-L F1 with stemming, best reference: the headline number of Tk-Instruct's English track.

    For English only: its tokenizer drops other scripts, which score 0.
    """
    return {"rougeL": metrics.rouge(targets, predictions)["rougeL"]}


def rouge_l_of_gpt2_tokens(
    targets: Sequence[metrics.Target], predictions: Sequence[str]
) -> dict[str, float]:
    """ROUGE-L of Natural-Instructions' cross-lingual track: GPT-2's tokens, case-sensitive."""
    return {"rougeL": metrics.rouge(targets, predictions, tokenizer=GPT2_TOKENIZER)["rougeL"]}


def rouge_l_by_script(
    targets: Sequence[metrics.Target], predictions: Sequence[str]
) -> dict[str, float]:
    """`rouge_l` for examples whose references are mostly in a-z, else by GPT-2's tokens.

    For task files whose language is unknown until they are read.
    """
    values = []
    for target, prediction in zip(targets, predictions, strict=True):
        english = metrics.in_ascii_words(" ".join(metrics.references_of(target)))
        score = rouge_l if english else rouge_l_of_gpt2_tokens
        values.append(score([target], [prediction])["rougeL"])
    return {"rougeL": sum(values) / len(values) if values else 0.0}
