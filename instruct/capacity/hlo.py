"""Reads the text of a compiled program (HLO): FLOPs, bytes and collectives, loops included.

`Compiled.cost_analysis()` counts the body of a loop once, and a scanned model is a loop. Here every
computation is counted as often as it runs. A *region* is a computation that runs on its own: the
entry, the body of a loop, a called function; a fusion belongs to its region as one operation.

What the TPU compiler writes differently from the XLA that other back ends share:
- Arrays in on-chip memory have `S(1)` in their layout; they cost no HBM traffic.
- Loops carry no `known_trip_count`; the loop condition compares the first counter to a constant.
- A reduce-scatter is a fusion that calls `%all-reduce-scatter.N`: an all-reduce and a slice of it.
- A collective that overlaps with products is printed in several fusions with one `chain_id`.
- A batched product is a convolution whose window covers the batch with dilation; only positions
  that meet an element count.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from instruct.capacity.hlo_text import Array, Computation, Instruction, device_groups, parse_hlo

_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# They move or rename nothing in HBM, or are counted where their pair is.
_FREE = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id|"
    r"replica-id|opt-barrier|while|call|conditional|iota|broadcast|copy-done|"
    r"slice-done|all-gather-done|all-reduce-done|collective-permute-done|async-done|"
    r"async-update|dynamic-slice-done|dynamic-update-slice-done"
)
# Copies between HBM and on-chip memory beside the computation.
_PREFETCHES = ("copy-start", "slice-start", "dynamic-slice-start", "async-start")
_TRANSCENDENTAL = re.compile(
    r"exponential|exponential-minus-one|log|log-plus-one|tanh|logistic|sqrt|rsqrt|"
    r"cbrt|power|sine|cosine|tan|erf|atan2"
)
# A transcendental goes through one unit where additions have four (scaling-book, VPU).
_TRANSCENDENTAL_OPS = 4
_ELEMENTWISE = re.compile(
    r"abs|add|and|clamp|compare|convert|divide|floor|ceil|maximum|minimum|"
    r"multiply|negate|not|or|remainder|round-nearest-even|round-nearest-afz|select|"
    r"shift-left|shift-right-arithmetic|shift-right-logical|sign|subtract|xor|"
    r"popcnt|is-finite|reduce|reduce-precision"
)


@dataclasses.dataclass(frozen=True)
class Product:
    """One matrix product, `batch` times [m, k] @ [k, n]; its FLOPs are 2 * batch * m * k * n."""

    batch: float
    m: float
    k: float
    n: float

    @property
    def flops(self) -> float:
        return 2 * self.batch * self.m * self.k * self.n


@dataclasses.dataclass(frozen=True)
class Operation:
    """What one instruction of a region does each time it runs, on one device."""

    name: str
    products: tuple[Product, ...] = ()
    vector_ops: float = 0  # elementwise operations; a transcendental counts as four
    hbm_bytes: float = 0  # read and written
    kernel_flops: float = 0  # of hand-written kernels, as they declare them
    cycles: int = 0  # as the TPU compiler estimates them
    prefetch: bool = False  # runs beside the computation


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices, each time it runs.

    Attributes:
        kind: 'all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all' or 'collective-permute'.
        num_bytes: of the whole buffer on one device: what an all-gather returns, what a
            reduce-scatter takes, what the others move.
        groups: [groups, devices of a group] device numbers; pairs (source, target) of a permute.
        overlapped: whether the program starts it and computes before it waits.
        shapes: the buffer, such as 'bf16[4096,10240]'.
    """

    kind: str
    num_bytes: int
    groups: np.ndarray
    overlapped: bool
    shapes: str
    op_name: str


@dataclasses.dataclass(frozen=True)
class Region:
    """A computation that runs `count` times in one step."""

    name: str
    count: int
    operations: tuple[Operation, ...]
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """The regions of a compiled program.

    `unknown_loops` are loops without a readable trip count, counted once; `unknown_kernels` are
    custom calls that declare no FLOPs.
    """

    regions: tuple[Region, ...]
    unknown_loops: tuple[str, ...]
    unknown_kernels: tuple[str, ...]

    def flops(self) -> float:
        """FLOPs of matrix products and kernels on one device."""
        return sum(
            region.count * (sum(p.flops for p in op.products) + op.kernel_flops)
            for region in self.regions
            for op in region.operations
        )

    def collectives(self) -> Iterator[tuple[int, Collective]]:
        """(times in one step, collective)."""
        for region in self.regions:
            for collective in region.collectives:
                yield region.count, collective


