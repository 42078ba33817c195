"""The operations of the lists family, against answers and steps worked out in another way."""

import itertools
import random
import re

import pytest

from tasks.lists.kinds import KINDS
from tasks.lists.operations import (
    FRAMES,
    HELD_OUT,
    OPERATIONS,
    TRAINED,
    UNSEEN_FRAMES,
    Item,
    Operation,
)


def items_of(name: str, kind: str = "animals", count: int = 200) -> list[Item]:
    rng = random.Random(name)
    makes = (OPERATIONS[name].make(rng, rng.sample(KINDS[kind], 20)) for _ in itertools.count())
    return list(itertools.islice(makes, count))


def solved(name: str, items: list[str], x: str, y: str, more: list[str]) -> str:
    """The answer, from what the question shows."""
    at = items.index
    return {
        "last": lambda: items[-1],
        "first": lambda: items[0],
        "second": lambda: items[1],
        "third": lambda: items[2],
        "contains": lambda: "yes" if x in items else "no",
        "after": lambda: items[at(x) + 1],
        "before": lambda: items[at(x) - 1],
        "between": lambda: items[(at(x) + at(y)) // 2] if at(y) - at(x) == 2 else "",
        "count": lambda: str(len(items)),
        "one_more": lambda: str(len([*items, x])),
        "one_less": lambda: str(len(items[1:])),
        "over_three": lambda: "yes" if items[3:] else "no",
        "even": lambda: "yes" if len(items[::2]) == len(items[1::2]) else "no",
        "longer": lambda: "second" if more[len(items) :] else "first",
        "same_length": lambda: "yes" if len(items) == len(more) else "no",
        "earlier": lambda: next(item for item in items if item in (x, y)),
        "later": lambda: next(item for item in reversed(items) if item in (x, y)),
        "repeated": lambda: next(item for item in items if items.count(item) == 2),
        "same_ends": lambda: "yes" if items[0] == items[-1] else "no",
        "new": lambda: next(item for item in more if item not in items),
        "without": lambda: ", ".join(item for item in items if item != x),
        "reversed": lambda: ", ".join(reversed(items)),
    }[name]()  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_right(name):
    for item in items_of(name):
        fields = item.fields
        x, y = fields.get("x", ""), fields.get("y", "")
        more = fields.get("more", "").split(", ")
        assert item.answer == solved(name, fields["items"].split(", "), x, y, more), fields
        assert not item.options or item.options.count(item.answer) == 1


def check_steps(rationale: str, items: list[str], more: list[str] | None = None) -> list[str]:
    """Checks each statement of a worked solution; returns the items that the last ones name."""
    first, *steps = [step for step in rationale.removesuffix(".").split(". ") if step]
    assert first == ", ".join(f"{n} {item}" for n, item in enumerate(items, start=1))
    assert steps
    named = []
    for step in steps:
        if match := re.fullmatch(r"Number (\d) is (\w+)", step):
            assert items[int(match[1]) - 1] == match[2], step
            named.append(match[2])
        elif match := re.fullmatch(r"(\w+) is number (\d)", step):
            assert items[int(match[2]) - 1] == match[1], step
        elif match := re.fullmatch(r"(\w+) has no number", step):
            assert match[1] not in items, step
            named.append(match[1])
        elif more and step.startswith("The other"):
            assert step == f"The other list has {len(more)} items"
        else:
            assert step == f"The highest number is {len(items)}", step
    return named


# What follows from the numbers that a worked solution names.
COUNTING = {
    "count": lambda n: f"{n}",
    "one_more": lambda n: f"{n + 1}",
    "one_less": lambda n: f"{n - 1}",
    "over_three": lambda n: "yes" if n > 3 else "no",
    "even": lambda n: "no" if n % 2 else "yes",
    "longer": lambda n, m: "first" if n > m else "second",
    "same_length": lambda n, m: "yes" if n == m else "no",
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_worked_solutions_are_true_and_end_in_the_answer(name):
    for item in items_of(name):
        items, more = (item.fields.get(name, "").split(", ") for name in ("items", "more"))
        named = check_steps(item.rationale, items, more)
        if name == "contains":
            assert (item.answer == "no") == (named == [item.fields["x"]])
        elif name == "same_ends":
            assert (item.answer == "yes") == (named[0] == named[1])
        elif name == "without":
            assert f"{item.fields['x']} is number" in item.rationale
        elif name in COUNTING:
            numbers = [int(n) for n in re.findall(r"(?:number is|list has) (\d)", item.rationale)]
            assert item.answer == COUNTING[name](*numbers)
        elif name == "reversed":
            assert ", ".join(named) == item.answer
        else:
            assert named[-1] == item.answer


@pytest.mark.parametrize("name", ("contains", "same_ends", "over_three", "even", "same_length"))
def test_yes_and_no_are_equally_frequent(name):
    yes = sum(item.answer == "yes" for item in items_of(name, count=400))
    assert 150 < yes < 250


def test_a_position_is_not_always_the_same_item_of_a_list():
    for name in ("after", "before", "earlier", "later"):
        shown = [(i.fields["items"].split(", "), i.answer) for i in items_of(name)]
        places = {items.index(answer) for items, answer in shown if answer in items}
        assert len(places) >= 3, name


@pytest.mark.parametrize("operation", TRAINED, ids=lambda row: row.name)
def test_unseen_wordings_are_other_wordings(operation: Operation):
    assert not set(operation.requests) & set(operation.unseen_requests)
    assert not set(FRAMES) & set(UNSEEN_FRAMES)
    assert operation.unseen_requests and not any(row.unseen_requests for row in HELD_OUT)
