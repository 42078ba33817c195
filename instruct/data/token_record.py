"""`TokenRecord`: an example of a plain seqio task, stored as its TensorFlow pipeline yields it.

Features that only the task's `postprocess_fn` reads keep their NumPy types, as in SeqIO's own
evaluator.
"""

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class TokenRecord:
    """One tokenised example.

    Attributes:
        id: its number in the task's split.
        input_ids, target_ids: the task's tokens, with EOS if it adds one.
        inputs, targets: the texts (the `*_pretokenized` features, or decoded tokens).
        features: every other feature of the example, NumPy arrays, scalars or bytes.
    """

    id: str
    input_ids: list[int]
    target_ids: list[int]
    inputs: str
    targets: str
    features: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def answer(self) -> str:
        """The text that the majority baseline counts."""
        return self.targets

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["features"] = {name: _pack(value) for name, value in self.features.items()}
        return json.dumps(values, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, line: str | bytes) -> "TokenRecord":
        """Inverse of `to_json`. Raises ValueError on anything else."""
        values = json.loads(line)
        values["features"] = {name: _unpack(value) for name, value in values["features"].items()}
        return cls(**values)


def _pack(value: Any) -> dict[str, Any]:
    """A NumPy array, scalar or bytes as JSON; objects of an array must be bytes."""
    array = np.asarray(value, dtype=object if isinstance(value, bytes | str) else None)
    flat = array.ravel().tolist()
    if array.dtype == object:
        flat = [_pack_bytes(v.encode() if isinstance(v, str) else v) for v in flat]
    return {"dtype": str(array.dtype), "shape": list(array.shape), "values": flat}


def _pack_bytes(value: bytes) -> Any:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def _unpack(packed: dict[str, Any]) -> Any:
    flat = packed["values"]
    if packed["dtype"] == "object":
        flat = [v.encode() if isinstance(v, str) else base64.b64decode(v["base64"]) for v in flat]
    array = np.empty(len(flat), dtype=packed["dtype"])
    array[:] = flat
    return array.reshape(packed["shape"])[()]