def read_program(text: str) -> Program:
    """Parses `Compiled.as_text()`."""
    computations, entry = parse_hlo(text)
    reader = _Reader(computations)
    reader.visit(entry, 1)
    return Program(
        tuple(reader.regions), tuple(reader.unknown_loops), tuple(reader.unknown_kernels)
    )


class _Reader:
    """Walks the computations that run, with their counts."""

    def __init__(self, computations: dict[str, Computation]):
        self.computations = computations
        self.regions: list[Region] = []
        self.unknown_loops: list[str] = []
        self.unknown_kernels: list[str] = []

    def visit(self, name: str, count: int) -> None:
        computation = self.computations[name]
        operations, collectives, chains = [], [], set()
        for instruction in computation.values():
            opcode = instruction.opcode
            if opcode == "while":
                self._visit_loop(computation, instruction, count)
            elif opcode == "call":
                self.visit(str(instruction.called), count)
            elif opcode == "conditional":
                for branch in _branches(instruction):  # at most: every branch is counted
                    self.visit(branch, count)
            else:
                for chain, collective in self._collectives_of(computation, instruction):
                    if chain is None or chain not in chains:
                        collectives.append(collective)
                        chains.add(chain)
                operations.append(self._operation(computation, instruction))
        useful = tuple(op for op in operations if dataclasses.replace(op, name="") != Operation(""))
        self.regions.append(Region(name, count, useful, tuple(collectives)))

    def _visit_loop(self, computation, instruction: Instruction, count: int) -> None:
        condition = str(instruction.attribute(r"condition=%?([\w.\-]+)"))
        body = str(instruction.attribute(r"body=%?([\w.\-]+)"))
        trips = instruction.attribute(r'known_trip_count":\{"n":"(\d+)"')
        number = int(trips) if trips else self._compared_constant(condition, body)
        if number is None:
            self.unknown_loops.append(instruction.name)
        self.visit(body, count * (1 if number is None else number))

    def _compared_constant(self, condition: str, body: str) -> int | None:
        """Trips of a loop that counts from 0 and stops at a constant, as `lax.scan` does."""
        root = next((i for i in self.computations[condition].values() if i.is_root), None)
        if root is None or root.opcode != "compare" or "direction=LT" not in root.attributes:
            return None
        counter, bound = (self.computations[condition].get(name) for name in root.operands)
        if counter is None or bound is None or bound.opcode != "constant":
            return None
        position = counter.attribute(r"index=(\d+)")
        step = self._loop_step(body, int(position)) if position else 1
        return math.ceil(int(bound.operands[0]) / step)

    def _loop_step(self, body: str, position: int) -> int:
        """What the body adds to its counter; 1 unless the compiler unrolled the loop."""
        instructions = self.computations[body]
        root = next(i for i in instructions.values() if i.is_root)
        name = root.operands[position] if position < len(root.operands) else ""
        while (found := instructions.get(name)) is not None and found.opcode in ("copy", "bitcast"):
            name = found.operands[0]
        if found is None or found.opcode != "add":
            return 1
        constants = [
            instructions[operand].operands[0]
            for operand in found.operands
            if operand in instructions and instructions[operand].opcode == "constant"
        ]
        return int(constants[0]) if constants and constants[0].lstrip("-").isdigit() else 1

    def _collectives_of(self, computation, instruction: Instruction, inside: str = ""):
        """(chain id or None, collective) of an instruction and of the fusions that it calls."""
        if instruction.opcode in ("fusion", "async-start") and instruction.called:
            called = self.computations[instruction.called]
            for inner in called.values():
                found = self._collectives_of(called, inner, instruction.called)
                for chain, collective in found:
                    beside = collective.overlapped or instruction.opcode == "async-start"
                    yield chain, dataclasses.replace(collective, overlapped=beside)
        kind = instruction.opcode.removesuffix("-start")
        if kind not in _COLLECTIVES:
            return
        chain = instruction.attribute(r'chain_id="(\d+)"')
        whole = self._whole_buffer(computation, instruction, kind)
        if kind == "all-reduce" and inside.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"
        yield (
            chain,
            Collective(
                kind=kind,
                num_bytes=sum(array.num_bytes for array in whole),
                groups=device_groups(instruction),
                overlapped=instruction.opcode.endswith("-start") or chain is not None,
                shapes=" ".join(f"{a.kind}[{','.join(map(str, a.shape))}]" for a in whole),
                op_name=instruction.attribute(r'op_name="([^"]*)"') or "",
            ),
        )

    def _whole_buffer(self, computation, instruction: Instruction, kind: str) -> list[Array]:
        operands = [
            array
            for name in instruction.operands
            if name in computation
            for array in computation[name].arrays
        ]
        if kind == "all-gather":
            results = list(instruction.arrays)
            # A start returns its operands, then its results, then semaphores.
            return (
                results if instruction.opcode == kind else results[len(operands) :][: len(operands)]
            )
        return operands

    def _operation(self, computation, instruction: Instruction) -> Operation:
        products, vector_ops, kernel_flops = self._work(computation, instruction)
        opcode = instruction.opcode
        free = _FREE.fullmatch(opcode) or opcode.removesuffix("-start") in _COLLECTIVES
        return Operation(
            instruction.name,
            tuple(products),
            vector_ops,
            0 if free else self._hbm_bytes(computation, instruction),
            kernel_flops,
            int(instruction.attribute(r'"estimated_cycles":"(\d+)"') or 0),
            prefetch=opcode in _PREFETCHES,
        )

    def _work(self, computation, instruction: Instruction) -> tuple[list[Product], float, float]:
        """(products, vector operations, declared FLOPs of kernels), fusions included."""
        opcode = instruction.opcode
        if opcode in ("dot", "convolution"):
            left, right = (computation[name].arrays[0] for name in instruction.operands[:2])
            product = _dot if opcode == "dot" else _convolution
            return [product(instruction, left, right)], 0, 0
        if opcode == "fusion" and instruction.called:
            called = self.computations[instruction.called]
            parts = [self._work(called, inner) for inner in called.values()]
            products = [product for part in parts for product in part[0]]
            return products, sum(p[1] for p in parts), sum(p[2] for p in parts)
        if opcode == "custom-call":
            return self._kernel(computation, instruction)
        if _TRANSCENDENTAL.fullmatch(opcode):
            return [], _TRANSCENDENTAL_OPS * instruction.arrays[0].size, 0
        if _ELEMENTWISE.fullmatch(opcode):
            arrays = instruction.arrays
            if opcode == "reduce":
                arrays = computation[instruction.operands[0]].arrays
            return [], arrays[0].size if arrays else 0, 0
        return [], 0, 0

    def _kernel(self, computation, instruction: Instruction):
        target = instruction.attribute(r'custom_call_target="([^"]*)"') or ""
        if "matmul" in target or "dot" in target.lower():  # oneDNN on CPU, cuBLAS on GPU
            left, right = (computation[name].arrays[0] for name in instruction.operands[:2])
            out = instruction.arrays[0].size
            batch = math.prod(left.shape[:-2]) if len(right.shape) > 2 else 1
            # From the sizes alone: m k * k n / (m n) = k^2.
            inner = math.sqrt(max(left.size * right.size / max(out * batch, 1), 1))
            rows = left.size / batch / inner
            return [Product(batch, rows, inner, out / batch / rows)], 0, 0
        declared = instruction.attribute(r'"cost_estimate":\{[^{}]*?"flops":"?(\d+)')
        if declared:
            return [], 0, float(declared)
        if target in ("tpu_custom_call", "__gpu$xla.gpu.triton", "__cudnn$fmhaSoftmax"):
            self.unknown_kernels.append(instruction.name)
        return [], 0, 0

    def _hbm_bytes(self, computation, instruction: Instruction) -> float:
        opcode = instruction.opcode
        operands = [computation[name] for name in instruction.operands if name in computation]
        written = sum(array.hbm_bytes for array in instruction.arrays)
        if opcode in _PREFETCHES:  # results repeat the operand; one side is in HBM
            sizes = [array.num_bytes for array in instruction.arrays if array.num_bytes > 4]
            return min(sizes, default=0)
        if opcode in ("dynamic-slice", "slice", "gather"):
            return 2 * written
        if opcode in ("dynamic-update-slice", "scatter"):
            update = operands[1 if opcode == "dynamic-update-slice" else -1]
            return 2 * sum(array.hbm_bytes for array in update.arrays)
        if opcode == "fusion" and instruction.called:
            return self._fusion_bytes(instruction, operands)
        return written + sum(array.hbm_bytes for operand in operands for array in operand.arrays)

    def _fusion_bytes(self, instruction: Instruction, operands: Sequence[Instruction]) -> float:
        """A fusion reads of a parameter, and writes of a result, only the slice that it uses."""
        called = self.computations[str(instruction.called)]
        users: dict[str, list[Instruction]] = {}
        for inner in called.values():
            for name in inner.operands:
                users.setdefault(name, []).append(inner)
        total = 0.0
        for inner in called.values():
            if inner.opcode != "parameter":
                continue
            number = int(inner.operands[0])
            arrays = operands[number].arrays if number < len(operands) else inner.arrays
            whole = sum(array.hbm_bytes for array in arrays)
            total += min(whole, self._read_part(inner, users, whole))
        root = next((i for i in called.values() if i.is_root), None)
        results = [root]
        if root is not None and root.opcode == "tuple":
            results = [called.get(name) for name in root.operands]
        for result, array in zip(results, instruction.arrays):
            total += min(array.hbm_bytes, self._written_part(called, result, array.hbm_bytes))
        return total

    def _read_part(self, parameter: Instruction, users, whole: float) -> float:
        """Bytes of a parameter that its users read."""
        total = 0.0
        for user in users.get(parameter.name, ()):
            first = user.operands[0] == parameter.name
            if user.opcode in ("dynamic-slice", "slice", "gather") and first:
                total += sum(array.num_bytes for array in user.arrays)
            elif user.opcode == "bitcast":
                total += self._read_part(user, users, whole)
            elif _passes(user) or user.opcode == "tuple":
                continue
            elif not (user.opcode in ("dynamic-update-slice", "scatter") and first):
                return whole
        return total

    def _written_part(self, called, result: Instruction | None, whole: float) -> float:
        if result is not None and (result.opcode == "parameter" or _passes(result)):
            return 0
        while result is not None and result.opcode in ("bitcast", "copy", "convert"):
            result = called.get(result.operands[0])
        if result is None or result.opcode not in ("dynamic-update-slice", "scatter"):
            return whole
        update = called.get(result.operands[1 if result.opcode == "dynamic-update-slice" else -1])
        return whole if update is None else sum(array.num_bytes for array in update.arrays)


