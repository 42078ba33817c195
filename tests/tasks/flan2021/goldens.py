"""Golden prompts of the family `flan2021`, from made-up rows in TFDS's form.

`raw_rows.json` has one or two rows a task. Text becomes bytes and lists become arrays, as
TFDS gives them. Few-shot prompts show rows of all tasks with the same wordings.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.flan2021.family import flan2021_task
from tasks.flan2021.table import TASKS
from tests.tasks.shown_prompts import shown

RAW_ROWS = Path(__file__).parent / "raw_rows.json"
LENGTHS = (4000, 1000)
# Mode -> examples shown of each task.
EXAMPLES = {"zs_opt": 1, "zs_noopt": 1, "zs_inv": 1, "fs_opt": 1, "fs_noopt": 1, "fs_inv": 1}


def as_tfds(value: Any) -> Any:
    """A JSON value in the form in which TFDS gives it."""
    if isinstance(value, dict):
        return {key: as_tfds(inner) for key, inner in value.items()}
    if isinstance(value, list):
        array = np.empty(len(value), dtype=object)
        array[:] = [as_tfds(inner) for inner in value]
        return array
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool):
        return np.bool_(value)
    return np.int64(value) if isinstance(value, int) else np.float32(value)


@functools.cache
def raw_rows() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Task id -> its made-up rows, in TFDS's form."""
    return {
        task: [as_tfds(row) for row in rows]
        for task, rows in json.loads(RAW_ROWS.read_text(encoding="utf-8")).items()
    }


def record_of(task: str, number: int) -> Record | Dropped:
    """The record that the task makes of its row `number`."""
    return TASKS[task].to_record(raw_rows()[task][number], f"{task}-{number}")


@functools.cache
def records() -> Mapping[str, Sequence[Record]]:
    """Task id -> the records of its rows, and of those of tasks with the same wordings."""
    own: dict[str, list[Record]] = {}
    for task in TASKS:
        made = [record_of(task, number) for number in range(len(raw_rows()[task]))]
        own[task] = [record for record in made if isinstance(record, Record)]
        assert len(own[task]) == len(made), (task, made)
    others = {
        task: [
            record
            for other, found in own.items()
            if other != task and TASKS[other].templates == TASKS[task].templates
            for record in found
        ]
        for task in TASKS
    }
    return {task: own[task] + others[task] for task in TASKS}


def goldens() -> dict[str, str]:
    """One file: every task and mode."""
    texts = []
    for row in TASKS.values():
        spec = flan2021_task(row)
        for mode in spec.all_modes:
            for number in range(EXAMPLES[mode]):
                texts.append(shown(spec, mode, number, records()[row.id], lengths=LENGTHS))
    return {"prompts_flan2021.txt": "".join(texts)}
