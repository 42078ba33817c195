"""Answers requests of EleutherAI's lm-evaluation-harness.

    loglikelihood          (context, continuation) -> (log-likelihood, is it greedy's?)
    loglikelihood_rolling  (text,) -> log-likelihood of the whole text
    generate_until         (context, settings) -> generated text

A context is framed as prompts were in training (an encoder reads it with EOS), and a continuation
has no leading blanks. Where nothing follows a prompt (another program's decoder), both are one
text, as in the harness's `hf` model. A context that is too long loses its start, so the question
after the exemplars stays. The harness is not imported.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from instruct.errors import UserError, unknown_name
from instruct.eval.decoding.batching import Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.scoring.score import Scorer, summed_logprobs
from instruct.fields import bounded, check_fields
from instruct.prompts.frame import Frame

# Synonyms in the harness's back ends; the first one set counts.
LENGTH_SETTINGS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
SETTINGS = (
    *("until", *LENGTH_SETTINGS, "do_sample", "temperature", "top_k", "top_p"),
    *("num_beams", "length_penalty"),
)

_log = logging.getLogger(__name__)


class ContinuationScorer(Scorer):
    """Log-likelihoods of targets, float32, and whether greedy decoding would give them, bool."""

    _DTYPES = (np.float32, bool)

    def _score_batch(self, params, inputs, targets):
        logits = self._logits_fn(params, inputs, targets)
        likeliest = jnp.argmax(logits, axis=-1) == targets
        return summed_logprobs(logits, targets), jnp.all(likeliest | (targets < 0), axis=-1)


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Settings that affect answers.

    Attributes:
        max_length: most tokens of a context, those of its frame included, and of a rolling window.
        max_gen_toks: most tokens to generate if a request does not say.
        score_eos: include EOS after a continuation, as T5X and this program's rank classification
            do; False: as the harness's `hf` model does with an encoder-decoder.
        seed: of sampling.

    Raises:
        UserError: a value out of range.
    """

    max_length: int = bounded(512, least=2)
    max_gen_toks: int = bounded(256, least=1)
    score_eos: bool = True
    seed: int = bounded(0, least=0)

    __post_init__ = check_fields


