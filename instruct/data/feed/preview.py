"""Previews for `show` and `check`: rendered examples of a task, packed rows decoded to text.

Rows are decoded from the arrays that training gets, so an error in tokenising or packing is seen.
"""

import functools
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from instruct import batch
from instruct.data.feed.records import numbered_records
from instruct.data.feed.rendering import ExampleRenderer, RecordList, example_key, name_key
from instruct.data.spec import SPLITS, Resolved, TaskSpec
from instruct.data.vocab import Vocabulary, load_vocabulary
from instruct.errors import UserError
from instruct.prompts.frame import Frame
from instruct.prompts.render import Dropped, Rendered
from instruct.workspace import Workspace

_VOCABULARY = "gym"
_LENGTHS = (4096, 1024)  # tokens; almost no prompt is cut to be shown
_EXEMPLAR_RECORDS = 200
MAX_LOST = 0.2  # a task or run that loses a larger share of its rows or examples is a problem


def splits_in_order(splits: Collection[str]) -> list[str]:
    """Train, validation, test, then other splits by name."""
    return [*(s for s in SPLITS if s in splits), *sorted(s for s in splits if s not in SPLITS)]


def first_readable_split(workspace: Workspace, spec: TaskSpec) -> tuple[str, list[str]]:
    """(first readable split, why those before it cannot be read); (first split, []) if none is."""
    splits, reasons = splits_in_order(spec.splits), []
    for split in splits:
        try:
            next(numbered_records(workspace, spec, split), None)
            return split, reasons
        except UserError as error:
            reasons.append(f"split {split!r} is not shown: {error}")
    return splits[0], []


def rendered_examples(
    workspace: Workspace,
    spec: TaskSpec,
    modes: Sequence[str],
    split: str,
    count: int,
    vocabulary: str | None = None,
) -> Iterator[tuple[str, Rendered | Dropped]]:
    """(mode, example) of the first records of a split, with the wording of evaluation at seed 0.

    Records come from the prepared store, else from the source. If there are several modes, one
    whose exemplars cannot be read is `Dropped` with the reason.

    Raises:
        UserError: neither store nor source can be read.
    """
    records = list(itertools.islice(numbered_records(workspace, spec, split), count))

    @functools.cache
    def exemplars_fn(exemplar_split: str) -> RecordList:
        rows = numbered_records(workspace, spec, exemplar_split)
        return RecordList(record for _, record in itertools.islice(rows, _EXEMPLAR_RECORDS))

    frame = Frame(load_vocabulary(vocabulary or _VOCABULARY))
    for mode in modes:
        leaf_key = name_key(spec.leaf_name(mode))
        try:
            renderer = ExampleRenderer.of_task(spec, mode, split, frame, _LENGTHS, exemplars_fn)
        except UserError as error:
            if len(modes) == 1:
                raise
            yield mode, Dropped(str(error))
            continue
        for number, record in records:
            yield mode, renderer(record, number, example_key(0, leaf_key, number))


def packed_row(
    rows: Mapping[str, np.ndarray], row: int, vocabulary: Vocabulary, resolved: Resolved
) -> str:
    """One row of a batch as text: each segment decoded, and how full the row is."""
    arrays = {key: value[row] for key, value in rows.items()}
    targets = arrays[batch.DECODER_SEGMENT_IDS]
    num_segments, encoder = int(targets.max()), ""
    if batch.ENCODER_SEGMENT_IDS in arrays:
        sources = arrays[batch.ENCODER_SEGMENT_IDS]
        num_segments = max(num_segments, int(sources.max()))
        encoder = f"encoder {(sources > 0).sum()} of {sources.size} tokens, "
    lines = [
        f"row of {num_segments} examples: {encoder}decoder {(targets > 0).sum()} of {targets.size}"
    ]
    for number in range(1, num_segments + 1):
        input_ids, target_ids = _segment(arrays, number)
        task = int(arrays[batch.DECODER_TASK_IDS][targets == number].max(initial=0))
        weight = int(arrays[batch.DECODER_LOSS_WEIGHTS][targets == number].sum())
        # A decoder-only prompt may end in any way.
        ending = (input_ids, target_ids) if encoder else (target_ids,)
        has_eos = all(ids and ids[-1] in vocabulary.stop_ids for ids in ending)
        lines += [
            f"--- segment {number}: {resolved.leaves[task - 1].name if task else 'task not known'} "
            f"({len(input_ids)} -> {len(target_ids)} tokens, "
            f"loss weight {weight}{'' if has_eos else ', NO EOS'})",
            "inputs:",
            *(f"    {line}" for line in _text(input_ids, vocabulary).split("\n")),
            "targets:",
            *(f"    {line}" for line in _text(target_ids, vocabulary).split("\n")),
        ]
    return "\n".join(lines)


