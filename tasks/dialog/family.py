"""Family `dialog`: the next turn of a conversation, as in the Flan Collection.

    dialog.wiki_dialog, dialog.qrecc     from TensorFlow Datasets
    dialog.task_master                   from files; the collection's public release leaves it out

The inverted modes, which ask for the conversation that leads to a turn, have 0.3 of the rate of
the others. Importing this module registers the tasks and reads no data.
"""

from collections.abc import Mapping
from typing import NamedTuple

from instruct.data.registry import add_task
from instruct.data.sources.files import expected_records, hashed_parts
from instruct.data.sources.tfds import TfdsSource
from instruct.data.spec import Source, TaskSpec
from instruct.prompts.template import TemplateSet
from tasks.answers import loose_exact_match, read_references, rouge_l
from tasks.contamination import group_of
from tasks.dialog.sources import TaskmasterSource, qrecc_record, wiki_dialog_record
from tasks.flan2021.original_wording import in_original_words
from tasks.source_mixtures import INVERSION
from tasks.wordings import wordings

FAMILY = "dialog"
CAP = 200_000  # of the collection, for this family
MODES = {"zs_noopt": 1.0, "fs_noopt": 1.0, "zs_inv": INVERSION, "fs_inv": INVERSION}


class DialogSet(NamedTuple):
    """A row of the table.

    Attributes:
        id: name of the task after "dialog.".
        source: its records.
        num_examples: split -> about how many records, while no store says it exactly.
        category: kind of task in the collection's own list.
        license: of the data set.
        url: of the data set.
        description: what the conversations are.
    """

    id: str
    source: Source
    num_examples: Mapping[str, int]
    category: str
    license: str
    url: str
    description: str


SETS = (
    DialogSet(
        "wiki_dialog",
        TfdsSource(
            "wiki_dialog/OQ:1.0.0",
            {
                # Of 11 million; the cap is 200,000 an epoch.
                "train": "train[:1000000]",
                "validation": "validation[:50%]",
                "test": "validation[50%:]",
            },
            wiki_dialog_record,
        ),
        {"train": 1_000_000},
        "Conversational Question Answering",
        "CC-BY-SA-3.0",
        "https://github.com/google-research/dialog-inpainting",
        "Passages of Wikipedia as talks with an imagined reader",
    ),
    DialogSet(
        "qrecc",
        # Rows of one conversation repeat each other, so none of `train` may serve for validation.
        TfdsSource(
            "q_re_cc:1.0.0",
            {"train": "train", "validation": "test[:50%]", "test": "test[50%:]"},
            qrecc_record,
        ),
        {"train": 10_170},
        "Conversational Question Answering",
        "CC-BY-SA-3.0",
        "https://github.com/apple/ml-qrecc",
        "Conversations of questions and answers, most of the questions from QuAC",
    ),
    DialogSet(
        "task_master",
        TaskmasterSource(),
        expected_records(hashed_parts("taskmaster"), 54_000),
        "Dialog Next Turn Prediction",
        "CC-BY-4.0",
        "https://github.com/google-research-datasets/Taskmaster",
        "Talks with an assistant that books, orders, searches and recommends",
    ),
)


def templates() -> TemplateSet:
    """The wordings of every set."""
    return wordings("dialog")["next_turn"]


def dialog_task(row: DialogSet) -> TaskSpec:
    """The task of a row."""
    name = f"{FAMILY}.{row.id}"
    return TaskSpec(
        name=name,
        family=FAMILY,
        dataset=row.id,
        category=row.category,
        source=row.source,
        templates=templates(),
        modes=MODES,
        cap=CAP,
        metric_fns=[rouge_l, loose_exact_match],
        postprocess_fn=read_references,
        num_examples=row.num_examples,
        contamination_group=group_of(row.id),
        license=row.license,
        url=row.url,
        description=row.description,
        within_fn=in_original_words,
    )


for _row in SETS:
    add_task(dialog_task(_row))
