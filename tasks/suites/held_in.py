"""The held-in suite of the Flan Collection (Longpre et al. 2023): eight training tasks on their
public validation sets: BoolQ, ARC easy and challenge, AI2 middle school science; ANLI 1 to 3, RTE.

Records and scoring are those of the family `flan2021`. All prompts use the first wording of the
template set, with options as dashes: `zs_opt` without exemplars, `fs_opt` after one to five
exemplars from the training set.

`held_in_wordings.<id>_<n>` is the same task in the n-th wording, without exemplars: how much scores
depend on the wording (Mizrahi et al. 2024, arXiv 2401.00595).
"""

import dataclasses
from typing import Any

from instruct.data.registry import add_task
from instruct.data.spec import TaskSpec
from instruct.prompts.options import OptionStyle
from instruct.prompts.template import TemplateSet
from tasks.flan2021.family import flan2021_task
from tasks.flan2021.table import TASKS

FAMILY, WORDINGS_FAMILY = "held_in", "held_in_wordings"
NUM_WORDINGS = 10  # that every set has, with options
# Task of `flan2021` -> records of its validation set.
_SIZES = {
    "bool_q": 3_270, "arc_easy": 570, "arc_challenge": 299, "unified_qa_science_inst": 125,
    "anli_r1": 1_000, "anli_r2": 1_000, "anli_r3": 1_200, "rte": 277,
}  # fmt: skip
IDS = tuple(_SIZES)


def first_wording(templates: TemplateSet, number: int = 1) -> TemplateSet:
    """The first template of every list in one layout, options as dashes in their own order.

    Args:
        number: of the template of `zs_opt`, from 1.
    """
    kept = ("zs_noopt", "fs_opt", "fs_noopt", "instructions", "formats")
    first: dict[str, Any] = {name: getattr(templates, name)[:1] for name in kept}
    return dataclasses.replace(
        templates,
        **first,
        zs_opt=templates.zs_opt[number - 1 : number],
        name=f"{templates.name}_first" if number == 1 else f"{templates.name}_{number}",
        cot_opt=(),
        cot_noopt=(),
        inv=(),
        option_style=OptionStyle("Options:", bullet="- "),
        shuffle_options=False,
    )


def held_in_task(task_id: str) -> TaskSpec:
    """The task of one of `IDS`."""
    row = TASKS[task_id]
    spec = flan2021_task(row)
    source: Any = spec.source
    parts = {"train": row.parts["train"], "validation": "validation"}
    return dataclasses.replace(
        spec,
        name=f"{FAMILY}.{task_id}",
        family=FAMILY,
        source=dataclasses.replace(source, parts=parts),
        templates=first_wording(spec.templates),
        modes={"zs_opt": 1.0, "fs_opt": 1.0},
        extra_modes=(),
        splits={split: split for split in parts},
        num_examples={"train": row.train_records, "validation": _SIZES[task_id]},
    )


def wording_task(task_id: str, number: int) -> TaskSpec:
    """The task of one of `IDS` in one of its wordings, from 1 to `NUM_WORDINGS`."""
    spec = held_in_task(task_id)
    return dataclasses.replace(
        spec,
        name=f"{WORDINGS_FAMILY}.{task_id}_{number}",
        family=WORDINGS_FAMILY,
        templates=first_wording(flan2021_task(TASKS[task_id]).templates, number),
        modes={"zs_opt": 1.0},
    )


for _id in IDS:
    add_task(held_in_task(_id))
    for _number in range(1, NUM_WORDINGS + 1):
        add_task(wording_task(_id, _number))
