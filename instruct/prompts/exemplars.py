"""Few-shot prompts: which exemplars, how many, and how they are laid out.

Flan's packing can show a query as its own exemplar, gives a template always the same number of
shots and lets one long exemplar block all later ones (flan/v2 few_shot). Here the number is drawn,
the query's own record can never be drawn, and long exemplars are skipped.
"""

import dataclasses
from collections.abc import Sequence

from instruct.prompts.draws import Draws
from instruct.prompts.record import Record

MIN_SHOTS = 1
MAX_SHOTS = 5
_PURPOSE = 101

PLACEMENTS = ("none", "top", "query", "each")


@dataclasses.dataclass(frozen=True)
class FewShotFormat:
    """How one few-shot prompt is laid out; the same for all its exemplars and the query.

    An exemplar is `input_prefix + input + separator + target_prefix + target`; exemplars are
    joined by `example_separator`; the query ends with the target prefix, without its trailing
    blanks.

    Attributes:
        id: unique in its template set.
        instruction: where an instruction stands: "top" of the prompt, before the "query",
            before "each" example, or "none".
        weight: relative chance of being drawn.
    """

    id: str
    input_prefix: str = ""
    target_prefix: str = ""
    separator: str = "\n"
    example_separator: str = "\n\n"
    instruction: str = "none"
    weight: float = 1.0

    def block(self, inputs: str, targets: str) -> str:
        """One exemplar, or the query with targets == ""."""
        if targets:
            prefix = self.target_prefix
        else:
            prefix = self.target_prefix.rstrip()
        return f"{self.input_prefix}{inputs}{self.separator}{prefix}{targets}"


# Used by every template set that brings none of its own.
STANDARD_FORMATS = tuple(
    FewShotFormat(f"standard_{number}", *values)
    for number, values in enumerate(
        (
            ("", "", "\n", "\n\n", "top"),
            ("", "", "\n\n", "\n\n\n", "none"),
            ("Question: ", "Answer: ", "\n", "\n\n", "top"),
            ("Question:\n", "Answer:\n", "\n", "\n\n\n", "none"),
            ("Q: ", "A: ", "\n", "\n\n", "none"),
            ("Q: ", "A: ", "\n", "\n---\n", "top"),
            ("Input: ", "Output: ", "\n", "\n\n", "top"),
            ("[Input]\n", "[Output]\n", "\n", "\n\n", "query"),
            ("Problem: ", "Solution: ", "\n", "\n\n", "each"),
            ("", "=> ", "\n", "\n\n", "top"),
            ("Task: ", "Response: ", "\n\n", "\n\n***\n\n", "none"),
            ("### Example\n", "### Reply\n", "\n", "\n\n", "top"),
            ("Given: ", "Result: ", "\n", "\n\n", "query"),
            ("", "Answer: ", "\n", "\n==========\n", "top"),
            ("* ", "-> ", "\n", "\n", "top"),
            ("Prompt: ", "Reply: ", "\n", "\n\n", "each"),
        )
    )
)

# For inverted prompts, each of which says itself what is asked: nothing that names a side wrongly.
INVERTED_FORMATS = tuple(
    FewShotFormat(f"inverted_{number}", *values)
    for number, values in enumerate(
        (
            ("", "", "\n", "\n\n"),
            ("", "", "\n\n", "\n\n\n"),
            ("", "", "\n", "\n---\n"),
            ("Input: ", "Output: ", "\n", "\n\n"),
            ("[Input]\n", "[Output]\n", "\n", "\n\n"),
            ("", "=> ", "\n", "\n\n"),
            ("Task: ", "Response: ", "\n\n", "\n\n***\n\n"),
            ("### Example\n", "### Reply\n", "\n", "\n\n"),
            ("Prompt: ", "Reply: ", "\n", "\n\n"),
            ("* ", "-> ", "\n", "\n"),
        )
    )
)


def draw_exemplars(
    key: int,
    num_records: int,
    query_index: int | None,
    min_shots: int = MIN_SHOTS,
    max_shots: int = MAX_SHOTS,
) -> list[int]:
    """Indices of the exemplars of one prompt, distinct and never the query's.

    The number is uniform in [min_shots, max_shots], or all there are if fewer.

    Args:
        key: the example's key.
        num_records: size of the store that exemplars come from (the query's own task).
        query_index: the query's index in that store; None if it comes from another one.
    """
    draws = Draws(key, _PURPOSE)
    available = num_records - (query_index is not None)
    wanted = min(min_shots + draws.below(max_shots - min_shots + 1), available)
    drawn: list[int] = []
    while len(drawn) < wanted:
        index = draws.below(available)
        if query_index is not None and index >= query_index:
            index += 1
        if index not in drawn:
            drawn.append(index)
    return drawn


def usable_exemplars(
    record: Record, exemplars: Sequence[Record], published: bool = False
) -> list[Record]:
    """`exemplars` without the query, without records that ask the same, without repetitions.

    Data sets hold the same example under several ids; equal source fields would hand the
    answer to the model.

    Args:
        published: the exemplars are those of a published prompt, which is shown as it is: only the
            query itself is left out, repetitions stay.
    """
    if published:
        return [exemplar for exemplar in exemplars if exemplar.id != record.id]
    seen_ids = {record.id}
    seen_fields = [dict(record.fields)]
    kept = []
    for exemplar in exemplars:
        fields = dict(exemplar.fields)
        if exemplar.id in seen_ids or fields in seen_fields:
            continue
        seen_ids.add(exemplar.id)
        seen_fields.append(fields)
        kept.append(exemplar)
    return kept


def fitting(costs: Sequence[int], budget: int) -> list[int]:
    """Positions of the exemplars that fit, in order, long ones skipped.

    >>> fitting([40, 300, 50], 100)
    [0, 2]
    """
    kept = []
    for position, cost in enumerate(costs):
        if cost <= budget:
            kept.append(position)
            budget -= cost
    return kept
