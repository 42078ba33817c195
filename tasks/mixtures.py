"""The mixtures of the Flan 2022 Collection as one table of sources and rates.

Rates are relative within a mixture; a source (`flan2021`, `t0`, ...) is a tree of parts
(`source_mixtures.py`), inside which a task counts by its records up to its cap. Importing this
module registers every mixture and needs no data.

    flan2022            the released rates over all 1,836 tasks (google-research/FLAN, run_example)
    flan2022_released   the same over the tasks that the release has
    scaling_a, _b       the proportions of Chung et al. 2022, section 2.1
    equal, equal_no_X   sources alike, and all but one of them (Longpre et al. 2023, Table 2)
    flan2022_no_X       ablations (Longpre et al. 2023, Table 1)
    flan2022_unbalanced, _tasks_alike    tasks by their capped records, or all alike, instead
    p3_plus_plus        T0++'s data sets, as far as the collection has them (the same table)
    flan2022_fs_N, flan2021_fs_N    N % of few-shot prompts (Longpre et al. 2023, Figure 3)
    flan_tasks_N        nested task sets (Chung et al. 2022, Figure 4; proportions A)
    scaling_a_no_cot    without chain of thought (Chung et al. 2022, Figure 5)
    flan2022_random_N_D, flan2022_zs_random_N_D    N tasks of the D-th random order, nested in N
                        (Longpre et al. 2023, Figure 4): each by its capped number of records
    flan2021_v1.*       FLAN 2021's inter-cluster splits (Wei et al. 2022), as published: QNLI stays
                        in where SQuAD is held out, and WNLI where the Winograd schemas are
    niv2.train_*, .test_*   Tk-Instruct's official tracks in its encoding (Wang et al. 2022)
"""

import functools
import hashlib
from collections.abc import Iterable, Mapping

from instruct.data.registry import add_mixture, registered_specs
from tasks import cot, t0  # noqa: F401 (register)
from tasks.dialog import family as dialog  # noqa: F401 (registers)
from tasks.flan2021 import family as flan2021  # noqa: F401 (registers)
from tasks.flan2021.table import CLUSTERS
from tasks.niv2 import family as niv2
from tasks.program_synthesis import family as program_synthesis  # noqa: F401 (registers)
from tasks.source_mixtures import (
    COT_PARTS,
    OPTION_PARTS,
    PLAIN_PARTS,
    add_source,
    leaves,
    tasks_of,
)

Rates = Mapping[str, float | None]

# Tasks that the papers count but the release of the collection does not contain.
NOT_RELEASED = ("flan2021.trivia_qa_wiki_missing", "dialog.task_master")


# ------------------------------------------------------------------ sources
# Caps are the tasks' own: 30,000 flan2021, 20,000 t0, 5,000 a niv2 task, 100,000 cot,
# 200,000 dialog and program synthesis.
MUFFIN_CAP = 30_000  # Chung et al. 2022, Table 23, for all of Muffin

# The collection's T0 part leaves out the data sets that Flan 2021 has. T0++ (Sanh et al. 2022) has
# these of them, with prompts of its own; here they are Flan 2021's tasks.
_ALSO_IN_T0_PLUS_PLUS = (
    "ag_news_subset", "arc_challenge", "arc_easy", "bool_q", "cnn_dailymail", "common_gen", "copa",
    "cosmos_qa", "gigaword", "glue_mrpc", "glue_qqp", "hellaswag", "imdb_reviews", "multi_news",
    "multirc", "openbookqa", "paws_wiki", "piqa", "record", "samsum", "squad_v2", "trec",
    "trivia_qa", "wic", "wsc", "xsum", "yelp_polarity_reviews",
)  # fmt: skip
_T0_PLUS_PLUS = (
    *tasks_of("t0"),
    *(registered_specs()[f"flan2021.{task}"] for task in _ALSO_IN_T0_PLUS_PLUS),
)