def _segment(arrays: Mapping[str, np.ndarray], number: int) -> tuple[list[int], list[int]]:
    """(inputs, targets) of an example of a row; of one sequence, its prefix and the rest."""
    own = arrays[batch.DECODER_SEGMENT_IDS] == number
    targets = arrays[batch.DECODER_TARGET_TOKENS][own].tolist()
    if batch.ENCODER_SEGMENT_IDS in arrays:
        source = arrays[batch.ENCODER_SEGMENT_IDS] == number
        return arrays[batch.ENCODER_INPUT_TOKENS][source].tolist(), targets
    prefix = int(arrays[batch.DECODER_CAUSAL_ATTENTION][own].sum())
    inputs = arrays[batch.DECODER_INPUT_TOKENS][own].tolist()
    return inputs[:prefix], targets[max(0, prefix - 1) :]


def _text(ids: Sequence[int], vocabulary: Vocabulary) -> str:
    """Text of tokens, a line for each part that ends like an answer."""
    ends = [n for n, token in enumerate(ids, 1) if token in vocabulary.stop_ids and n < len(ids)]
    parts = zip([0, *ends], [*ends, len(ids)])
    return "\n".join(vocabulary.decode(ids[first:last]) for first, last in parts)


def check_ids(rows: Mapping[str, np.ndarray], vocab_size: int, tasks: Collection[str]) -> None:
    """Raises UserError if a batch of these tasks holds a token that the model has no row for.

    Only a plain seqio task with a vocabulary class of its own can give one. Its loss is NaN.
    """
    for key in (batch.ENCODER_INPUT_TOKENS, batch.DECODER_TARGET_TOKENS):
        tokens = rows.get(key, np.zeros(1, np.int32))
        wrong = tokens[(tokens < 0) | (tokens >= vocab_size)]
        if wrong.size:
            raise UserError(
                f"{key} of the first batch holds the token {wrong[0]}, but the model's embedding "
                f"has the rows 0 to {vocab_size - 1} (vocab_size). The tasks of that batch are "
                f"{', '.join(sorted(tasks)[:5])}: use a model of their vocabulary's size."
            )


def target_faults(rows: Mapping[str, np.ndarray], vocabulary: Vocabulary) -> list[str]:
    """Why a model cannot learn targets of a batch (unknown tokens, no EOS), a sentence each."""
    tokens, weights = rows[batch.DECODER_TARGET_TOKENS], rows[batch.DECODER_LOSS_WEIGHTS]
    segments = rows[batch.DECODER_SEGMENT_IDS] * (weights > 0)
    targets = [
        own[segment == number]
        for own, segment in zip(tokens, segments)
        for number in range(1, int(segment.max(initial=0)) + 1)
    ]
    unknown = [own for own in targets if vocabulary.unk_id in own.tolist()]
    endless = sum(set(vocabulary.stop_ids).isdisjoint(target.tolist()) for target in targets)
    faults = []
    if unknown:
        count = sum(int((target == vocabulary.unk_id).sum()) for target in unknown)
        share = count / sum(map(len, targets))
        faults.append(
            f"{len(unknown):,} of {len(targets):,} targets of the first batch hold characters that "
            f"the vocabulary lacks ({share:.1%} of their tokens are unknown), such as "
            f"{vocabulary.decode(unknown[0].tolist())[:80]!r}: no model can write them. Replace "
            "them in the data, or use a vocabulary that has them (mT5's, bytes, added tokens)."
        )
    if endless:
        faults.append(
            f"{endless:,} of {len(targets):,} targets of the first batch have no end-of-sequence "
            "token, so the model does not learn where to stop. Add "
            "seqio.preprocessors.append_eos as the task's last preprocessor."
        )
    return faults


def lost_examples(
    statistics: Mapping[str, Any],
    lengths: Mapping[str, int],
    what: str = "read so far are not trained on",
) -> str:
    """Says so if more than a fifth of the examples were dropped, else is empty.

    Args:
        statistics: those of `TrainFeed.statistics`.
        lengths: TASK_FEATURE_LENGTHS.
        what: says which examples are lost for what.
    """
    kept, dropped = (int(statistics.get(name, 0)) for name in ("kept", "dropped"))
    if dropped <= MAX_LOST * (kept + dropped):
        return ""
    counts = statistics.get("dropped_reasons", {})
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts.items())
    return (
        f"{dropped:,} of {kept + dropped:,} examples {what} ({reasons}). "
        f"TASK_FEATURE_LENGTHS is {dict(lengths)}; larger lengths keep the long ones."
    )
