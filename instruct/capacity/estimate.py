"""Time of a training step by a roofline over its compiled program.

Every operation takes as long as its slowest part: matrix unit, vector unit, or memory. A region
(an entry or a loop's body) takes the sum over its operations, or longer where copies beside them
need more of the memory, or where overlapped collectives need more of the links; collectives that
nothing overlaps are added. The constants are the same for all chips and all models: nothing is
fitted to a case. Left out are input, checkpoints, evaluation, start-up and stragglers.
"""

import collections
import dataclasses
import math
from typing import Any

from instruct.capacity.chips import Chip
from instruct.capacity.hlo import Operation, Product, Program, Region
from instruct.capacity.network import Network

# Of the data sheets' peaks.
# Large bfloat16 products reach 0.85 to 0.95 on TPUs and 0.8 to 0.9 on A100 (cuBLAS).
MATRIX_EFFICIENCY = 0.85
# Streaming copies reach 0.85 to 0.92 of HBM's nominal bandwidth on all of them.
MEMORY_EFFICIENCY = 0.85
# Loads, stores and conversions to float32 share the vector unit with arithmetic.
VECTOR_EFFICIENCY = 0.7
# Operation -> bound; `operation_seconds` returns them in this order.
BOUNDS = ("matrix unit", "vector unit", "memory")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind over one mesh axis, of one step and one device."""

    kind: str
    axes: str
    times: int
    num_bytes: int
    seconds: float
    overlapped_bytes: int
    largest: str  # shapes of the largest buffer


@dataclasses.dataclass(frozen=True)
class StepEstimate:
    """Seconds of one step and what they go into; FLOPs and bytes are of one device.

    `compiler_seconds` takes the TPU compiler's own cycles in place of the roofline; 0 without them.
    """

    seconds: float
    flops: float
    hbm_bytes: float
    bounds: dict[str, float]  # seconds of operations by what bounds them
    exposed_seconds: float  # of collectives that nothing hides
    hidden_seconds: float  # of collectives that computation hides
    compiler_seconds: float
    traffic: tuple[Traffic, ...]

    @property
    def limit(self) -> str:
        """What takes the largest part of the step."""
        parts = self.bounds | {"communication": self.exposed_seconds}
        return max(parts, key=lambda name: parts[name])


def estimate_step(program: Program, network: Network, overlap: bool | None = None) -> StepEstimate:
    """Estimates one step on one device.

    Args:
        program: from `hlo.read_program`.
        network: the machine.
        overlap: whether collectives run beside computation; None: as the program says, which
            only the TPU compiler does.
    """
    chip = network.topology.chip
    seconds = exposed = hidden = hbm_bytes = cycle_secs = 0.0
    bounds: dict[str, float] = dict.fromkeys(BOUNDS, 0.0)
    traffic: dict[tuple[str, str], list] = collections.defaultdict(list)
    for region in program.regions:
        computing = 0.0
        for operation in region.operations:
            hbm_bytes += region.count * operation.hbm_bytes
            if operation.prefetch:
                continue
            parts = operation_seconds(operation, chip)
            computing += max(parts)
            bounds[BOUNDS[parts.index(max(parts))]] += region.count * max(parts)
        beside, alone = _collective_seconds(region, network, overlap, traffic)
        copies = sum(operation.hbm_bytes for operation in region.operations)
        busy = max(computing, copies / (chip.hbm_bandwidth * MEMORY_EFFICIENCY))
        bounds["memory"] += region.count * (busy - computing)
        exposed += region.count * (alone + max(0.0, beside - busy))
        hidden += region.count * min(beside, busy)
        seconds += region.count * (max(busy, beside) + alone)
        cycles = sum(operation.cycles for operation in region.operations) / chip.clock
        cycle_secs += region.count * (max(cycles, beside) + alone) if cycles else 0
    return StepEstimate(
        seconds=seconds,
        flops=program.flops(),
        hbm_bytes=hbm_bytes,
        bounds=bounds,
        exposed_seconds=exposed,
        hidden_seconds=hidden,
        compiler_seconds=cycle_secs,
        traffic=tuple(_summed(key, items) for key, items in sorted(traffic.items())),
    )


def step_report(
    program: Program, network: Network, model_flops: float | None, overlap: bool | None
) -> dict[str, Any]:
    """`estimate_step` as JSON values, with the MFU that `model_flops` (of all devices) give.

    'overlapped_mfu' is the MFU if every collective ran beside computation.
    """
    chip, chips = network.topology.chip, network.topology.num_chips
    estimate = estimate_step(program, network, overlap)
    hidden = estimate_step(program, network, overlap=True)

    def mfu(seconds: float) -> float | None:
        return model_flops / (chips * chip.matmul_flops * seconds) if model_flops else None

    return {
        "flops": program.flops(),
        "mfu": mfu(estimate.seconds),
        "overlapped_mfu": mfu(hidden.seconds),
        "limit": estimate.limit,
        "estimate": dataclasses.asdict(estimate),
        "unknown_loops": program.unknown_loops,
        "unknown_kernels": program.unknown_kernels,
    }


def operation_seconds(operation: Operation, chip: Chip) -> tuple[float, float, float]:
    """(matrix unit, vector unit, memory) seconds of one operation."""
    flops = sum(padded_flops(product, chip.matrix_tile) for product in operation.products)
    return (
        (flops + operation.kernel_flops) / (chip.matmul_flops * MATRIX_EFFICIENCY),
        operation.vector_ops / (chip.vector_flops * VECTOR_EFFICIENCY),
        operation.hbm_bytes / (chip.hbm_bandwidth * MEMORY_EFFICIENCY),
    )


def padded_flops(product: Product, tile: int) -> float:
    """FLOPs with the axes padded that lie in the matrix unit.

    The contraction and one other axis do, the better one; the third streams through, so a head
    dimension of 64 halves the speed of query-key products on a unit of 128.
    """

    def padded(size: float) -> float:
        return math.ceil(size / tile) * tile

    m, k, n = product.m, product.k, product.n
    return 2 * product.batch * padded(k) * min(padded(m) * n, m * padded(n))


def _collective_seconds(region: Region, network: Network, overlap: bool | None, traffic):
    """(overlapped, not overlapped) seconds of a region run once; adds to `traffic`."""
    beside = alone = 0.0
    for collective in region.collectives:
        took = network.seconds(collective)
        overlapped = collective.overlapped if overlap is None else overlap
        if overlapped:
            beside += took
        else:
            alone += took
        traffic[collective.kind, network.axes(collective)].append(
            (region.count, collective, took, overlapped)
        )
    return beside, alone


def _summed(key: tuple[str, str], items: list) -> Traffic:
    largest = max(items, key=lambda item: item[1].num_bytes)
    return Traffic(
        *key,
        times=sum(count for count, *_ in items),
        num_bytes=sum(count * collective.num_bytes for count, collective, *_ in items),
        seconds=sum(count * took for count, _, took, _ in items),
        overlapped_bytes=sum(count * c.num_bytes for count, c, _, beside in items if beside),
        largest=largest[1].shapes[:120],
    )