@dataclasses.dataclass
class RequestAnswerer:
    """A model that answers requests, in their order; `decoder_fn` builds a strategy's decoder."""

    scorer: ContinuationScorer
    decoder_fn: Callable[[DecodeConfig], Decoder]
    params: Any
    frame: Frame
    end_ids: tuple[int, ...]  # that end an answer, the end of sequence first
    config: AdapterConfig = AdapterConfig()

    def __post_init__(self) -> None:
        self._decoders: dict[DecodeConfig, Decoder] = {}

    def loglikelihood(
        self,
        requests: Sequence[tuple[str, str]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation in nats, and whether greedy decoding gives it.

        Args:
            requests: (context, continuation); both may be empty.
            progress: called with the number of requests that have just finished.
        """
        pairs = [self._pair(*request) for request in requests]
        contexts = self._cut([context for context, _ in pairs])
        return self._score(contexts, [target for _, target in pairs], progress)

    def loglikelihood_rolling(
        self, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None
    ) -> list[float]:
        """Log-likelihood of each text, summed over its windows (see `rolling_windows`)."""
        start = self.frame.start_ids[0] if self.frame.start_ids else self.end_ids[0]
        windows = [
            (number, *window)
            for number, text in enumerate(texts)
            for window in rolling_windows(self._scored_ids(text), start, self.config.max_length)
        ]
        contexts = [context for _, context, _ in windows]
        scores = self._score(contexts, [predicted for _, _, predicted in windows])
        totals = [0.0] * len(texts)
        for (number, _, _), (score, _) in zip(windows, scores):
            totals[number] += score
        progress(len(texts))
        return totals

    def generate_until(
        self,
        requests: Sequence[tuple[str, Mapping[str, Any]]],
        progress: Callable[[int], None] = lambda done: None,
        first_number: int = 0,
    ) -> list[str]:
        """Generates a text for each context, up to EOS or the first stop string.

        Args:
            requests: (context, settings); for settings see `decode_settings`.
            progress: called with the number of requests that have just finished.
            first_number: number of the first request; samples depend on it and the seed.

        Raises:
            UserError: an unknown setting or a value out of range.
        """
        contexts = self._cut([self.frame.prompt(context) for context, _ in requests])
        groups: dict[DecodeConfig, list[int]] = {}
        stops = []
        for number, (_, settings) in enumerate(requests):
            strategy, until = decode_settings(settings, self.config, self.end_ids)
            groups.setdefault(strategy, []).append(number)
            stops.append(until)
        texts = [""] * len(requests)
        for strategy, numbers in groups.items():
            if strategy not in self._decoders:
                self._decoders[strategy] = self.decoder_fn(strategy)
            inputs, ids = [contexts[n] for n in numbers], [first_number + n for n in numbers]
            generated = self._decoders[strategy].generate(self.params, inputs, ids, progress)
            for number, rows in zip(numbers, generated.tokens):
                text = self.frame.tokenizer.decode(strategy.answer_ids(rows[0]))
                texts[number] = cut_at(text, stops[number])
        return texts

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of a context in its frame and of its continuation.

        If they are one text, blanks at the context's end belong to the continuation, as in the
        harness. A continuation that the vocabulary merges into the context's last token has a token
        of its own nevertheless: without any it would be certain.
        """
        frame = self.frame
        if frame.separator:
            return frame.prompt(context), self._scored_ids(continuation.lstrip() or continuation)
        encode = frame.tokenizer.encode
        known, whole = encode(context.rstrip()), encode(context + continuation)
        if continuation and len(whole) <= len(known):
            return frame.started(known), self._scored_ids(continuation)
        return frame.started(whole[: len(known)]), self._ended(whole[len(known) :])

    def _cut(self, ids: Sequence[list[int]]) -> list[list[int]]:
        """Contexts; one that is too long loses its start, but for the frame's start tokens."""
        longest, start = self.config.max_length, self.frame.start_ids
        cut = sum(len(tokens) > longest for tokens in ids)
        if cut:
            _log.warning(
                "%d of %d contexts are longer than max_length=%d tokens and lose their start",
                *(cut, len(ids), longest),
            )
        kept = longest - len(start)
        return [[*start, *t[len(t) - kept :]] if len(t) > longest else t for t in ids]

    def _scored_ids(self, text: str) -> list[int]:
        return self._ended(self.frame.tokenizer.encode(text))

    def _ended(self, ids: Sequence[int]) -> list[int]:
        return [*ids, self.end_ids[0]] if self.config.score_eos else [*ids]

    def _score(
        self,
        inputs: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[tuple[float, bool]]:
        """Log-likelihoods and greedy agreement; (0.0, True) for empty targets."""
        answers = [(0.0, True)] * len(inputs)
        scored = [number for number, ids in enumerate(targets) if ids]
        progress(len(inputs) - len(scored))
        inputs, targets = [inputs[n] for n in scored], [targets[n] for n in scored]
        scores, greedy = self.scorer.score_all(self.params, inputs, targets, progress)
        for number, score, equal in zip(scored, scores, greedy):
            answers[number] = (float(score), bool(equal))
        return answers


def rolling_windows(
    tokens: Sequence[int], prefix: int, length: int
) -> list[tuple[list[int], list[int]]]:
    """Splits tokens into (context, predicted) windows as the harness does for encoder-decoders.

    Each token is predicted once, at most `length` per window. A full window has one token of
    context, the first one `prefix`; a shorter last window has more context instead.

    Worked example: tokens 10 to 16, prefix 1, length 4 ->
        ([1], [10, 11, 12, 13]), ([12, 13], [14, 15, 16])
    """
    windows = []
    for start in range(0, len(tokens), length):
        end = min(start + length, len(tokens))
        context = list(tokens[end - length - 1 : start]) if start else [prefix]
        windows.append((context, list(tokens[start:end])))
    return windows


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first occurrence of a stop string; empty stop strings are ignored."""
    return text[: min([text.find(stop) for stop in stops if stop and stop in text], default=None)]


def decode_settings(
    settings: Mapping[str, Any], config: AdapterConfig, end_ids: Sequence[int]
) -> tuple[DecodeConfig, tuple[str, ...]]:
    """Decoding strategy and stop strings of a request.

    Args:
        settings: `until`, a string or several; `max_gen_toks` (or another of LENGTH_SETTINGS);
            `do_sample`, by default whether the temperature is above 0; `temperature`, `top_k` and
            `top_p` of sampling (ignored by greedy decoding); `num_beams` and `length_penalty`, by
            transformers' rules. None means not set.
        config: defaults and seed.
        end_ids: tokens that end an answer, the end of sequence first.

    Raises:
        UserError: an unknown setting, or a value out of range.
    """
    values = {name: value for name, value in settings.items() if value is not None}
    for name in values:
        if name not in SETTINGS:
            raise unknown_name("generation setting", str(name), SETTINGS)
    until = values.get("until", ())
    stops = (until,) if isinstance(until, str) else until
    if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) for stop in stops):
        raise UserError(
            f"generation setting until is {until!r}, must be a string or a list of them"
        )
    lengths = [values[name] for name in LENGTH_SETTINGS if name in values]
    steps = lengths[0] if lengths else config.max_gen_toks
    temperature = values.get("temperature")
    sample = values.get("do_sample", bool(temperature)) and temperature != 0
    beams = values.get("num_beams", 1)
    if sample and beams != 1:
        raise UserError(f"num_beams is {beams!r} and sampling is on; use one of the two")
    fields: dict[str, Any] = {"max_decode_steps": steps}
    if sample:
        fields |= {"strategy": "sample", "seed": config.seed}
        names = ("temperature", "top_k", "top_p")
        fields |= {name: values[name] for name in names if name in values}
    elif beams != 1:
        fields |= {"strategy": "beam", "num_beams": beams, "beam_rules": "transformers"}
        fields["length_penalty"] = values.get("length_penalty", 1.0)
    return DecodeConfig(**fields).ending_with(end_ids), tuple(stops)
