"""The roofline over a program's regions."""

import numpy as np
import pytest

from instruct.capacity import estimate
from instruct.capacity.chips import chips, parse_topology
from instruct.capacity.hlo import Collective, Operation, Product, Program, Region
from instruct.capacity.network import make_network

NETWORK = make_network(parse_topology("v5p:2x2x1"), [("fsdp", 4)], None)
CHIP = NETWORK.topology.chip
GATHER = Collective("all-gather", 1 << 30, np.arange(4)[None], False, "bf16[8]", "")


def step(operations, collectives=(), count=1, overlap=None):
    program = Program((Region("body", count, tuple(operations), tuple(collectives)),), (), ())
    return estimate.estimate_step(program, NETWORK, overlap)


def test_an_operation_is_as_slow_as_its_slowest_part():
    product = Operation("product", (Product(1, 4096, 4096, 4096),), hbm_bytes=1e6)
    found = step([product], count=3)
    seconds = 3 * 2 * 4096**3 / (CHIP.matmul_flops * estimate.MATRIX_EFFICIENCY)
    assert found.seconds == pytest.approx(seconds) and found.limit == "matrix unit"
    copy = Operation("copy", hbm_bytes=1e9)
    found = step([copy])
    assert found.seconds == pytest.approx(1e9 / (CHIP.hbm_bandwidth * estimate.MEMORY_EFFICIENCY))
    assert found.limit == "memory"
    assert step([Operation("exp", vector_ops=1e12)]).limit == "vector unit"


def test_prefetches_run_beside_computation():
    product = Operation("product", (Product(1, 4096, 4096, 4096),))
    prefetch = Operation("copy-start", hbm_bytes=1e6, prefetch=True)
    assert step([product, prefetch]).seconds == step([product]).seconds


def test_overlapped_collectives_hide_behind_computation():
    product = Operation("product", (Product(1, 8192, 8192, 65536),))
    alone, gather = step([product]).seconds, NETWORK.seconds(GATHER)
    assert step([product], [GATHER]).seconds == pytest.approx(alone + gather)
    hidden = step([product], [GATHER], overlap=True)
    assert hidden.seconds == pytest.approx(max(alone, gather))
    assert hidden.hidden_seconds == pytest.approx(min(alone, gather))
    (traffic,) = hidden.traffic
    assert (traffic.kind, traffic.axes, traffic.times) == ("all-gather", "fsdp", 1)
    assert traffic.overlapped_bytes == traffic.num_bytes == 1 << 30


@pytest.mark.parametrize(("tile", "times"), [(128, 2), (256, 4), (16, 1)])
def test_a_head_dimension_of_64_does_not_fill_the_matrix_unit(tile, times):
    query_key = Product(8, 2048, 64, 2048)
    assert estimate.padded_flops(query_key, tile) == times * query_key.flops
    probabilities_value = Product(8, 2048, 2048, 64)
    assert estimate.padded_flops(probabilities_value, tile) == probabilities_value.flops


def test_the_compilers_cycles_stand_beside():
    product = Operation("product", (Product(1, 4096, 4096, 4096),), cycles=1_750_000)
    assert step([product]).compiler_seconds == pytest.approx(1_750_000 / CHIP.clock)
    assert step([Operation("copy", hbm_bytes=1e9)]).compiler_seconds == 0


def test_mfu_counts_the_models_flops_on_all_chips():
    product = Operation("product", (Product(1, 4096, 4096, 4096),))
    program = Program((Region("body", 1, (product,), ()),), (), ())
    flops = 4 * 2 * 4096**3  # four chips, nothing recomputed
    report = estimate.step_report(program, NETWORK, flops, None)
    assert report["mfu"] == pytest.approx(estimate.MATRIX_EFFICIENCY)
    assert estimate.step_report(program, NETWORK, None, None)["mfu"] is None


def test_efficiencies_are_shares():
    for share in (
        estimate.MATRIX_EFFICIENCY,
        estimate.MEMORY_EFFICIENCY,
        estimate.VECTOR_EFFICIENCY,
    ):
        assert 0.5 < share < 1
    assert chips()["v6e"].matrix_tile == 256
