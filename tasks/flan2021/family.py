"""Family `flan2021`: the 72 tasks `flan2021.<id>` of `tasks/flan2021/table.py`.

Importing this module reads the wordings and registers the tasks; no data set is opened. Records
come from TensorFlow Datasets (`instruct/data/sources/tfds.py` says where they are looked for).

A task with options has four straight modes, zero- and few-shot, with and without options; another
has two. Inverted modes, which ask for the question that leads to an answer, have 0.3 of the rate
of the straight ones, as chain of thought and dialog have in the collection.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from instruct.data.registry import add_task
from instruct.data.sources.tfds import TfdsSource
from instruct.data.spec import Source, TaskSpec
from instruct.errors import unknown_name
from instruct.eval import metrics
from instruct.prompts.template import TemplateSet
from instruct.workspace import Workspace
from tasks.answers import read_answer, read_references
from tasks.contamination import group_of
from tasks.flan2021 import metrics as flan
from tasks.flan2021.datasets import DATASETS
from tasks.flan2021.original_wording import in_original_words
from tasks.flan2021.table import TASKS, FlanTask
from tasks.source_mixtures import INVERSION
from tasks.wordings import wordings

FAMILY = "flan2021"
CAP = 30_000  # of the collection, for each task of this family

TEMPLATE_FILES = (
    "commonsense",
    "conversation",
    "coreference",
    "entailment",
    "formatting",
    "knowledge",
    "language",
    "paraphrase",
    "reading",
    "sentiment",
    "structured",
    "summaries",
    "translation",
)


class Scoring(NamedTuple):
    """How answers are read (a `postprocess_fn`) and what they are measured by."""

    read: Callable[..., Any]
    metrics: tuple[Callable[..., Mapping[str, Any]], ...]


SCORING: Mapping[str, Scoring] = {
    "label": Scoring(read_answer, (metrics.accuracy,)),
    "label_f1": Scoring(read_answer, (metrics.accuracy, flan.f1_of_yes)),
    "label_mean_f1": Scoring(read_answer, (metrics.accuracy, flan.mean_label_f1)),
    "first_line": Scoring(flan.read_first_line, (metrics.accuracy,)),
    "first_word": Scoring(flan.read_first_word, (metrics.accuracy,)),
    "multirc": Scoring(flan.read_grouped_label, (flan.multirc,)),
    "record": Scoring(flan.read_entity, (flan.record,)),
    "score": Scoring(flan.read_score, (flan.correlation,)),
    "qa": Scoring(read_references, (metrics.squad,)),
    "rouge": Scoring(read_references, (metrics.rouge,)),
    "bleu": Scoring(read_references, (flan.bleu,)),
    "edit": Scoring(flan.read_text, (flan.word_edit_distance, metrics.exact_match)),
}


def template_sets() -> Mapping[str, TemplateSet]:
    """All template sets of the family by name."""
    return wordings(*TEMPLATE_FILES)


def template_set_of(row: FlanTask) -> TemplateSet:
    """This project's wordings of a task."""
    sets = template_sets()
    if row.templates not in sets:
        raise unknown_name(f"template set of task {row.id!r}", row.templates, sets)
    return sets[row.templates]


def within(spec: TaskSpec, workspace: Workspace) -> TaskSpec:
    """The task in Flan's own words, which lack inverted prompts for some tasks."""
    worded = in_original_words(spec, workspace)
    if worded.templates.inv:
        return worded
    modes = {mode: rate for mode, rate in spec.modes.items() if not mode.endswith("_inv")}
    return dataclasses.replace(worded, modes=modes)


def modes_of(row: FlanTask, templates: TemplateSet) -> dict[str, float]:
    """Prompt mode -> rate."""
    modes = {"zs_opt": 1.0, "fs_opt": 1.0} if row.options is not None else {}
    modes |= {"zs_noopt": 1.0, "fs_noopt": 1.0}
    if templates.inv:
        inverted = INVERSION * len(modes) / 2  # beside all straight modes of its side
        modes |= {"zs_inv": inverted, "fs_inv": inverted}
    return modes


def source_of(row: FlanTask) -> Source:
    """Where the records of a task come from."""
    manual = DATASETS[row.dataset_name].manual
    return TfdsSource(row.builder, row.parts, row.to_record, manual=manual)


_SLICE = re.compile(r"\w+\[(-?\d+):(-?\d*)\]")


def declared_sizes(row: FlanTask) -> dict[str, int]:
    """Split -> its records before any are dropped, where the table tells without the data."""
    sizes = {"train": row.train_records}
    for split, part in row.parts.items():
        match = _SLICE.fullmatch(part)
        # From one end of the data only: what lies between both is not known here.
        if match and split not in sizes and match[1].startswith("-") != match[2].isdigit():
            sizes[split] = int(match[2] or 0) - int(match[1])
    return sizes


def flan2021_task(row: FlanTask) -> TaskSpec:
    """The task of a row."""
    templates = template_set_of(row)
    data, scoring = DATASETS[row.dataset_name], SCORING[row.scoring]
    described = f"{row.builder} of TensorFlow Datasets"
    return TaskSpec(
        name=f"{FAMILY}.{row.id}",
        family=FAMILY,
        dataset=row.dataset_name,
        category=row.category,
        source=source_of(row),
        templates=templates,
        modes=modes_of(row, templates),
        cap=CAP,
        metric_fns=list(scoring.metrics),
        postprocess_fn=scoring.read,
        splits={split: split for split in row.parts},
        num_examples=declared_sizes(row),
        contamination_group=group_of(data.group or row.dataset_name),
        languages=row.languages,
        license=data.license,
        url=data.url,
        description=f"{described}; {row.note}" if row.note else described,
        within_fn=within,
    )


for _row in TASKS.values():
    add_task(flan2021_task(_row))
