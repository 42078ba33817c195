"""Log-likelihoods of given targets, and choosing among answer options by them.

No model is imported: scoring needs `apply_fn(params, batch) -> logits [B, T, V]`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from instruct.batch import (
    DECODER_INPUT_TOKENS,
    DECODER_LOSS_WEIGHTS,
    DECODER_TARGET_TOKENS,
    ENCODER_INPUT_TOKENS,
)
from instruct.eval.decoding.batching import (
    PADDING_EXAMPLE,
    BatchConfig,
    BatchRunner,
    check_not_empty,
    padded_rows,
    plan_buckets,
    rounded_length,
)
from instruct.eval.decoding.decode import token_logprobs


def log_likelihood(
    apply_fn: Callable[[Any, Mapping[str, jax.Array]], jax.Array],
    params: Any,
    batch: Mapping[str, jax.Array],
) -> jax.Array:
    """`summed_logprobs` of what the model gives for `batch`, [B] float32."""
    return summed_logprobs(apply_fn(params, batch), batch)


def summed_logprobs(logits: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Sum of the targets' log-probabilities where the loss weight is not 0, [B] float32.

    Args:
        logits: [B, T, V].
    """
    counted = batch[DECODER_LOSS_WEIGHTS] != 0
    return (token_logprobs(logits, batch[DECODER_TARGET_TOKENS]) * counted).sum(axis=-1)


class Scorer:
    """Scores (inputs, targets) pairs in buckets of few shapes; compiles once per bucket.

    Args:
        apply_fn: (params, batch) -> logits [B, T, V], without dropout.
        batching: rows and buckets.
        mesh: where parameters live and batches are split over the data axes; None: one device.
    """

    def __init__(
        self,
        apply_fn: Callable[[Any, Mapping[str, jax.Array]], jax.Array],
        batching: BatchConfig | None = None,
        mesh: Mesh | None = None,
    ):
        self._apply_fn = apply_fn
        self._batching = batching or BatchConfig()
        self._runner = BatchRunner(self._score_batch, mesh)

    def _score_batch(self, params: Any, batch: Mapping[str, jax.Array]) -> Any:
        return log_likelihood(self._apply_fn, params, batch)

    def score(
        self,
        params: Any,
        inputs: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> np.ndarray:
        """Log-likelihood of each target given its input, [examples] float32.

        Args:
            params: the model's parameters, on the mesh if there is one.
            inputs: token ids of each example, EOS included.
            targets: token ids, EOS included if ending there is to count (T5X: yes).
            progress: called after each batch with the number of pairs just finished.

        Raises:
            ValueError: an empty input or target, or unequal numbers of them.
        """
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} inputs but {len(targets)} targets")
        check_not_empty(inputs)
        check_not_empty(targets)
        scores = np.zeros((len(inputs),), np.float32)
        for numbers, found in self._runner(params, self._batches(inputs, targets)):
            real = numbers != PADDING_EXAMPLE
            scores[numbers[real]] = found[real]
            progress(int(real.sum()))
        return scores

    def _batches(self, inputs, targets):
        """(example numbers, (batch,)): one target length per bucket, its longest target's."""
        plan = plan_buckets(
            [len(ids) for ids in inputs],
            self._batching.batch_size,
            self._batching.max_shapes,
            self._runner.row_multiple,
        )
        for bucket in plan:
            members = bucket.batches[bucket.batches != PADDING_EXAMPLE]
            longest = rounded_length(max(len(targets[number]) for number in members))
            for numbers in bucket.batches:
                source = padded_rows(inputs, numbers, bucket.length)
                yield numbers, (scoring_batch(source, padded_rows(targets, numbers, longest)),)


def scoring_batch(inputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """An unpacked batch of inputs [B, S] and targets [B, T], both padded with 0, int32.

    Worked example: targets [[3, 1, 0]] are fed as [[0, 3, 1]] with weights [[1, 1, 0]].
    """
    fed = np.zeros_like(targets)
    fed[:, 1:] = targets[:, :-1]
    return {
        ENCODER_INPUT_TOKENS: inputs,
        DECODER_INPUT_TOKENS: fed,
        DECODER_TARGET_TOKENS: targets,
        DECODER_LOSS_WEIGHTS: (targets != 0).astype(np.int32),
    }


class Ranking(NamedTuple):
    """The options of one question, by log-likelihood; of equals the first is chosen."""

    log_likelihoods: np.ndarray  # [options] float32, summed over an option's tokens
    lengths: np.ndarray  # [options] int32, tokens of each, EOS included if it was given

    @property
    def choice(self) -> int:
        """Number of the option with the highest log-likelihood (rank classification)."""
        return int(np.argmax(self.log_likelihoods))

    @property
    def normalised_choice(self) -> int:
        """Number of the option with the highest log-likelihood per token."""
        return int(np.argmax(self.log_likelihoods / self.lengths))


def rank_options(
    scorer: Scorer,
    params: Any,
    inputs: Sequence[Sequence[int]],
    options: Sequence[Sequence[Sequence[int]]],
    progress: Callable[[int], None] = lambda done: None,
) -> list[Ranking]:
    """Scores every answer option of every question as a target.

    Args:
        scorer: of the model.
        params: its parameters.
        inputs: token ids of each question.
        options: per question, token ids of each option; at least one.
        progress: as `Scorer.score`'s, counting options.

    Raises:
        ValueError: a question without options, or unequal numbers of questions and option lists.
    """
    if len(inputs) != len(options):
        raise ValueError(f"{len(inputs)} inputs but {len(options)} lists of options")
    check_not_empty(options)
    owners = [number for number, each in enumerate(options) for _ in each]
    targets = [option for each in options for option in each]
    scores = scorer.score(params, [inputs[owner] for owner in owners], targets, progress)
    ends = np.cumsum([len(each) for each in options])[:-1]
    lengths = np.array([len(target) for target in targets], np.int32)
    return [Ranking(*pair) for pair in zip(np.split(scores, ends), np.split(lengths, ends))]
