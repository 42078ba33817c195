"""Prompts of a task as golden text: what is read, what is to be written, how that is scored."""

from collections.abc import Sequence

from instruct.data.feed.rendering import (
    ExampleRenderer,
    RecordList,
    example_features,
    example_key,
    name_key,
)
from instruct.data.spec import TaskSpec
from instruct.data.vocab import load_vocabulary
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered

LENGTHS = (1000, 300)


def rendered(
    spec: TaskSpec,
    mode: str,
    number: int,
    records: Sequence[Record],
    pool: Sequence[Record] | None = None,
    lengths: tuple[int, int] = LENGTHS,
) -> Rendered | Dropped:
    """Example `number` of a task in a mode, as training would render it.

    Args:
        records: the task's records; they are taken in turn.
        pool: what exemplars are drawn from; None for `records`.
        lengths: of inputs and targets, in bytes.
    """
    renderer = ExampleRenderer(
        *(mode, spec.templates, None, Frame(load_vocabulary("bytes")), lengths),
        exemplars=RecordList(records if pool is None else pool),
        query_among_exemplars=pool is None,
    )
    own = number % len(records)
    return renderer(records[own], own, example_key(0, name_key(spec.leaf_name(mode)), number))


def shown(
    spec: TaskSpec,
    mode: str,
    number: int,
    records: Sequence[Record],
    pool: Sequence[Record] | None = None,
    lengths: tuple[int, int] = LENGTHS,
) -> str:
    """The same as text."""
    record = records[number % len(records)]
    example = rendered(spec, mode, number, records, pool, lengths)
    head = f"======== {spec.leaf_name(mode)} {number}: {record.id}"
    if isinstance(example, Dropped):
        return f"{head}: dropped, {example.reason}\n"
    read = "(inverted)"
    if not example.inverted and spec.postprocess_fn is not None:
        features = example_features(record, example)
        read = spec.postprocess_fn(example.targets, example=features, is_target=True)
    return (
        f"{head}: {example.template_id}, {example.num_exemplars} exemplars\n{example.inputs}\n"
        f"-------- targets\n{example.targets}\n-------- read as\n{read}\n\n"
    )
