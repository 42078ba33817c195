"""Named mixtures of the lists family: a ladder of training tasks, and four distances from them.

Children have equal rates. Importing this module registers the mixtures.
"""

from instruct.data.registry import add_mixture
from tasks.lists import text  # noqa: F401 (registers)
from tasks.lists.family import FAMILY, UNSEEN_WORDINGS, held_out_kinds, task_name
from tasks.lists.kinds import KINDS
from tasks.lists.operations import HELD_OUT, TRAINED

SCALES = (1, 8, 24, 64)


def _trained_kinds(row: int) -> list[str]:
    """The kinds that an operation is trained with, each operation beginning elsewhere."""
    kinds = [kind for kind in KINDS if kind not in held_out_kinds(TRAINED[row])]
    start = row % len(kinds)
    return [*kinds[start:], *kinds[:start]]


_ROUNDS = len(_trained_kinds(0))
# Subsets for scaling studies are prefixes; operations take turns.
SCALE_ORDER = tuple(
    task_name(operation, _trained_kinds(row)[round_])
    for round_ in range(_ROUNDS)
    for row, operation in enumerate(TRAINED)
)
UNSEEN_TASKS = tuple(task_name(row, kind) for row in TRAINED for kind in held_out_kinds(row))
# A task of each operation that every subset of 12 tasks or more is trained on.
SEEN = SCALE_ORDER[: len(TRAINED)]


def _tasks(names: tuple[str, ...], suffix: str) -> dict[str, float | None]:
    return {f"{FAMILY}.{name}{suffix}": 1.0 for name in names}


TRAINING: dict[str, dict[str, float | None]] = {
    f"{FAMILY}.train": _tasks(SCALE_ORDER, ".zs_noopt"),
    **{f"{FAMILY}.scale_{n}": _tasks(SCALE_ORDER[:n], ".zs_noopt") for n in SCALES},
}
EVALUATION: dict[str, dict[str, float | None]] = {
    # questions that no training mixture has, nearest first
    f"{FAMILY}.unseen_questions": _tasks(SEEN, ".zs_noopt"),
    f"{FAMILY}.unseen_wordings": _tasks(SEEN, f"_{UNSEEN_WORDINGS}.zs_noopt"),
    f"{FAMILY}.unseen_tasks": _tasks(UNSEEN_TASKS, ".zs_noopt"),
    f"{FAMILY}.unseen_categories": _tasks(
        tuple(task_name(row, kind) for row in HELD_OUT for kind in list(KINDS)[::4]), ".zs_noopt"
    ),
}

for _name, _rates in (TRAINING | EVALUATION).items():
    add_mixture(_name, _rates)
