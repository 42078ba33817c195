"""`OnlineDecoder`: prompts may arrive while others decode, and answers are seen as they grow.

The slots of `batching.Decoder` without its list: the loop runs a chunk of steps at a time, and
between two chunks prompts that wait take free slots, and slots are given up. Every answer is that
of `Decoder.generate`, whatever else is decoded.

All slots are as wide as the longest prompt allowed, and prompts are padded to a few lengths, so
that the number of compiled programs is known (`compile_all`).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from instruct.eval.decoding.batching import BatchConfig, batch_rows, padded_rows, row_multiple
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.search import PADDING, PADDING_EXAMPLE
from instruct.eval.decoding.slots import Report, SlotArray, slot_programs
from instruct.eval.decoding.weights import check_weights, decoding_params
from instruct.model_interface import Model

_MULTIPLE = 8  # of padded lengths
# The loop stops early for prompts that wait when one slot in this many has ended.
_SLOTS_PER_TURN = 16


class Partial(NamedTuple):
    """An example after a chunk of steps: N sequences, T tokens so far."""

    key: int
    tokens: np.ndarray  # [N, T] int32, zeros after the token that ended a sequence
    ended: bool


@dataclasses.dataclass(frozen=True)
class _Example:
    inputs: Sequence[int]
    example_id: int
    max_tokens: int


class _Place(NamedTuple):
    slot: int
    max_tokens: int


class OnlineDecoder:
    """Decodes examples that come and go; one thread calls it.

    Args:
        model: prompts, cache and decoding step.
        config: the strategy.
        params: the model's parameters, on the mesh if there is one.
        longest: most tokens of a prompt.
        batching: number of slots, and of lengths that prompts are padded to.
        mesh: slots are split over its data axes; None: one device.
        chunk_steps: most steps between two looks at what has arrived.
    """

    def __init__(
        self,
        model: Model,
        config: DecodeConfig,
        params: Any,
        longest: int,
        batching: BatchConfig | None = None,
        mesh: Mesh | None = None,
        chunk_steps: int = 8,
    ):
        check_weights(config, mesh)
        self.config = config
        self._programs = slot_programs(model, config, None, mesh)
        self._params = decoding_params(model, params, config, mesh)
        self._chunk_steps = chunk_steps
        batching, multiple = batching or BatchConfig(), row_multiple(mesh)
        self.num_slots = batch_rows(batching.batch_size, batching.batch_size, multiple)
        # A prompt that comes alone is not encoded with rows of padding.
        few = batch_rows(1, 1, multiple)
        self._row_counts = sorted({few, max(few, self.num_slots // 4 // multiple * multiple)})
        self._lengths = _padded_lengths(longest, batching.max_shapes)
        self._keys = itertools.count()
        self._waiting: dict[int, _Example] = {}
        self._placed: dict[int, _Place] = {}
        self._slots = self._empty_slots()

    def add(self, inputs: Sequence[int], example_id: int = 0, max_tokens: int | None = None) -> int:
        """Queues a prompt; returns the key of its `Partial`s.

        Args:
            inputs: token ids, at least one and at most `longest`.
            example_id: samples depend on it, as in `Decoder.generate`.
            max_tokens: the answer ends there; None: where the strategy ends it. Beam search ranks
                whole answers, so there it must be None.
        """
        if not 0 < len(inputs) <= self._lengths[-1]:
            raise ValueError(f"{len(inputs)} tokens; allowed: 1 to {self._lengths[-1]}")
        key = next(self._keys)
        most = self.config.max_decode_steps
        self._waiting[key] = _Example(inputs, example_id, min(max_tokens or most, most))
        return key

    def remove(self, key: int) -> None:
        """Forgets an example; one that has ended is forgotten already."""
        self._waiting.pop(key, None)
        if key in self._placed:
            self._slots.owners[self._placed.pop(key).slot] = -1

    def reset(self) -> list[int]:
        """Empties all slots, also after an exception; returns the keys of what was in them."""
        lost = list(self._placed)
        self._placed, self._slots = {}, self._empty_slots()
        return lost

    def advance(self) -> list[Partial]:
        """Fills free slots and decodes a chunk of steps: every example that is in a slot.

        After an exception call `reset`.
        """
        self._fill()
        if not self._placed:
            return []
        turn = max(1, self.num_slots // _SLOTS_PER_TURN)
        enough = turn if self._waiting else self.num_slots
        report = Report(*jax.device_get(self._slots.run(enough, self._chunk_steps)))
        answers = np.asarray(report.tokens)
        partials = []
        for key, (slot, max_tokens) in list(self._placed.items()):
            count = min(int(report.positions[slot]), max_tokens)
            ended = bool(report.ended[slot]) or count == max_tokens
            partials.append(Partial(key, answers[slot, :, :count], ended))
            if ended:
                self.remove(key)
        return partials

    def compile_all(self) -> int:
        """Compiles every program, so that no prompt waits for that; returns their number."""
        shapes = list(itertools.product(self._lengths, self._row_counts))
        for length, rows in shapes:
            tokens = np.full((rows, length), 1, np.int32)
            self._start(tokens, [0] * rows)
            self._slots.run(self.num_slots, 1)
            self.reset()
        return 2 * len(shapes) + 2

    def _fill(self) -> None:
        """Puts prompts that wait into free slots, those of a padded length together."""
        while self._waiting and (free := int(np.count_nonzero(self._slots.owners < 0))):
            first = list(itertools.islice(self._waiting.items(), free))
            length = self._padded(first[0][1])
            keys = [key for key, one in first if self._padded(one) == length]
            keys = keys[: self._row_counts[-1]]
            rows = next(count for count in self._row_counts if count >= len(keys))
            free_slots = np.flatnonzero(self._slots.owners < 0)
            examples = [self._waiting.pop(key) for key in keys]
            for key, slot, one in zip(keys, free_slots, examples):
                self._placed[key] = _Place(int(slot), one.max_tokens)
            numbers = np.full(rows, PADDING_EXAMPLE)
            numbers[: len(keys)] = np.arange(len(keys))
            tokens = padded_rows([one.inputs for one in examples], numbers, length)
            self._start(tokens, [one.example_id for one in examples])

    def _start(self, tokens: np.ndarray, example_ids: Sequence[int]) -> None:
        """Encodes prompts [R, S] and puts the first ones into the first free slots."""
        prompts = self._programs.encode(self._params, self._programs.rows(tokens))
        slots = np.flatnonzero(self._slots.owners < 0)[: len(example_ids)]
        ids = np.zeros(self.num_slots, np.int32)
        ids[slots] = example_ids
        rows = range(len(example_ids))
        # The widest length: slots are never narrowed. A slot's owner is its own number.
        missing = self._lengths[-1] - tokens.shape[1]
        tokens = np.pad(tokens, ((0, 0), (0, missing)), constant_values=PADDING)
        self._slots.fill(prompts, tokens, rows, [*map(int, slots)], ids)

    def _empty_slots(self) -> SlotArray:
        return SlotArray(self._programs, self._params, self.num_slots, self._lengths[-1])

    def _padded(self, example: _Example) -> int:
        return next(length for length in self._lengths if length >= len(example.inputs))


def _padded_lengths(longest: int, count: int) -> list[int]:
    """At most `count` lengths, the last one for `longest`; each about half of the next.

    >>> _padded_lengths(513, 4)
    [64, 128, 256, 520]
    """
    sizes = {-(-(longest >> halvings) // _MULTIPLE) * _MULTIPLE for halvings in range(count)}
    return sorted(size for size in sizes if size)
