"""Chips by data sheet (`chips.toml`, with sources), and the names of topologies.

A topology is a chip, the shape of a slice, and a number of slices: `v5p:4x4x8`, `2x v5e:16x16`, or
a cloud's accelerator name, whose number counts TensorCores on v4 and v5p: `v5p-64` has 32 chips.
A GPU's name carries a number: `a100:64` is 8 nodes of 8, each node a slice.
"""

import dataclasses
import functools
import math
import re

from instruct.errors import UserError
from instruct.files import read_package_toml

NODE = 8  # GPUs of a node
_MOST_SLICES = 511  # libtpu's compiler aborts at 512 (`kMaxNumSlices`)
# Chips of a slice -> its shape, as Cloud TPU makes it from an accelerator name.
_SHAPES = {
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: (
        *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16"),
        *("8x16x16", "16x16x16", "16x16x24"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """One row of `chips.toml`, which explains the fields."""

    name: str
    matmul_flops: float
    matrix_tile: int
    vector_flops: float
    clock: float
    hbm_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float
    dimensions: int
    cores: int
    wraps: str
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of one shape, or nodes of GPUs; `shape` () is a node."""

    chip: Chip
    shape: tuple[int, ...]
    num_slices: int = 1

    @property
    def is_tpu(self) -> bool:
        """Whether the TPU compiler knows the chip."""
        return self.chip.dimensions > 0

    @property
    def slice_chips(self) -> int:
        """Chips of one slice or node."""
        return math.prod(self.shape)

    @property
    def num_chips(self) -> int:
        """Chips of all slices."""
        return self.slice_chips * self.num_slices

    @property
    def slice_name(self) -> str:
        """One slice as libtpu names it, 'v5p:4x4x8'."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def text(self) -> str:
        """The whole, with the number of chips."""
        slices = f"{self.num_slices} x " if self.num_slices > 1 else ""
        return f"{slices}{self.slice_name}, {self.num_chips} chips"

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Whether each axis of the torus has a wraparound link."""
        if self.chip.wraps == "cube":
            return (all(size % 4 == 0 for size in self.shape),) * len(self.shape)
        return tuple(size == 16 for size in self.shape)


@functools.cache
def chips() -> dict[str, Chip]:
    """Every row of the table."""
    rows = read_package_toml("instruct.capacity", "chips.toml")
    return {
        name: Chip(name=name, **(row | {"sources": tuple(row["sources"])}))
        for name, row in rows.items()
    }


def parse_topology(text: str) -> Topology:
    """The topology that a name means.

    Raises:
        UserError: no such chip, or a shape that Cloud TPU does not make.
    """
    match = re.fullmatch(
        r"\s*(?:(\d+)\s*x\s+)?([a-z]\w*?)(?:([:-])(\d+(?:x\d+)*))\s*", text.strip().lower()
    )
    if not match:
        raise UserError(f"--topology={text!r} is not understood. {_allowed()}")
    slices, name, sign, size = match.groups()
    name = {"v5litepod": "v5e", "v5lite": "v5e"}.get(name, name)
    chip = chips().get(name)
    if chip is None:
        raise UserError(f"--topology={text!r}: {name!r} is no chip of the table. {_allowed()}")
    if chip.dimensions == 0:
        return _nodes(text, chip, size, slices)
    shapes = _SHAPES[chip.dimensions]
    by_chips = {math.prod(map(int, shape.split("x"))): shape for shape in shapes}
    if sign == "-":
        names = [f"{name}-{number * chip.cores}" for number in by_chips]
        if not size.isdigit() or f"{name}-{size}" not in names:
            raise UserError(f"--topology={text!r}: {chip.name} comes as {', '.join(names)}.")
        size = by_chips[int(size) // chip.cores]
    if size not in shapes:
        raise UserError(f"--topology={text!r}: slices of {chip.name} are {', '.join(shapes)}.")
    return Topology(chip, tuple(map(int, size.split("x"))), _num_slices(text, slices))


def _nodes(text: str, chip: Chip, size: str, slices: str | None) -> Topology:
    number = _number(size) if size.isdigit() else 0
    if slices or number < 1 or (number > NODE and number % NODE):
        raise UserError(
            f"--topology={text!r}: give the number of GPUs, up to {NODE} or a multiple of it below "
            f"a billion, such as {chip.name}:{NODE} or {chip.name}:64."
        )
    return Topology(chip, (min(number, NODE),), max(1, number // NODE))


def _num_slices(text: str, slices: str | None) -> int:
    number = 1 if slices is None else _number(slices)
    if not 1 <= number <= _MOST_SLICES:
        raise UserError(
            f"--topology={text!r}: the number of slices is 1 to {_MOST_SLICES}, the most that the "
            "TPU compiler takes."
        )
    return number


def _number(digits: str) -> int:
    """The number; 0 if it has more than 9 digits, which Python may refuse to convert."""
    return int(digits) if len(digits) <= 9 else 0


def _allowed() -> str:
    return (
        f"Write CHIP:SHAPE such as v5p:4x4x8 or v5e:16x16, a cloud's name such as v5p-128, "
        f"'2x v5e-256' for two slices, or a100:64 for GPUs. Chips: {', '.join(chips())}."
    )
