"""Packing of examples into rows. Axis letters: E examples, R rows, S and T lengths.

Row assignment looks at lengths only; then all tokens are copied at once. Invariants: an example is
never split, its inputs and targets have the same segment number, and segments are numbered in
example order, even where an example has no input tokens (SeqIO skips those, which shifts the
segment numbers of all later inputs by one).
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
    """Packed rows.

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
    """Packs examples; batch.py has a worked example.

    Args:
        input_ids, target_ids: tokens of each example, EOS included, at most the lengths.
        task_ids: value of `decoder_task_ids` for each example.
        method: "best_fit" (fullest rows), "next_fit" (as SeqIO: one open row), or "none" (one
            example per row).
    """
    input_lengths = np.fromiter(map(len, input_ids), np.int64, len(input_ids))
    target_lengths = np.fromiter(map(len, target_ids), np.int64, len(target_ids))
    example_rows = assign_rows(input_lengths, target_lengths, inputs_length, targets_length, method)
    num_rows = int(example_rows.max(initial=-1)) + 1
    # Row by row; examples of one row keep their order.
    order = np.argsort(example_rows, kind="stable")
    sorted_rows = example_rows[order]
    segments = np.arange(order.size) - np.searchsorted(sorted_rows, sorted_rows) + 1
    tasks = np.asarray(task_ids)[order]

    def fill(
        ids: Sequence[Sequence[int]], example_lengths: np.ndarray, row_length: int
    ) -> np.ndarray:
        """Tokens, segments, positions and tasks, int32 [4, R, row_length]."""
        lengths = example_lengths[order]
        # A row has no gaps, so its tokens are its first `used` columns.
        used = np.bincount(sorted_rows, weights=lengths, minlength=num_rows)
        total, starts = int(lengths.sum()), np.cumsum(lengths) - lengths
        flat_ids = itertools.chain.from_iterable(ids[i] for i in order.tolist())
        slots = np.flatnonzero(np.arange(row_length) < used[:, np.newaxis])
        arrays = np.zeros((4, num_rows * row_length), dtype=np.int32)
        arrays[0, slots] = np.fromiter(flat_ids, np.int32, total)
        arrays[1, slots] = np.repeat(segments, lengths)
        arrays[2, slots] = np.arange(total) - np.repeat(starts, lengths)
        arrays[3, slots] = np.repeat(tasks, lengths)
        return arrays.reshape(4, num_rows, row_length)

    encoder = fill(input_ids, input_lengths, inputs_length)
    decoder = fill(target_ids, target_lengths, targets_length)
    rows = {
        batch.ENCODER_INPUT_TOKENS: encoder[0],
        batch.ENCODER_SEGMENT_IDS: encoder[1],
        batch.ENCODER_POSITIONS: encoder[2],
        batch.DECODER_TARGET_TOKENS: decoder[0],
        batch.DECODER_SEGMENT_IDS: decoder[1],
        batch.DECODER_POSITIONS: decoder[2],
        batch.DECODER_TASK_IDS: decoder[3],
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
    share_in, share_out = inputs / most_in, targets / most_out
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
        room[at] = left_in / most_in + left_out / most_out
        if left_in < smallest_in or left_out < smallest_out:
            num_open -= 1
            for column in (room_in, room_out, room, number):
                column[at] = column[num_open]
    return rows
