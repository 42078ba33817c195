"""Golden prompts of the niv2 family: one line a task, of made-up records.

The definition is the task's own text, so a made-up one names the task; the mode changes from line
to line. All tasks share their wordings, so most lines have a hash of the prompt and target only.
"""

import hashlib
from collections.abc import Sequence

from instruct.data.spec import TaskSpec
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered
from tasks.niv2 import family as niv2
from tasks.niv2.table import Niv2Row, niv2_rows
from tests.tasks.shown_prompts import rendered


def number_of(row: Niv2Row) -> int:
    """A task's number; five numbers belong to two tasks each."""
    return int(row.stem[len("task") : row.stem.index("_")])


def made_up_records(row: Niv2Row) -> tuple[list[Record], list[Record]]:
    """One instance and two exemplars of a task."""
    fields = {"definition": f"Do {number_of(row)}."}
    query = Record(f"{row.stem}-0", {**fields, "input": "x"}, "y")
    shots = [
        Record(
            f"{row.stem}-positive-{number}",
            {**fields, "input": f"p{number}"},
            f"q{number}",
            rationale=f"why{number}",
            metadata={"negative": {"input": f"n{number}", "output": "m", "explanation": "no"}},
        )
        for number in range(2)
    ]
    return [query], shots


def line(
    spec: TaskSpec, mode: str, records: Sequence[Record], pool: Sequence[Record], whole: bool
) -> str:
    """A task's prompt and target on one line; only their hash unless `whole`."""
    shown = rendered(spec, mode, 0, records, pool)
    assert isinstance(shown, Rendered), (spec.name, mode, shown)
    text = f"{shown.inputs} >> {shown.targets}"
    shortened = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = text.replace("\n", "\\n") if whole else shortened
    return f"{spec.leaf_name(mode)} {shown.template_id}: {text}\n"


def goldens() -> dict[str, str]:
    lines = []
    for number, row in enumerate(niv2_rows().values()):
        spec = niv2.niv2_task(row)
        modes = spec.all_modes
        mode = modes[number % len(modes)]
        lines.append(line(spec, mode, *made_up_records(row), whole=number % 51 == 0))
    return {"flan_niv2.txt": "".join(lines)}
