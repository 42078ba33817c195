"""From a stored record to an example: which key, which exemplars, which features a metric sees.

The one place where training, evaluation and the seqio tasks agree on these.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from instruct.prompts.draws import mix
from instruct.prompts.exemplars import draw_exemplars
from instruct.prompts.modes import FEW_SHOT_MODES, TK_MODES
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered, Tokenizer, render
from instruct.prompts.template import TemplateSet
from instruct.prompts.tk_instruct import ENCODINGS

_TK_EXEMPLARS = 2
_MASK = (1 << 64) - 1


def name_key(name: str) -> int:
    """64 bits that stand for a name, the same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def example_key(seed: int, leaf_key: int, number: int) -> int:
    """The key that fixes everything drawn for one example.

    Args:
        seed: the run's.
        leaf_key: `name_key` of the leaf.
        number: which of the leaf's examples (training: its count so far, so that a record is
            worded anew in every epoch; evaluation: the record's number).
    """
    return mix(mix((mix(seed & _MASK) ^ leaf_key) & _MASK) ^ (number & _MASK))


def exemplar_indices(
    mode: str, key: int, num_records: int, query_index: int | None, shots: int | None = None
) -> list[int]:
    """Records to show before the query; none unless the mode shows exemplars.

    Args:
        num_records: size of the exemplar split.
        query_index: the query's number there, None if it comes from another split.
        shots: the first so many, as the task fixes it for the mode (`TaskSpec.fixed_shots`).
    """
    if mode in TK_MODES:  # always the first ones of the task
        shots = _TK_EXEMPLARS
    if shots is not None:
        first = [n for n in range(min(num_records, shots + 1)) if n != query_index]
        return first[:shots]
    if mode not in FEW_SHOT_MODES:
        return []
    return draw_exemplars(key, num_records, query_index)


def exemplars_asked(mode: str, shots: int | None, drawn: int, template_id: str) -> int:
    """How many exemplars a prompt should show, however many are there and fit.

    Args:
        shots: as `exemplar_indices`'s.
        drawn: how many `exemplar_indices` gave.
        template_id: of the rendered prompt; in TK_MODES the encoding, which fixes the number.
    """
    if mode in TK_MODES:
        return next(encoding.positive for encoding in ENCODINGS if encoding.id == template_id)
    return drawn if shots is None else shots


def render_example(
    record: Record,
    templates: TemplateSet,
    mode: str,
    key: int,
    exemplars: Sequence[Record],
    tokenizer: Tokenizer,
    lengths: tuple[int, int],
) -> Rendered | Dropped:
    """`prompts.render.render` with both lengths in one argument."""
    return render(
        record,
        templates,
        mode,
        key,
        exemplars,
        tokenizer=tokenizer,
        max_inputs_tokens=lengths[0],
        max_targets_tokens=lengths[1],
    )


def _bytes_array(texts: Sequence[str]) -> np.ndarray:
    array = np.empty(len(texts), dtype=object)
    array[:] = [text.encode() for text in texts]
    return array


# Feature -> how it is made. Types are those of seqio's evaluator: text is bytes, lists of text
# are object arrays of bytes.
_FEATURES: dict[str, Callable[[Record, Rendered], Any]] = {
    "id": lambda record, shown: record.id.encode(),
    "answer": lambda record, shown: record.answer.encode(),
    "answer_index": lambda record, shown: np.int32(shown.answer_index),
    "references": lambda record, shown: _bytes_array(record.references or (record.answer,)),
    "options": lambda record, shown: _bytes_array(shown.options),
    "markers": lambda record, shown: _bytes_array(shown.markers),
    "template": lambda record, shown: shown.template_id.encode(),
    "metadata": lambda record, shown: json.dumps(
        dict(record.metadata), ensure_ascii=False, sort_keys=True
    ).encode(),
    "record": lambda record, shown: record.to_json().encode(),
}
FEATURE_NAMES = tuple(_FEATURES)


def example_features(record: Record, shown: Rendered) -> dict[str, Any]:
    """What a `postprocess_fn` gets as `example`, beside the `*_pretokenized` texts.

    `options`, `markers` and `answer_index` are as the prompt shows them (empty and -1 where it
    shows none); `references` is never empty; `metadata` and `record` are JSON.
    """
    return {name: make(record, shown) for name, make in _FEATURES.items()}
