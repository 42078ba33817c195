"""Metrics in SeqIO's style: pure functions `(targets, predictions) -> {name: value}`, 0-100.

They go into a task's `metric_fns` and need neither TensorFlow nor JAX. A target is one text or a
sequence of accepted texts (references), of which the best counts. SeqIO recognises a metric over
scores by its argument names `(targets, scores)`. Empty lists give 0.
"""

import collections
import decimal
import functools
import re
import string
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import regex

from instruct.prompts.numbers import numbers_in
from instruct.prompts.options import match_option

Target = str | Sequence[str]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Not "the answer isn't 5".
_ANSWER_MARKER = re.compile(r"(?:answer\s*(?:is(?![a-z])|:|=)|####)\s*:?\s*", re.IGNORECASE)


def references_of(target: Target) -> tuple[str, ...]:
    """All accepted texts of a target."""
    return (target,) if isinstance(target, str) else tuple(target)


def _mean(values: Sequence[float]) -> float:
    return 100.0 * float(np.mean(values)) if len(values) else 0.0


def _mean_best(
    score: Callable[[str, str], float], targets: Sequence[Target], predictions: Sequence[str]
) -> float:
    """Mean over examples of the best score(reference, prediction), as a percentage."""
    return _mean(
        [
            max((float(score(reference, text)) for reference in references_of(target)), default=0.0)
            for target, text in zip(targets, predictions, strict=True)
        ]
    )


def same_text(reference: str, prediction: str) -> bool:
    """Whether a prediction is a reference, in a form in which vocabularies write it.

    T5's vocabularies write compatibility forms only (NFKC: "x2" for a superscript, Thai and Bengali
    letters taken apart), and any white space as one blank.

    >>> same_text("5\\u00a0km\\u00b2", "5 km2"), same_text("a b", "a  b")
    (True, False)
    """
    return _compatible(prediction) in _written_forms(reference)


def _compatible(text: str) -> str:
    return text.strip() if text.isascii() else unicodedata.normalize("NFKC", text).strip()


def _written_forms(text: str) -> tuple[str, str]:
    return _compatible(text), " ".join(_compatible(text).split())


