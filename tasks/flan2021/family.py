"""Family `flan2021`: the 72 tasks `flan2021.<id>` of `tasks/flan2021/table.py`.

Importing this module reads the wordings and registers the tasks, but opens no data set. Records
come from TensorFlow Datasets (`instruct/data/sources/tfds.py` gives the search path).

A task with options has four straight modes, zero- and few-shot, with and without options; others
have two. Inverted modes, which ask for the question that leads to an answer, have 0.3 of the rate
of the straight ones, the collection's rate for chain of thought and dialog.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from instruct.data.registry import add_task
from instruct.data.sources.tfds import TfdsSource
from instruct.data.spec import TaskSpec
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
from tasks.wordings import wording, wordings

FAMILY = "flan2021"
CAP = 30_000  # of the collection, for each task of this family

TEMPLATE_FILES = (
    "commonsense", "conversation", "coreference", "entailment", "formatting", "knowledge",
    "language", "paraphrase", "reading", "sentiment", "structured", "summaries", "translation",
)  # fmt: skip

# Key -> the `postprocess_fn` and the `metric_fns`.
SCORING: Mapping[str, tuple[Callable[..., Any], list[Callable[..., Mapping[str, Any]]]]] = {
    "label": (read_answer, [metrics.accuracy]),
    "label_f1": (read_answer, [metrics.accuracy, flan.f1_of_yes]),
    "label_mean_f1": (read_answer, [metrics.accuracy, flan.mean_label_f1]),
    "first_line": (flan.read_first_line, [metrics.accuracy]),
    "first_word": (flan.read_first_word, [metrics.accuracy]),
    "multirc": (flan.read_grouped_label, [flan.multirc]),
    "record": (flan.read_entity, [flan.record]),
    "score": (flan.read_score, [flan.correlation]),
    "qa": (read_references, [metrics.squad]),
    "rouge": (read_references, [metrics.rouge]),
    "bleu": (read_references, [flan.bleu]),
    "edit": (flan.read_text, [flan.word_edit_distance, metrics.exact_match]),
}


def template_sets() -> Mapping[str, TemplateSet]:
    """All template sets of the family by name."""
    return wordings(*TEMPLATE_FILES)


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
        inverted = INVERSION * len(modes) / 2  # relative to all straight modes of one side
        modes |= {"zs_inv": inverted, "fs_inv": inverted}
    return modes


_SLICE = re.compile(r"\w+\[(-?\d+):(-?\d*)\]")


def declared_sizes(row: FlanTask) -> dict[str, int]:
    """Split -> its records before any are dropped, where the table alone determines them."""
    sizes = {"train": row.train_records}
    for split, part in row.parts.items():
        match = _SLICE.fullmatch(part)
        # Both ends must count from the same end of the split, whose size the table lacks.
        if match and split not in sizes and match[1].startswith("-") != match[2].isdigit():
            sizes[split] = int(match[2] or 0) - int(match[1])
    return sizes


def flan2021_task(row: FlanTask) -> TaskSpec:
    """The task of a row."""
    templates, data = wording(row.templates, *TEMPLATE_FILES), DATASETS[row.dataset_name]
    postprocess_fn, metric_fns = SCORING[row.scoring]
    described = f"{row.builder} of TensorFlow Datasets"
    return TaskSpec(
        name=f"{FAMILY}.{row.id}",
        family=FAMILY,
        dataset=row.dataset_name,
        category=row.category,
        source=TfdsSource(row.builder, row.parts, row.to_record, manual=data.manual),
        templates=templates,
        modes=modes_of(row, templates),
        cap=CAP,
        metric_fns=metric_fns,
        postprocess_fn=postprocess_fn,
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
