"""Log-likelihoods of given targets (teacher forcing), in bucketed batches."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

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

# (params, inputs [B, S], targets [B, T]) -> logits [B, T, V] of each target token given the inputs
# and the targets before it; padding is below 0. `Model.target_logits` is one.
LogitsFn = Callable[[Any, jax.Array, jax.Array], jax.Array]


def summed_logprobs(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Log-likelihoods [B] float32 of targets [B, T], padded below 0, under logits [B, T, V]."""
    return (token_logprobs(logits, jnp.maximum(targets, 0)) * (targets >= 0)).sum(axis=-1)


class Scorer:
    """Scores (input, target) pairs; compiles once per bucket.

    Args:
        logits_fn: see `LogitsFn`.
        batching: rows and buckets.
        mesh: of the parameters; batches are split over its data axes. None: one device.
    """

    # dtypes of the arrays that `_score_batch` returns.
    _DTYPES: tuple[type, ...] = (np.float32,)

    def __init__(
        self,
        logits_fn: LogitsFn,
        batching: BatchConfig | None = None,
        mesh: Mesh | None = None,
    ):
        self._logits_fn = logits_fn
        self._batching = batching or BatchConfig()
        self._runner = BatchRunner(self._score_batch, mesh)

    def _score_batch(
        self, params: Any, inputs: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, ...]:
        return (summed_logprobs(self._logits_fn(params, inputs, targets), targets),)

    def score(
        self,
        params: Any,
        inputs: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> np.ndarray:
        """Log-likelihood of each target given its input, [examples] float32; see `score_all`."""
        return self.score_all(params, inputs, targets, progress)[0]

    def score_all(
        self,
        params: Any,
        inputs: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[np.ndarray]:
        """The arrays of `_score_batch` for all examples, [examples] each.

        Args:
            params: the model's parameters, on the mesh if there is one.
            inputs: token ids of each prompt, as `Decoder.generate` takes them.
            targets: token ids of each example; with EOS its probability counts (as in T5X).
            progress: called after each batch with the number of pairs in it.

        Raises:
            ValueError: an empty input or target, or unequal lengths.
        """
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} inputs but {len(targets)} targets")
        check_not_empty(inputs)
        check_not_empty(targets)
        scores = [np.zeros((len(inputs),), dtype) for dtype in self._DTYPES]
        for numbers, batch_scores in self._runner(params, self._batches(inputs, targets)):
            real = numbers != PADDING_EXAMPLE
            for kind, values in zip(scores, batch_scores, strict=True):
                kind[numbers[real]] = values[real]
            progress(int(real.sum()))
        return scores

    def _batches(self, inputs, targets):
        """(example numbers, (inputs, targets)); a bucket's batches have one target length."""
        size, shapes = self._batching.batch_size, self._batching.max_shapes
        multiple = self._runner.row_multiple
        for bucket in plan_buckets([len(ids) for ids in inputs], size, shapes, multiple):
            members = bucket.batches[bucket.batches != PADDING_EXAMPLE]
            longest = rounded_length(max(len(targets[number]) for number in members))
            for numbers in bucket.batches:
                source = padded_rows(inputs, numbers, bucket.length)
                yield numbers, (source, padded_rows(targets, numbers, longest))
