"""Named mixtures of the lists family: a ladder of training tasks, and four distances from them.

Children have equal rates. Importing this module registers the mixtures.
"""

from collections.abc import Sequence

from instruct.data.registry import Rates, add_mixture
from tasks.lists import text  # noqa: F401 (registers)
from tasks.lists.family import (
    FAMILY,
    ONE_WORDING,
    UNSEEN_WORDINGS,
    held_out_kinds,
    task_name,
    trained_kinds,
)
from tasks.lists.operations import HELD_OUT, OPERATIONS, TRAINED
from tasks.source_mixtures import INVERSION

SCALES = (1, 8, 24, 64)
# Subsets for scaling studies are prefixes; operations take turns.
SCALE_ORDER = tuple(
    task_name(operation, kinds[turn])
    for turn in range(len(trained_kinds(TRAINED[0])))
    for operation in TRAINED
    for kinds in [trained_kinds(operation)]
)
# A task of each operation; subsets of fewer than 17 tasks lack some of them.
SEEN = SCALE_ORDER[: len(TRAINED)]
UNSEEN = tuple(task_name(row, kind) for row in TRAINED for kind in held_out_kinds(row))
OTHER = tuple(task_name(row, kind) for row in HELD_OUT for kind in held_out_kinds(row)[::4])

# Operations that a small model learns within minutes: they need the length of a list only.
_COUNTING = ("count", "over_three", "one_more", "longer", "even", "same_length", "one_less")
COUNTING_SCALES = (1, 6, 18)


def _counting(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.rpartition("_")[0] in _COUNTING]


# Variants of the whole ladder's top: a second mode of every task, at this rate beside 1.0.
VARIANTS = {"opt": ("zs_opt", 1.0), "fs": ("fs_noopt", 1.0), "cot": ("zs_cot", 1.0)}
VARIANTS["inv"] = ("zs_inv", INVERSION)


def _tasks(names: Sequence[str], mode: str = "zs_noopt", rate: float = 1.0) -> Rates:
    """The tasks that have a mode, at equal rates: answers that are lists have no options."""
    listed = (f"{row.name}_" for row in OPERATIONS.values() if not row.has_options)
    lists = tuple(listed) if mode == "zs_opt" else ()
    return {f"{FAMILY}.{name}.{mode}": rate for name in names if not name.startswith(lists)}


# `tasks.splits.leaks` is empty for each of them (a test asks).
TRAINING: dict[str, Rates] = {
    "lists.train": _tasks(SCALE_ORDER),
    **{f"lists.scale_{size}": _tasks(SCALE_ORDER[:size]) for size in SCALES},
    "lists.counting": _tasks(_counting(SCALE_ORDER)),
    "lists.counting_one_wording": _tasks([name + ONE_WORDING for name in _counting(SCALE_ORDER)]),
    **{f"lists.counting_{n}": _tasks(_counting(SCALE_ORDER)[:n]) for n in COUNTING_SCALES},
    **{
        f"lists.train_{name}": {**_tasks(SCALE_ORDER), **_tasks(SCALE_ORDER, mode, rate)}
        for name, (mode, rate) in VARIANTS.items()
    },
}
# Finetuning that goes on with the trained tasks beside one of an operation that was held out, half
# and half: what it keeps, beside finetuning on that one alone.
CONTINUED: dict[str, Rates] = {
    "lists.counting_and_one_less": {"lists.counting": 1.0, "lists.one_less_animals.zs_noopt": 1.0}
}
# From near to far: trained tasks with other questions, in other wordings; trained operations on
# other kinds of items; other operations.
EVALUATION: dict[str, Rates] = {
    "lists.unseen_questions": _tasks(SEEN),
    "lists.unseen_wordings": _tasks([f"{name}{UNSEEN_WORDINGS}" for name in SEEN]),
    "lists.unseen_tasks": _tasks(UNSEEN),
    "lists.unseen_categories": _tasks(OTHER),
    # the same distances from lists.counting
    "lists.counting_unseen_questions": _tasks(_counting(SEEN)),
    "lists.counting_unseen_wordings": _tasks(
        [f"{name}{UNSEEN_WORDINGS}" for name in _counting(SEEN)]
    ),
    "lists.counting_unseen_tasks": _tasks(_counting(UNSEEN)),
    "lists.counting_unseen_categories": _tasks(_counting(OTHER)),
    # with answer options in the prompt, and with worked solutions before the answer
    "lists.unseen_tasks_opt": _tasks(UNSEEN, "zs_opt"),
    "lists.unseen_categories_opt": _tasks(OTHER, "zs_opt"),
    "lists.unseen_tasks_cot": _tasks(UNSEEN, "zs_cot"),
    "lists.unseen_categories_cot": _tasks(OTHER, "zs_cot"),
}

# What is new to a model trained on `lists.train`, or on `lists.counting`.
_NEW = {
    "unseen_questions": "New questions of trained tasks",
    "unseen_wordings": "Trained tasks, asked in new words",
    "unseen_tasks": "Trained operations on new kinds of items",
    "unseen_categories": "Operations that were not trained",
}

for _name, _rates in (TRAINING | CONTINUED | EVALUATION).items():
    _distance = next((end for end in _NEW if end in _name), "")
    add_mixture(_name, _rates, description=_NEW.get(_distance, ""))
