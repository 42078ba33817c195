"""What each device computes and exchanges in a step: 1/n of the work, each weight once a pass.

XLA's partitioner sums a kernel's gradient with an all-reduce and slices the result; only the
compilers of TPUs and GPUs turn that into a reduce-scatter. So here the whole shapes are counted.
"""

import json
import math
import os
import subprocess
import sys

import pytest

from instruct.mesh import tree_paths
from tests.train.sharded_programs import INPUTS, MODEL, ROWS, SIZES, TARGETS
from tests.waiting import LIMIT_SECS

pytestmark = pytest.mark.slow

WAYS = (2, 4, 8)
SLICES, TENSOR = "slice=2,fsdp=2,sequence=2", "fsdp=2,tensor=2,sequence=2"
WIDTH, VOCAB = SIZES["d_model"], SIZES["vocab_size"]


@pytest.fixture(scope="module")
def compiled():
    """(programs by mesh, standard error) of one process that compiles them all."""
    meshes = ["data=1", *(f"fsdp={ways}" for ways in WAYS), SLICES, TENSOR]
    found = subprocess.run(
        [sys.executable, "-m", "tests.train.sharded_programs", *meshes],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=3 * LIMIT_SECS,
    )
    return json.loads(found.stdout), found.stderr


def kernels(split: int = 1) -> dict[str, int]:
    """{sorted shape: number} of the layers' kernels, `embed` split so many ways."""
    counts: dict[str, int] = {}
    for path, leaf in tree_paths(MODEL.abstract_params()):
        if path.endswith("kernel") and "logits" not in path:
            (wide,) = {*leaf.shape} - {WIDTH}
            shape = str(sorted((WIDTH // split, wide)))
            counts[shape] = counts.get(shape, 0) + 1
    return counts


def test_work_of_a_device_falls_with_their_number(compiled):
    whole = compiled[0]["data=1"]["flops"]
    for ways in WAYS:
        assert 1.0 <= compiled[0][f"fsdp={ways}"]["flops"] * ways / whole < 1.1
    for text in (SLICES, TENSOR):
        assert 1.0 <= compiled[0][text]["flops"] * 8 / whole < 1.1


def test_one_device_exchanges_nothing(compiled):
    assert compiled[0]["data=1"]["collectives"] == {}


@pytest.mark.parametrize("ways", WAYS)
def test_weights_are_gathered_once_a_pass_and_gradients_summed_once(compiled, ways):
    """Bytes do not grow with the number of devices; the table of embeddings never moves."""
    exchanged = compiled[0][f"fsdp={ways}"]["collectives"]
    head = {str([WIDTH, VOCAB]): 1}
    assert exchanged["all-gather"] == {shape: 2 * n for shape, n in kernels().items()} | head
    summed = {shape: n for shape, n in exchanged["all-reduce"].items() if shape in kernels() | head}
    assert summed == kernels()
    assert exchanged["reduce-scatter"] == {str([WIDTH // ways, VOCAB]): 1}, "of the head"
    moved = sum(math.prod(json.loads(shape)) * n for shape, n in exchanged["all-to-all"].items())
    assert moved == 2 * ROWS * (INPUTS + TARGETS) * WIDTH // ways, "columns there, gradients back"


def test_between_slices_pass_only_shares_of_gradients(compiled):
    summed = compiled[0][SLICES]["collectives"]["all-reduce"]
    assert {shape: summed[shape] for shape in kernels(split=4)} == kernels(split=4)


def test_no_array_is_copied_to_every_device_to_change_its_sharding(compiled):
    assert "rematerialization" not in compiled[1]
    for text in (SLICES, TENSOR):
        gathered = compiled[0][text]["collectives"]["all-gather"]
        vocabulary = VOCAB // (2 if text == TENSOR else 1)
        whole = {shape: n for shape, n in gathered.items() if vocabulary in json.loads(shape)}
        assert whole == {str(sorted([WIDTH, vocabulary])): 1}, "the output kernel, once"
