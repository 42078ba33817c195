"""Metrics in SeqIO's style: pure functions `(targets, predictions) -> {name: value}`, 0-100.

Any of them goes into a task's `metric_fns`. A target is one text, or a sequence of accepted texts
(references): the best one counts. No metric here needs TensorFlow or JAX; a metric over scores
takes `(targets, scores)`, as SeqIO asks, and is told apart by these argument names.

Empty lists give 0, so that an empty task shows as 0 of n = 0 and not as a crash.
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
_ANSWER_MARKER = re.compile(r"(?:answer\s*(?:is|:|=)|####)\s*:?\s*", re.IGNORECASE)


def references_of(target: Target) -> tuple[str, ...]:
    """All accepted texts of a target."""
    return (target,) if isinstance(target, str) else tuple(target)


def _mean(values: Sequence[float]) -> float:
    return 100.0 * float(np.mean(values)) if len(values) else 0.0


def _best(score: Callable[[str, str], float], target: Target, prediction: str) -> float:
    return max((score(reference, prediction) for reference in references_of(target)), default=0.0)


def exact_match(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions equal to a reference, surrounding white space aside.

    (T5's own function of this name asks whether all of them are; this is SQuAD's, unnormalised.)
    """

    def same(reference: str, prediction: str) -> float:
        return float(reference.strip() == prediction.strip())

    return {
        "exact_match": _mean([_best(same, t, p) for t, p in zip(targets, predictions, strict=True)])
    }


def accuracy(targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    """Share of predictions equal to their target; for labels of any type."""
    return {"accuracy": _mean([float(t == p) for t, p in zip(targets, predictions, strict=True)])}


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def token_f1(reference: str, prediction: str) -> float:
    """F1 over the bags of normalised words, 0-1 (the official script of SQuAD 1.1).

    0 where no word is shared, even if neither text has a word left ("the" and "a"); version 2.0's
    script says 1 there.
    """
    expected = normalize_answer(reference).split()
    given = normalize_answer(prediction).split()
    shared = sum((collections.Counter(expected) & collections.Counter(given)).values())
    return 2.0 * shared / (len(expected) + len(given)) if shared else 0.0


def squad(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """`em` and `f1` of question answering, after SQuAD's normalisation, best reference each.

    As published for all languages (XQuAD, TyDiQA): words are what stands between blanks, so in
    Chinese, Japanese and Thai F1 is hardly more than EM; articles and punctuation are English.
    """

    def same(reference: str, prediction: str) -> float:
        return float(normalize_answer(reference) == normalize_answer(prediction))

    pairs = list(zip(targets, predictions, strict=True))
    return {
        "em": _mean([_best(same, t, p) for t, p in pairs]),
        "f1": _mean([_best(token_f1, t, p) for t, p in pairs]),
    }


class Tokenizer(Protocol):
    """What `rouge_score` cuts texts with."""

    def tokenize(self, text: str) -> list[str]: ...


# Scripts without blanks between words: a token is one character with its marks. Others: a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_TOKEN = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}*|(?:(?![{_UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}])+|\p{{So}}"
)
_LETTER_OR_DIGIT = regex.compile(r"[\p{L}\p{N}]")
_UNSPACED_SIGN = regex.compile(f"[{_UNSPACED}]")


class UnicodeTokenizer:
    """Words of any script in lower case; characters where a script has no blanks; emoji.

    Numbers by it are comparable with each other only: published ROUGE of languages other than
    English comes from many tokenizers.
    """

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())


UNICODE_TOKENIZER = UnicodeTokenizer()


def in_ascii_words(text: str) -> bool:
    """Whether ROUGE's own tokenizer keeps at least half of a text's letters.

    Digits count where there are no letters: dates and sums stand in texts of every script. An empty
    text has lost nothing; one of signs alone has lost all.
    """
    found = _LETTER_OR_DIGIT.findall(text.lower())
    signs = [sign for sign in found if not sign.isdecimal()] or found
    kept = sum(sign.isascii() for sign in signs)
    return 2 * kept >= len(signs) if signs else not text.strip()


def in_unspaced_script(text: str) -> bool:
    """Whether most letters of a text are of a script that has no blanks between words."""
    return 2 * len(_UNSPACED_SIGN.findall(text)) > len(_LETTER_OR_DIGIT.findall(text))


def warn_of_unfit_targets(
    targets: Sequence[Target], fits: Callable[[str], bool], message: str
) -> None:
    """Warns with `message` if a metric's way to cut texts into words fits some targets badly.

    Args:
        targets: each must fit with one reference.
        fits: whether one text does.
        message: has {unfit} and {all} for the two numbers of targets.
    """
    unfit = sum(not any(map(fits, references_of(target))) for target in targets)
    if unfit:
        warnings.warn(message.format(unfit=unfit, all=len(targets)), stacklevel=3)


@functools.cache
def _rouge_scorer(use_stemmer: bool, tokenizer: Tokenizer | None) -> Any:
    # Inside the function: it draws in NLTK (over a second), and every task module imports this one.
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

    rougeLsum splits sentences at newlines; its values are a few points above rougeL's, and
    dialogue-summarisation papers that use py-rouge are higher again: compare like with like.

    Args:
        use_stemmer: for the package's own tokenizer: whether English endings do not count.
        tokenizer: None for the package's own, which keeps a-z and 0-9 alone and so gives 0 to
            texts of other scripts (a warning says how many there are); `UNICODE_TOKENIZER` for
            any script.
    """
    if tokenizer is None:
        warn_of_unfit_targets(
            targets,
            in_ascii_words,
            "the tokenizer of rouge_score keeps a-z and 0-9 alone, less than half of {unfit} of "
            "{all} targets: ROUGE scores them 0 or by the little that is left. For other scripts "
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
    """What follows the last "answer is", "answer:" or "####", else the whole text; trimmed.

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
    found = numbers_in(text)
    return found[-1] if found else None


def number_match(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions whose final number equals a reference's, as numbers (7 = 7.0).

    For word problems with a written-out solution (GSM8K and other chains of thought).
    """

    def same(reference: str, prediction: str) -> float:
        expected, given = final_number(reference), final_number(prediction)
        if expected is None:
            return float(final_answer(reference) == final_answer(prediction))
        return float(given is not None and given == expected)

    return {
        "number_match": _mean(
            [_best(same, t, p) for t, p in zip(targets, predictions, strict=True)]
        )
    }


def option_match(targets: Sequence[Mapping[str, Any]], predictions: Sequence[str]) -> dict:
    """Share of predictions that name the right option, by marker or by text.

    A target is {"options", "markers", "answer_index"} as a `postprocess_fn` finds them in its
    `example`; `markers` may be left out.
    """
    right = [
        float(match_option(p, t["options"], t.get("markers", ())) == t["answer_index"])
        for t, p in zip(targets, predictions, strict=True)
    ]
    return {"option_match": _mean(right)}


def log_likelihood(targets: Sequence[Any], scores: Sequence[float]) -> dict[str, float]:
    """Mean log-likelihood of the targets in nats, as scored by the model; not a percentage."""
    del targets
    return {"log_likelihood": float(np.mean(scores)) if len(scores) else 0.0}
