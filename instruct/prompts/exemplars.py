"""Few-shot prompts: choice, number and layout of exemplars.

In Flan (flan/v2 few_shot) a query may be its own exemplar, a template always has the same number of
shots, and one long exemplar blocks all later ones. Here the number is drawn, the query's record is
never drawn, and long exemplars are skipped.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from instruct.fields import bounded, one_of
from instruct.prompts.draws import Draws
from instruct.prompts.record import Record

MIN_SHOTS = 1
MAX_SHOTS = 5
_PURPOSE = 101


@dataclasses.dataclass(frozen=True)
class FewShotFormat:
    """Layout of a few-shot prompt: of its exemplars and its query.

    An exemplar is `input_prefix + input + separator + target_prefix + target`; exemplars are
    joined by `example_separator`; the query ends with the target prefix, trailing whitespace
    removed.

    Attributes:
        id: unique in its template set.
        instruction: place of the instruction: "top" of the prompt, before the "query", before
            "each" example, or "none".
        weight: relative chance of being drawn.
    """

    id: str
    input_prefix: str = ""
    target_prefix: str = ""
    separator: str = "\n"
    example_separator: str = "\n\n"
    instruction: str = one_of("none", ("none", "top", "query", "each"))
    weight: float = bounded(1.0, above=0)

    def block(self, inputs: str, targets: str) -> str:
        """One exemplar, or the query with targets == ""."""
        prefix = self.target_prefix if targets else self.target_prefix.rstrip()
        return f"{self.input_prefix}{inputs}{self.separator}{prefix}{targets}"


def _formats(name: str, *rows: tuple[Any, ...]) -> tuple[FewShotFormat, ...]:
    return tuple(FewShotFormat(f"{name}_{number}", *row) for number, row in enumerate(rows))


# Layouts of template sets without their own.
STANDARD_FORMATS = _formats(
    "standard",
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

# For inverted prompts: no labels that would name a side wrongly ("Question: ").
INVERTED_FORMATS = _formats(
    "inverted",
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


def draw_exemplars(key: int, num_records: int, query_index: int | None) -> list[int]:
    """Indices of the exemplars of one prompt, distinct and never the query's.

    The number is uniform in [MIN_SHOTS, MAX_SHOTS], or all records if there are fewer.

    Args:
        key: the example's key.
        num_records: size of the exemplars' store.
        query_index: the query's index in that store; None if it is not in it.
    """
    draws = Draws(key, _PURPOSE)
    available = num_records - (query_index is not None)
    wanted = min(MIN_SHOTS + draws.below(MAX_SHOTS - MIN_SHOTS + 1), available)
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
    """Exemplars without the query, and without records with equal fields.

    Data sets have the same example under several ids; equal fields would give the answer away.

    Args:
        published: only leave out the query itself, as the exemplars of a published prompt are
            shown unchanged.
    """
    if published:
        return [exemplar for exemplar in exemplars if exemplar.id != record.id]
    kept = [record]
    for exemplar in exemplars:
        if all(exemplar.id != k.id and dict(exemplar.fields) != dict(k.fields) for k in kept):
            kept.append(exemplar)
    return kept[1:]
