"""Metrics of the suites that `instruct.eval.metrics` does not have: SeqIO's `metric_fns`, 0-100.

`strict_*` and `flexible_*` read the whole reply as the filters of EleutherAI's
lm-evaluation-harness do, so that numbers can be compared; the suites' first metric reads it as
`tasks/suites/reading.py` says.
"""

import functools
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from instruct.eval import metrics
from tasks.suites.reading import raw_reply

MetricFn = Callable[..., Mapping[str, Any]]

# What ends a reply in most of the harness's tasks, beside the next question.
CHAT_STOPS = ("</s>", "<|im_end|>")
_NO_MATCH = "[invalid]"
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER_NOISE = (re.compile(","), re.compile(r"\$"), re.compile(r"(?s).*#### "), re.compile(r"\.$"))
_FLEXIBLE_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_BBH = re.compile(r"(?<=the answer is )(.*)(?=.)")
_MMLU = re.compile(r"(?<=answer is )(.*)(?=.)")


def _mean(rights: Sequence[bool]) -> float:
    return 100.0 * float(np.mean(rights)) if len(rights) else 0.0


def _found(pattern: re.Pattern[str], text: str, which: int) -> str:
    """One match of a pattern, the first group of it that is not empty."""
    matches = pattern.findall(text)
    if not matches:
        return _NO_MATCH
    chosen = matches[which]
    if isinstance(chosen, tuple):
        chosen = next((group for group in chosen if group), _NO_MATCH)
    return chosen.strip()


def _asks_for_reasoning(targets: Sequence[str]) -> bool:
    """Whether filters of reasoned replies apply: {} is the answer where they do not."""
    return not targets or any(getattr(target, "reasoned", True) for target in targets)


def strict_bbh(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """`strict_match`: what stands between the first "the answer is " and the line's last sign.

    {} for prompts that ask for no reasoning.
    """
    if not _asks_for_reasoning(targets):
        return {}
    pairs = zip(targets, predictions)
    return {
        "strict_match": _mean([_found(_BBH, raw_reply(p), 0) == raw_reply(t) for t, p in pairs])
    }


def strict_mmlu(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """The same after MMLU's first "answer is ", case and punctuation aside."""
    if not _asks_for_reasoning(targets):
        return {}

    def bare(text: str) -> str:
        return text.lower().translate(_PUNCTUATION)

    pairs = zip(targets, predictions)
    rights = [bare(_found(_MMLU, raw_reply(p), 0)) == bare(raw_reply(t)) for t, p in pairs]
    return {"strict_match": _mean(rights)}


def _bare_number(text: str) -> str:
    for noise in _NUMBER_NOISE:
        text = noise.sub("", text)
    return text.lower()


def number_filters(phrase: str, ending: str = "") -> MetricFn:
    """A metric with GSM8K's two filters.

    `strict_match` takes the number after the first phrase, `flexible_extract` the last number.

    Args:
        phrase: what stands before the answer, its blank included.
        ending: a regular expression of what must follow. GSM8K's with exemplars is ".", any sign,
            and so reads "1" out of "The answer is 18" at the end of a reply.
    """
    pattern = rf"{re.escape(phrase)}(\-?[0-9\.\,]+){ending}"
    return functools.partial(_number_filters, pattern=pattern)


def _number_filters(
    targets: Sequence[str], predictions: Sequence[str], pattern: str
) -> dict[str, float]:
    strict = re.compile(pattern)
    rights: dict[str, list[bool]] = {"strict_match": [], "flexible_extract": []}
    for target, prediction in zip(targets, predictions):
        wanted, reply = _bare_number(raw_reply(target)), raw_reply(prediction)
        rights["strict_match"].append(_bare_number(_found(strict, reply, 0)) == wanted)
        flexible = _found(_FLEXIBLE_NUMBER, reply, -1)
        rights["flexible_extract"].append(_bare_number(flexible) == wanted)
    return {name: _mean(values) for name, values in rights.items()}


def rouge_references(
    targets: Sequence[metrics.Target], predictions: Sequence[str]
) -> dict[str, float]:
    """ROUGE of several references in three conventions.

    `rouge1`, `rouge2`, `rougeL`, `rougeLsum` take the best reference for each, `*_mean` the mean
    over references, `*_first` the first reference alone.
    """
    kinds = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    scored: list[list[dict[str, float]]] = []
    for target, prediction in zip(targets, predictions):
        references = metrics.references_of(target)
        scored.append([metrics.rouge([r], [prediction]) for r in references])
    ways: dict[str, Callable[[list[float]], float]] = {
        "": max,
        "_mean": lambda values: float(np.mean(values)),
        "_first": lambda values: values[0],
    }
    return {
        f"{kind}{suffix}": float(np.mean([way([s[kind] for s in one]) for one in scored]))
        if scored
        else 0.0
        for suffix, way in ways.items()
        for kind in kinds
    }
