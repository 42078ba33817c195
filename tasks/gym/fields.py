"""Converts a generator's item to the parts of a record: fields, answer, options, references.

Every record keeps the generator's whole prompt as the field `question`. Generators with templates
of their own also fill the fields of those templates.
"""

import dataclasses
import decimal
import itertools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tasks.gym.table import Generator
from tasks.gym.verify import value_of

Entry = Mapping[str, Any]


class UnusableError(ValueError):
    """An item that makes no good record; the message is the reason by which drops are counted."""


@dataclasses.dataclass
class Shaped:
    """The parts of a record that depend on the kind of puzzle."""

    answer: str
    fields: dict[str, str]
    options: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


def shape(row: Generator, entry: Entry) -> Shaped:
    """The parts of one item's record. Raises UnusableError with the reason."""
    answer = "" if entry["answer"] is None else str(entry["answer"])
    shaped = Shaped(answer, {"question": entry["question"].strip("\n")}, row.options)
    if row.generator in _SHAPES:
        _SHAPES[row.generator](entry, shaped)
    if not shaped.answer.strip():
        raise UnusableError("empty answer")
    return shaped


def _parts(**keys: str) -> Callable[[Entry, Shaped], None]:
    """Copies metadata entries into fields: field name = metadata key."""

    def copy(entry: Entry, shaped: Shaped) -> None:
        for field, key in keys.items():
            value = entry["metadata"][key]
            values = value if isinstance(value, list | tuple) else (value,)
            shaped.fields[field] = ", ".join(map(str, values))

    return copy


def _expression(entry: Entry, shaped: Shaped) -> None:
    expression = entry["metadata"]["expression"]
    if value_of(expression) != int(shaped.answer):
        # The generator uses integer division, which its question does not say.
        raise UnusableError("division with a remainder")
    shaped.fields["expression"] = expression


def _number_sequence(entry: Entry, shaped: Shaped) -> None:
    shaped.fields["terms"] = entry["question"].removesuffix(", ?")


def _two_words(entry: Entry, shaped: Shaped) -> None:
    shaped.fields["first"], shaped.fields["second"] = entry["metadata"]["words"]


def _text_span(entry: Entry, shaped: Shaped) -> None:
    shaped.fields["letter"] = entry["metadata"]["target_letter"]
    shaped.fields["text"] = " ".join(entry["metadata"]["span"])


def _number_format(entry: Entry, shaped: Shaped) -> None:
    metadata = entry["metadata"]
    shaped.fields["extreme"] = metadata["size"]
    shaped.fields["numbers"] = " ".join(metadata["formatted_candidates"])
    shaped.options = tuple(metadata["formatted_candidates"])
    # The generator's own text shows the float's last bits (865883.6799999999).
    shaped.answer = f"{metadata['solution']:.3f}".rstrip("0").rstrip(".")


def _color_cube(entry: Entry, shaped: Shaped) -> None:
    story, _, _ = entry["question"].rpartition("\n\nWhat is now")
    shaped.fields["story"] = re.sub(r"\ba (?=[aeiou])", "an ", story)
    shaped.fields["side"] = entry["metadata"]["target_side"]
    shaped.options = tuple(dict.fromkeys(entry["metadata"]["initial_state"].values()))


def _polygon(entry: Entry, shaped: Shaped) -> None:
    if int(shaped.answer) >= 180:
        raise UnusableError("a convex polygon with an angle of 180 degrees or more")
    metadata = entry["metadata"]
    shaped.fields["sides"] = str(metadata["n_sides"])
    shaped.fields["angles"] = ", ".join(f"{angle:g}°" for angle in metadata["known_angles"])


def _courses(entry: Entry, shaped: Shaped) -> None:
    metadata = entry["metadata"]
    shaped.fields["courses"] = str(len(metadata["courses"]))
    shaped.fields["prerequisites"] = ", ".join(
        f"{first} before {then}" for then, first in metadata["prerequisites"]
    )


def _family(entry: Entry, shaped: Shaped) -> None:
    if shaped.answer.endswith("-in-law"):
        # The generator gives the inverse relation ("father-in-law" for a son's wife).
        raise UnusableError("relation by marriage, mislabelled by the generator")
    metadata = entry["metadata"]
    shaped.fields["story"], _, _ = entry["question"].partition("\n\n")
    shaped.fields["first"], shaped.fields["second"] = metadata["person1"], metadata["person2"]


