"""Tasks held out of training, and a check that no training mixture contains one.

Whole categories of the gym family are held out, so that an evaluation on them measures kinds of
puzzle that the model has not seen. Near copies of held-out tasks in other categories are set aside:
neither a training mixture nor a held-out suite contains them.
"""

from instruct.data.registry import registered_specs, resolve
from instruct.data.spec import Leaf
from instruct.workspace import Workspace
from tasks.gym.table import GENERATORS, Generator

HELD_OUT_CATEGORIES: dict[str, str] = {
    "geometry": "angles and coordinates of figures",
    "graphs": "orders, paths, islands and family trees",
    "logic": "what follows from statements or gates",
}

# Generator -> the held-out one that it resembles.
SET_ASIDE: dict[str, str] = {
    "graph_color": "a graph problem that reasoning_gym files under algorithmic",
    "maze": "the length of what shortest_path asks for, on the same kind of grid",
    "rotten_oranges": "breadth-first search on a grid, as largest_island and shortest_path",
}


def held_out_group(row: Generator) -> str:
    """The group a generator is held out with, "" if it may be trained on."""
    if row.category in HELD_OUT_CATEGORIES:
        return f"gym.{row.category}"
    return "gym.set_aside" if row.generator in SET_ASIDE else ""


def trainable() -> tuple[Generator, ...]:
    """The generators that may be trained on, the easy ones included, in the table's order."""
    return tuple(row for row in GENERATORS.values() if not held_out_group(row))


def held_out() -> tuple[Generator, ...]:
    """The generators of the held-out categories."""
    return tuple(row for row in GENERATORS.values() if row.category in HELD_OUT_CATEGORIES)


# Contamination groups of the benchmarks that the papers hold out of all training: no training
# mixture may contain their data sets, under any name.
HELD_OUT_GROUPS: dict[str, str] = {
    "mmlu": "MMLU, 57 subjects (Natural Instructions has copies, which this project omits)",
    "big_bench": "BIG-Bench Hard and the rest of BIG-bench",
    "bbh": "BIG-Bench Hard under its own name",
    "tydiqa": "TyDiQA, gold passage",
    "mgsm": "MGSM",
}


def leaks(workspace: Workspace, mixture: str) -> list[str]:
    """Leaves of a training mixture (or task) that are held out, a sentence each.

    Compares every leaf's task, its category within the family, and its data set under any
    registered name.
    """
    held_out_specs = [spec for spec in registered_specs().values() if spec.held_out]
    tasks = {spec.name for spec in held_out_specs}
    datasets = {spec.dataset for spec in held_out_specs}
    datasets |= {row.generator for row in GENERATORS.values() if held_out_group(row)}

    def why(leaf: Leaf) -> str:
        """Why no training mixture may contain a leaf; "" if it may."""
        if leaf.task in tasks or (leaf.spec is not None and leaf.spec.held_out):
            return "the task is held out"
        if leaf.family == "gym" and leaf.category in HELD_OUT_CATEGORIES:
            return f"its category {leaf.category!r} is held out"
        group = leaf.dataset if leaf.spec is None else leaf.spec.group
        if group in HELD_OUT_GROUPS or leaf.dataset in HELD_OUT_GROUPS:
            return f"it belongs to the held-out benchmark {group!r}"
        if leaf.dataset in datasets:
            return f"its data set {leaf.dataset!r} is that of a held-out task"
        return ""

    return [
        f"mixture {mixture!r} trains on {leaf.name!r}: {reason}"
        for leaf in resolve(workspace, mixture).leaves
        if (reason := why(leaf))
    ]
