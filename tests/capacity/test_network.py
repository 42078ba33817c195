"""Mesh axes of a collective, and its time on a torus, in a node, between slices."""

import numpy as np
import pytest

from instruct.capacity.chips import parse_topology
from instruct.capacity.hlo import Collective
from instruct.capacity.network import LINK_EFFICIENCY, make_network

MIB = 1 << 20


def network(name, **axes):
    return make_network(parse_topology(name), list(axes.items()), None)


def collective(kind, groups, num_bytes=MIB):
    return Collective(kind, num_bytes, np.array(groups), False, "", "")


def test_axes_of_groups():
    net = network("v5e:2x4", data=2, fsdp=4)
    assert net.axes(collective("all-gather", [[0, 1, 2, 3], [4, 5, 6, 7]])) == "fsdp"
    assert net.axes(collective("all-reduce", [[0, 4], [1, 5]])) == "data"
    assert net.axes(collective("all-reduce", [list(range(8))])) == "data+fsdp"
    assert net.axes(collective("collective-permute", [[0, 1], [1, 0]])) == "fsdp"


def test_a_ring_with_a_wraparound_uses_both_directions():
    link = 45e9 * LINK_EFFICIENCY
    ring = network("v5e:16x16", data=16, fsdp=16)
    seconds = ring.seconds(collective("all-gather", [list(range(16))]))
    assert seconds == pytest.approx(MIB * 15 / 16 / (2 * link))
    line = network("v5e:8x8", data=8, fsdp=8)
    seconds = line.seconds(collective("all-gather", [list(range(8))]))
    assert seconds == pytest.approx(MIB * 7 / 8 / link)
    whole = ring.seconds(collective("reduce-scatter", [list(range(256))]))
    assert whole == pytest.approx(MIB * 255 / 256 / (4 * link))  # two axes, both ways


def test_an_all_reduce_takes_twice_as_long():
    net = network("v5p:4x4x4", fsdp=64)
    group = [list(range(64))]
    twice = net.seconds(collective("all-reduce", group))
    assert twice == pytest.approx(2 * net.seconds(collective("reduce-scatter", group)))


def test_a_permute_waits_for_shared_links():
    link = 45e9 * LINK_EFFICIENCY
    net = network("v5e:2x4", fsdp=8)
    neighbours = net.seconds(collective("collective-permute", [[0, 1], [2, 3]]))
    assert neighbours == pytest.approx(MIB / link)
    shared = net.seconds(collective("collective-permute", [[0, 2], [1, 3]]))  # both over 1 -> 2
    assert shared == pytest.approx(2 * MIB / link)
    ring = network("v5e:8x16", data=8, fsdp=16)
    around = ring.seconds(collective("collective-permute", [[15, 0], [14, 15]]))
    assert around == pytest.approx(MIB / link)


def test_between_slices_each_chip_sends_its_share():
    net = network("2x v5e-16", slice=2, fsdp=16)
    inside = net.seconds(collective("all-reduce", [list(range(16))]))
    both = net.seconds(collective("all-reduce", [list(range(32))]))
    share = 2 * (MIB / 16) / 2 / (net.topology.chip.network_bandwidth * LINK_EFFICIENCY)
    assert both == pytest.approx(inside + share)


def test_nodes_of_gpus():
    net = network("a100:16", data=2, fsdp=8)
    inside = net.seconds(collective("all-gather", [list(range(8))]))
    assert inside == pytest.approx(MIB * 7 / 8 / (300e9 * LINK_EFFICIENCY))
    assert net.seconds(collective("all-gather", [[0, 8]])) > inside


def test_one_device_waits_for_nobody():
    assert network("v5e:1x1", fsdp=1).seconds(collective("all-reduce", [[0]])) == 0
