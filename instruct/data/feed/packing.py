"""Packing of examples into rows. Axis letters: E examples, R rows, S and T row lengths.

Row assignment looks at lengths only; then all tokens are joined at once. Invariants: an example is
never split, its inputs and targets have the same segment number, and segments are numbered in
example order, even where an example has no input tokens (SeqIO skips those, which shifts the
segment numbers of all later inputs by one).
"""

import dataclasses
from array import array
from collections.abc import Callable, Sequence

import numpy as np

from instruct import batch
from instruct.data.config import PACKINGS
from instruct.data.features import decoder_features
from instruct.errors import unknown_name


@dataclasses.dataclass(frozen=True)
class Packed:
    """Packed rows.

    Attributes:
        rows: the arrays of a layout of batch.py, int32 [R, S] and [R, T].
        example_rows: [E] row of each example.
    """

    rows: dict[str, np.ndarray]
    example_rows: np.ndarray

    @property
    def num_rows(self) -> int:
        return self.rows[batch.DECODER_TARGET_TOKENS].shape[0]


def pack(
    input_ids: Sequence[Sequence[int]],
    target_ids: Sequence[Sequence[int]],
    task_ids: Sequence[int] | np.ndarray,
    inputs_length: int,
    targets_length: int,
    method: str = "best_fit",
    layout: batch.Layout = batch.ENCODER_DECODER,
    *,
    target_weights: Sequence[Sequence[int] | None] | None = None,
    loss_on: str = "targets",
    permutation_fn: Callable[[int], np.ndarray] = np.arange,
) -> Packed:
    """Packs examples; batch.py has worked examples.

    Args:
        input_ids, target_ids: tokens of each example with their frame, EOS included, at most the
            lengths; array("i") is quickest. For `decoder_only`, inputs begin with the start and
            are not empty, and both together have at most 1 + inputs_length + targets_length tokens.
        task_ids: value of `decoder_task_ids` for each example.
        method: "best_fit" (fullest rows), "next_fit" (as SeqIO: one open row), or "none" (one
            example per row).
        target_weights: for `decoder_only`, the loss weight (0 or 1) of each target token of each
            example; None for 1.
        loss_on: "targets", or "all" tokens (`decoder_only`).
        permutation_fn: number of rows -> the order to put them in.
    """
    input_lengths = np.fromiter(map(len, input_ids), np.int64, len(input_ids))
    target_lengths = np.fromiter(map(len, target_ids), np.int64, len(target_ids))
    row_lengths = layout.row_lengths(inputs_length, targets_length)
    one_sequence = layout is batch.DECODER_ONLY
    if one_sequence:  # the last token of a sequence is only a target
        lengths = np.zeros_like(input_lengths), input_lengths + target_lengths - 1
    else:
        lengths = input_lengths, target_lengths
    example_rows = assign_rows(*lengths, *row_lengths, method)
    example_rows = np.argsort(permutation_fn(example_rows.max(initial=-1) + 1))[example_rows]
    decoder = _Side(example_rows, lengths[1], row_lengths[1])
    rows = {
        batch.DECODER_SEGMENT_IDS: decoder.segments,
        batch.DECODER_POSITIONS: decoder.positions,
        batch.DECODER_TASK_IDS: decoder.spread(task_ids),
    }
    inputs, targets = list(map(_as_array, input_ids)), list(map(_as_array, target_ids))
    if not one_sequence:
        encoder = _Side(example_rows, lengths[0], row_lengths[0])
        rows |= {
            batch.ENCODER_INPUT_TOKENS: encoder.join(inputs),
            batch.ENCODER_SEGMENT_IDS: encoder.segments,
            batch.ENCODER_POSITIONS: encoder.positions,
            batch.DECODER_TARGET_TOKENS: decoder.join(targets),
        }
        return Packed(decoder_features(rows), example_rows)
    sequences = [prompt + answer for prompt, answer in zip(inputs, targets)]
    is_token, prompt_lengths = decoder.segments > 0, decoder.spread(input_lengths)
    in_prefix = decoder.positions < prompt_lengths
    weights = is_token & (decoder.positions + 1 >= prompt_lengths)
    if loss_on == "all":
        in_prefix, weights = np.zeros_like(in_prefix), is_token
    elif target_weights is not None and any(own is not None for own in target_weights):
        chosen = [
            _as_array([1] * (len(prompt) - 1) + list([1] * len(answer) if own is None else own))
            for prompt, answer, own in zip(inputs, targets, target_weights)
        ]
        weights = weights * decoder.join(chosen)
    rows |= {
        batch.DECODER_TARGET_TOKENS: decoder.join([sequence[1:] for sequence in sequences]),
        batch.DECODER_INPUT_TOKENS: decoder.join([sequence[:-1] for sequence in sequences]),
        batch.DECODER_LOSS_WEIGHTS: weights.astype(np.int32),
        batch.DECODER_CAUSAL_ATTENTION: in_prefix.astype(np.int32),
    }
    return Packed({key: rows[key] for key in layout.keys}, example_rows)


def _as_array(ids: Sequence[int]) -> "array[int]":
    return ids if isinstance(ids, array) else array("i", ids)


