"""Rank classification: log-likelihoods of all options of a question in one row.

The options form a prefix tree. The question is encoded once and every distinct prefix decoded once
(tree attention), so four options with the same beginning, or "(A)" to "(D)", cost little more than
one. Options [3 5 1], [3 6 1], [4 1] have the tree

    node          0    1    2    3    4
    input token   0    3    5    6    4       EOS (1) is never an input; the root's is the model's
    depth         0    1    2    2    1
    parent        -    0    1    1    0

and option [3 6 1] has the log-probability of 3 after node 0, 6 after node 1 and 1 after node 3.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from instruct.eval.decoding.batching import (
    BatchConfig,
    BatchRunner,
    check_not_empty,
    padded_rows,
    plan_buckets,
    rounded_length,
)
from instruct.eval.decoding.search import PADDING, PADDING_EXAMPLE
from instruct.model_interface import Model

Options = Sequence[Sequence[int]]


class Ranking(NamedTuple):
    """Log-likelihoods of one question's options."""

    log_likelihoods: np.ndarray  # [options] float32, summed over an option's tokens
    lengths: np.ndarray  # [options] int32, tokens of each, EOS included


class PrefixTree(NamedTuple):
    """The distinct prefixes of a question's options, parents before children."""

    tokens: list[int]  # input token of each node
    parents: list[int]  # -1 for the root
    paths: list[list[int]]  # per option, the parent node of each of its tokens


def prefix_tree(options: Options) -> PrefixTree:
    """Builds the prefix tree of a question's options; see the example at the top of the file."""
    tokens, parents, paths = [0], [-1], []
    children: dict[tuple[int, int], int] = {}
    for option in options:
        path = [0]
        for token in option[:-1]:
            edge = (path[-1], int(token))
            if edge not in children:
                children[edge] = len(tokens)
                tokens.append(int(token))
                parents.append(path[-1])
            path.append(children[edge])
        paths.append(path)
    return PrefixTree(tokens, parents, paths)


class OptionScorer:
    """Scores all options of questions; compiles once per bucket of questions.

    Args:
        model: computes logits of prefix trees.
        batching: options per batch, and buckets.
        mesh: of the parameters; questions are split over its data axes. None: one device.
    """

    def __init__(self, model: Model, batching: BatchConfig | None = None, mesh: Mesh | None = None):
        self._model = model
        self._batching = batching or BatchConfig()
        self._runner = BatchRunner(self._score_batch, mesh)

    def _score_batch(self, params, batch):
        logits = self._model.tree_logits(
            params, batch["inputs"], batch["tokens"], batch["depths"], batch["seen"]
        )
        rows, options, length = batch["nodes"].shape
        # An edge needs its node's normaliser and one logit, not another [.., V] array.
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        nodes = batch["nodes"].reshape(rows, -1)
        row = jnp.arange(rows)[:, None]
        chosen = logits[row, nodes, jnp.maximum(batch["targets"], 0).reshape(rows, -1)]
        logprobs = (chosen - normaliser[row, nodes]).reshape(rows, options, length)
        return jnp.sum(jnp.where(batch["targets"] >= 0, logprobs, 0.0), axis=-1)

    def rank(
        self,
        params: Any,
        inputs: Sequence[Sequence[int]],
        options: Sequence[Options],
    ) -> list[Ranking]:
        """Scores every option of every question; inputs as `Decoder.generate` takes them.

        Raises:
            ValueError: an empty input or option, a question without options, or unequal lengths.
        """
        if len(inputs) != len(options):
            raise ValueError(f"{len(inputs)} inputs but {len(options)} lists of options")
        check_not_empty(inputs)
        check_not_empty(options)
        for each in options:
            check_not_empty(each)
        lengths = [np.array([len(option) for option in each], np.int32) for each in options]
        rankings: list[Any] = [None] * len(inputs)
        for numbers, scores in self._runner(params, self._batches(inputs, options)):
            for row, number in enumerate(numbers):
                if number != PADDING_EXAMPLE:
                    scores_of_row = scores[row, : len(options[number])]
                    rankings[number] = Ranking(scores_of_row, lengths[number])
        return rankings

    def _batches(self, inputs, options) -> Iterator[tuple[np.ndarray, tuple]]:
        trees = [prefix_tree(each) for each in options]
        most = max(map(len, options), default=1)
        size, shapes = max(1, self._batching.batch_size // most), self._batching.max_shapes
        multiple = self._runner.row_multiple
        for bucket in plan_buckets([len(ids) for ids in inputs], size, shapes, multiple):
            members = bucket.batches[bucket.batches != PADDING_EXAMPLE]
            shape = (
                rounded_length(max(len(trees[n].tokens) for n in members)),
                max(len(options[n]) for n in members),
                rounded_length(max(len(option) for n in members for option in options[n])),
            )
            for numbers in bucket.batches:
                batch = _tree_arrays(trees, options, numbers, *shape)
                yield numbers, ({"inputs": padded_rows(inputs, numbers, bucket.length)} | batch,)


def _tree_arrays(
    trees: Sequence[PrefixTree],
    options: Sequence[Options],
    numbers: np.ndarray,
    num_nodes: int,
    num_options: int,
    length: int,
) -> dict[str, np.ndarray]:
    """Arrays of a batch of questions: nodes [B, M], seen [B, M, M], edges [B, O, L].

    `targets` of an option are padded with PADDING, all else with 0.
    """
    rows = len(numbers)
    tokens, depths = np.zeros((2, rows, num_nodes), np.int32)
    seen = np.zeros((rows, num_nodes, num_nodes), bool)
    nodes = np.zeros((rows, num_options, length), np.int32)
    targets = np.full_like(nodes, PADDING)
    for row, number in enumerate(numbers):
        number = numbers[0] if number == PADDING_EXAMPLE else number
        tree = trees[number]
        tokens[row, : len(tree.tokens)] = tree.tokens
        for node, parent in enumerate(tree.parents):
            if parent >= 0:
                depths[row, node] = depths[row, parent] + 1
                seen[row, node] = seen[row, parent]
            seen[row, node, node] = True
        for index, (path, option) in enumerate(zip(tree.paths, options[number])):
            nodes[row, index, : len(path)] = path
            targets[row, index, : len(option)] = option
    return {"tokens": tokens, "depths": depths, "seen": seen, "nodes": nodes, "targets": targets}