_MUFFIN = ("dialog", "flan2021", "program_synthesis")
SOURCES = {
    "flan2021": (tasks_of("flan2021"), OPTION_PARTS, None),
    "t0": (tasks_of("t0"), OPTION_PARTS, None),
    "niv2": (tasks_of("niv2"), PLAIN_PARTS, None),
    "cot": (tasks_of("cot"), COT_PARTS, None),
    "dialog": (tasks_of("dialog"), PLAIN_PARTS, None),
    "program_synthesis": (tasks_of("program_synthesis"), PLAIN_PARTS, None),
    # groups of sources that the papers give one proportion
    "muffin": (tasks_of(*_MUFFIN), OPTION_PARTS, MUFFIN_CAP),
    "dialog_synthesis": (tasks_of("dialog", "program_synthesis"), PLAIN_PARTS, None),
    "flan2021_released": (tasks_of("flan2021", without=NOT_RELEASED), OPTION_PARTS, None),
    "dialog_released": (tasks_of("dialog", without=NOT_RELEASED), PLAIN_PARTS, None),
    "p3_plus_plus": (_T0_PLUS_PLUS, OPTION_PARTS, None),
}

# ------------------------------------------------------------------ balances
FLAN2022: dict[str, float] = {
    "flan2021": 0.40, "t0": 0.32, "niv2": 0.20, "cot": 0.05, "dialog_synthesis": 0.03,
}  # fmt: skip
RELEASED: dict[str, float] = {
    "flan2021_released": 0.40, "t0": 0.32, "niv2": 0.20, "cot": 0.05, "dialog_released": 0.03,
}  # fmt: skip
SCALING_A: dict[str, float] = {"muffin": 52, "t0": 15, "cot": 3, "niv2": 30}
SCALING_B: dict[str, float] = {"muffin": 46, "t0": 27.9, "cot": 1.8, "niv2": 24.2}
EQUAL: dict[str, float] = dict.fromkeys(
    ("flan2021", "t0", "niv2", "cot", "dialog", "program_synthesis"), 1.0
)
TASK_SCALES = {9: ("cot",), 89: ("cot", "muffin"), 282: ("cot", "muffin", "t0"), 1836: SCALING_A}
FEW_SHOT_PERCENT = (0, 5, 10, 25, 50, 75, 90, 95, 100)
RANDOM_TASKS = (8, 18, 25, 50, 100, 184, 200, 400, 800, 1836)
NUM_DRAWS = 3  # random orders of the tasks


def _without(rates: Mapping[str, float], name: str) -> Rates:
    return {child: rate for child, rate in rates.items() if child != name}


def _under(rates: Mapping[str, float], part: str) -> Rates:
    """The same balance over one part of every source."""
    return {f"{child}.{part}": rate for child, rate in rates.items()}


def _few_shot(source: str, percent: int) -> Rates:
    rates = {f"{source}.zs": 100.0 - percent, f"{source}.fs": float(percent)}
    return {name: rate for name, rate in rates.items() if rate}


# every task by its capped number of records, whatever its source
_UNBALANCED: Rates = {spec.name: None for source in FLAN2022 for spec in SOURCES[source][0]}


@functools.cache
def _shuffled(draw: int) -> tuple[str, ...]:
    """The tasks of the collection in the `draw`-th random order, the same on every machine."""
    return tuple(
        sorted(_UNBALANCED, key=lambda name: hashlib.sha256(f"{draw} {name}".encode()).digest())
    )


def _random_tasks(count: int, draw: int) -> Rates:
    return dict.fromkeys(_shuffled(draw)[:count])


def _random_zero_shot_tasks(count: int, draw: int) -> Rates:
    """One zero-shot leaf of each task: with options where it has them, else without."""
    specs = [registered_specs()[name] for name in _shuffled(draw)[:count]]
    return leaves(specs, "zs_opt", "zs_noopt", "cot")


