"""`Record`: a normalized example before rendering, stored as one JSON object of text."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Record:
    """One example before any wording is chosen.

    Attributes:
        id: unique in its data set and split, and equal when the store is rebuilt.
        fields: named source texts that templates may show (`question`, `context`, ...).
        answer: the gold answer as text, without an option marker; not empty.
        options: the choices in their original order, if any.
        answer_index: position of the answer in `options`, -1 without options.
        references: all accepted answers; empty means just `answer`.
        rationale: a chain of thought before the answer, or "".
        metadata: JSON values for metrics, such as a verifier's entry.
    """

    id: str
    fields: Mapping[str, str]
    answer: str
    options: tuple[str, ...] = ()
    answer_index: int = -1
    references: tuple[str, ...] = ()
    rationale: str = ""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.answer.strip():
            raise ValueError(f"record {self.id!r}: the answer is empty")
        if self.options and not 0 <= self.answer_index < len(self.options):
            raise ValueError(
                f"record {self.id!r}: answer_index {self.answer_index} is outside the "
                f"{len(self.options)} options"
            )

    def to_json(self) -> str:
        """One line of JSON with sorted keys: equal records give equal bytes."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, line: str | bytes) -> "Record":
        """Inverse of `to_json`. Raises ValueError on anything else."""
        # json.loads would guess the encoding of bytes.
        values = json.loads(line if isinstance(line, str) else line.decode())
        values["options"] = tuple(values["options"])
        values["references"] = tuple(values["references"])
        return cls(**values)
