"""Pretraining objectives: the tokens of a text -> (inputs, targets), fixed by one integer.

Worked arrays, for the ten tokens 10 .. 19, sentinels 99, 98, ... and EOS 1 added to both sides:

    span corruption, density 0.3, spans of mean 1.5: 3 tokens of noise in 2 spans
        inputs   10 11 99 14 15 16 17 18 98 1
        targets  99 12 13 98 19 1
    prefix LM (density 0.5): a suffix of 1 to 9 tokens, all equally likely, here 4
        inputs   10 11 12 13 14 15 1
        targets  16 17 18 19 1
    causal LM (density 1)
        inputs   1
        targets  10 11 12 13 14 15 16 17 18 19 1

Lengths of span corruption are those of T5 (`random_spans_helper`, `random_spans_noise_mask` of
t5.data.preprocessors). For L tokens:

    noise   = round(density L), from 1 to L - 1
    spans   = round(noise / mean_span), at least 1
    inputs  = L - noise + spans + 1,   targets = noise + spans + 1

so T5's 512 inputs hold L = 568 tokens at 15 % and spans of 3, and their targets need 114. Spans
alternate, text first, noise last; all divisions into spans are equally likely.
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from instruct.errors import UserError
from instruct.fields import bounded, check_fields
from instruct.prompts.draws import Draws
from instruct.prompts.template import TemplateSet

_DENOISER, _START, _NOISE, _TEXT = range(4)
# Unused tokens that published tokenizers have: T5's, Gemma's, Llama 3's.
_SENTINEL_NAMES = ("<extra_id_{}>", "<unused{}>", "<|reserved_special_token_{}|>")
_MOST_SENTINELS = 1000


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """One way to divide a text into inputs and targets.

    Attributes:
        id: stands in results for the name of a template.
        density: mean share of the text's tokens that are targets.
        mean_span: tokens of a span; None: one span, the end of the text, whose length is uniform
            from 1 to 2 density L - 1 (at most L - 1), so that 0.5 is T5's prefix LM; density 1: the
            whole text.
        mode_token: text before the inputs; "" for none.
        marks_end: a sentinel ends the inputs where the span at the end of the text goes on.
        weight: relative chance of being drawn.
    """

    id: str
    density: float = bounded(0.15, above=0, most=1)
    mean_span: float | None = bounded(None, least=1, note=", for example 3.0, or None")
    mode_token: str = ""
    marks_end: bool = False
    weight: float = bounded(1.0, above=0)

    __post_init__ = check_fields

    @property
    def least_tokens(self) -> int:
        """Tokens of the shortest text that can be divided."""
        return 1 if self.mean_span is None and self.density == 1 else 2

    def spans(self, length: int) -> tuple[int, int]:
        """(noise tokens, spans) of a text of `length` tokens; `mean_span` must be set."""
        noise = min(max(round(length * self.density), 1), length - 1)
        spans = max(round(noise / (self.mean_span or noise)), 1)
        return noise, min(spans, noise, length - noise)

    def longest_text(self, inputs: int, targets: int, sentinels: int) -> int:
        """Tokens of the longest text that fits.

        Args:
            inputs, targets: room without EOS and mode token.
            sentinels: how many the vocabulary has; each span needs one.
        """
        if self.mean_span is None:
            return targets if self.density == 1 else inputs

        def is_too_long(length: int) -> bool:
            noise, spans = self.spans(length)
            fits = length - noise + spans <= inputs and noise + spans <= targets
            return not fits or spans > sentinels

        return 1 + bisect.bisect_left(range(2, inputs + targets + 1), True, key=is_too_long)

    def divide(
        self, ids: Sequence[int], key: int, sentinels: Sequence[int], most_targets: int
    ) -> tuple[list[int], list[int]]:
        """(inputs, targets) of a text of `longest_text` tokens at most; `key` fixes the draws."""
        length = len(ids)
        if self.mean_span is None:
            most = min(round(2 * self.density * length) - 1, length - 1, most_targets)
            suffix = 1 + Draws(key, _NOISE).below(max(most, 1))
            pivot = 0 if self.density == 1 else length - suffix
            return [*ids[:pivot], *sentinels[: self.marks_end]], list(ids[pivot:])
        noise, spans = self.spans(length)
        noise_lengths = _parts(noise, spans, Draws(key, _NOISE))
        text_lengths = _parts(length - noise, spans, Draws(key, _TEXT))
        inputs, targets, start = [], [], 0
        for sentinel, text_length, noise_length in zip(sentinels, text_lengths, noise_lengths):
            pivot, end = start + text_length, start + text_length + noise_length
            inputs += [*ids[start:pivot], sentinel]
            targets += [sentinel, *ids[pivot:end]]
            start = end
        return inputs, targets


def _parts(size: int, count: int, draws: Draws) -> list[int]:
    """`count` positive lengths that add up to `size`, all divisions equally likely."""
    cuts = [0, *(cut + 1 for cut in draws.subset(size - 1, count - 1)), size]
    return [end - start for start, end in itertools.pairwise(cuts)]


_R, _S, _X = "[NLU]", "[S2S]", "[NLG]"  # mode tokens of the released UL2 checkpoints


@dataclasses.dataclass(frozen=True)
class DenoiserSet(TemplateSet):
    """The denoisers of each objective (OBJECTIVES); one is drawn for each example by weight.

    Attributes:
        span_corruption: T5 (Raffel et al. 2020, arXiv 1910.10683, 3.3.4).
        prefix_lm: T5's prefix LM, with which T5 1.1 was adapted (Lester et al. 2021, 2104.08691).
        causal_lm: the next token of the whole text (PaLM, cont-PaLM).
        ul2: seven equally likely denoisers (Tay et al. 2022, arXiv 2205.05131, table 1): regular,
            sequential (a suffix of mean L / 4) and extreme. A sentinel ends the inputs of the
            sequential one, as in the prompts of the released checkpoints.
        u_palm: half prefix LM, a quarter regular, a quarter extreme (Tay et al. 2022, 2210.11399).
    """

    name: str = "denoisers"
    input_fields: tuple[str, ...] = ()
    span_corruption: tuple[Denoiser, ...] = (Denoiser("r_3_15", 0.15, 3.0),)
    prefix_lm: tuple[Denoiser, ...] = (Denoiser("s_50", 0.5),)
    causal_lm: tuple[Denoiser, ...] = (Denoiser("causal", 1.0),)
    ul2: tuple[Denoiser, ...] = (
        Denoiser("r_3_15", 0.15, 3.0, _R),
        Denoiser("r_8_15", 0.15, 8.0, _R),
        Denoiser("s_25", 0.25, None, _S, marks_end=True),
        Denoiser("x_3_50", 0.5, 3.0, _X),
        Denoiser("x_8_50", 0.5, 8.0, _X),
        Denoiser("x_64_15", 0.15, 64.0, _X),
        Denoiser("x_64_50", 0.5, 64.0, _X),
    )
    u_palm: tuple[Denoiser, ...] = (
        Denoiser("s_50", 0.5, None, _S, weight=4.0),
        Denoiser("r_3_15", 0.15, 3.0, _R, weight=2.0),
        Denoiser("x_32_15", 0.15, 32.0, _X),
        Denoiser("x_3_50", 0.5, 3.0, _X),
    )

    def denoisers(self, objective: str) -> tuple[Denoiser, ...]:
        """The denoisers of one of OBJECTIVES."""
        return getattr(self, objective)

    def draw_denoiser(self, objective: str, key: int) -> Denoiser:
        """A weighted draw."""
        denoisers = self.denoisers(objective)
        cumulative = tuple(itertools.accumulate(denoiser.weight for denoiser in denoisers))
        return denoisers[Draws(key, _DENOISER).weighted(cumulative)]

    def sentinels(self, objective: str, tokenizer: Any) -> Sequence[int]:
        """Sentinels of a vocabulary, if the objective needs any, in the order of T5's.

        Raises:
            UserError: it needs sentinels, and the vocabulary has none.
        """
        if not any(d.mean_span is not None or d.marks_end for d in self.denoisers(objective)):
            return ()
        if count := getattr(tokenizer, "extra_ids", 0):
            return range(tokenizer.vocab_size - 1, tokenizer.vocab_size - 1 - count, -1)
        if found := _named_sentinels(tokenizer.encode, tokenizer.unk_id):
            return found
        raise UserError(
            f"vocabulary {getattr(tokenizer, 'spec', tokenizer)!r} has no sentinels, which the "
            f"objective {objective!r} needs. Use one that has, such as 'bytes#extra_ids=100' or "
            "PATH.model#extra_ids=100, or add the tokens <extra_id_0> .. <extra_id_99> to the "
            "folder's tokenizer (the model needs their embedding rows); or use prefix_lm or "
            "causal_lm, which need none."
        )


@functools.lru_cache(maxsize=8)
def _named_sentinels(encode_fn: Callable[[str], Sequence[int]], unk_id: int) -> tuple[int, ...]:
    """Ids of the first family of _SENTINEL_NAMES whose names are single tokens."""
    for form in _SENTINEL_NAMES:
        names = (encode_fn(form.format(number)) for number in range(_MOST_SENTINELS))
        single = itertools.takewhile(lambda ids: len(ids) == 1, names)
        found = tuple(ids[0] for ids in single)
        if found and unk_id not in found:
            return found
    return ()


def choose_text(ids: Sequence[int], room: int, key: int) -> Sequence[int]:
    """`room` consecutive tokens from a drawn start, or all if they fit."""
    room = max(room, 0)
    start = Draws(key, _START).below(len(ids) - room + 1) if len(ids) > room else 0
    return ids[start : start + room]
