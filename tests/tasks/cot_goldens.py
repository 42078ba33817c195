"""Golden prompts of the family `cot`, from two made-up rows in the layout of each of the files."""

import functools
from collections.abc import Mapping, Sequence

from instruct.prompts.record import Record
from tasks import cot
from tests.tasks.public_goldens import WORKSPACE
from tests.tasks.shown_prompts import shown


@functools.cache
def records() -> Mapping[str, Sequence[Record]]:
    """Records of the made-up rows, by set, in the order of their file."""
    made: dict[str, Sequence[Record]] = {}
    for row in cot.SETS:
        source = cot.cot_source(row)
        items = [item for split in source.splits for item in source.records(WORKSPACE, split)]
        found = [item for item in items if isinstance(item, Record)]
        made[row.id] = sorted(found, key=lambda record: record.id)
    return made


def goldens() -> dict[str, str]:
    """One file: every task and mode once."""
    texts = []
    for row in cot.SETS:
        spec = cot.cot_task(row)
        texts += [shown(spec, mode, 0, records()[row.id]) for mode in spec.all_modes]
    return {"prompts_cot_sets.txt": "".join(texts)}
