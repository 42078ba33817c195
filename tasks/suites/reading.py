"""Extracts the answer from a model's reply to a benchmark: `postprocess_fn`s.

A reply ends where the model asks a new question. The answer of a reasoned reply follows its last
"answer is" (or "answer:"), as in Flan's evaluation; without these words the reply has no answer and
scores as wrong. A reply is reasoned if the id of its template begins with "cot".
"""

import functools
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from instruct.prompts.numbers import ENGLISH, NumberForm, canonical, numbers_in
from instruct.prompts.options import match_option, plain
from tasks.answers import Example, chosen_option, text_of, texts_of, word_end

# Not "the answer isn't 5".
_MARKER = re.compile(r"\banswer(?:\s+is(?![a-z])\s*:?|\s*:)\s*", re.IGNORECASE)
_OPTION_WORD = re.compile(r"^(?:option|choice)\s+", re.IGNORECASE)
# "(A) or (B)", "A, C": several answers count as none.
_SEVERAL = re.compile(
    r"(?:\([A-Z]\)|[A-Z])\s*(?:,|/|\bor\b|\band\b)\s*(?:or\s+|and\s+)?"
    r"(?:\([A-Z]\)|[A-Z](?=[.)]?\s*$))"
)


class Answer(str):
    """An answer in the form that metrics compare, with the whole reply.

    Equal answers are equal texts, so they can be counted; "" is no answer.

    Attributes:
        raw: the whole reply, for metrics with an extraction of their own.
        reasoned: whether the prompt asked for reasoning before the answer.
        question, options: of the prompt; set by `read_asked` on targets only.
    """

    raw: str
    reasoned: bool
    question: str = ""
    options: tuple[str, ...] = ()

    def __new__(cls, text: str, raw: str, reasoned: bool = True) -> "Answer":
        answer = super().__new__(cls, text)
        answer.raw = raw
        answer.reasoned = reasoned
        return answer

    def __getnewargs__(self) -> tuple[Any, ...]:  # pickling and copying call __new__ with these
        return str(self), self.raw, self.reasoned


def read_asked(
    decoded: str, example: Example = None, is_target: bool = False, *, read: Callable[..., Answer]
) -> Answer:
    """`read`'s answer; a target gets the question and options, for metrics that use them."""
    answer = read(decoded, example, is_target)
    if is_target and example is not None:
        record = json.loads(text_of(example.get("record", "{}")))
        answer.question = record.get("fields", {}).get("question", "")
        answer.options = tuple(texts_of(example, "options"))
    return answer


def raw_reply(prediction: str) -> str:
    """The whole reply behind a prediction."""
    return getattr(prediction, "raw", prediction)


@functools.cache
def _next_question(words: tuple[str, ...]) -> re.Pattern[str]:
    """ "Q:" after a blank (not all vocabularies have newlines), "Question:" on a line of its own,
    and `words` with a colon anywhere but at the start.
    """
    starts = [r"\sQ", r"\n\s*Question", *(rf"(?<=\S)\s*{re.escape(word)}" for word in words)]
    return re.compile(rf"(?:{'|'.join(starts)})\s*[:：]")


def own_reply(text: str, next_questions: tuple[str, ...] = ()) -> str:
    """A reply without the questions that a model made up after it.

    Args:
        next_questions: words that head a question, in addition to "Q" and "Question".

    >>> own_reply("Paris\\n\\nQ: And of Spain?\\nA: Madrid")
    'Paris'
    """
    return _next_question(next_questions).split(text, maxsplit=1)[0].strip()


def concluded(text: str) -> str | None:
    """The rest of the line after the last "answer is"; None without these words.

    >>> concluded("2 + 2 = 4. So the answer is 4.\\nThat is all.")
    '4'
    """
    markers = list(_MARKER.finditer(text))
    if not markers:
        return None
    line = text[markers[-1].end() :].strip().partition("\n")[0].strip()
    return line.removesuffix(".").rstrip()


def is_reasoned(example: Example) -> bool:
    """Whether the prompt asked for reasoning before the answer."""
    return text_of((example or {}).get("template", "")).startswith("cot")


