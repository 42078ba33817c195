"""Prompts and packed rows to look at: rendered examples of a task, rows of a batch as text.

A row is decoded from the arrays that training gets and not from the texts that they were made of,
so that a fault between the two is seen.
"""

import dataclasses
import functools
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from instruct import batch
from instruct.data.feed.records import numbered_records
from instruct.data.feed.rendering import ExampleRenderer, RecordList, example_key, name_key
from instruct.data.spec import SPLITS, Resolved, TaskSpec
from instruct.data.vocab import Vocabulary, load_vocabulary
from instruct.errors import UserError
from instruct.prompts.render import Dropped, Rendered
from instruct.workspace import Workspace

_LENGTHS = (4096, 1024)  # tokens; almost no prompt is cut to be shown
_EXEMPLAR_RECORDS = 200


def splits_in_order(splits: Collection[str]) -> list[str]:
    """Train, validation, test, then other splits by name."""
    return [*(s for s in SPLITS if s in splits), *sorted(s for s in splits if s not in SPLITS)]


def first_readable_split(workspace: Workspace, spec: TaskSpec) -> tuple[str, list[str]]:
    """(first split that can be read, or the first of all; why those before it cannot be read)."""
    splits, reasons = splits_in_order(spec.splits), []
    for split in splits:
        try:
            next(numbered_records(workspace, spec, split, False, 0), None)
        except UserError as error:
            reasons.append(f"split {split!r} is not shown: {error}")
            continue
        return split, reasons
    return splits[0], []


def rendered_examples(
    workspace: Workspace,
    spec: TaskSpec,
    modes: Sequence[str],
    split: str,
    count: int,
    vocabulary: str = "gym",
) -> Iterator[tuple[str, Rendered | Dropped]]:
    """(mode, example) of the first records of a split, with the wording of evaluation at seed 0.

    Records come from the prepared store, else from the source. If there are several modes, one
    whose exemplars cannot be read is `Dropped` with the reason.

    Raises:
        UserError: there is neither a store nor a source; says where it was looked for.
    """
    records = list(itertools.islice(numbered_records(workspace, spec, split, False, 0), count))

    @functools.cache
    def exemplars_fn(source: str) -> RecordList:
        rows = numbered_records(workspace, spec, source, False, 0)
        return RecordList(record for _, record in itertools.islice(rows, _EXEMPLAR_RECORDS))

    tokenizer = load_vocabulary(vocabulary)
    for mode in modes:
        leaf_key = name_key(spec.leaf_name(mode))
        try:
            renderer = ExampleRenderer.of_task(spec, mode, split, tokenizer, _LENGTHS, exemplars_fn)
        except UserError as error:
            if len(modes) == 1:
                raise
            yield mode, Dropped(str(error))
            continue
        for number, record in records:
            yield mode, renderer(record, number, example_key(0, leaf_key, number))


@dataclasses.dataclass(frozen=True)
class Segment:
    """One example of a row.

    Attributes:
        task: name of its leaf; "" if the feed does not tell.
        inputs, targets: decoded up to EOS.
        input_tokens, target_tokens: how many, EOS included.
        loss_weight: sum over its target tokens.
        ends: whether both sides end with EOS.
    """

    task: str
    inputs: str
    targets: str
    input_tokens: int
    target_tokens: int
    loss_weight: int
    ends: bool


def row_segments(
    rows: Mapping[str, np.ndarray], row: int, vocabulary: Vocabulary, tasks: Sequence[str]
) -> list[Segment]:
    """The examples of one row, in order.

    Args:
        rows: a batch.
        tasks: names of the mixture's leaves, which `decoder_task_ids` - 1 counts.
    """
    one = {key: value[row] for key, value in rows.items()}
    last = max(int(one[batch.ENCODER_SEGMENT_IDS].max()), int(one[batch.DECODER_SEGMENT_IDS].max()))
    segments = []
    for number in range(1, last + 1):
        in_encoder = one[batch.ENCODER_SEGMENT_IDS] == number
        in_decoder = one[batch.DECODER_SEGMENT_IDS] == number
        inputs = one[batch.ENCODER_INPUT_TOKENS][in_encoder].tolist()
        targets = one[batch.DECODER_TARGET_TOKENS][in_decoder].tolist()
        task = int(one[batch.DECODER_TASK_IDS][in_decoder].max(initial=0))
        eos = vocabulary.eos_id
        segments.append(
            Segment(
                task=tasks[task - 1] if task else "",
                inputs=vocabulary.decode(inputs),
                targets=vocabulary.decode(targets),
                input_tokens=len(inputs),
                target_tokens=len(targets),
                loss_weight=int(one[batch.DECODER_LOSS_WEIGHTS][in_decoder].sum()),
                ends=inputs[-1:] == [eos] and targets[-1:] == [eos],
            )
        )
    return segments


def packed_row(
    rows: Mapping[str, np.ndarray], row: int, vocabulary: Vocabulary, resolved: Resolved
) -> str:
    """One row as lines of text, with how full it is."""
    segments = row_segments(rows, row, vocabulary, [leaf.name for leaf in resolved.leaves])
    used_in = int((rows[batch.ENCODER_SEGMENT_IDS][row] > 0).sum())
    used_out = int((rows[batch.DECODER_SEGMENT_IDS][row] > 0).sum())
    room_in = rows[batch.ENCODER_SEGMENT_IDS].shape[1]
    room_out = rows[batch.DECODER_SEGMENT_IDS].shape[1]
    lines = [
        f"row of {len(segments)} examples: encoder {used_in} of {room_in} tokens, "
        f"decoder {used_out} of {room_out}"
    ]
    for number, segment in enumerate(segments, 1):
        lines += [
            f"--- segment {number}: {segment.task or 'task not known'} "
            f"({segment.input_tokens} -> {segment.target_tokens} tokens, "
            f"loss weight {segment.loss_weight}{'' if segment.ends else ', NO EOS'})",
            "inputs:",
            _indented(segment.inputs),
            "targets:",
            _indented(segment.targets),
        ]
    return "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def target_faults(rows: Mapping[str, np.ndarray], vocabulary: Vocabulary) -> list[str]:
    """What a model cannot learn of a batch's targets, a sentence each; [] if nothing.

    Args:
        rows: a batch, packed or not.
        vocabulary: which made its ids.
    """
    tokens, segments = rows[batch.DECODER_TARGET_TOKENS], rows[batch.DECODER_SEGMENT_IDS]
    targets = [
        own[segment == number]
        for own, segment in zip(tokens, segments)
        for number in range(1, int(segment.max(initial=0)) + 1)
    ]
    unknown = [target for target in targets if vocabulary.unk_id in target]
    endless = sum(vocabulary.eos_id not in target for target in targets)
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
