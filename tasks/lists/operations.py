"""The operations of family `lists`, one row each: question, answer, worked solution and wordings.

A wording is a frame around a request. Every operation has requests that are trained on and
requests that only the evaluation of unseen wordings shows, and so have frames. Items follow a
blank wherever they stand: the vocabulary spells a word at the start of a line otherwise.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping

YES_NO = ("yes", "no")


@dataclasses.dataclass(frozen=True)
class Item:
    """One question about a list.

    Attributes:
        fields: what the wordings may show: `items`, and for some operations `x`, `y` or `more`.
        options: answers of which one is right; () for operations whose answers are lists.
        rationale: the steps to the answer, each a statement about the list that can be checked.
    """

    fields: Mapping[str, str]
    answer: str
    options: tuple[str, ...]
    rationale: str


@dataclasses.dataclass(frozen=True)
class Operation:
    """A kind of question.

    Attributes:
        name: the category of its tasks, which are `lists.<name>_<kind>`.
        make: (random numbers, words of a kind, all different and in random order) -> a question.
        requests: wordings of the request that are trained on.
        unseen_requests: wordings that are only evaluated.
    """

    name: str
    make: Callable[[random.Random, list[str]], Item]
    requests: tuple[str, ...]
    unseen_requests: tuple[str, ...]

    @property
    def has_options(self) -> bool:
        """Whether one of several options is right; else the answer is a list."""
        return bool(self.make(random.Random(0), [str(number) for number in range(20)]).options)


FRAMES = (
    "Items: {items}\n\n%s",
    "%s\n\nItems: {items}",
    "List: {items}\n%s",
    "%s\nList: {items}\nAnswer:",
)
UNSEEN_FRAMES = (
    "Here is a list: {items}. %s",
    "Question: %s\nThe list: {items}",
    "A list follows. %s\nHere it is: {items}\nReply:",
)


def listed(words: list[str]) -> str:
    """The text of a list: "fox, hen, owl"."""
    return ", ".join(words)


def numbered(words: list[str]) -> str:
    """The first step of most solutions: "1 fox, 2 hen, 3 owl."."""
    return ", ".join(f"{number} {word}" for number, word in enumerate(words, start=1)) + "."


def _at(position: int) -> Callable[[random.Random, list[str]], Item]:
    """The item at a position, from 0; negative ones count from the end."""

    def make(rng: random.Random, words: list[str]) -> Item:
        items = words[: rng.randint(3, 4)]
        index = position % len(items)
        steps = f"{numbered(items)} Number {index + 1} is {items[index]}."
        return Item({"items": listed(items)}, items[index], tuple(items), steps)

    return make


def _beside(offset: int) -> Callable[[random.Random, list[str]], Item]:
    """The item right after (1) or before (-1) another one, x."""

    def make(rng: random.Random, words: list[str]) -> Item:
        items = words[: rng.randint(3, 4)]
        index = rng.randrange(max(0, offset), len(items) + min(0, offset))
        x = items[index - offset]
        steps = f"{numbered(items)} {x} is number {index - offset + 1}. "
        steps += f"Number {index + 1} is {items[index]}."
        return Item({"items": listed(items), "x": x}, items[index], tuple(items), steps)

    return make


def _between(rng: random.Random, words: list[str]) -> Item:
    items = words[: rng.randint(3, 4)]
    index = rng.randrange(1, len(items) - 1)
    x, y = items[index - 1], items[index + 1]
    steps = f"{numbered(items)} {x} is number {index}. {y} is number {index + 2}. "
    steps += f"Number {index + 1} is {items[index]}."
    return Item({"items": listed(items), "x": x, "y": y}, items[index], tuple(items), steps)


def _contains(rng: random.Random, words: list[str]) -> Item:
    count = rng.randint(3, 4)
    items = words[:count]
    inside = rng.random() < 0.5
    x = rng.choice(items) if inside else words[count]
    found = f"{x} is number {items.index(x) + 1}." if inside else f"{x} has no number."
    steps = f"{numbered(items)} {found}"
    return Item({"items": listed(items), "x": x}, YES_NO[not inside], YES_NO, steps)


def _order(last: bool) -> Callable[[random.Random, list[str]], Item]:
    """Which of two items, x and y, is the earlier or the later one."""

    def make(rng: random.Random, words: list[str]) -> Item:
        items = words[: rng.randint(3, 4)]
        x, y = rng.sample(items, 2)
        at = {items.index(word) + 1: word for word in (x, y)}
        number = max(at) if last else min(at)
        steps = f"{numbered(items)} {x} is number {items.index(x) + 1}. "
        steps += f"{y} is number {items.index(y) + 1}. Number {number} is {at[number]}."
        return Item({"items": listed(items), "x": x, "y": y}, at[number], (x, y), steps)

    return make


def _counted(
    answer: Callable[[int], str], options: tuple[str, ...]
) -> Callable[[random.Random, list[str]], Item]:
    """A question about the number of items, which is 2 to 5."""

    def make(rng: random.Random, words: list[str]) -> Item:
        items = words[: rng.randint(2, 5)]
        steps = f"{numbered(items)} The highest number is {len(items)}."
        return Item({"items": listed(items)}, answer(len(items)), options, steps)

    return make


def _lengths(
    answer: Callable[[int, int], str], options: tuple[str, ...], may_be_equal: bool
) -> Callable[[random.Random, list[str]], Item]:
    """A question about the lengths of two lists, `items` and `more`."""

    def make(rng: random.Random, words: list[str]) -> Item:
        first, second = rng.sample(range(2, 6), 2)
        if may_be_equal and rng.random() < 0.5:
            second = first
        items, more = words[:first], words[first : first + second]
        steps = f"{numbered(items)} The highest number is {first}."
        steps += f" The other list has {second} items."
        fields = {"items": listed(items), "more": listed(more)}
        return Item(fields, answer(first, second), options, steps)

    return make


def _repeated(rng: random.Random, words: list[str]) -> Item:
    items = words[: rng.randint(3, 4)]
    x = rng.choice(items)
    places = items.copy()
    places.insert(rng.randint(0, len(items)), x)
    first, second = (number for number, word in enumerate(places, start=1) if word == x)
    steps = f"{numbered(places)} Number {first} is {x}. Number {second} is {x}."
    return Item({"items": listed(places)}, x, tuple(items), steps)


def _same_ends(rng: random.Random, words: list[str]) -> Item:
    items = words[: rng.randint(3, 4)]
    same = rng.random() < 0.5
    if same:
        items[-1] = items[0]
    steps = f"{numbered(items)} Number 1 is {items[0]}. Number {len(items)} is {items[-1]}."
    return Item({"items": listed(items)}, YES_NO[not same], YES_NO, steps)


def _new(rng: random.Random, words: list[str]) -> Item:
    count = rng.randint(2, 3)
    items, x = words[:count], words[count]
    more = [*items, x]
    rng.shuffle(more)
    steps = f"{numbered(items)} {x} has no number."
    fields = {"items": listed(items), "more": listed(more)}
    return Item(fields, x, tuple(more), steps)


def _reversed(rng: random.Random, words: list[str]) -> Item:
    items = words[: rng.randint(2, 3)]
    backwards = items[::-1]
    steps = " ".join(f"Number {len(items) - i} is {word}." for i, word in enumerate(backwards))
    return Item({"items": listed(items)}, listed(backwards), (), f"{numbered(items)} {steps}")


def _without(rng: random.Random, words: list[str]) -> Item:
    items = words[: rng.randint(3, 4)]
    x = rng.choice(items)
    rest = [word for word in items if word != x]
    steps = f"{numbered(items)} {x} is number {items.index(x) + 1}."
    return Item({"items": listed(items), "x": x}, listed(rest), (), steps)


TRAINED: tuple[Operation, ...] = (
    Operation(
        "count",
        _counted(str, ("2", "3", "4", "5")),
        (
            "How many items are there?",
            "Count the items.",
            "Give the number of items.",
            "How long is the list?",
            "The list has how many items?",
        ),
        (
            "How many items does the list have?",
            "Count how many items there are.",
            "What is the number of items in the list?",
            "Give the length of the list as a number of items.",
        ),
    ),
    Operation(
        "last",
        _at(-1),
        (
            "Which item is last?",
            "Name the last item.",
            "What does the list end with?",
            "Give the final item.",
            "Write the item at the end.",
        ),
        (
            "Which item does the list end with?",
            "What is the final item?",
            "Write only the last item.",
            "What comes at the end?",
        ),
    ),
    Operation(
        "over_three",
        _counted(lambda n: YES_NO[n <= 3], YES_NO),
        (
            "Are there more than three items?",
            "Does the list have more than three items? Answer yes or no.",
            "Say yes if there are over three items, else no.",
            "Is the number of items more than three?",
            "Is the list longer than three items?",
        ),
        (
            "Does the list have over three items?",
            "Say yes if there are more than three items, else no.",
            "Are there over three items? Answer yes or no.",
            "Is the number of items in the list over three?",
        ),
    ),
    Operation(
        "first",
        _at(0),
        (
            "Which item is first?",
            "Name the first item.",
            "What does the list start with?",
            "Give the opening item.",
            "Write the item at the start.",
        ),
        (
            "Which item does the list start with?",
            "What is the opening item?",
            "Write only the first item.",
            "What comes at the start?",
        ),
    ),
    Operation(
        "contains",
        _contains,
        (
            "Is {x} in the list?",
            "Does the list contain {x}? Answer yes or no.",
            "Can you find {x} in the list?",
            "Does {x} occur here?",
            "Say yes if {x} is an item, else no.",
        ),
        (
            "Does {x} occur in the list?",
            "Is {x} an item of the list? Answer yes or no.",
            "Does the list have {x}?",
            "Can {x} be found here?",
        ),
    ),
    Operation(
        "one_more",
        _counted(lambda n: str(n + 1), ("3", "4", "5", "6")),
        (
            "One more item is added. How many items are there then?",
            "Count the items and add one.",
            "Give the number of items plus one.",
            "How long is the list with one more item?",
            "How many items are there if one is added?",
        ),
        (
            "How many items does the list have with one more added?",
            "Count the items plus one.",
            "What is the number of items if one more is added?",
            "Add one item. How many items are there then?",
        ),
    ),
    Operation(
        "after",
        _beside(1),
        (
            "Which item comes right after {x}?",
            "What follows {x}?",
            "Name the item after {x}.",
            "Give the item that follows {x}.",
            "One item comes just after {x}. Write that item.",
        ),
        (
            "What comes right after {x}?",
            "Which item follows {x}?",
            "Write the item just after {x}.",
            "Name what follows {x} in the list.",
        ),
    ),
    Operation(
        "longer",
        _lengths(lambda a, b: ("first", "second")[a < b], ("first", "second"), False),
        (
            "A second list: {more}. Which list is longer, the first or the second?",
            "The second list: {more}. Which of the two has more items?",
            "Compare with a second list: {more}. Is the first or the second longer?",
            "Name the longer list, first or second. The second one: {more}",
            "Are there more items in the first list, or in the second, {more}?",
        ),
        (
            "There is a second list: {more}. Which of the two is longer?",
            "The second list is {more}. Which list has more items, the first or the second?",
            "Compare with the second list: {more}. Name the longer one, first or second.",
            "Is the first list longer, or the second: {more}",
        ),
    ),
    Operation(
        "second",
        _at(1),
        (
            "Which item is second?",
            "Name the second item.",
            "What is number two in the list?",
            "Give item number 2.",
            "Write the item in second place.",
        ),
        (
            "What is the second item?",
            "Which item is number two?",
            "Write only the second item.",
            "Name the item in place number 2.",
        ),
    ),
    Operation(
        "even",
        _counted(lambda n: YES_NO[n % 2], YES_NO),
        (
            "Is the number of items even?",
            "Are there an even number of items? Answer yes or no.",
            "Say yes if the number of items is even, else no.",
            "Does the list have an even number of items?",
            "Count the items. Is the number even?",
        ),
        (
            "Is there an even number of items in the list?",
            "Count how many items there are. Is it an even number?",
            "Say yes if there are an even number of items, else no.",
            "Are the items even in number? Answer yes or no.",
        ),
    ),
    Operation(
        "earlier",
        _order(last=False),
        (
            "Which comes earlier, {x} or {y}?",
            "Is {x} or {y} first?",
            "Of {x} and {y}, name the earlier one.",
            "Which of {x} and {y} stands closer to the start?",
            "Does {x} or {y} come earlier in the list?",
        ),
        (
            "Which is the earlier one, {x} or {y}?",
            "Of {x} and {y}, which one comes earlier?",
            "Name the one closer to the start, {x} or {y}.",
            "Which of {x} and {y} comes first?",
        ),
    ),
    Operation(
        "same_length",
        _lengths(lambda a, b: YES_NO[a != b], YES_NO, True),
        (
            "Another list: {more}. Do both have the same number of items?",
            "Is this list equally long: {more}?",
            "Compare with {more}. Are the two lists of equal length? Answer yes or no.",
            "Say yes if this list is as long, else no: {more}",
            "Are there as many items as in {more}?",
        ),
        (
            "Another list: {more}. Are they of equal length?",
            "Is this list as long: {more}? Answer yes or no.",
            "Compare with {more}. Do both have as many items?",
            "Does the list have the same number of items as {more}?",
        ),
    ),
    Operation(
        "repeated",
        _repeated,
        (
            "Which item occurs twice?",
            "Name the item that is repeated.",
            "One item is there two times. Which?",
            "Find the repeated item.",
            "Which item do you see again?",
        ),
        (
            "Which item is repeated?",
            "Name the item that occurs twice.",
            "Find the item that is there two times.",
            "What do you see twice?",
        ),
    ),
    Operation(
        "before",
        _beside(-1),
        (
            "Which item comes right before {x}?",
            "What precedes {x}?",
            "Name the item before {x}.",
            "Give the item that precedes {x}.",
            "One item comes just before {x}. Write that item.",
        ),
        (
            "What comes right before {x}?",
            "Which item precedes {x}?",
            "Write the item just before {x}.",
            "Name what precedes {x} in the list.",
        ),
    ),
    Operation(
        "same_ends",
        _same_ends,
        (
            "Are the first and the last item the same?",
            "Does the list start and end with the same item?",
            "Is the first item equal to the last? Answer yes or no.",
            "Say yes if both ends are equal, else no.",
            "Is the item at the start also the one at the end?",
        ),
        (
            "Is the last item the same as the first?",
            "Are both ends the same item?",
            "Does the list end with the item at its start? Answer yes or no.",
            "Are the item at the start and the one at the end equal?",
        ),
    ),
    Operation(
        "new",
        _new,
        (
            "Another list: {more}. Which of its items is new?",
            "Then one item was added: {more}. Which one?",
            "Compare with {more}. What was added?",
            "Which item of {more} is not in the list?",
            "Name the item that only this list has: {more}",
        ),
        (
            "Another list is {more}. What is new?",
            "Which item was added here: {more}",
            "Compare with {more}. Name the new item.",
            "Which of {more} is not in the first list?",
        ),
    ),
    Operation(
        "without",
        _without,
        (
            "Write the list without {x}.",
            "Remove {x}.",
            "Take {x} out of the list. What is left?",
            "Leave out {x} and write the rest.",
            "Give all items but {x}.",
        ),
        (
            "Remove {x} and write the rest.",
            "What is left without {x}?",
            "Write all items but {x}.",
            "Take out {x}. Give what is left of the list.",
        ),
    ),
)

HELD_OUT: tuple[Operation, ...] = (
    Operation(
        "one_less",
        _counted(lambda n: str(n - 1), ("1", "2", "3", "4")),
        (
            "One item is taken out. How many items are left?",
            "Count the items and take away one.",
            "Give the number of items minus one.",
            "How long is the list with one item less?",
            "How many items are there if one is left out?",
        ),
        (),
    ),
    Operation(
        "third",
        _at(2),
        (
            "Which item is third?",
            "Name the third item.",
            "What is number three in the list?",
            "Give item number 3.",
            "Write the item in third place.",
        ),
        (),
    ),
    Operation(
        "later",
        _order(last=True),
        (
            "Which comes later, {x} or {y}?",
            "Is {x} or {y} last?",
            "Of {x} and {y}, name the later one.",
            "Which of {x} and {y} stands closer to the end?",
            "Does {x} or {y} come later in the list?",
        ),
        (),
    ),
    Operation(
        "between",
        _between,
        (
            "Which item stands between {x} and {y}?",
            "Name the item between {x} and {y}.",
            "What comes after {x} and before {y}?",
            "Give the item that follows {x} and precedes {y}.",
            "First {x}, then one item, then {y}. Write that item.",
        ),
        (),
    ),
    Operation(
        "reversed",
        _reversed,
        (
            "Write the list backwards.",
            "Reverse the list.",
            "Give the items from last to first.",
            "Turn the order of the items around.",
            "Start with the last item and end with the first.",
        ),
        (),
    ),
)

OPERATIONS: dict[str, Operation] = {row.name: row for row in (*TRAINED, *HELD_OUT)}