class _Side:
    """One side of packed rows: each row's examples in their order, then its padding.

    Attributes:
        segments, positions: of every token, int32 [R, row_length].
    """

    def __init__(self, example_rows: np.ndarray, lengths: np.ndarray, row_length: int) -> None:
        num_rows = int(example_rows.max(initial=-1)) + 1
        used = np.bincount(example_rows, weights=lengths, minlength=num_rows).astype(np.int64)
        # Runs of equal values: the examples, then the padding of each row, sorted by row.
        run_rows = np.concatenate([example_rows, np.arange(num_rows)])
        self._order = np.argsort(run_rows, kind="stable")
        self._lengths = np.concatenate([lengths, row_length - used])[self._order]
        self._padding = [array("i", bytes(4 * length)) for length in (row_length - used).tolist()]
        self._shape = num_rows, row_length
        run_rows = run_rows[self._order]
        numbers = np.arange(1, run_rows.size + 1) - np.searchsorted(run_rows, run_rows)
        numbers[self._order >= example_rows.size] = 0
        self.segments = self._repeat(numbers)
        columns = np.cumsum(self._lengths) - self._lengths - run_rows * row_length
        columns = np.arange(row_length, dtype=np.int32) - self._repeat(columns)
        self.positions = columns * (self.segments > 0)

    def _repeat(self, values: np.ndarray) -> np.ndarray:
        """A value of each run for each of its columns, int32 [R, row_length]."""
        return np.repeat(values.astype(np.int32), self._lengths).reshape(self._shape)

    def spread(self, values: Sequence[int] | np.ndarray) -> np.ndarray:
        """A value of each example for each of its tokens, int32 [R, row_length]."""
        padding = np.zeros(self._shape[0], np.int64)
        return self._repeat(np.concatenate([values, padding])[self._order])

    def join(self, values: Sequence["array[int]"]) -> np.ndarray:
        """The values of each example's tokens, int32 [R, row_length]."""
        runs = [*values, *self._padding]
        joined = bytearray().join([runs[run] for run in self._order.tolist()])
        return np.frombuffer(joined, np.int32).reshape(self._shape)


def assign_rows(
    input_lengths: np.ndarray,
    target_lengths: np.ndarray,
    inputs_length: int,
    targets_length: int,
    method: str,
) -> np.ndarray:
    """Row of each example, int64 [E]; rows are numbered from 0 without gaps.

    Raises:
        ValueError: an example is longer than a row.
        UserError: unknown method.
    """
    if method not in PACKINGS:
        raise unknown_name("packing", method, PACKINGS)
    if (input_lengths > inputs_length).any() or (target_lengths > targets_length).any():
        raise ValueError(
            f"longest example {input_lengths.max()}/{target_lengths.max()} tokens, rows hold "
            f"{inputs_length}/{targets_length}"
        )
    if method == "none":
        return np.arange(input_lengths.size)
    assign = _best_fit if method == "best_fit" else _next_fit
    return assign(input_lengths, target_lengths, inputs_length, targets_length)


def _next_fit(inputs: np.ndarray, targets: np.ndarray, most_in: int, most_out: int) -> np.ndarray:
    rows = np.empty(inputs.size, dtype=np.int64)
    row = used_in = used_out = 0
    for i, (length_in, length_out) in enumerate(zip(inputs.tolist(), targets.tolist())):
        if used_in + length_in > most_in or used_out + length_out > most_out:
            row, used_in, used_out = row + 1, 0, 0
        used_in += length_in
        used_out += length_out
        rows[i] = row
    return rows


def _best_fit(inputs: np.ndarray, targets: np.ndarray, most_in: int, most_out: int) -> np.ndarray:
    """Best-fit decreasing: each example goes to the row where it leaves the least room.

    Lengths and room are shares of a row's length; an example's size is that of its larger side.
    """
    share_in, share_out = inputs / max(1, most_in), targets / most_out
    order = np.argsort(-np.maximum(share_in, share_out), kind="stable")
    smallest_in, smallest_out = int(inputs.min(initial=0)), int(targets.min(initial=0))
    rows = np.empty(inputs.size, dtype=np.int64)
    # Open rows as columns: room left for inputs and targets, and row number. A row that cannot take
    # even the smallest example is closed: the last open row overwrites it.
    room_in = np.empty(inputs.size, dtype=np.int64)
    room_out = np.empty(inputs.size, dtype=np.int64)
    room = np.empty(inputs.size, dtype=np.float64)
    number = np.empty(inputs.size, dtype=np.int64)
    num_open = num_rows = 0
    lengths = zip(order.tolist(), inputs[order].tolist(), targets[order].tolist())
    for example, length_in, length_out in lengths:
        fits = (room_in[:num_open] >= length_in) & (room_out[:num_open] >= length_out)
        candidates = fits.nonzero()[0]
        if candidates.size:
            at = int(candidates[room[candidates].argmin()])
        else:
            at = num_open
            room_in[at], room_out[at], number[at] = most_in, most_out, num_rows
            num_open += 1
            num_rows += 1
        rows[example] = number[at]
        left_in = room_in[at] = room_in[at] - length_in
        left_out = room_out[at] = room_out[at] - length_out
        room[at] = left_in / max(1, most_in) + left_out / most_out
        if left_in < smallest_in or left_out < smallest_out:
            num_open -= 1
            for column in (room_in, room_out, room, number):
                column[at] = column[num_open]
    return rows
