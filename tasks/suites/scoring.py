"""Metrics that only the suites use: SeqIO's `metric_fns`, 0-100.

`strict_match`, `flexible_extract`, `get_response` and `unfiltered` judge the whole reply as a task
of EleutherAI's lm-evaluation-harness 0.4.13 does: its stop strings, its filter, its comparison. The
suites' first metric compares the answer that `tasks/suites/reading.py` extracts from the reply.

    our mode                     the harness's task             metrics
    bbh.*.cot                    bbh_cot_fewshot                strict_match
    bbh.*.direct                 bbh_fewshot                    unfiltered
    bbh.*.zs_direct, .zs_cot     bbh_zeroshot, .._cot_zeroshot  strict_match, flexible_extract
    mmlu.*.cot                   mmlu_flan_cot_fewshot          strict_match
    mmlu.*.zs_cot                mmlu_flan_cot_zeroshot         strict_match, flexible_extract
    mmlu.*.direct, .zs_direct    mmlu_generative                get_response
    gsm8k_test.gsm8k.cot         gsm8k_cot                      strict_match, flexible_extract
    gsm8k_test.gsm8k.zs_cot      gsm8k_cot_zeroshot             strict_match, flexible_extract
    mgsm.<language>.cot, .zs_cot mgsm_native_cot_<language>     strict_match, flexible_extract

Where the harness has no task (GSM8K's `zs_direct`, SVAMP and ASDiv), GSM8K's rules are applied.
"""

import functools
import re
import string
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from instruct.eval import metrics
from tasks.suites.reading import raw_reply

MetricFn = Callable[..., Mapping[str, Any]]
# (reply, target) -> the answer in the reply.
Filter = Callable[[str, str], str]

# Stop strings of most of the harness's tasks, without that for the next question.
CHAT_STOPS = ("</s>", "<|im_end|>")
QUESTION_STOPS = ("Q:", *CHAT_STOPS)
_NO_MATCH = "[invalid]"


class HarnessTask(NamedTuple):
    """How a task of the harness judges a reply.

    Attributes:
        until: stop strings; the reply ends before the first match of each.
        filters: metric -> filter of the reply.
        ignored: regular expressions whose matches are removed on both sides, in this order.
        fold_case: whether to ignore case.
        fold_punctuation: whether to ignore ASCII punctuation.
        reasoned: metrics that do not apply to prompts without reasoning.
    """

    until: tuple[str, ...]
    filters: Mapping[str, Filter]
    ignored: tuple[str, ...] = ()
    fold_case: bool = True
    fold_punctuation: bool = False
    reasoned: tuple[str, ...] = ()

    def compared(self, text: str) -> str:
        """A text in the form that is compared."""
        for pattern in self.ignored:
            text = re.sub(pattern, "", text)
        text = text.lower() if self.fold_case else text
        return text.translate(_PUNCTUATION) if self.fold_punctuation else text

    def scores(self, targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
        """Metric -> share of right replies; {} if none applies to these prompts."""
        direct = targets and not any(getattr(target, "reasoned", True) for target in targets)
        left_out = self.reasoned if direct else ()
        rights: dict[str, list[bool]] = {n: [] for n in self.filters if n not in left_out}
        for target, prediction in zip(targets, predictions, strict=True):
            wanted, reply = self.compared(raw_reply(target).strip()), raw_reply(prediction)
            for stop in self.until:
                reply = reply.partition(stop)[0]
            for name, values in rights.items():
                values.append(self.compared(self.filters[name](reply, target)) == wanted)
        return {
            name: 100.0 * float(np.mean(values)) if values else 0.0
            for name, values in rights.items()
        }


# ---------------------------------------------------------------- filters


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _match(
    pattern: re.Pattern[str], which: int, reply: str, target: str = "", missing: str = _NO_MATCH
) -> str:
    """The first match of a pattern (`which` 0) or the last (-1), its first group with text."""
    matches = pattern.findall(reply)
    if not matches:
        return missing
    chosen = matches[which]
    if isinstance(chosen, tuple):
        chosen = next(filter(None, chosen), missing)
    return chosen.strip()


def _one_match(pattern: str, which: int = 0) -> Filter:
    return functools.partial(_match, re.compile(pattern), which)


def _whole_reply(reply: str, target: str) -> str:
    return reply


def _first_line(reply: str, target: str) -> str:
    return reply.partition("\n")[0].strip()


@functools.cache
def _all_punctuation() -> dict[int, None]:
    """All punctuation of Unicode, as a table for `str.translate`."""
    codes = range(sys.maxunicode)
    return dict.fromkeys(code for code in codes if unicodedata.category(chr(code))[0] == "P")


def _bare(text: str) -> str:
    return text.lower().translate(_all_punctuation())


_BRACKETED = re.compile(r"(\([A-Z]\))")
_LISTED_CHOICE = re.compile(r"\([A-Z]\)([^\n^(]*)")


def _choices_of_question(target: str) -> Sequence[str]:
    return _LISTED_CHOICE.findall(getattr(target, "question", ""))


def _choices_of_example(target: str) -> Sequence[str]:
    return getattr(target, "options", ())


def _lettered_choice(
    choices_of: Callable[[str], Sequence[str]], which: int, reply: str, target: str
) -> str:
    """A letter in brackets, else the text of a choice, else a letter after a colon."""
    choices = [_bare(text.strip()) for text in choices_of(target)]
    letters = string.ascii_uppercase[: len(choices)]
    named = re.compile("|".join(map(re.escape, sorted(choices, key=len, reverse=True))))
    after_colon = re.compile(rf":[\s]*({'|'.join(letters)})")
    if found := _match(_BRACKETED, which, reply, missing=""):
        return found
    if found := _match(named, which, _bare(reply), missing=""):
        return {text: f"({letter})" for text, letter in zip(choices, letters)}.get(found, found)
    found = _match(after_colon, which, reply, missing="")
    return f"({found})" if found else _NO_MATCH


def _meant_word(meanings: Mapping[str, str], which: int, reply: str, target: str) -> str:
    """The meaning of the expression that matches the reply in lower case."""
    found = _match(re.compile("|".join(meanings)), which, reply.lower(), missing="")
    values = (value for pattern, value in meanings.items() if re.search(pattern, found))
    return next(values, _NO_MATCH) if found else _NO_MATCH


_INTEGER = re.compile(r"([-0-9]+)")
_UNITS = "zero|one|two|three|four|five|"
_TEENS = "|ten|eleven|twelve|fourteen|hundred|thousand|(?:m|b|tr)illion"
_STEM = "(?:twen|thir|for|fif|six|seven|nine)"
_SPELLED = re.compile(
    rf"((?:(?:{_UNITS}{_STEM}(?:teen|ty)|eight(?:|een|y){_TEENS})"
    rf"(?:{_UNITS}{_STEM}(?:|teen|ty)|eight(?:een|y){_TEENS}|[^\S\r\n]|,|and|&)+)?"
    rf"(?:{_UNITS}{_STEM}(?:teen|ty)|eight(?:een|y){_TEENS}))"
)
_NUMBER_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100, "thousand": 1_000, "million": 1_000_000,
    "billion": 1_000_000_000,
}  # fmt: skip


