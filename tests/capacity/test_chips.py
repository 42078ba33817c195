"""Topology names, and that every number of the table has a source."""

import pytest

from instruct.capacity.chips import chips, parse_topology
from instruct.errors import UserError


@pytest.mark.parametrize(
    ("name", "text", "num_chips"),
    [
        ("v5p:4x4x8", "v5p:4x4x8, 128 chips", 128),
        ("v5p-128", "v5p:4x4x4, 64 chips", 64),  # TensorCores, two a chip
        ("v5p-64", "v5p:2x4x4, 32 chips", 32),
        ("v4-8", "v4:2x2x1, 4 chips", 4),
        ("v5e-16", "v5e:4x4, 16 chips", 16),
        ("v5litepod-256", "v5e:16x16, 256 chips", 256),
        ("V6E-64", "v6e:8x8, 64 chips", 64),
        ("2x v5e-256", "2 x v5e:16x16, 512 chips", 512),
        ("a100:64", "8 x a100:8, 64 chips", 64),
        ("h100:4", "h100:4, 4 chips", 4),
    ],
)
def test_names(name, text, num_chips):
    topology = parse_topology(name)
    assert (topology.text, topology.num_chips) == (text, num_chips)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("v7:2x2", "Chips: v4, v5e, v5p, v6e, a100, h100"),
        ("v5p", "Write CHIP:SHAPE such as v5p:4x4x8"),
        ("v5p:3x3x3", "slices of v5p are 2x2x1"),
        ("v5p-100", "v5p comes as v5p-8, v5p-16"),
        ("0x v5e-16", "the number of slices is 1 to 511"),
        ("1000000000x v5e:4x4", "the number of slices is 1 to 511"),
        pytest.param(f"{'9' * 5000}x v5e:4x4", "slices is 1 to 511", id="slices of 5,000 digits"),
        ("a100:12", "up to 8 or a multiple of it"),
        pytest.param(f"a100:{'8' * 5000}", "up to 8 or a multiple", id="GPUs of 5,000 digits"),
    ],
)
def test_wrong_names_list_what_is_allowed(name, advice):
    with pytest.raises(UserError, match=advice):
        parse_topology(name)


def test_wraparounds():
    assert parse_topology("v5p:4x4x8").wraps == (True, True, True)
    assert parse_topology("v5p:2x4x4").wraps == (False, False, False)  # less than a cube
    assert parse_topology("v5e:8x16").wraps == (False, True)


def test_every_chip_names_its_sources():
    for chip in chips().values():
        assert len(chip.sources) >= 2 and chip.matmul_flops > 1e14, chip.name
        assert 1e10 < chip.hbm_bytes < 2e11 and chip.hbm_bandwidth > 5e11, chip.name