def _passes(instruction: Instruction) -> bool:
    """Whether a fusion passes on what this yields: the buffers of a collective under way."""
    return instruction.opcode in (*_COLLECTIVES, "custom-call")


def _branches(instruction: Instruction) -> list[str]:
    listed = instruction.attribute(r"branch_computations=\{([^}]*)\}")
    if listed:
        return [name.strip().removeprefix("%") for name in listed.split(",")]
    return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", instruction.attributes)


def _dot(instruction: Instruction, left: Array, right: Array) -> Product:
    def axes(name: str) -> list[int]:
        listed = instruction.attribute(rf"{name}=\{{([\d,]*)\}}") or ""
        return [int(axis) for axis in listed.split(",") if axis]

    batch = math.prod(left.shape[axis] for axis in axes("lhs_batch_dims"))
    inner = math.prod(left.shape[axis] for axis in axes("lhs_contracting_dims"))
    return Product(batch, left.size / batch / inner, inner, right.size / batch / inner)


def _convolution(instruction: Instruction, left: Array, right: Array) -> Product:
    """A convolution as a product: rows and positions, features and window, output features."""
    labels = instruction.attribute(r"dim_labels=([\w?]+_[\w?]+->[\w?]+)") or ""
    left_labels, right_labels, out_labels = re.split(r"_|->", labels)
    window = instruction.attribute(r"window=\{([^}]*)\}") or ""
    groups = int(instruction.attribute(r"feature_group_count=(\d+)") or 1)
    batch_groups = int(instruction.attribute(r"batch_group_count=(\d+)") or 1)
    out = instruction.arrays[0].shape
    rows = left.shape[left_labels.index("b")] / batch_groups
    inner = left.shape[left_labels.index("f")] / groups
    for axis in sorted(label for label in out_labels if label.isdigit()):
        size, kernel = left.shape[left_labels.index(axis)], right.shape[right_labels.index(axis)]
        positions = out[out_labels.index(axis)]
        rows *= positions
        inner *= _valid_pairs(window, int(axis), size, kernel, positions) / positions
    return Product(1, rows, inner, right.shape[right_labels.index("o")])


def _valid_pairs(window: str, axis: int, size: int, kernel: int, out: int) -> int:
    """Pairs of output and kernel positions that meet an element of the input along one axis."""

    def values(name: str, default: int) -> int:
        match = re.search(rf"\b{name}=([\dx]+)", window)
        return int(match[1].split("x")[axis]) if match else default

    pad = re.search(r"\bpad=([\d_x\-]+)", window)
    low = int(pad[1].split("x")[axis].split("_")[0]) if pad else 0
    stride, dilation = values("stride", 1), values("rhs_dilate", 1)
    spread = values("lhs_dilate", 1)
    place = np.arange(out)[:, None] * stride + np.arange(kernel)[None, :] * dilation - low
    inside = (place >= 0) & (place <= (size - 1) * spread) & (place % spread == 0)
    return int(inside.sum())