TRAINING: dict[str, Rates] = {
    "flan2022": FLAN2022,
    "flan2022_released": RELEASED,
    "scaling_a": SCALING_A,
    "scaling_b": SCALING_B,
    "equal": EQUAL,
    **{f"equal_no_{name}": _without(EQUAL, name) for name in EQUAL},
    **{f"flan2022_no_{name}": _without(FLAN2022, name) for name in FLAN2022},
    "flan2022_no_inversion": _under(FLAN2022, "straight"),
    "flan2022_no_few_shot": _under(FLAN2022, "zs"),
    "flan2022_unbalanced": _UNBALANCED,
    "flan2022_tasks_alike": dict.fromkeys(_UNBALANCED, 1.0),
    "flan2022.zs": _under(FLAN2022, "zs"),
    "flan2022.fs": _under(FLAN2022, "fs"),
    **{
        f"{source}_fs_{percent}": _few_shot(source, percent)
        for source in ("flan2022", "flan2021")
        for percent in FEW_SHOT_PERCENT
    },
    "scaling_a_no_cot": _without(SCALING_A, "cot"),
    **{
        f"flan_tasks_{count}": {source: SCALING_A[source] for source in sources}
        for count, sources in TASK_SCALES.items()
    },
}
RANDOM: dict[str, Rates] = {
    f"flan2022_{name}_{count}_{draw}": make_rates(count, draw)
    for name, make_rates in (("random", _random_tasks), ("zs_random", _random_zero_shot_tasks))
    for count in RANDOM_TASKS
    for draw in range(NUM_DRAWS)
}

# ------------------------------------------------------------------ FLAN 2021's splits
V1_CAP = 3_000
_NO_CAP = 1 << 40
# Cluster that is held out -> others that are not trained on either.
ALSO_HELD_OUT = {2: (16,), 7: (16,), 16: (2, 7), 4: (10,), 10: (4,)}


def _zero_shot(clusters: Iterable[int]) -> Rates:
    """One zero-shot leaf of every Flan 2021 task in these clusters.

    Every task is in one cluster at most, those added later than FLAN 2021 in none.
    """
    ids = [task for index in clusters for task in CLUSTERS[index].tasks]
    specs = [registered_specs()[f"flan2021.{task}"] for task in ids]
    return {
        spec.leaf_name("zs_opt" if "zs_opt" in spec.modes else "zs_noopt"): None for spec in specs
    }


# ------------------------------------------------------------------ Natural Instructions' tracks
TK_INSTANCES = 100  # a task, in training and in testing


def _tk(names: tuple[str, ...], mode: str) -> Rates:
    return {f"{name}.{mode}": None for name in names}


NIV2_TRAINING: dict[str, Rates] = {
    "niv2.train_default": _tk(niv2.train_tasks(), "tk_instruct"),
    "niv2.train_default_mixed": _tk(niv2.train_tasks(), "tk_instruct_mixed"),
    "niv2.train_xlingual": _tk(niv2.xlingual_train_tasks(), "tk_instruct"),
}
EVALUATION: dict[str, Rates] = {
    "niv2.test_default": _tk(niv2.test_tasks(), "tk_instruct"),
    "niv2.test_xlingual": _tk(niv2.xlingual_test_tasks(), "tk_instruct"),
}


def _register() -> None:
    for name, (specs, parts, cap) in SOURCES.items():
        add_source(name, specs, parts, cap)
    ordered = ("flan2022.zs", "flan2022.fs")  # others are made of these
    for name in (*ordered, *(name for name in TRAINING if name not in ordered)):
        add_mixture(name, TRAINING[name])
    for name, rates in RANDOM.items():
        add_mixture(name, rates)
    for index, cluster in enumerate(CLUSTERS):
        held_out = (index, *ALSO_HELD_OUT.get(index, ()))
        trained = _zero_shot(i for i in range(len(CLUSTERS)) if i not in held_out)
        add_mixture(f"flan2021_v1.without_{cluster.name}", trained, cap=V1_CAP)
        add_mixture(f"flan2021_v1.{cluster.name}", _zero_shot([index]), cap=_NO_CAP)
    for name, rates in (NIV2_TRAINING | EVALUATION).items():
        add_mixture(name, rates, cap=TK_INSTANCES)


_register()
