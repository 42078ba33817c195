"""Evaluation examples of a leaf: the same records and the same prompts in every evaluation.

Ours are rendered from stored records, plain seqio tasks come as their pipeline made them; what a
`postprocess_fn` gets as `example` has the types of SeqIO's own evaluator in both cases.
"""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from instruct.data.config import DataConfig
from instruct.data.feed.plan import permute
from instruct.data.feed.rendering import (
    ExampleRenderer,
    example_features,
    example_key,
    exemplars_asked,
    name_key,
)
from instruct.data.feed.window import open_store
from instruct.data.spec import Leaf
from instruct.data.stores.store import Store, leaf_manifest
from instruct.data.token_record import TokenRecord
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

_ANY_LENGTH = 1 << 30
_READ_AT_ONCE = 1000  # records


@dataclasses.dataclass(frozen=True, eq=False)
class EvalExample:
    """One example to evaluate.

    Attributes:
        task: name of the leaf (the seqio task).
        index: its record's number in the split.
        id: its record's id.
        inputs, targets: the texts.
        input_ids, target_ids: their tokens with EOS, within the lengths; a target that is too long
            loses its end.
        template_id: which wording; "" for a plain seqio task.
        options: answer options in the order shown; () where the prompt shows none.
        references: accepted answers.
        record_metadata: what metrics may need.
        seqio_example: `example` for the task's `postprocess_fn`.
        num_exemplars, exemplars_asked: how many exemplars the prompt shows, and how many it should;
            None for a plain seqio task.
        truncated: whether the source field was cut to fit, or a plain seqio task's inputs; None if
            unknown.
    """

    task: str
    index: int
    id: str
    inputs: str
    targets: str
    input_ids: list[int]
    target_ids: list[int]
    template_id: str
    options: tuple[str, ...]
    references: tuple[str, ...]
    record_metadata: Mapping[str, Any]
    seqio_example: Mapping[str, Any]
    num_exemplars: int | None = None
    exemplars_asked: int | None = None
    truncated: bool | None = None


def eval_examples(
    workspace: Workspace,
    leaf: Leaf,
    split: str,
    vocabulary: str,
    lengths: Mapping[str, int],
    limit: int | None = None,
    seed: int = 0,
) -> list[EvalExample]:
    """Examples of one leaf, in the order of their numbers.

    Args:
        split: of the task; its store must be prepared.
        vocabulary: name of a vocabulary (instruct/data/vocab.py).
        lengths: {"inputs": S, "targets": T}; examples whose inputs cannot be cut to them are left
            out. Target tokens are trimmed, as T5X does; the text stays whole for the metrics.
        limit: most examples; which ones is drawn by `seed`. None for all.
        seed: of the choice and the wording.

    Raises:
        UserError: no store of that split.
    """
    config = DataConfig(leaf.name, lengths, batch_size=1, vocabulary=vocabulary)
    store = _open(workspace, leaf, split, config)
    numbers = np.arange(len(store))
    leaf_key = name_key(leaf.name)
    if limit is not None and limit < len(store):
        key = np.uint64(example_key(seed, leaf_key, -1))
        numbers = np.sort(permute(np.arange(limit), len(store), key))
    renderer = _renderer(workspace, leaf, split, config)
    chosen = numbers.tolist()
    examples = (
        _eval_example(leaf, number, record, renderer, example_key(seed, leaf_key, number), config)
        for number, record in zip(chosen, store.read(chosen))
    )
    return [example for example in examples if example is not None]


def _renderer(workspace: Workspace, leaf: Leaf, split: str, config: DataConfig) -> ExampleRenderer:
    tokenizer = load_vocabulary(config.vocabulary)
    lengths = (config.lengths[0], _ANY_LENGTH)
    if leaf.spec is None:
        return ExampleRenderer(leaf.mode, None, None, tokenizer, lengths)

    def open_split(source: str) -> Store:
        return _open(workspace, leaf, source, config)

    return ExampleRenderer.of_task(leaf.spec, leaf.mode, split, tokenizer, lengths, open_split)


