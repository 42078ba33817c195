"""`metrics.jsonl`: one JSON object a logged step, {"step": 100, "loss": 2.5, ...}, in order.

Written by training (`instruct/train/trackers.py`), read by reports. The reader tolerates damage:
disks fill up, processes are killed in the middle of a line, and people edit files.
"""

import os
from typing import Any, NamedTuple

from instruct.errors import naming_file
from instruct.files import path_of
from instruct.json_text import parse_json


class MetricsFile(NamedTuple):
    """The readable rows of a file.

    Attributes:
        rows: sorted by step; of several rows of a step, the last.
        num_damaged: lines that are not rows.
        num_repeated: rows of a step that has a later row.
        torn: whether the last damaged line is one that a killed process left unfinished.
    """

    rows: list[dict[str, Any]]
    num_damaged: int
    num_repeated: int
    torn: bool


def read_metrics(path: str | os.PathLike[str]) -> MetricsFile:
    """Reads a file with or without BOM, carriage returns and damage; no rows if it is missing."""
    try:
        with naming_file(path):
            content = path_of(path).read_bytes()
    except FileNotFoundError:
        return MetricsFile([], 0, 0, False)
    lines = content.decode("utf-8-sig", errors="replace").split("\n")
    unfinished = lines.pop()
    parsed = [_parse(line) for line in lines if line.strip()]
    last = _parse(unfinished)
    torn = last is None and bool(unfinished.strip())
    rows = [row for row in (*parsed, last) if row is not None]
    by_step = {row["step"]: row for row in rows}
    return MetricsFile(
        rows=[by_step[step] for step in sorted(by_step)],
        num_damaged=parsed.count(None) + torn,
        num_repeated=len(rows) - len(by_step),
        torn=torn,
    )


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = parse_json(line)
    except ValueError:
        return None
    is_row = isinstance(row, dict) and type(row.get("step")) is int and row["step"] >= 0
    return row if is_row else None
