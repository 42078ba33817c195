"""Evaluation examples of a leaf: the same records and the same prompts in every evaluation.

Our tasks are rendered from stored records; plain seqio tasks keep the tokens of their own pipeline.
In both cases the `example` of a `postprocess_fn` has the types of SeqIO's own evaluator.
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


@dataclasses.dataclass(frozen=True, eq=False)
class EvalExample:
    """One example to evaluate.

    Attributes:
        task: name of the leaf (the seqio task).
        index, id: of its record in the split.
        inputs, targets: the texts.
        input_ids, target_ids: their tokens with their frame: EOS, and before the inputs of a
            decoder-only model its start. Targets are trimmed to their length.
        template_id: "" for a plain seqio task.
        options: answer options in the order shown; () where the prompt shows none.
        references: accepted answers.
        record_metadata: for metrics.
        seqio_example: `example` for the task's `postprocess_fn`.
        num_exemplars, exemplars_asked: exemplars that the prompt shows, and should show; None for a
            plain seqio task.
        truncated: whether the source field (or a plain seqio task's inputs) was cut to fit; None if
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
    config: DataConfig,
    limit: int | None = None,
    seed: int = 0,
) -> list[EvalExample]:
    """Examples of one leaf in record order, without those whose inputs do not fit.

    Args:
        split: of the task; its store must be prepared.
        config: vocabulary, lengths, layout and frame. Target tokens are trimmed, as T5X does; the
            text stays whole for the metrics.
        limit: maximum number of examples, drawn by `seed`; None for all.
        seed: of the draw and the wording.

    Raises:
        UserError: no store of that split.
    """
    store = _open(workspace, leaf, split, config)
    order, leaf_key = np.arange(len(store)), name_key(leaf.name)
    if limit is not None and limit < len(store):
        key = np.uint64(example_key(seed, leaf_key, -1))
        order = np.sort(permute(order[:limit], len(store), key))
    renderer = ExampleRenderer.of_task(
        leaf.spec,
        leaf.mode,
        split,
        config.frame,
        (config.example_lengths[0], _ANY_LENGTH),
        lambda exemplar_split: _open(workspace, leaf, exemplar_split, config),
    )
    examples = []
    for number, record in zip(order.tolist(), store.stream(order.tolist())):
        key = example_key(seed, leaf_key, number)
        example = _eval_example(leaf.name, number, record, renderer, key, config)
        if example is not None:
            examples.append(example)
    return examples


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
    task: str,
    number: int,
    record: Record | TokenRecord,
    renderer: ExampleRenderer,
    key: int,
    config: DataConfig,
) -> EvalExample | None:
    """One example; None if it does not fit."""
    rendered = renderer(record, number, key)
    if isinstance(rendered, Dropped):
        return None
    target_ids = rendered.target_ids[: config.lengths[1]]
    seqio_example: dict[str, Any] = {
        "inputs": np.array(rendered.input_ids, dtype=np.int32),
        "targets": np.array(target_ids, dtype=np.int32),
    }
    if isinstance(record, TokenRecord):
        references, metadata = (record.targets,), {}
        shown = asked = None
        seqio_example |= record.features
        truncated = rendered.truncated or _is_trimmed(record, config)
    else:
        references, metadata = record.references or (record.answer,), record.metadata
        shown, drawn = rendered.num_exemplars, len(renderer.exemplar_numbers(number, key))
        asked = exemplars_asked(renderer.mode, renderer.shots, drawn, rendered.template_id)
        seqio_example |= {
            "inputs_pretokenized": rendered.inputs.encode(),
            "targets_pretokenized": rendered.targets.encode(),
            **example_features(record, rendered),
        }
        truncated = rendered.truncated
    return EvalExample(
        task=task,
        index=number,
        id=record.id,
        inputs=rendered.inputs,
        targets=rendered.targets,
        input_ids=rendered.input_ids,
        target_ids=target_ids,
        template_id=rendered.template_id,
        options=rendered.options,
        references=references,
        record_metadata=metadata,
        seqio_example=seqio_example,
        num_exemplars=shown,
        exemplars_asked=asked,
        truncated=truncated,
    )


def _is_trimmed(record: TokenRecord, config: DataConfig) -> bool | None:
    """Whether SeqIO trimmed the inputs; None where they fill the length and have no text."""
    if len(record.input_ids) < config.lengths[0]:
        return False
    if "inputs_pretokenized" not in record.features:
        return None
    vocabulary = load_vocabulary(config.vocabulary)
    num_kept = len(record.input_ids) - (record.input_ids[-1] == vocabulary.eos_id)
    return len(vocabulary.encode(record.inputs)) > num_kept


def majority_answer(
    workspace: Workspace, leaf: Leaf, config: DataConfig, split: str = "train"
) -> tuple[str, float]:
    """The most frequent answer of a prepared split and its share; ("", 0.0) if not prepared."""
    manifest, _ = leaf_manifest(workspace, leaf, split, config)
    return ("", 0.0) if manifest is None else (manifest.majority_answer, manifest.majority_share)


def majority_position(
    workspace: Workspace, leaf: Leaf, config: DataConfig, split: str = "train"
) -> tuple[int, float]:
    """The most frequent position of the right answer among a record's options, and its share.

    (-1, 0.0) where the split is not prepared, or prompts show options in another order.
    """
    manifest, path = leaf_manifest(workspace, leaf, split, config)
    if manifest is None or leaf.spec is None or leaf.spec.templates.shuffle_options:
        return -1, 0.0
    store: Store[Record] = open_store(path, manifest.sha256)
    records = store.stream(range(len(store)))
    positions = collections.Counter(record.answer_index for record in records if record.options)
    if not positions:
        return -1, 0.0
    position, count = min(positions.items(), key=lambda item: (-item[1], item[0]))
    return position, count / len(store)
