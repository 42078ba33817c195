"""The held-in suite of the Flan Collection (Longpre et al. 2023): eight training tasks on their
public validation sets: BoolQ, ARC easy and challenge, AI2 middle school science; ANLI 1 to 3, RTE.

Records and scoring are those of the family `flan2021`; the wording is the first of its template
set, with options as dashes, so that every example is asked alike: `zs_opt` alone, `fs_opt` after
one to five exemplars from the training set.
"""

import dataclasses

from instruct.data.registry import add_task
from instruct.data.sources.tfds import TfdsSource
from instruct.data.spec import TaskSpec
from instruct.prompts.options import OptionStyle
from instruct.prompts.template import TemplateSet
from tasks.flan2021.datasets import DATASETS
from tasks.flan2021.family import flan2021_task
from tasks.flan2021.table import TASKS

FAMILY = "held_in"
IDS = (
    *("bool_q", "arc_easy", "arc_challenge", "unified_qa_science_inst"),
    *("anli_r1", "anli_r2", "anli_r3", "rte"),
)
# Examples of the validation sets.
_SIZES = {
    "bool_q": 3_270,
    "arc_easy": 570,
    "arc_challenge": 299,
    "unified_qa_science_inst": 125,
    "anli_r1": 1_000,
    "anli_r2": 1_000,
    "anli_r3": 1_200,
    "rte": 277,
}


def first_wording(templates: TemplateSet) -> TemplateSet:
    """The first template of every list in one layout, options as dashes in their own order."""
    return dataclasses.replace(
        templates,
        name=f"{templates.name}_first",
        zs_opt=templates.zs_opt[:1],
        zs_noopt=templates.zs_noopt[:1],
        fs_opt=templates.fs_opt[:1],
        fs_noopt=templates.fs_noopt[:1],
        cot_opt=(),
        cot_noopt=(),
        inv=(),
        instructions=templates.instructions[:1],
        formats=templates.formats[:1],
        option_style=OptionStyle("Options:", bullet="- "),
        shuffle_options=False,
    )


def held_in_task(task_id: str) -> TaskSpec:
    """The task of one of `IDS`."""
    row = TASKS[task_id]
    spec = flan2021_task(row)
    parts = {"train": row.parts["train"], "validation": "validation"}
    manual = DATASETS[row.dataset_name].manual
    return dataclasses.replace(
        spec,
        name=f"{FAMILY}.{task_id}",
        family=FAMILY,
        source=TfdsSource(row.builder, parts, row.to_record, manual=manual),
        templates=first_wording(spec.templates),
        modes={"zs_opt": 1.0, "fs_opt": 1.0},
        extra_modes=(),
        splits={split: split for split in parts},
        num_examples={"train": row.train_records, "validation": _SIZES[task_id]},
    )


for _id in IDS:
    add_task(held_in_task(_id))
