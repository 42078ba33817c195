"""Example number -> leaf, its count and its task's turn -> record number. No I/O, no history.

Leaves hang below a binary tree, split so that both sides weigh about the same. At a node whose
left side has the share p, the left side has had floor(n p + 1/2) of the node's first n examples.
Following example n down the tree gives its leaf and its number there by arithmetic alone:

    rates .5 .25 .25:    n        0  1  2  3  4  5  6  7
                         leaf     0  1  0  2  0  1  0  2
                         count    0  0  1  0  2  1  3  1

So any example or window of examples is computed without those before it, and over every prefix
each leaf stays within about one example of its share (`max_deviation`). Independent clocks,
(j + 1 - u) / rate, do not have that property: over prefixes they were measured 3 examples off for
1,836 uneven leaves, and 32 with one leaf of share 0.9 and a thousand small ones.

Leaves that read the same records (the prompt modes of a task) form a group below one node. That
node's count is the example's turn at the records, so no record of a task repeats, in any mode,
before all of them have been used.

`mode="iid"` draws each example's leaf independently instead, as SeqIO's mixtures do.
"""

from collections.abc import Sequence

import numpy as np

from instruct.data.config import PLANS
from instruct.errors import UserError, unknown_name

_BLOCK = 1 << 16  # examples per block of independent draws
_ROUNDS = 4  # of the Feistel network: looks random, not for secrecy

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's output function on uint64 arrays (wraps around, as intended)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX1
    values = (values ^ (values >> np.uint64(27))) * _MIX2
    return values ^ (values >> np.uint64(31))


def permute(numbers: np.ndarray, size: int | np.ndarray, key: np.uint64 | np.ndarray) -> np.ndarray:
    """Images of `numbers` under a keyed pseudorandom permutation of range(size), int64.

    A Feistel network on the smallest even number of bits that holds `size`; images outside the
    range are permuted again until they are inside (cycle walking, Black and Rogaway 2002).

    Args:
        numbers: int array in [0, size).
        size, key: one for all, or one for each number.
    """
    numbers = np.asarray(numbers, dtype=np.uint64)
    sizes = np.broadcast_to(np.asarray(size, dtype=np.uint64), numbers.shape)
    keys = np.broadcast_to(np.asarray(key, dtype=np.uint64), numbers.shape)
    bits = np.ceil(np.log2(np.maximum(sizes, 2).astype(np.float64)) / 2).astype(np.uint64)
    result = numbers.copy()
    pending = np.arange(numbers.size)
    while pending.size:
        values, half_bits, key = result[pending], bits[pending], keys[pending]
        mask = (np.uint64(1) << half_bits) - np.uint64(1)
        left, right = values >> half_bits, values & mask
        with np.errstate(over="ignore"):
            for turn in range(_ROUNDS):
                turn_key = key + np.uint64(turn) * _GOLDEN
                left, right = right, left ^ (_mix(right + turn_key) & mask)
        image = (left << half_bits) | right
        result[pending] = image
        pending = pending[image >= sizes[pending]]
    return result.astype(np.int64)


