"""Adapters of a checkpoint: split off by name, merged in shares that have the bits of the whole."""

import numpy as np
import pytest

from instruct.checkpoints.adapter_arrays import (
    adapter_arrays,
    merged,
    merged_note,
    split_adapters,
)
from instruct.checkpoints.arrays import held
from instruct.errors import UserError

DRAW = np.random.default_rng(0)


def array(*shape):
    return held(DRAW.normal(size=shape).astype(np.float32), "drawn")


ARRAYS = {
    "x/query/kernel": array(40, 24),
    "x/query/lora_a": array(40, 5),
    "x/query/lora_b": array(5, 24),
    "x/query/lora_scale": held(np.asarray(0.3, np.float32), "drawn"),
    "x/out/kernel": array(24, 40),
}


def test_adapters_are_split_off_and_put_back():
    base, adapters = split_adapters(ARRAYS)
    assert set(base) == {"x/query/kernel", "x/out/kernel"} and set(adapters) == {"x/query/kernel"}
    assert base | adapter_arrays(adapters) == ARRAYS
    assert merged_note(adapters) == "1 kernels have LoRA adapters (rank 5): merged"


def test_a_share_of_a_merged_kernel_has_the_bits_of_the_whole():
    adapter = split_adapters(ARRAYS)[1]["x/query/kernel"]
    whole = merged(adapter).read()
    kernel, a, b, scale = (part.read() for part in adapter)
    np.testing.assert_allclose(whole, kernel + scale * (a @ b), rtol=1e-5, atol=1e-6)
    assert whole.dtype == np.float32
    for index in ((slice(3, 17), slice(0, 24)), (slice(0, 40), slice(5, 6))):
        assert merged(adapter).read(index).tobytes() == whole[index].tobytes()


def test_whole_numbers_are_no_weights():
    adapter = split_adapters(ARRAYS)[1]["x/query/kernel"]
    quantised = held(np.ones((40, 24), np.int8), "drawn")
    with pytest.raises(UserError, match="drawn holds int8 values, which are no weights"):
        merged(adapter._replace(kernel=quantised))
