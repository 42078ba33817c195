"""Family `dialog`: the next turn of a conversation, as in the Flan Collection.

    dialog.wiki_dialog, dialog.qrecc     from TensorFlow Datasets
    dialog.task_master                   from files; the collection's public release lacks it

The inverted modes, which ask for the conversation that leads to a turn, have 0.3 of the rate of
the others. Importing this module registers the tasks and reads no data.
"""

from typing import Any

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
from tasks.wordings import wording

FAMILY = "dialog"
CAP = 200_000  # of the collection, for this family
MODES = {"zs_noopt": 1.0, "fs_noopt": 1.0, "zs_inv": INVERSION, "fs_inv": INVERSION}


def templates() -> TemplateSet:
    """The wordings of every set."""
    return wording("next_turn", "dialog")


def _task(dataset: str, source: Source, **values: Any) -> TaskSpec:
    return TaskSpec(
        name=f"{FAMILY}.{dataset}",
        family=FAMILY,
        dataset=dataset,
        source=source,
        templates=templates(),
        modes=MODES,
        cap=CAP,
        metric_fns=[rouge_l, loose_exact_match],
        postprocess_fn=read_references,
        contamination_group=group_of(dataset),
        within_fn=in_original_words,
        **values,
    )


SPECS = (
    _task(
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
        num_examples={"train": 1_000_000},
        category="Conversational Question Answering",
        license="CC-BY-SA-3.0",
        url="https://github.com/google-research/dialog-inpainting",
        description="Passages of Wikipedia as talks with an imagined reader",
    ),
    _task(
        "qrecc",
        # Rows of one conversation repeat each other, so validation takes no rows of `train`.
        TfdsSource(
            "q_re_cc:1.0.0",
            {"train": "train", "validation": "test[:50%]", "test": "test[50%:]"},
            qrecc_record,
        ),
        num_examples={"train": 10_170},
        category="Conversational Question Answering",
        license="CC-BY-SA-3.0",
        url="https://github.com/apple/ml-qrecc",
        description="Conversations of questions and answers, most of the questions from QuAC",
    ),
    _task(
        "task_master",
        TaskmasterSource(),
        num_examples=expected_records(hashed_parts("taskmaster"), 54_000),
        category="Dialog Next Turn Prediction",
        license="CC-BY-4.0",
        url="https://github.com/google-research-datasets/Taskmaster",
        description="Talks with an assistant that books, orders, searches and recommends",
    ),
)

for _spec in SPECS:
    add_task(_spec)
