"""Golden prompts of the family `dialog`, from made-up rows and files as they are published."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.prompts.record import Record
from tasks.dialog import family as dialog
from tasks.dialog.sources import TaskmasterSource, qrecc_record, wiki_dialog_record
from tests.tasks.public_goldens import WORKSPACE
from tests.tasks.shown_prompts import shown

EXAMPLES = 3


def wiki_row(pid: str, *utterances: str) -> dict[str, Any]:
    """A row of TFDS wiki_dialog with what is read of it."""
    return {"pid": pid.encode(), "utterances": [text.encode() for text in utterances]}


def qrecc_row(conversation: int, turn: int, *context: str) -> dict[str, Any]:
    """A row of TFDS q_re_cc with what is read of it."""
    texts = [text.encode() for text in context]
    return {"conversation_id": conversation, "turn_id": turn, "context": texts}


WIKI_ROWS = (
    wiki_row(
        "7@1",
        "Hello, I am an automated assistant and can answer questions about looms.",
        "What is a loom?",
        "A loom is a device that holds threads so that cloth can be woven.",
        "How old are they?",
        "The oldest ones that were found are some 7,000 years old.",
        "What were they\nmade of?",
        "They were made of wood and clay weights.",
    ),
    wiki_row(
        "7@2",
        "Hello, I am an automated assistant and can answer questions about basalt.",
        "Where does basalt come from?",
        "It forms when lava cools fast at the surface.",
        "Is it heavy?",
        "It is denser than granite.",
    ),
    wiki_row(
        "7@3",
        "Hello, I am an automated assistant and can answer questions about herons.",
        "Do herons swim?",
        "They wade, and hardly ever swim.",
    ),
)

QRECC_ROWS = (
    qrecc_row(
        3,
        7,
        "Who built the Lantern cinema?",
        "It was built by Ida Holm.",
        "When did it open?",
        "It opened in 1931.",
        "Is it still open?",
        "Yes, it has two screens today.",
    ),
    qrecc_row(
        4,
        8,
        "What do otters eat?",
        "They eat fish, crabs and frogs.",
        "How do they hunt?",
        "They dive and feel for prey with their whiskers.",
    ),
    qrecc_row(4, 7, "What do otters eat?", "They eat fish, crabs and frogs."),
)


@functools.cache
def records() -> Mapping[str, Sequence[Record]]:
    """Made-up records of each task, by the task's name."""
    items = {
        "dialog.wiki_dialog": [wiki_dialog_record(row, "") for row in WIKI_ROWS],
        "dialog.qrecc": [qrecc_record(row, "") for row in QRECC_ROWS],
    }
    source = TaskmasterSource()
    items["dialog.task_master"] = [
        item for split in source.splits for item in source.records(WORKSPACE, split)
    ]
    return {
        name: sorted((i for i in found if isinstance(i, Record)), key=lambda record: record.id)
        for name, found in items.items()
    }


def goldens() -> dict[str, str]:
    """One file: every task and mode."""
    texts = []
    for spec in dialog.SPECS:
        for mode in spec.all_modes:
            texts += [shown(spec, mode, n, records()[spec.name]) for n in range(EXAMPLES)]
    return {"prompts_dialog.txt": "".join(texts)}
