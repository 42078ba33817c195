"""Time of collectives on a machine's links, and which mesh axis each one uses.

A chip of a torus sends along each axis that its group spans, both ways where the axis closes in a
ring; slices and nodes exchange over the data-center network, each chip a share of the buffer. The
formulas are those of https://jax-ml.github.io/scaling-book/sharding.
"""

import collections
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from instruct.capacity.chips import Topology
from instruct.capacity.hlo import Collective

# Of the links' nominal speed. NCCL reaches 235 of 300 GB/s on A100's NVLink (nccl-tests); the TPU
# figures of the table are measured ones already, but rings of small buffers lose some.
LINK_EFFICIENCY = 0.8


@dataclasses.dataclass(frozen=True)
class Network:
    """A mesh of devices and their places.

    Attributes:
        topology: what they are part of.
        mesh_axes: name and size of the mesh axes, outermost first; device i of the program is
            element i of the mesh in row-major order.
        coords: [devices, axes of the torus] place in the slice; of a node, [devices, 1].
        slices: [devices] slice or node.
    """

    topology: Topology
    mesh_axes: tuple[tuple[str, int], ...]
    coords: np.ndarray
    slices: np.ndarray

    def axes(self, collective: Collective) -> str:
        """Mesh axes over which a collective exchanges, such as 'fsdp' or 'data+fsdp'."""
        groups = collective.groups
        if groups.size == 0:
            return "all"
        sizes = [size for _, size in self.mesh_axes]
        places = np.stack(np.unravel_index(groups, sizes), axis=-1)
        varies = (places != places[:, :1]).any(axis=(0, 1))
        names = [name for (name, _), changes in zip(self.mesh_axes, varies) if changes]
        return "+".join(names) or "none"

    def seconds(self, collective: Collective) -> float:
        """Time of one exchange, alone on its links."""
        groups = collective.groups
        if groups.size == 0:
            groups = np.arange(len(self.slices))[None]
        if collective.kind == "collective-permute":
            return self._permute_seconds(collective.num_bytes, groups)
        group = groups[0]
        across = len(np.unique(self.slices[group]))
        inside = len(group) // across
        places = self.coords[group[self.slices[group] == self.slices[group[0]]]]
        seconds = self._inside_seconds(collective, places) if inside > 1 else 0.0
        if across > 1:
            share = collective.num_bytes / inside * (across - 1) / across
            seconds += self._times(collective) * share / self.topology.chip.network_bandwidth
        return seconds / LINK_EFFICIENCY

    def _inside_seconds(self, collective: Collective, places: np.ndarray) -> float:
        """Within a slice or node: `places` [devices, axes of the torus]."""
        number = len(places)
        share = collective.num_bytes * (number - 1) / number
        bandwidth, longest = 0.0, 1
        for axis, (extent, wraps) in enumerate(zip(self.topology.shape, self.topology.wraps)):
            used = len(np.unique(places[:, axis]))
            if used > 1:
                ways = 2 if wraps and used == extent else 1
                bandwidth += ways * self.topology.chip.link_bandwidth
                longest = max(longest, used)
        if not self.topology.is_tpu:
            return self._times(collective) * share / self.topology.chip.link_bandwidth
        if collective.kind == "all-to-all":
            return collective.num_bytes * longest / 4 / bandwidth
        return self._times(collective) * share / bandwidth

    def _times(self, collective: Collective) -> int:
        """How often a buffer crosses the links: an all-reduce scatters, then gathers."""
        return 2 if collective.kind == "all-reduce" else 1

    def _permute_seconds(self, num_bytes: int, pairs: np.ndarray) -> float:
        """A device sends to one other; transfers that share a link wait for each other."""
        chip = self.topology.chip
        if (self.slices[pairs[:, 0]] != self.slices[pairs[:, 1]]).any():
            return num_bytes / chip.network_bandwidth / LINK_EFFICIENCY
        busiest = self._busiest_link(pairs) if self.topology.is_tpu else 1
        return num_bytes * busiest / chip.link_bandwidth / LINK_EFFICIENCY

    def _busiest_link(self, pairs: np.ndarray) -> int:
        """Transfers over the busiest link, routed axis by axis, the shorter way round a ring."""
        loads: collections.Counter = collections.Counter()
        for source, target in pairs:
            place = list(self.coords[source])
            for axis, (extent, wraps) in enumerate(zip(self.topology.shape, self.topology.wraps)):
                distance = int(self.coords[target][axis]) - place[axis]
                if wraps and abs(distance) > extent / 2:
                    distance -= int(math.copysign(extent, distance))
                step = 1 if distance > 0 else -1
                for _ in range(abs(distance)):
                    loads[self.slices[source], *place, axis, step] += 1
                    place[axis] = (place[axis] + step) % extent
        return max(loads.values(), default=1)


def row_major_places(topology: Topology) -> tuple[np.ndarray, np.ndarray]:
    """(coords, slices) of devices numbered slice by slice, row by row of the torus."""
    within = np.arange(topology.slice_chips)
    coords = np.stack(np.unravel_index(within, topology.shape), axis=-1)
    slices = np.repeat(np.arange(topology.num_slices), topology.slice_chips)
    return np.tile(coords, (topology.num_slices, 1)), slices


def make_network(
    topology: Topology, mesh_axes: Sequence[tuple[str, int]], devices: Sequence | None
) -> Network:
    """Network of the devices of a mesh; None: they have no place of their own, row by row."""
    if math.prod(size for _, size in mesh_axes) != topology.num_chips:
        raise ValueError(f"a mesh {mesh_axes} for {topology.num_chips} chips")
    if devices is None:
        coords, slices = row_major_places(topology)
    else:
        dimensions = len(topology.shape)
        coords = np.array([device.coords[:dimensions] for device in devices])
        slices = np.array([getattr(device, "slice_index", 0) or 0 for device in devices])
    return Network(topology, tuple(mesh_axes), coords, slices)
