"""Golden prompts of the family `program_synthesis`, from made-up programs and problems."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.prompts.record import Record
from tasks.program_synthesis import family as program_synthesis
from tasks.program_synthesis.sources import DrRepairSource, code_contests_record
from tests.tasks.public_goldens import WORKSPACE
from tests.tasks.shown_prompts import shown

LENGTHS = (2500, 900)

# Rows of CodeContests with what is read of them. Languages: 2 is C++, 3 is Python 3.
CONTEST_ROWS: tuple[dict[str, Any], ...] = (
    {
        "name": "1_A. Bowls",
        "source": 2,
        "description": "A potter makes a bowls a day and works for b days.\n\n"
        "Input\n\nTwo integers a and b (1 <= a, b <= 100).\n\nOutput\n\nThe number of bowls.",
        "solutions": {
            "language": [2, 3, 3],
            "solution": [
                "int main() {}",
                "a, b = map(int, input().split())\r\nprint(a * b)\r\n",
                "x = input().split()\nprint(int(x[0]) * int(x[1]))   \n",
            ],
        },
    },
    {
        "name": "2_B. Herons",
        "source": 2,
        "description": "There are n herons on two legs each and m otters on four.\n\n"
        "Input\n\nThe integers n and m.\n\nOutput\n\nHow many legs there are.",
        "solutions": {
            "language": [3],
            "solution": ["n, m = map(int, input().split())\nprint(2 * n + 4 * m)\n"],
        },
    },
)


@functools.cache
def records() -> Mapping[str, Sequence[Record]]:
    """Made-up records of each task, by the task's id."""
    made: dict[str, Sequence[Record]] = {}
    for spec in program_synthesis.SPECS:
        if isinstance(spec.source, DrRepairSource):
            items = [
                item
                for split in spec.source.splits
                for item in spec.source.records(WORKSPACE, split)
            ]
        else:
            items = [code_contests_record(contest, "") for contest in CONTEST_ROWS]
        found = [item for item in items if isinstance(item, Record)]
        made[spec.dataset] = sorted(found, key=lambda record: record.id)
    return made


def goldens() -> dict[str, str]:
    """One file: every task and mode."""
    texts = []
    for spec in program_synthesis.SPECS:
        for number, mode in enumerate(spec.all_modes):
            texts.append(shown(spec, mode, number, records()[spec.dataset], lengths=LENGTHS))
    return {"prompts_program_synthesis.txt": "".join(texts)}