def read_choice(decoded: str, example: Example = None, is_target: bool = False) -> Answer:
    """A choice by its letter: "B" for "(B)", "B.", "The answer is (B)." or the option's text."""
    options, markers = texts_of(example, "options"), texts_of(example, "markers")
    index = None
    if is_target and example is not None:
        index = int(example["answer_index"])
    elif (answer := _answer_text(decoded, example)) is not None:
        answer = _OPTION_WORD.sub("", answer)
        if not _SEVERAL.match(answer) or plain(answer) in map(plain, options):
            index = match_option(answer, options, markers)
    letter = "" if index is None else plain(markers[index]).upper()
    return Answer(letter, decoded, is_reasoned(example))


def read_exact(decoded: str, example: Example = None, is_target: bool = False) -> Answer:
    """A text to be matched exactly, as BIG-Bench Hard's: a last full stop aside.

    Case, brackets, quotation marks and text after a letter all count: where "(B)" is right, "B",
    "(b)" and "(B) Tuesday" are wrong. Blanks count as one, because not all vocabularies keep them.
    """
    answer = decoded if is_target else _answer_text(decoded, example)
    text = " ".join((answer or "").split()).removesuffix(".").rstrip()
    return Answer(text, decoded, is_reasoned(example))


def read_number(
    decoded: str,
    example: Example = None,
    is_target: bool = False,
    *,
    phrases: Sequence[str] = (),
    next_questions: tuple[str, ...] = (),
    form: NumberForm = ENGLISH,
) -> Answer:
    """A number in one form ("1,200.0" is "1200").

    Targets have English number format in every language.

    Args:
        phrases: texts before the answer in languages without "answer is"; the first number after
            the last such phrase counts. Neither case nor composition of letters matters:
            vocabularies with compatibility normalisation decompose Thai ones.
        next_questions: as `own_reply`'s.
        form: how the language of `phrases` writes numbers; after "answer is" it is English.
    """
    reasoned = is_reasoned(example)
    if is_target:
        numbers = numbers_in(decoded)[-1:]
        return Answer(canonical(numbers[0]) if numbers else decoded.strip(), decoded, reasoned)
    own = own_reply(decoded, next_questions)
    ends = {match.end(): ENGLISH for match in _MARKER.finditer(own)}
    for phrase in _both_forms(phrases):
        pattern = re.escape(phrase) + word_end(phrase)
        ends |= {m.end(): form for m in re.finditer(pattern, own, re.IGNORECASE)}
    last = max(ends, default=0)
    numbers = numbers_in(own[last:], ends.get(last, form)) if ends or not reasoned else []
    return Answer(canonical(numbers[0]) if numbers else "", decoded, reasoned)


def read_label(decoded: str, example: Example = None, is_target: bool = False) -> Answer:
    """A label or a short text: first line, without case and punctuation around it.

    Where the prompt showed options, an answer by marker or by text becomes the option's text.
    """
    answer: str | None = None
    if is_target and example is not None:
        answer = text_of(example["answer"])
    elif (text := _answer_text(decoded, example)) is not None:
        answer = chosen_option(text, example)
    return Answer(plain(answer or ""), decoded, is_reasoned(example))


def read_span(
    decoded: str, example: Example = None, is_target: bool = False
) -> str | tuple[str, ...]:
    """A span of a passage: the first line of a reply; a target becomes all accepted spans.

    Their compatibility form (NFKC) is accepted too, since some vocabularies write no other.
    """
    if is_target:
        return _both_forms(texts_of(example, "references") or (decoded,))
    return Answer(own_reply(decoded).partition("\n")[0].strip(), decoded)


def read_summary(
    decoded: str, example: Example = None, is_target: bool = False
) -> str | tuple[str, ...]:
    """Free text, trimmed; a target becomes all references."""
    if is_target:
        return tuple(texts_of(example, "references")) or (decoded,)
    return decoded.strip()


def _answer_text(decoded: str, example: Example) -> str | None:
    """The answering part of a reply; None if a reasoned one reaches no answer."""
    own = own_reply(decoded)
    if is_reasoned(example):
        return concluded(own)
    own = own.partition("\n\n")[0]
    answer = concluded(own)
    return own.partition("\n")[0].strip() if answer is None else answer


def _both_forms(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts as they are and in Unicode's compatibility form (NFKC), each once."""
    return tuple(dict.fromkeys([*texts, *(unicodedata.normalize("NFKC", t) for t in texts)]))