def num_asked(
    workspace: Workspace, leaf: Leaf, split: str, config: DataConfig, limit: int | None
) -> int:
    """Number of examples that `eval_examples` returns if all of them fit."""
    size = len(_open(workspace, leaf, split, config))
    return size if limit is None else min(size, limit)


def _open(workspace: Workspace, leaf: Leaf, split: str, config: DataConfig) -> Store:
    manifest, path = leaf_manifest(workspace, leaf, split, config)
    if manifest is None:
        raise UserError(
            f"task {leaf.name!r} has no prepared records of split {split!r} ({path}). Run "
            "`python run.py prepare` with the same settings"
        )
    return open_store(path, manifest.sha256)


def _eval_example(
    leaf: Leaf,
    number: int,
    record: Record | TokenRecord,
    renderer: ExampleRenderer,
    key: int,
    config: DataConfig,
) -> EvalExample | None:
    """One example; None if it does not fit."""
    exemplars = renderer.exemplar_numbers(number, key)
    shown = renderer.render(record, key, exemplars)
    if isinstance(shown, Dropped):
        return None
    target_ids = shown.target_ids[: config.lengths[1]]
    seqio_example: dict[str, Any] = {
        "inputs": np.array(shown.input_ids, dtype=np.int32),
        "targets": np.array(target_ids, dtype=np.int32),
    }
    if isinstance(record, TokenRecord):
        references, metadata = (record.targets,), {}
        num_exemplars = asked = None
        seqio_example |= record.features
        truncated = _lost_its_end(record, config)
    else:
        references, metadata = record.references or (record.answer,), record.metadata
        num_exemplars = shown.num_exemplars
        asked = exemplars_asked(renderer.mode, renderer.shots, len(exemplars), shown.template_id)
        seqio_example = {
            "inputs_pretokenized": shown.inputs.encode(),
            "targets_pretokenized": shown.targets.encode(),
            **seqio_example,
            **example_features(record, shown),
        }
        truncated = shown.truncated
    return EvalExample(
        task=leaf.name,
        index=number,
        id=record.id,
        inputs=shown.inputs,
        targets=shown.targets,
        input_ids=shown.input_ids,
        target_ids=target_ids,
        template_id=shown.template_id,
        options=shown.options,
        references=references,
        record_metadata=metadata,
        seqio_example=seqio_example,
        num_exemplars=num_exemplars,
        exemplars_asked=asked,
        truncated=truncated,
    )


def _lost_its_end(record: TokenRecord, config: DataConfig) -> bool | None:
    """Whether SeqIO trimmed the inputs; None where they fill the length and have no text."""
    if len(record.input_ids) < config.lengths[0]:
        return False
    if "inputs_pretokenized" not in record.features:
        return None
    vocabulary = load_vocabulary(config.vocabulary)
    kept = len(record.input_ids) - (record.input_ids[-1] == vocabulary.eos_id)
    return len(vocabulary.encode(record.inputs)) > kept


def majority_answer(
    workspace: Workspace, leaf: Leaf, config: DataConfig, split: str = "train"
) -> tuple[str, float]:
    """The most frequent answer of a prepared split and its share; ("", 0.0) if not prepared."""
    manifest, _ = leaf_manifest(workspace, leaf, split, config)
    if manifest is None:
        return "", 0.0
    return manifest.majority_answer, manifest.majority_share


def majority_position(
    workspace: Workspace, leaf: Leaf, config: DataConfig, split: str = "train"
) -> tuple[int, float]:
    """The most frequent position of the right answer among a record's options, and its share.

    (-1, 0.0) where the split is not prepared, or prompts show options in another order.
    """
    manifest, path = leaf_manifest(workspace, leaf, split, config)
    if manifest is None or leaf.spec is None or leaf.spec.templates.shuffle_options:
        return -1, 0.0
    store = open_store(path, manifest.sha256)
    positions: collections.Counter[int] = collections.Counter()
    for first in range(0, len(store), _READ_AT_ONCE):
        numbers = range(first, min(first + _READ_AT_ONCE, len(store)))
        positions.update(record.answer_index for record in store.read(numbers) if record.options)
    if not positions:
        return -1, 0.0
    position, count = min(positions.items(), key=lambda item: (-item[1], item[0]))
    return position, count / len(store)
