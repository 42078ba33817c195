"""Many (inputs, targets) pairs into few rows. Axis letters: E examples, R rows, S and T lengths.

Rows are decided on lengths alone, then all tokens are moved at once. Invariants: an example lies
whole in one row, its inputs and its targets carry the same segment number, and segments are
numbered in the order of the examples, whatever their tokens are (SeqIO counts zeros among the
positions, so that an example with an empty source shifts all later sources by one).
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from instruct import batch
from instruct.data.config import PACKINGS
from instruct.data.features import decoder_features
from instruct.errors import unknown_name


@dataclasses.dataclass(frozen=True)
class Packed:
    """Rows, and which examples lie in them.

    Attributes:
        rows: the arrays of batch.py, int32 [R, S] and [R, T].
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
) -> Packed:
    """Packs examples; the worked example is batch.py's.

    Args:
        input_ids, target_ids: tokens of each example, EOS included, at most the lengths.
        task_ids: what `decoder_task_ids` holds for each example.
        method: "best_fit" (fullest rows), "next_fit" (as SeqIO's packing: one open row), or
            "none" (one example a row).
    """
    input_lengths = np.fromiter(map(len, input_ids), np.int64, len(input_ids))
    target_lengths = np.fromiter(map(len, target_ids), np.int64, len(target_ids))
    example_rows = assign_rows(input_lengths, target_lengths, inputs_length, targets_length, method)
    num_rows = int(example_rows.max(initial=-1)) + 1
    # Examples row by row; within a row they keep their order.
    order = np.argsort(example_rows, kind="stable")
    in_order = example_rows[order]
    segments = _ranks(in_order) + 1
    tasks = np.asarray(task_ids, dtype=np.int32)[order]
    encoder = _place(input_ids, input_lengths, order, in_order, (num_rows, inputs_length))
    decoder = _place(target_ids, target_lengths, order, in_order, (num_rows, targets_length))
    rows = {
        batch.ENCODER_INPUT_TOKENS: encoder.tokens,
        batch.ENCODER_SEGMENT_IDS: encoder.spread(segments),
        batch.ENCODER_POSITIONS: encoder.positions,
        batch.DECODER_TARGET_TOKENS: decoder.tokens,
        batch.DECODER_SEGMENT_IDS: decoder.spread(segments),
        batch.DECODER_POSITIONS: decoder.positions,
        batch.DECODER_TASK_IDS: decoder.spread(tasks),
    }
    return Packed(decoder_features(rows), example_rows)


def assign_rows(
    input_lengths: np.ndarray,
    target_lengths: np.ndarray,
    inputs_length: int,
    targets_length: int,
    method: str,
) -> np.ndarray:
    """Row of each example, int64 [E]; rows are numbered from 0 without gaps.

    Raises:
        ValueError: an example is longer than a row. UserError: unknown method.
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
    """Best fit, largest first: each example goes to the row it leaves least room in.

    Size and room are measured by the scarcer side, as shares of a row's length.
    """
    share_in, share_out = inputs / most_in, targets / most_out
    order = np.argsort(-np.maximum(share_in, share_out), kind="stable")
    smallest_in, smallest_out = int(inputs.min(initial=0)), int(targets.min(initial=0))
    rows = np.empty(inputs.size, dtype=np.int64)
    # Open rows, side by side: room left for inputs and targets, and the row's number. A row that
    # cannot take even the smallest example is closed by moving the last open row to its place.
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
        room[at] = left_in / most_in + left_out / most_out
        if left_in < smallest_in or left_out < smallest_out:
            num_open -= 1
            for column in (room_in, room_out, room, number):
                column[at] = column[num_open]
    return rows


def _ranks(sorted_values: np.ndarray) -> np.ndarray:
    """Place of each entry among its equals.

    >>> _ranks(np.array([0, 0, 2, 2, 2])).tolist()
    [0, 1, 0, 1, 2]
    """
    starts = np.flatnonzero(np.r_[True, sorted_values[1:] != sorted_values[:-1]])
    if not sorted_values.size:
        return np.empty(0, dtype=np.int64)
    return np.arange(sorted_values.size) - np.repeat(
        starts, np.diff(np.r_[starts, sorted_values.size])
    )


@dataclasses.dataclass(frozen=True)
class _Placed:
    """Tokens of one side in their rows, and where they went."""

    tokens: np.ndarray
    positions: np.ndarray
    slots: np.ndarray  # flat place of every token
    lengths: np.ndarray  # tokens of each example, in the order of the slots

    def spread(self, values: np.ndarray) -> np.ndarray:
        """An array of `tokens`' shape with each example's value at its tokens, 0 elsewhere."""
        result = np.zeros(self.tokens.size, dtype=np.int32)
        result[self.slots] = np.repeat(values, self.lengths)
        return result.reshape(self.tokens.shape)


def _place(
    ids: Sequence[Sequence[int]],
    lengths: np.ndarray,
    order: np.ndarray,
    rows: np.ndarray,
    shape: tuple[int, int],
) -> _Placed:
    """Moves tokens to their rows. `rows` and `lengths[order]` belong together."""
    lengths = lengths[order]
    total = int(lengths.sum())
    flat = itertools.chain.from_iterable(ids[i] for i in order.tolist())
    stream_starts = np.cumsum(lengths) - lengths
    # An example starts in its row where the examples before it in that row end.
    first_of_row = np.r_[True, rows[1:] != rows[:-1]] if rows.size else np.empty(0, dtype=bool)
    row_starts = np.repeat(
        stream_starts[first_of_row], np.diff(np.r_[np.flatnonzero(first_of_row), rows.size])
    )
    positions = np.arange(total) - np.repeat(stream_starts, lengths)
    slots = positions + np.repeat(rows * shape[1] + stream_starts - row_starts, lengths)
    tokens = np.zeros(shape[0] * shape[1], dtype=np.int32)
    tokens[slots] = np.fromiter(flat, np.int32, total)
    placed_positions = np.zeros_like(tokens)
    placed_positions[slots] = positions
    return _Placed(tokens.reshape(shape), placed_positions.reshape(shape), slots, lengths)
