"""Self-consistency (Wang et al. 2022): the majority answer of several samples per question.

The samples of a question share one encoding of it. The task's `postprocess_fn` extracts answers.
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
        answer: the answer of most samples; None if no sample has an answer.
        sample: number of the likeliest sample with that answer; 0 if there is none.
        votes: number of samples with that answer.
        read: number of samples with any answer.
    """

    answer: Any
    sample: int
    votes: int
    read: int


def majority(answers: Sequence[Any], log_likelihoods: Sequence[float]) -> Vote:
    """The answer of most samples; ties go to the answer with the likeliest sample.

    Args:
        answers: of each sample; None or blank text is no vote. Lists and dicts are compared by
            their `repr`.
        log_likelihoods: of each sample.

    Worked example: answers [4, 5, None, 5, 4] with log-likelihoods [-9, -2, -1, -8, -3]: two votes
    each for 4 and 5; the likeliest sample of 5 (-2) beats that of 4 (-3).
    """
    if len(answers) != len(log_likelihoods):
        raise ValueError(f"{len(answers)} answers but {len(log_likelihoods)} log-likelihoods")
    samples: dict[Hashable, list[int]] = collections.defaultdict(list)  # by answer, likeliest first
    for number in sorted(range(len(answers)), key=lambda n: -log_likelihoods[n]):
        answer = answers[number]
        if answer is not None and not (isinstance(answer, str) and not answer.strip()):
            # The type separates True, 1 and "1".
            plain = isinstance(answer, str | int | float)
            samples[(type(answer), answer) if plain else repr(answer)].append(number)
    if not samples:
        return Vote(None, 0, 0, 0)
    most = max(samples.values(), key=len)  # of equally many the first, which is likelier
    return Vote(answers[most[0]], most[0], len(most), sum(map(len, samples.values())))


class Consistent(NamedTuple):
    """Samples and majority answer of every question."""

    votes: list[Vote]
    texts: list[list[str]]  # [questions][samples]
    log_likelihoods: np.ndarray  # [questions, samples] float32


def self_consistent(
    decoder: Decoder,
    params: Any,
    inputs: Sequence[Sequence[int]],
    decode_fn: Callable[[list[int]], str],
    read_fn: Callable[[str, int], Any],
    example_ids: Sequence[int] | None = None,
) -> Consistent:
    """Samples every question `DecodeConfig.num_samples` times and takes the majority answer.

    Args:
        decoder: with strategy 'sample'; the paper draws 40 samples at temperature 0.7.
        params, inputs, example_ids: see `Decoder.generate`.
        decode_fn: token ids -> text.
        read_fn: (text, question number) -> answer, None if there is none; equal answers compare
            equal.

    Raises:
        UserError: the decoder does not sample.
    """
    if decoder.config.strategy != "sample":
        raise UserError(
            f"self-consistency needs strategy='sample' with num_samples above 1 (the paper: 40 at "
            f"temperature=0.7), not {decoder.config.strategy!r}, whose answers are all the same"
        )
    samples = decoder.generate(params, inputs, example_ids)
    votes, texts = [], []
    for number, (tokens, scores) in enumerate(zip(samples.tokens, samples.scores)):
        texts.append([decode_fn(row.tolist()) for row in tokens])
        answers = [read_fn(text, number) for text in texts[-1]]
        votes.append(majority(answers, scores.tolist()))
    return Consistent(votes, texts, samples.scores)