_STATEMENT = re.compile(r"(All|No|Some) (\w+) are (not )?(\w+)")


def _follows(premises: list[str], conclusion: str) -> bool:
    """Whether a conclusion holds in every world with members of each kind (Aristotle's reading).

    A world is the set of those of the 2^3 combinations of three kinds that have members.
    """
    forms = [_STATEMENT.fullmatch(text) for text in (*premises, conclusion)]
    if None in forms:
        raise UnusableError("statement of an unknown form")
    parsed = [form.groups() for form in forms if form]
    kinds = sorted({kind for _, left, _, right in parsed for kind in (left, right)})
    cells = list(itertools.product((False, True), repeat=len(kinds)))

    def holds(statement: tuple[str, ...], world: tuple[tuple[bool, ...], ...]) -> bool:
        quantifier, left, negated, right = statement
        i, j = kinds.index(left), kinds.index(right)
        if quantifier == "Some":
            return any(cell[i] and cell[j] != bool(negated) for cell in world)
        return all(not cell[i] or cell[j] == (quantifier == "All") for cell in world)

    for chosen in range(1, 2 ** len(cells)):
        world = tuple(cell for bit, cell in enumerate(cells) if chosen >> bit & 1)
        inhabited = all(any(cell[i] for cell in world) for i in range(len(kinds)))
        if inhabited and all(holds(p, world) for p in parsed[:-1]) and not holds(parsed[-1], world):
            return False
    return True


def _syllogism(entry: Entry, shaped: Shaped) -> None:
    match = re.search(
        r"statements:\n(.*)\n\nDoes it logically follow that:\n(.*)\?\n", entry["question"], re.S
    )
    if match is None:
        raise UnusableError("statement of an unknown form")
    premises = [line.partition(". ")[2] for line in match[1].split("\n")]
    if _follows(premises, match[2]) != (shaped.answer == "Yes"):
        # The generator calls some invalid moods valid, and some valid ones invalid.
        raise UnusableError("label contradicts the statements")
    shaped.fields["premises"] = ". ".join(premises) + "."
    shaped.fields["conclusion"] = match[2][0].lower() + match[2][1:]


def _power(entry: Entry, shaped: Shaped) -> None:
    # The question asks for three significant digits in the form 1.23e+4.
    mantissa, _, exponent = f"{decimal.Decimal(shaped.answer):.2e}".partition("e")
    shaped.answer = f"{mantissa}e{exponent[0]}{exponent[1:].lstrip('0') or '0'}"


def _graph_color(entry: Entry, shaped: Shaped) -> None:
    coloring = entry["metadata"]["possible_answer"]
    shaped.answer = json.dumps({str(vertex): color for vertex, color in coloring.items()})


def _proposition(entry: Entry, shaped: Shaped) -> None:
    shaped.answer = entry["metadata"]["example_answer"]


def _rubiks_cube(entry: Entry, shaped: Shaped) -> None:
    # The scramble undone, instead of the generator's solution of about 150 moves.
    moves = reversed(entry["metadata"]["scramble_moves"].split())
    shaped.answer = " ".join(m[:-1] if m.endswith("'") else m + "'" for m in moves)


def _n_queens(entry: Entry, shaped: Shaped) -> None:
    shaped.references = tuple(entry["metadata"]["valid_answers"])


_SHAPES: dict[str, Callable[[Entry, Shaped], None]] = {
    "basic_arithmetic": _expression,
    "chain_sum": _parts(expression="expression"),
    "color_cube_rotation": _color_cube,
    "count_bits": _parts(number="number"),
    "course_schedule": _courses,
    "family_relationships": _family,
    "gcd": _parts(numbers="numbers"),
    "graph_color": _graph_color,
    "isomorphic_strings": _two_words,
    "letter_counting": _text_span,
    "n_queens": _n_queens,
    "number_format": _number_format,
    "number_sequence": _number_sequence,
    "power_function": _power,
    "products": _parts(expression="expression"),
    "propositional_logic": _proposition,
    "ransom_note": _parts(note="ransom_note", magazine="magazine"),
    "rubiks_cube": _rubiks_cube,
    "simple_equations": _parts(equation="equation", variable="variable"),
    "simple_geometry": _polygon,
    "spell_backward": _parts(word="word"),
    "syllogism": _syllogism,
    "word_sequence_reversal": _parts(words="words"),
}
