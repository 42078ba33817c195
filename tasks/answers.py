"""`postprocess_fn`s and metrics that several families share."""

import decimal
import functools
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instruct.eval import metrics
from instruct.prompts.options import match_option, plain
from instruct.prompts.template import TemplateSet
from tasks.gpt2_tokens import GPT2_TOKENIZER

_NUMBER = re.compile(r"[-+\u2212]?\$?\s?(\d[\d,]*(?:\.\d+)?|\.\d+)\s?%?")


def cut_answer(text: str, closing_phrases: Sequence[tuple[str, str]]) -> str:
    """The answer of a chain of thought: the text after its last closing phrase.

    Args:
        text: what the model wrote.
        closing_phrases: (text before, text after) of the answer, as in
            `TemplateSet.closing_phrases`.

    Returns:
        The rest of that line without the phrase's own end; the whole text without a phrase.
    """
    best, ending = 0, ""
    for before, after in closing_phrases:
        # The phrase's own last line: what stands before it on other lines is reasoning.
        words = before.rsplit("\n", 1)[-1].split()
        if not words:
            continue
        pattern = r"\s+".join(re.escape(word) for word in words)
        for match in re.finditer(pattern, text, re.IGNORECASE):
            if match.end() > best:
                best, ending = match.end(), after
    answer = text[best:].strip()
    if best:
        answer = answer.split("\n", 1)[0].strip()
        if ending:
            answer = answer.removesuffix(ending).rstrip()
    return answer


def canonical(answer: str) -> str:
    """An answer in one form: a lone number by its value, other text without case and ends.

    >>> canonical("$1,200.0"), canonical("Yes.")
    ('1200', 'yes')
    """
    text = plain(answer)
    whole = _NUMBER.fullmatch(answer.strip().rstrip(".;,!"))
    if whole is None:
        return text
    value = decimal.Decimal(whole.group(1).replace(",", ""))
    sign = "-" if answer.strip()[0] in "-\u2212" and value else ""
    return sign + format(value.normalize(), "f")


def _texts(values: Any) -> list[str]:
    """Texts of a feature that may hold bytes (SeqIO) or text."""
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def read_answer(
    decoded: str,
    example: Mapping[str, Any] | None = None,
    is_target: bool = False,
    *,
    closing_phrases: Sequence[tuple[str, str]] = (),
) -> str:
    """A `postprocess_fn`: the answer of a direct or reasoned reply, in its canonical form.

    Where the prompt showed options, an answer by marker or by text becomes the option's text.
    """
    del is_target  # both sides are read in the same way
    answer = cut_answer(decoded, closing_phrases)
    options = _texts((example or {}).get("options", ()))
    if options:
        markers = _texts((example or {}).get("markers", ()))
        index = match_option(answer, options, markers)
        if index is not None:
            return canonical(options[index])
    return canonical(answer)


def answer_reader(template_set: TemplateSet) -> Callable[..., str]:
    """`read_answer` for the closing phrases of a template set."""
    return functools.partial(read_answer, closing_phrases=template_set.closing_phrases)


def read_references(
    decoded: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> str | list[str]:
    """A `postprocess_fn`: a target becomes all accepted outputs, a prediction stays as it is."""
    if is_target and example is not None:
        return _texts(example["references"])
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

    For English: texts of other scripts get 0.
    """
    return {"rougeL": metrics.rouge(targets, predictions)["rougeL"]}


def rouge_l_of_gpt2_tokens(
    targets: Sequence[metrics.Target], predictions: Sequence[str]
) -> dict[str, float]:
    """The same of Natural-Instructions' cross-lingual track: GPT-2's tokens, case kept."""
    scores = metrics.rouge(targets, predictions, tokenizer=GPT2_TOKENIZER)
    return {"rougeL": scores["rougeL"]}


def rouge_l_by_script(
    targets: Sequence[metrics.Target], predictions: Sequence[str]
) -> dict[str, float]:
    """`rouge_l` for examples whose references are mostly in a-z, else by GPT-2's tokens.

    For files that do not say their language before they are read.
    """
    values = []
    for target, prediction in zip(targets, predictions):
        english = metrics.in_ascii_words(" ".join(metrics.references_of(target)))
        score = rouge_l if english else rouge_l_of_gpt2_tokens
        values.append(score([target], [prediction])["rougeL"])
    return {"rougeL": sum(values) / len(values) if values else 0.0}