def exact_match(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions that equal a reference, as `same_text` compares.

    As SQuAD's without its normalisation. (T5's `exact_match` is 1 only if all predictions are.)
    """
    return {"exact_match": _mean_best(same_text, targets, predictions)}


def _same_label(target: Any, prediction: Any) -> bool:
    if isinstance(target, str) and isinstance(prediction, str):
        return same_text(target, prediction)
    return target == prediction


def accuracy(targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    """Share of predictions that equal their target, for labels of any type."""
    rights = (float(_same_label(t, p)) for t, p in zip(targets, predictions, strict=True))
    return {"accuracy": _mean(list(rights))}


def class_f1(
    targets: Sequence[str], predictions: Sequence[str], labels: Sequence[str] | None = None
) -> dict[str, float]:
    """`macro_f1`, the mean over the classes among the targets, and `f1 <class>` of each label.

    As scikit-learn's with `zero_division=0`. A prediction that is no label is a miss of its target
    and counts against no class.

    Args:
        labels: classes of which `f1 <class>` is given; None for those among the targets.
    """
    names = sorted(set(targets)) if labels is None else labels
    known = dict.fromkeys((*names, *targets))
    forms = {form: name for name in known for form in _written_forms(name)}
    predictions = [p if p in known else forms.get(_compatible(p), p) for p in predictions]
    right = collections.Counter(t for t, p in zip(targets, predictions, strict=True) if t == p)
    asked, given = collections.Counter(targets), collections.Counter(predictions)
    values = {
        name: 200.0 * right[name] / max(1, asked[name] + given[name])
        for name in dict.fromkeys((*names, *asked))
    }
    macro = float(np.mean([values[name] for name in asked])) if asked else 0.0
    return {"macro_f1": macro, **{f"f1 {name}": values[name] for name in names}}


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def token_f1(reference: str, prediction: str) -> float:
    """F1 over bags of normalised words, 0-1 (official script of SQuAD 1.1).

    0 if no word is shared, even if both texts normalise to nothing ("the" and "a"), where the
    script of version 2.0 gives 1.
    """
    expected = normalize_answer(reference).split()
    predicted = normalize_answer(prediction).split()
    shared = sum((collections.Counter(expected) & collections.Counter(predicted)).values())
    return 2.0 * shared / (len(expected) + len(predicted)) if shared else 0.0


def squad(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """`em` and `f1` of question answering with SQuAD's normalisation, best reference each.

    As published for all languages (XQuAD, TyDiQA): words are separated by blanks, so in Chinese,
    Japanese and Thai F1 is close to EM; articles and punctuation are English.
    """

    def same(reference: str, prediction: str) -> bool:
        return normalize_answer(reference) == normalize_answer(prediction)

    return {
        "em": _mean_best(same, targets, predictions),
        "f1": _mean_best(token_f1, targets, predictions),
    }


class Tokenizer(Protocol):
    """Interface of a tokenizer for `rouge_score`."""

    def tokenize(self, text: str) -> list[str]: ...


# A token is a word, or in scripts without blanks between words one character with its marks.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_TOKEN = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}*|(?:(?![{_UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}])+|\p{{So}}"
)
_LETTER_OR_DIGIT = regex.compile(r"[\p{L}\p{N}]")
_UNSPACED_SIGN = regex.compile(f"[{_UNSPACED}]")


class UnicodeTokenizer:
    """Lower-case words of any script, single characters in scripts without blanks, and emoji.

    Its ROUGE values are not comparable with published ones, which use many different tokenizers.
    """

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())


UNICODE_TOKENIZER = UnicodeTokenizer()


def in_ascii_words(text: str) -> bool:
    """Whether ROUGE's own tokenizer keeps at least half of a text's letters.

    Digits count only if there are no letters, as every script uses them. True for an empty text,
    False for one without letters and digits.
    """
    letters_and_digits = _LETTER_OR_DIGIT.findall(text.lower())
    letters = [c for c in letters_and_digits if not c.isdecimal()] or letters_and_digits
    kept = sum(letter.isascii() for letter in letters)
    return 2 * kept >= len(letters) if letters else not text.strip()


def in_unspaced_script(text: str) -> bool:
    """Whether most letters of a text belong to scripts without blanks between words."""
    return 2 * len(_UNSPACED_SIGN.findall(text)) > len(_LETTER_OR_DIGIT.findall(text))


def warn_of_unfit_targets(
    targets: Sequence[Target], fits: Callable[[str], bool], message: str
) -> None:
    """Warns if a metric's tokenizer does not suit some targets.

    Args:
        targets: suited if one reference is.
        fits: whether the tokenizer suits a text.
        message: of the warning; {unfit} and {all} are replaced by the numbers of targets.
    """
    unfit = sum(not any(map(fits, references_of(target))) for target in targets)
    if unfit:
        warnings.warn(message.format(unfit=unfit, all=len(targets)), stacklevel=3)


@functools.cache
def _rouge_scorer(use_stemmer: bool, tokenizer: Tokenizer | None) -> Any:
    # Imported here because it loads NLTK (over a second) and every task module imports this one.
    from rouge_score import rouge_scorer

    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    return rouge_scorer.RougeScorer(names, use_stemmer=use_stemmer, tokenizer=tokenizer)


def rouge(
    targets: Sequence[Target],
    predictions: Sequence[str],
    use_stemmer: bool = True,
    tokenizer: Tokenizer | None = None,
) -> dict[str, float]:
    """ROUGE-1, -2, -L and -Lsum F1 of the `rouge_score` package, best reference for each.

    rougeLsum splits sentences at newlines and is a few points above rougeL; py-rouge, which papers
    on dialogue summarisation use, gives higher values still.

    Args:
        use_stemmer: stem English words (the package's own tokenizer only).
        tokenizer: None for the package's own, which keeps a-z and 0-9 only, so texts of other
            scripts score 0 (a warning counts them); `UNICODE_TOKENIZER` for any script.
    """
    if tokenizer is None:
        warn_of_unfit_targets(
            targets,
            in_ascii_words,
            "the tokenizer of rouge_score keeps only a-z and 0-9, less than half of {unfit} of "
            "{all} targets, whose ROUGE is therefore close to 0. For other scripts "
            "use functools.partial(metrics.rouge, tokenizer=metrics.UNICODE_TOKENIZER).",
        )
    scorer = _rouge_scorer(use_stemmer, tokenizer)
    totals: dict[str, list[float]] = {
        name: [] for name in ("rouge1", "rouge2", "rougeL", "rougeLsum")
    }
    for target, prediction in zip(targets, predictions, strict=True):
        scored = [scorer.score(reference, prediction) for reference in references_of(target)]
        for name, values in totals.items():
            values.append(max((s[name].fmeasure for s in scored), default=0.0))
    return {name: _mean(values) for name, values in totals.items()}


def final_answer(text: str) -> str:
    """The text after the last "answer is", "answer:" or "####", else the whole text; trimmed.

    >>> final_answer("3 + 4 = 7. So the answer is 7.")
    '7'
    """
    parts = _ANSWER_MARKER.split(text)
    answer = parts[-1].strip() if len(parts) > 1 else text.strip()
    return answer.removesuffix(".").rstrip()


def final_number(text: str) -> decimal.Decimal | None:
    """The first number after an answer marker, else the last number of the text, else None."""
    parts = _ANSWER_MARKER.split(text)
    if len(parts) > 1:
        after = numbers_in(parts[-1])
        if after:
            return after[0]
    numbers = numbers_in(text)
    return numbers[-1] if numbers else None


def number_match(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions whose final number equals that of a reference (7 = 7.0).

    For word problems with worked solutions, such as GSM8K. References without a number are compared
    as text.
    """

    def same(reference: str, prediction: str) -> bool:
        expected = final_number(reference)
        if expected is None:
            return final_answer(reference) == final_answer(prediction)
        return final_number(prediction) == expected

    return {"number_match": _mean_best(same, targets, predictions)}


def option_match(targets: Sequence[Mapping[str, Any]], predictions: Sequence[str]) -> dict:
    """Share of predictions that name the right option, by marker or by text.

    A target is the {"options", "markers", "answer_index"} of the `example` that a `postprocess_fn`
    gets; `markers` is optional.
    """
    right = [
        float(match_option(p, t["options"], t.get("markers", ())) == t["answer_index"])
        for t, p in zip(targets, predictions, strict=True)
    ]
    return {"option_match": _mean(right)}


def log_likelihood(targets: Sequence[Any], scores: Sequence[float]) -> dict[str, float]:
    """Mean log-likelihood of the targets in nats; not a percentage."""
    del targets
    return {"log_likelihood": float(np.mean(scores)) if len(scores) else 0.0}
