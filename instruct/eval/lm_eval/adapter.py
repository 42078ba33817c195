"""Answers the three kinds of request of EleutherAI's lm-evaluation-harness with an encoder-decoder.

    loglikelihood          (context, continuation) -> (log-likelihood, whether greedy decoding
                           gives the continuation)
    loglikelihood_rolling  (text,) -> log-likelihood of the whole text
    generate_until         (context, settings) -> generated text

The context goes to the encoder and ends with EOS, the continuation to the decoder. Blanks that
separate the two belong to neither: a continuation loses those at its start. A context that is too
long loses its start, so that the question after the exemplars stays. The harness is not imported.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from instruct.batch import DECODER_LOSS_WEIGHTS, DECODER_TARGET_TOKENS
from instruct.errors import UserError, unknown_name
from instruct.eval.decoding.batching import Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.model_outputs import Vocabulary
from instruct.eval.scoring.score import Scorer, summed_logprobs
from instruct.fields import bounded, check_fields

# Names that other back ends use for the same thing; the first that is given counts.
LENGTH_SETTINGS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
SAMPLE_SETTINGS = ("do_sample", "temperature", "top_k", "top_p")
SETTINGS = ("until", *LENGTH_SETTINGS, *SAMPLE_SETTINGS, "num_beams", "length_penalty")

_log = logging.getLogger(__name__)


class ContinuationScorer(Scorer):
    """Log-likelihoods of targets, and which of them greedy decoding would have given."""

    _DTYPES = (np.float32, bool)

    def _score_batch(self, params, batch):
        logits = self._apply_fn(params, batch)
        total = summed_logprobs(logits, batch)
        likeliest = jnp.argmax(logits, axis=-1) == batch[DECODER_TARGET_TOKENS]
        return total, jnp.all(likeliest | (batch[DECODER_LOSS_WEIGHTS] == 0), axis=-1)

    def score_and_compare(
        self,
        params: Any,
        inputs: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihoods [examples] float32, and whether each of a target's tokens is the
        likeliest after those before it, [examples] bool. Arguments and errors: `Scorer.score`.
        """
        scores, greedy = self._all_scores(params, inputs, targets, progress)
        return scores, greedy


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Settings that affect answers.

    Attributes:
        max_length: most tokens of a context, EOS included, and of a window of a rolling text.
        max_gen_toks: most tokens to generate where a request does not say.
        score_eos: count EOS after a continuation, as T5X's scores and this program's rank
            classification do; False: as the harness's `hf` model does with an encoder-decoder.
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
    """A model that answers requests; all answers are in the order of the requests.

    Attributes:
        scorer: of the model.
        decoder_fn: a decoder of the model for a strategy.
        params: the model's parameters.
        vocabulary: text to tokens and back.
        config: see `AdapterConfig`.
    """

    scorer: ContinuationScorer
    decoder_fn: Callable[[DecodeConfig], Decoder]
    params: Any
    vocabulary: Vocabulary
    config: AdapterConfig = AdapterConfig()

    def __post_init__(self) -> None:
        self._decoders: dict[DecodeConfig, Decoder] = {}

    def loglikelihood(
        self,
        requests: Sequence[tuple[str, str]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, natural logarithm, and whether it is greedy's.

        Args:
            requests: (context, continuation); both may be empty.
            progress: called now and then with the number of requests just finished.
        """
        contexts = self._contexts([context for context, _ in requests])
        targets = [self._scored_ids(text.lstrip() or text) for _, text in requests]
        return self._score(contexts, targets, progress)

    def loglikelihood_rolling(
        self, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None
    ) -> list[float]:
        """Log-likelihood of each text, summed over windows of it (see `rolling_windows`)."""
        end = self.vocabulary.eos_id
        windows = [
            (number, *window)
            for number, text in enumerate(texts)
            for window in rolling_windows(self._scored_ids(text), end, self.config.max_length)
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
        """The text generated for each context, up to EOS or the first of the stop strings.

        Args:
            requests: (context, settings); for settings see `decode_settings`.
            progress: called now and then with the number of requests just finished.
            first_number: number of the first request; samples follow from it and the seed.

        Raises:
            UserError: a setting that is not known or has a value out of range.
        """
        contexts = self._contexts([context for context, _ in requests])
        groups: dict[DecodeConfig, list[int]] = {}
        stops = []
        for place, (_, settings) in enumerate(requests):
            strategy, until = decode_settings(settings, self.config, self.vocabulary.eos_id)
            groups.setdefault(strategy, []).append(place)
            stops.append(until)
        texts = [""] * len(requests)
        for strategy, places in groups.items():
            if strategy not in self._decoders:
                self._decoders[strategy] = self.decoder_fn(strategy)
            found = self._decoders[strategy].generate(
                self.params,
                [contexts[place] for place in places],
                [first_number + place for place in places],
                progress,
            )
            for place, rows in zip(places, found.tokens):
                texts[place] = cut_at(self.vocabulary.decode(rows[0].tolist()), stops[place])
        return texts

    def _contexts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens for the encoder: the end of a text that is too long, EOS last."""
        longest, end = self.config.max_length, self.vocabulary.eos_id
        ids = [[*self.vocabulary.encode(text), end] for text in texts]
        cut = sum(len(tokens) > longest for tokens in ids)
        if cut:
            _log.warning(
                "%d of %d contexts are longer than max_length=%d tokens and lose their start",
                *(cut, len(ids), longest),
            )
        return [tokens[-longest:] for tokens in ids]

    def _scored_ids(self, text: str) -> list[int]:
        ids = self.vocabulary.encode(text)
        return [*ids, self.vocabulary.eos_id] if self.config.score_eos else ids

    def _score(
        self,
        inputs: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[tuple[float, bool]]:
        """No token at all is certain: (0, True)."""
        answers = [(0.0, True)] * len(inputs)
        asked = [place for place, ids in enumerate(targets) if ids]
        progress(len(inputs) - len(asked))
        if asked:
            scores, greedy = self.scorer.score_and_compare(
                self.params,
                [inputs[place] for place in asked],
                [targets[place] for place in asked],
                progress,
            )
            for place, score, equal in zip(asked, scores, greedy):
                answers[place] = (float(score), bool(equal))
        return answers


def rolling_windows(
    tokens: Sequence[int], prefix: int, length: int
) -> list[tuple[list[int], list[int]]]:
    """(for the encoder, for the decoder) of each window, as the harness cuts for encoder-decoders.

    Each token is predicted once, at most `length` in a window. A full window follows one token of
    context, the first one `prefix`; the last, shorter one has as much context as makes `length`
    with all but one of its own.

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
    """The text before the first place where one of the strings stands; empty ones do not count."""
    places = [text.find(stop) for stop in stops if stop]
    return text[: min([place for place in places if place >= 0], default=len(text))]


def decode_settings(
    settings: Mapping[str, Any], config: AdapterConfig, eos_id: int
) -> tuple[DecodeConfig, tuple[str, ...]]:
    """The strategy and the stop strings that a request's settings ask for.

    Args:
        settings: `until`, a string or several; `max_gen_toks` (or another of LENGTH_SETTINGS);
            `do_sample`, without which a temperature above 0 says it; `temperature`, `top_k`,
            `top_p` of sampling (without effect on greedy decoding); `num_beams` and
            `length_penalty`, by transformers' rules. None is as if not given.
        config: defaults and seed.
        eos_id: the token that ends a text.

    Raises:
        UserError: another setting, or a value out of range.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given:
        if name not in SETTINGS:
            raise unknown_name("generation setting", str(name), SETTINGS)
    until = given.get("until", ())
    stops = (until,) if isinstance(until, str) else until
    if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) for stop in stops):
        raise UserError(
            f"generation setting until is {until!r}, must be a string or a list of them"
        )
    lengths = [given[name] for name in LENGTH_SETTINGS if name in given]
    steps = lengths[0] if lengths else config.max_gen_toks
    temperature = given.get("temperature")
    sample = given.get("do_sample", bool(temperature)) and temperature != 0
    beams = given.get("num_beams", 1)
    if sample and beams != 1:
        raise UserError(f"num_beams is {beams!r} and sampling is on; use one of the two")
    shared = {"max_decode_steps": steps, "eos_id": eos_id}
    if sample:
        strategy = DecodeConfig(
            strategy="sample",
            temperature=1.0 if temperature is None else temperature,
            top_k=given.get("top_k", 0),
            top_p=given.get("top_p", 1.0),
            seed=config.seed,
            **shared,
        )
    elif beams != 1:
        strategy = DecodeConfig(
            strategy="beam",
            num_beams=beams,
            length_penalty=given.get("length_penalty", 1.0),
            beam_rules="transformers",
            **shared,
        )
    else:
        strategy = DecodeConfig(**shared)
    return strategy, tuple(stops)