def _together(values: Sequence[int]) -> int:
    """The number below a thousand in up to four words, added up as word2number does."""
    if len(values) == 2 and 100 not in values:
        return sum(values)
    return values[0] * values[1] + sum(values[2:]) if 2 <= len(values) <= 4 else values[0]


def spelled_number(text: str) -> str:
    """The number in English words, as digits; "" without one.

    >>> spelled_number("two thousand and forty")
    '2040'
    """
    values = [_NUMBER_WORDS[word] for word in text.split() if word in _NUMBER_WORDS]
    if len(values) < 2:
        return str(values[0]) if values else ""
    total = 0
    for scale in (1_000_000_000, 1_000_000, 1_000):
        if scale in values:
            before, values = values[: values.index(scale)], values[values.index(scale) + 1 :]
            if not before or max(before) >= 1_000:
                return ""
            total += scale * _together(before)
    if max(values, default=0) >= 1_000:
        return ""
    return str(total + (_together(values) if values else 0))


def _integer(which: int, reply: str, target: str) -> str:
    """Digits and minus signs, else a number in words."""
    digits = _match(_INTEGER, which, reply, missing="")
    words = digits or _match(_SPELLED, which, reply.lower(), missing="")
    return digits or spelled_number(words) or _NO_MATCH


def _sorted_words(which: int, reply: str, target: str) -> str:
    """The words of the question's list in the order of their last mention."""
    words = getattr(target, "question", "").partition("List:")[2].split()
    listed = re.findall("|".join(rf"\b{re.escape(word)}\b" for word in words), reply)
    return " ".join(reversed(dict.fromkeys(reversed(listed))))


# ---------------------------------------------------------------- BIG-Bench Hard


_AFTER_ANSWER = (
    r"((?<=The answer is )(.*)(?=.)|(?<={}answer is )(.*)(?=.)|(?<=The answer: )(.*)(?=.)"
    r"|(?<=The final answer: )(.*)(?=.))"
)
_BBH_STOPS = ("</s>", "Q", "\n\n")
_BBH_FEW_SHOT = HarnessTask(_BBH_STOPS, {"unfiltered": _whole_reply}, fold_case=False)
_BBH_ZERO_SHOT_IGNORES = (r"\.$", ",", r"\\", "\n", '"')

