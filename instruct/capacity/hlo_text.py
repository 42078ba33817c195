"""Parses the text of a compiled program (HLO) into computations of instructions.

`Compiled.as_text()` of a program after all passes; layouts hold a memory space, `S(1)` for an array
on a TPU's chip.
"""

import dataclasses
import functools
import itertools
import math
import re

import numpy as np

_ITEM_BYTES = {
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("s8", "u8", "pred"), 1),
}


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a result's type; a tuple has several."""

    kind: str
    shape: tuple[int, ...]
    on_chip: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.size * _ITEM_BYTES.get(self.kind, 1 if self.kind[:2] in ("f8", "s4") else 0)

    @property
    def hbm_bytes(self) -> int:
        return 0 if self.on_chip else self.num_bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line. Operands are names; of a parameter its number, of a constant its text."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in what follows the operands."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else None

    @functools.cached_property
    def called(self) -> str | None:
        """The computation that a fusion, call or reduction names."""
        return self.attribute(r"(?:calls|to_apply)=%?([\w.\-]+)")


Computation = dict[str, Instruction]
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^{}]*\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")


def parse_hlo(text: str) -> tuple[dict[str, Computation], str]:
    """(computation's name -> instructions in their order, name of the entry)."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line.startswith("}"):
            current = None
        elif (match := _HEAD.match(line)) and not line.startswith(" "):
            current = computations[match[2]] = {}
            entry = match[2] if match[1] else entry
        elif current is not None and (match := _LINE.match(line)):
            instruction = _instruction(match[2], line[match.end() :], bool(match[1]))
            current[instruction.name] = instruction
    return computations, entry


def _instruction(name: str, rest: str, is_root: bool) -> Instruction:
    """Parses 'TYPE opcode(operands), attributes'."""
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    arrays = tuple(
        Array(kind, tuple(int(n) for n in sizes.split(",") if n), "S(" in (layout or ""))
        for kind, sizes, layout in _ARRAY.findall(rest[:end])
    )
    opening = rest.index("(", end)
    closing = _closing(rest, opening)
    inner = rest[opening + 1 : closing]
    opcode = rest[end:opening].strip()
    operands = (inner,) if opcode in ("constant", "parameter") else _names(inner)
    return Instruction(name, arrays, opcode, operands, rest[closing + 1 :], is_root)


def _closing(text: str, opening: int) -> int:
    depth = 0
    for index in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"unbalanced parentheses in HLO: {text[:200]!r}")


def _names(text: str) -> tuple[str, ...]:
    """Operand names; some printers write their types in front."""
    return tuple(re.findall(r"%([\w.\-]+)", text))


def device_groups(instruction: Instruction) -> np.ndarray:
    """Device numbers of the groups, or the pairs of a permute."""
    text = instruction.attributes
    if match := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", text):
        rows = re.findall(r"\{([\d,]*)\}", match[1])
        return np.array([[int(n) for n in row.split(",") if n] for row in rows])
    if match := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, sizes, order = ([int(n) for n in (m or "").split(",") if n] for m in match.groups())
        numbers = np.arange(math.prod(sizes)).reshape(sizes)
        return numbers.transpose(order or range(len(sizes))).reshape(shape)
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", text):
        return _mesh_groups(match[1], match[2])
    return np.zeros((0, 0), int)


def _mesh_groups(mesh: str, axes: str) -> np.ndarray:
    """Groups over axes of a mesh: "'a'=2,'b'=4" and "'b'", or a part of one, "'b':(2)2"."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    shape, chosen = [], []
    parts: dict[str, list[tuple[int, int]]] = {}
    for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes):
        parts.setdefault(name, []).append((int(before or 1), int(size or sizes[name])))
    for name, size in sizes.items():
        # A part (before, size) of an axis is the middle of [before, size, rest].
        cuts = sorted(
            {
                1,
                size,
                *(b for b, _ in parts.get(name, ())),
                *(b * s for b, s in parts.get(name, ())),
            }
        )
        for low, high in itertools.pairwise(cuts):
            if any(b <= low and high <= b * s for b, s in parts.get(name, ())):
                chosen.append(len(shape))
            shape.append(high // low)
    numbers = np.arange(math.prod(sizes.values())).reshape(shape or [1])
    others = [axis for axis in range(len(shape)) if axis not in chosen]
    length = math.prod(shape[axis] for axis in chosen)
    return numbers.transpose([*others, *chosen]).reshape(-1, length)
