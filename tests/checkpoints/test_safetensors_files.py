"""Safetensors: equal to the format's own library, slices, and files made to do harm."""

import json
import resource

import numpy as np
import pytest

from instruct.checkpoints import safetensors_files
from instruct.checkpoints.arrays import BFLOAT16, held
from instruct.errors import UserError


def arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "a": draw.standard_normal((5, 3)).astype(np.float32),
        "b": draw.standard_normal((2, 3, 4)).astype(np.float32),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }


def write(path, dtype=np.float32):
    lazy = {name: held(array, name) for name, array in arrays().items()}
    safetensors_files.write_file(path, lazy, np.dtype(dtype), {"format": "pt"})
    return path


def test_agrees_with_the_formats_own_library(tmp_path):
    theirs = pytest.importorskip("safetensors.numpy", reason="the format's own library")
    path = write(tmp_path / "ours.safetensors")
    loaded = theirs.load_file(path)
    assert loaded.keys() == arrays().keys()
    for name, array in arrays().items():
        np.testing.assert_array_equal(loaded[name], array)
    theirs.save_file(arrays(), tmp_path / "theirs.safetensors")
    for name, array in safetensors_files.read_file(tmp_path / "theirs.safetensors").items():
        assert array.shape == arrays()[name].shape
        np.testing.assert_array_equal(array.read(), arrays()[name])


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16])
def test_slices(tmp_path, dtype):
    found = safetensors_files.read_file(write(tmp_path / "x.safetensors", dtype))
    for name, array in arrays().items():
        index = [slice(1, max(1, size - 1)) for size in array.shape]
        expected = array.astype(dtype)
        np.testing.assert_array_equal(found[name].read(), expected)
        np.testing.assert_array_equal(found[name].read(index), expected[tuple(index)])
        assert found[name].dtype == dtype


def made_up(header, data=b"", length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "first 8 bytes"),
        (b"\x01\x00", "first 8 bytes"),
        (made_up({}, length=1 << 62), "announce a header of 4,611,686,018,427,387,904"),
        (made_up({"x": ENTRY}, length=4096), "announce a header"),
        (made_up(b"{]"), "no JSON"),
        (made_up(b"[" * 100_000), "no JSON"),
        (made_up(b'"text"'), "no JSON object"),
        (made_up(b'{"x": {}, "x": {}}'), "occurs twice"),
        (made_up({"x": 3}), "no object"),
        (made_up({"x": ENTRY | {"dtype": "PICKLE"}}, bytes(8)), "unknown dtype 'PICKLE'"),
        (made_up({"x": ENTRY | {"dtype": ["F32"]}}, bytes(8)), "unknown dtype"),
        (
            made_up({"x": ENTRY | {"dtype": "F8_E4M3", "shape": [8]}}, bytes(8)),
            r"'x' is stored as float8 \(F8_E4M3\), which is not read: a quantised.*original",
        ),
        (made_up({"x": ENTRY | {"dtype": "F8_E5M2"}}, bytes(8)), "float8"),
        (made_up({"x": ENTRY | {"dtype": "F4"}}, bytes(8)), "float4"),
        (made_up({"x": ENTRY | {"dtype": "U32"}}, bytes(8)), "whole numbers"),
        (made_up({"x": ENTRY | {"shape": [-2]}}, bytes(8)), "no valid shape"),
        (made_up({"x": ENTRY | {"shape": [1 << 40]}}, bytes(8)), "takes 4,398,046,511,104 bytes"),
        (made_up({"x": ENTRY | {"shape": [True]}}, bytes(8)), "no valid shape"),
        (made_up({"x": ENTRY}, bytes(5)), "cut off"),
        (made_up({"x": ENTRY}, bytes(9)), "1 bytes at its end"),
        (made_up({"x": ENTRY, "y": ENTRY}, bytes(8)), "overlaps"),
        (made_up({"x": ENTRY | {"data_offsets": [4, 12]}}, bytes(12)), "after a gap"),
    ],
)
def test_no_header_is_believed(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=message) as caught:
        safetensors_files.read_file(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 400
    # Kilobytes; nothing of the size that the header promises was allocated.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_header_beyond_the_formats_bound(tmp_path):
    path = tmp_path / "model.safetensors"
    with open(path, "wb") as file:
        file.write((200_000_000).to_bytes(8, "little"))
        file.truncate(300_000_000)  # takes no room on the disk
    with pytest.raises(UserError, match="the format allows 100,000,000"):
        safetensors_files.read_file(path)


def test_a_file_that_shrinks_while_it_is_used(tmp_path):
    path = write(tmp_path / "model.safetensors")
    found = safetensors_files.read_file(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match="ends in the middle"):
        for array in found.values():
            array.read()