_BRACKETS = r'[" \[\(<{}>\)\]]+'
_YES_NO = functools.partial(_match, re.compile(r"\b(Yes|No|yes|no)\b"))
_PLAUSIBLE = {r"\b(no|not plausible)\b": "no", r"\b(yes|plausible)\b": "yes"}
_TRUTHFUL = {
    r"\b(no|does not tell the truth|is not telling the truth)\b": "no",
    r"\b(yes|tells the truth|is telling the truth)\b": "yes",
}
# Sub-task -> its flexible filter of (first match 0 or last -1, reply, target); all others have
# lettered choices.
_BBH_FLEXIBLE: dict[str, Callable[[int, str, str], str]] = {
    "boolean_expressions": functools.partial(_match, re.compile(r"\b(True|False)\b")),
    "causal_judgement": _YES_NO,
    "dyck_languages": functools.partial(_match, re.compile(rf"(?<= )({_BRACKETS})|({_BRACKETS})")),
    "formal_fallacies": functools.partial(_match, re.compile(r"\b(valid|invalid)\b")),
    "multistep_arithmetic_two": _integer,
    "navigate": _YES_NO,
    "object_counting": _integer,
    "sports_understanding": functools.partial(_meant_word, _PLAUSIBLE),
    "web_of_lies": functools.partial(_meant_word, _TRUTHFUL),
    "word_sorting": _sorted_words,
}
_LETTERED_IN_QUESTION = functools.partial(_lettered_choice, _choices_of_question)

# `strict_match`: the text between the first "the answer is " and the last character of its line.
strict_bbh: MetricFn = HarnessTask(
    _BBH_STOPS,
    {"strict_match": _one_match(r"(?<=the answer is )(.*)(?=.)")},
    fold_case=False,
    reasoned=("strict_match",),
).scores


def harness_bbh(sub_task: str) -> dict[str, MetricFn]:
    """Prompt mode -> the metric of the harness's task of a sub-task in that mode."""
    flexible = _BBH_FLEXIBLE.get(sub_task, _LETTERED_IN_QUESTION)
    direct: dict[str, Filter] = {
        "strict_match": _whole_reply,
        "flexible_extract": functools.partial(flexible, 0),
    }
    reasoned: dict[str, Filter] = {
        "strict_match": _one_match(_AFTER_ANSWER.format("the ")),
        "flexible_extract": functools.partial(flexible, -1),
    }
    return {
        "cot": strict_bbh,
        "direct": _BBH_FEW_SHOT.scores,
        "zs_direct": HarnessTask(QUESTION_STOPS, direct, _BBH_ZERO_SHOT_IGNORES).scores,
        "zs_cot": HarnessTask(QUESTION_STOPS, reasoned, _BBH_ZERO_SHOT_IGNORES).scores,
    }


# ---------------------------------------------------------------- MMLU


_MMLU_ZERO_SHOT_COT = HarnessTask(
    QUESTION_STOPS,
    {
        "strict_match": _one_match(_AFTER_ANSWER.format("")),
        "flexible_extract": functools.partial(_lettered_choice, _choices_of_example, -1),
    },
    fold_punctuation=True,
)
_MMLU_GENERATIVE = HarnessTask(("</s>", "\n"), {"get_response": _first_line}, fold_punctuation=True)

# `strict_match` after MMLU's first "answer is ".
strict_mmlu: MetricFn = HarnessTask(
    ("</s>",),
    {"strict_match": _one_match(r"(?<=answer is )(.*)(?=.)")},
    fold_punctuation=True,
    reasoned=("strict_match",),
).scores

HARNESS_MMLU: dict[str, MetricFn] = {
    "cot": strict_mmlu,
    "direct": _MMLU_GENERATIVE.scores,
    "zs_direct": _MMLU_GENERATIVE.scores,
    "zs_cot": _MMLU_ZERO_SHOT_COT.scores,
}


# ---------------------------------------------------------------- GSM8K and MGSM


def number_filters(
    phrase: str, ending: str = "", until: tuple[str, ...] = (), fold_punctuation: bool = False
) -> MetricFn:
    """A metric with GSM8K's two filters.

    `strict_match` takes the number after the first phrase, `flexible_extract` the last number.
    Prompts without reasoning contain the phrase, so only the second filter applies to them.

    Args:
        phrase: text before the answer, its blank included.
        ending: a regular expression that must match after the number. GSM8K's with exemplars is
            ".", any character, and so reads "1" out of "The answer is 18" at the end of a reply.
        until: stop strings.
        fold_punctuation: whether to ignore all punctuation, as MGSM does, so that "-3.5" is "35";
            GSM8K ignores commas, dollar signs and a last full stop.
    """
    strict = _one_match(rf"{re.escape(phrase)}(\-?[0-9\.\,]+){ending}")
    return HarnessTask(
        until,
        {
            "strict_match": strict,
            "flexible_extract": _one_match(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),
        },
        () if fold_punctuation else (",", r"\$", r"(?s).*#### ", r"\.$"),
        fold_punctuation=fold_punctuation,
        reasoned=("strict_match",),
    ).scores


# ---------------------------------------------------------------- summaries


def rouge_references(
    targets: Sequence[metrics.Target], predictions: Sequence[str]
) -> dict[str, float]:
    """ROUGE with several references, combined in three ways.

    `rouge1`, `rouge2`, `rougeL`, `rougeLsum` take the best reference for each, `*_mean` the mean
    over references, `*_first` the first reference alone.
    """
    scored = [
        [metrics.rouge([reference], [prediction]) for reference in metrics.references_of(target)]
        for target, prediction in zip(targets, predictions, strict=True)
    ]
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
        for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum")
    }