class Plan:
    """Which record of which leaf every example of a run is.

    Args:
        rates: share of each leaf, above 0; need not add up to 1.
        sizes: records of each leaf, above 0.
        seed: fixes every draw.
        mode: "low_discrepancy" or "iid".
        groups: group of each leaf; leaves of one group read the same records and have equal sizes.
            None: every leaf has its own records.
        share: of each group's records that are ever used, at least one of them: a random subset,
            which the seed fixes.

    Raises:
        UserError: no leaf, a rate or size that is not above 0, an unknown mode.
    """

    def __init__(
        self,
        rates: Sequence[float],
        sizes: Sequence[int],
        seed: int,
        mode: str = "low_discrepancy",
        groups: Sequence[int] | Sequence[str] | None = None,
        share: float = 1.0,
    ) -> None:
        if mode not in PLANS:
            raise unknown_name("plan", mode, PLANS)
        weights = np.asarray(rates, dtype=np.float64)
        if not weights.size or len(sizes) != weights.size:
            raise UserError(f"a plan needs as many rates as sizes and at least one, got {rates!r}")
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise UserError(f"mixture rates must be above 0, got {weights.tolist()}")
        if min(sizes) <= 0:
            raise UserError("a task without records cannot be mixed in; leave it out")
        self.mode = mode
        self.rates = weights / weights.sum()
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self._used = np.maximum(1, np.floor(self.sizes * share + 0.5).astype(np.int64))
        self._seed = np.uint64(seed & ((1 << 64) - 1))
        with np.errstate(over="ignore"):
            numbers = np.arange(1, weights.size + 1, dtype=np.uint64)
            leaf_keys = _mix(_mix(numbers * _GOLDEN) ^ self._seed)
        labels = np.arange(weights.size) if groups is None else np.asarray(groups)
        _, first, self._groups = np.unique(labels, return_index=True, return_inverse=True)
        if (self.sizes != self.sizes[first][self._groups]).any():
            raise ValueError("leaves of one group read the same records, so their sizes are equal")
        self._record_keys = leaf_keys[first][self._groups]
        self._tree = _Tree(self.rates, leaf_keys, self._groups)
        self._edges = np.cumsum(self.rates)[:-1]
        self._block_counts = [np.zeros(weights.size, dtype=np.int64)]

    def examples(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(leaf, count, turn) of the examples start .. stop - 1: three int64 arrays.

        `count` is the number of earlier examples of that leaf, `turn` that of its group.
        """
        if self.mode == "iid":
            return self._independent(start, stop)
        return self._tree.locate(np.arange(start, stop, dtype=np.int64))

    def window(self, number: int, num_examples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(leaf, count, turn) of the examples of one window of `num_examples`."""
        return self.examples(number * num_examples, (number + 1) * num_examples)

    def record_indices(self, leaves: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """Record numbers, int64. A new permutation in every epoch; none repeats within one."""
        used, sizes = self._used[leaves], self.sizes[leaves]
        epochs, positions = np.divmod(turns, used)
        with np.errstate(over="ignore"):
            keys = _mix(self._record_keys[leaves] + epochs.astype(np.uint64) * _GOLDEN)
        positions = permute(positions, used, keys)
        if (used == sizes).all():
            return positions
        subset = permute(positions, sizes, _mix(self._record_keys[leaves] ^ _MIX1))
        return np.where(used == sizes, positions, subset)

    @property
    def max_deviation(self) -> float:
        """Bound on |examples of a leaf - its share| over all prefixes (low_discrepancy)."""
        return self._tree.max_deviation

    def _independent(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first, last = start // _BLOCK, -(-stop // _BLOCK)
        while len(self._block_counts) <= first:  # counted once, about 2 ms a block
            drawn = self._draw_block(len(self._block_counts) - 1)
            counts = np.bincount(drawn, minlength=self.rates.size)
            self._block_counts.append(self._block_counts[-1] + counts)
        before = self._block_counts[first]
        leaves = np.concatenate([self._draw_block(block) for block in range(first, last)])
        group_before = np.bincount(self._groups, weights=before).astype(np.int64)
        counts = _ranks(leaves) + before[leaves]
        groups = self._groups[leaves]
        turns = _ranks(groups) + group_before[groups]
        inside = slice(start - first * _BLOCK, stop - first * _BLOCK)
        return leaves[inside], counts[inside], turns[inside]

    def _draw_block(self, block: int) -> np.ndarray:
        draws = np.random.Generator(np.random.Philox(key=[self._seed, np.uint64(block)]))
        return np.searchsorted(self._edges, draws.random(_BLOCK), side="right").astype(np.int64)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Number of earlier equal entries of each entry.

    >>> _ranks(np.array([1, 0, 1, 1])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ranks = np.empty_like(values)
    ranks[order] = np.arange(values.size) - np.searchsorted(ordered, ordered)
    return ranks


class _Tree:
    """Binary tree over the groups, and below each group's node over its leaves.

    Groups, heaviest first, are split into halves of about equal weight, then each group's leaves
    likewise. Equal rates are ordered by key, so the order of tasks depends on the seed.

    Attributes:
        max_deviation: see `Plan`.
    """

    def __init__(self, rates: np.ndarray, keys: np.ndarray, groups: np.ndarray) -> None:
        by_rate = np.lexsort((keys, -rates))
        by_group = by_rate[np.argsort(groups[by_rate], kind="stable")]
        members = np.split(by_group, np.cumsum(np.bincount(groups))[:-1])
        weights = np.bincount(groups, weights=rates)
        first_keys = np.array([keys[leaves[0]] for leaves in members])
        shares: list[float] = []
        children: list[list[int]] = []
        roots: list[bool] = []
        self.max_deviation = 0.0
        # (groups or leaves, whether groups, parent node, side, depth, sum of 1 / weight over the
        # ancestors except the root)
        top = np.lexsort((first_keys, -weights))
        stack: list[tuple[np.ndarray, bool, int, int, int, float]] = [(top, True, -1, 0, 0, 0.0)]
        while stack:
            units, are_groups, parent, side, depth, inverse = stack.pop()
            is_root = are_groups and units.size == 1
            if is_root:
                units, are_groups = members[units[0]], False
            if units.size == 1:
                node = -1 - int(units[0])
                # Rounding errs by at most 1/2 at every ancestor; an ancestor's error reaches the
                # leaf in proportion to their weights.
                bound = 0.5 * (1 + float(rates[units[0]]) * inverse) if depth else 0.0
                self.max_deviation = max(self.max_deviation, bound)
            else:
                node = len(shares)
                parts = weights[units] if are_groups else rates[units]
                # Runs of similar leaves keep `max_deviation` near 1.1. Adding each leaf to the
                # lighter side gives up to 1.5, because light leaves end up beside heavy ones.
                sums = np.cumsum(parts)
                cut = int(np.argmin(np.abs(sums[:-1] - sums[-1] / 2))) + 1
                total = float(parts.sum())
                shares.append(float(parts[:cut].sum()) / total)
                children.append([0, 0])
                roots.append(is_root)
                below = inverse + (1 / total if depth else 0.0)
                stack.append((units[cut:], are_groups, node, 1, depth + 1, below))
                stack.append((units[:cut], are_groups, node, 0, depth + 1, below))
            if parent >= 0:
                children[parent][side] = node
        self._shares = np.array(shares)  # [nodes] of the left side
        self._children = np.array(children, dtype=np.int64)  # [nodes, 2]; leaves as -1 - number
        self._roots = np.array(roots)  # [nodes] whether the leaves below are one whole group

    def locate(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(leaf, count, turn) of examples, all sent down the tree together."""
        counts, turns = numbers.copy(), np.full_like(numbers, -1)
        nodes = np.full_like(numbers, 0 if self._shares.size else -1)
        active = np.flatnonzero(nodes == 0)
        while active.size:
            node, count = nodes[active], counts[active]
            at_root = self._roots[node]
            turns[active[at_root]] = count[at_root]
            share = self._shares[node]
            left = np.floor(count * share + 0.5).astype(np.int64)
            goes_left = np.floor((count + 1) * share + 0.5).astype(np.int64) > left
            counts[active] = np.where(goes_left, left, count - left)
            nodes[active] = self._children[node, np.where(goes_left, 0, 1)]
            active = active[nodes[active] >= 0]
        return -1 - nodes, counts, np.where(turns < 0, counts, turns)
