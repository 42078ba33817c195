"""Self-consistency (Wang et al. 2022): several reasoned answers to a question, and their majority.

All samples of a question are drawn in one call, from one encoding of it. How an answer is read from
a text is the task's own `postprocess_fn`.
"""

import collections
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from instruct.errors import UserError
from instruct.eval.decoding.batching import Decoder


class Vote(NamedTuple):
    """The majority answer of one question.

    Attributes:
        answer: the answer of most samples; None if none could be read.
        place: the sample to show for it, the likeliest with that answer; 0 if there is none.
        votes: how many samples gave it.
        read: how many samples gave any answer.
    """

    answer: Any
    place: int
    votes: int
    read: int


def majority(answers: Sequence[Any], log_likelihoods: Sequence[float]) -> Vote:
    """The answer that most samples give; of equally many the one with the likeliest sample.

    Args:
        answers: as read; None, or a text of spaces only, is no answer and no vote. Lists and dicts
            are compared by their `repr`.
        log_likelihoods: of each sample.

    Worked example: answers [4, 5, None, 5, 4] with log-likelihoods [-9, -2, -1, -8, -3]: two votes
    each for 4 and 5; the likeliest sample of 5 (-2) beats that of 4 (-3).
    """
    if len(answers) != len(log_likelihoods):
        raise ValueError(f"{len(answers)} answers but {len(log_likelihoods)} log-likelihoods")
    given: dict[Hashable, list[int]] = collections.defaultdict(list)
    for place, answer in enumerate(answers):
        if answer is not None and not (isinstance(answer, str) and not answer.strip()):
            given[_key(answer)].append(place)
    if not given:
        return Vote(None, 0, 0, 0)

    def rank(places: list[int]) -> tuple[int, float, int]:
        best = max(places, key=lambda place: log_likelihoods[place])
        return len(places), float(log_likelihoods[best]), -best

    places = max(given.values(), key=rank)
    best = max(places, key=lambda place: log_likelihoods[place])
    return Vote(answers[best], best, len(places), sum(map(len, given.values())))


def _key(answer: Any) -> Hashable:
    """Equal answers have equal keys; True is not 1, and "1" is neither."""
    return (
        (type(answer).__name__, answer) if isinstance(answer, str | int | float) else repr(answer)
    )


class Consistent(NamedTuple):
    """The samples and the majority answer of every question."""

    votes: list[Vote]
    texts: list[list[str]]  # per question, of each sample
    log_likelihoods: np.ndarray  # [questions, samples] float32


def self_consistent(
    decoder: Decoder,
    params: Any,
    inputs: Sequence[Sequence[int]],
    decode_fn: Callable[[list[int]], str],
    read_fn: Callable[[str, int], Any],
    example_ids: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Consistent:
    """Samples every question `DecodeConfig.num_samples` times and takes the majority's answer.

    Args:
        decoder: with strategy 'sample'; the paper has 40 samples at temperature 0.7.
        params: the model's parameters.
        inputs: token ids of each question.
        decode_fn: token ids -> text.
        read_fn: (text, which question) -> the answer in a form in which equal answers are equal,
            None if there is none: the task's `postprocess_fn` with its example.
        example_ids: as `Decoder.generate`'s.
        progress: as `Decoder.generate`'s.

    Raises:
        UserError: the decoder does not sample.
    """
    if decoder.config.strategy != "sample":
        raise UserError(
            f"self-consistency needs strategy='sample' with num_samples above 1 (the paper: 40 at "
            f"temperature=0.7), not {decoder.config.strategy!r}, whose answers are all the same"
        )
    found = decoder.generate(params, inputs, example_ids, progress)
    votes, texts = [], []
    for number, (tokens, scores) in enumerate(zip(found.tokens, found.scores)):
        texts.append([decode_fn(row.tolist()) for row in tokens])
        answers = [read_fn(text, number) for text in texts[-1]]
        votes.append(majority(answers, scores.tolist()))
    return Consistent(votes, texts, found.scores)
