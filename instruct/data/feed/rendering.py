"""From a stored record to an example: key, exemplars, rendering, and the features of metrics."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from instruct.data.spec import TaskSpec
from instruct.data.stores.store import Store
from instruct.data.token_record import TokenRecord
from instruct.errors import UserError
from instruct.prompts.chat_template import TemplateRefusal
from instruct.prompts.draws import mix
from instruct.prompts.exemplars import draw_exemplars
from instruct.prompts.frame import Frame
from instruct.prompts.messages import MESSAGES, render_turns
from instruct.prompts.modes import FEW_SHOT_MODES, TK_MODES
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered, render
from instruct.prompts.template import TemplateSet
from instruct.prompts.tk_instruct import ENCODINGS

_TK_EXEMPLARS = 2
_MASK = (1 << 64) - 1


@functools.cache
def name_key(name: str) -> int:
    """64-bit hash of a name, the same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def example_key(seed: int, leaf_key: int, number: int) -> int:
    """The key that fixes every draw for one example.

    Args:
        seed: the run's.
        leaf_key: `name_key` of the leaf.
        number: in training the leaf's count so far, so that a record gets another wording in every
            epoch; in evaluation the record's number.
    """
    return mix(_stream_key(seed, leaf_key) ^ (number & _MASK))


@functools.cache
def _stream_key(seed: int, leaf_key: int) -> int:
    return mix((mix(seed & _MASK) ^ leaf_key) & _MASK)


def exemplar_indices(
    mode: str, key: int, num_records: int, query_index: int | None, shots: int | None = None
) -> list[int]:
    """Numbers of the records to show before the query; [] if the mode shows no exemplars.

    Args:
        num_records: size of the exemplar split.
        query_index: the query's number in it, None if it comes from another split.
        shots: show the first `shots` records (`TaskSpec.fixed_shots`); None: draw them.
    """
    if mode in TK_MODES:
        shots = _TK_EXEMPLARS
    if shots is not None:
        first = [n for n in range(min(num_records, shots + 1)) if n != query_index]
        return first[:shots]
    return draw_exemplars(key, num_records, query_index) if mode in FEW_SHOT_MODES else []


def exemplars_asked(mode: str, shots: int | None, drawn: int, template_id: str) -> int:
    """Number of exemplars that a prompt should show, whether or not they exist and fit.

    Args:
        drawn: number that `exemplar_indices` returned.
        template_id: of the rendered prompt; in TK_MODES the encoding, which fixes the number.
    """
    if mode in TK_MODES:
        return next(encoding.positive for encoding in ENCODINGS if encoding.id == template_id)
    return drawn if shots is None else shots


class RecordList(list[Record]):
    """Records in memory, read as from a `Store`."""

    def read(self, indices: Sequence[int]) -> list[Record]:
        return [self[index] for index in indices]


Records = Store[Record] | RecordList


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleRenderer:
    """Renders the examples of one leaf: (record, its number, key) -> `Rendered` or `Dropped`.

    Windows, evaluation, the SeqIO facade and `show` all render through this. A caller that reads
    many records at once uses `exemplar_numbers` and `render`.

    Attributes:
        templates: None for a plain seqio task, whose records are tokens already.
        shots: number of exemplars always shown; None where it is drawn.
        lengths: maximum tokens of a prompt and an answer with their frame.
        exemplars: records of the exemplar split; None if the mode shows none.
        query_among_exemplars: whether queries come from the exemplar split.
        every_turn: whether a conversation's targets are all its assistant turns, not the last one.
    """

    mode: str
    templates: TemplateSet | None
    shots: int | None
    frame: Frame
    lengths: tuple[int, int]
    exemplars: Records | None = None
    query_among_exemplars: bool = False
    every_turn: bool = False

    @classmethod
    def of_task(
        cls,
        spec: TaskSpec | None,
        mode: str,
        split: str,
        frame: Frame,
        lengths: tuple[int, int],
        records_fn: Callable[[str], Records],
    ) -> "ExampleRenderer":
        """The renderer of a task in a mode; of a plain seqio task if `spec` is None.

        Args:
            records_fn: opens the records of an exemplar split.
        """
        if spec is None:
            return cls(mode, None, None, frame, lengths)
        exemplar_split = spec.exemplar_split_of(mode)
        exemplars = records_fn(exemplar_split) if exemplar_split else None
        shots, among = spec.fixed_shots(mode), exemplar_split == split
        return cls(mode, spec.templates, shots, frame, lengths, exemplars, among)

    def __call__(self, record: Record | TokenRecord, number: int, key: int) -> Rendered | Dropped:
        """Renders record `number` of the split; `key` (`example_key`) fixes every draw."""
        numbers = self.exemplar_numbers(number, key)
        exemplars = self.exemplars.read(numbers) if self.exemplars is not None else ()
        return self.render(record, key, exemplars)

    def exemplar_numbers(self, number: int, key: int) -> list[int]:
        """Numbers of the exemplars for the prompt of record `number`."""
        if self.exemplars is None:
            return []
        query = number if self.query_among_exemplars else None
        return exemplar_indices(self.mode, key, len(self.exemplars), query, self.shots)

    def render(
        self, record: Record | TokenRecord, key: int, exemplars: Sequence[Record]
    ) -> Rendered | Dropped:
        """Renders a record with these exemplars; a plain task's tokens only get the start.

        SeqIO trims them to their length without the start, so a token before the last may go.
        """
        if isinstance(record, TokenRecord):
            prompt = self.frame.started(record.input_ids)
            over = len(prompt) - self.lengths[0]
            if over > 0:
                del prompt[-1 - over : -1]
            texts = record.inputs, record.targets
            return Rendered(*texts, prompt, record.target_ids, template_id="", truncated=over > 0)
        if self.templates is None:
            raise UserError(
                f"the store of a plain seqio task holds record {record.id!r}, not tokens. "
                "Delete the store and run `python run.py prepare` again"
            )
        try:
            if MESSAGES in record.metadata and (self.frame.one_sequence or self.frame.chat):
                return render_turns(record, self.frame, self.lengths, self.every_turn)
            return render(
                record,
                self.templates,
                self.mode,
                key,
                exemplars,
                frame=self.frame,
                max_inputs_tokens=self.lengths[0],
                max_targets_tokens=self.lengths[1],
            )
        except TemplateRefusal as refusal:
            return Dropped(refusal.reason)


def _bytes_array(texts: Sequence[str]) -> np.ndarray:
    array = np.empty(len(texts), dtype=object)
    array[:] = [text.encode() for text in texts]
    return array


FEATURE_NAMES = (
    *("id", "answer", "answer_index", "references", "options", "markers"),
    *("template", "metadata", "record"),
)


def example_features(record: Record, shown: Rendered) -> dict[str, Any]:
    """The `example` of a `postprocess_fn`, without the `*_pretokenized` texts.

    Types are those of SeqIO's evaluator: text is bytes, lists of text are object arrays of bytes.
    `options`, `markers` and `answer_index` are as the prompt shows them (empty and -1 where it
    shows none); `references` is never empty; `metadata` and `record` are JSON.
    """
    metadata = json.dumps(dict(record.metadata), ensure_ascii=False, sort_keys=True)
    values = (
        record.id.encode(),
        record.answer.encode(),
        np.int32(shown.answer_index),
        _bytes_array(record.references or (record.answer,)),
        _bytes_array(shown.options),
        _bytes_array(shown.markers),
        shown.template_id.encode(),
        metadata.encode(),
        record.to_json().encode(),
    )
    return dict(zip(FEATURE_NAMES, values))
