"""`metrics.jsonl`: one JSON object a logged step, {"step": 100, "loss": 2.5, ...}, in order.

Training writes it (`instruct/train/trackers.py`) and reports read it. The reader tolerates damage:
disks fill up, processes are killed in the middle of a line, and people edit files.
"""

import os
import pathlib
from typing import Any, NamedTuple

from instruct.json_text import parse_json


class MetricsFile(NamedTuple):
    """The readable rows of a file.

    Attributes:
        rows: by step, each step once; of several rows of a step the last one counts.
        num_damaged: lines that are no row.
        num_repeated: rows of a step that has a later row.
        torn: whether the last of the damaged lines is one that a killed process left unfinished.
    """

    rows: list[dict[str, Any]]
    num_damaged: int
    num_repeated: int
    torn: bool


def read_metrics(path: str | os.PathLike[str]) -> MetricsFile:
    """Reads a file with or without BOM, carriage returns and damage; no rows if there is none.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        content = pathlib.Path(path).read_bytes()
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
    if not isinstance(row, dict):
        return None
    step = row.get("step")
    return row if type(step) is int and step >= 0 else None
