"""Files that are packed, whatever they are called."""

import gzip

import pyarrow as pa
import pytest

from instruct.errors import UserError
from instruct.packed_files import open_unpacked, refuse_pointer

TEXT = b"one\ntwo\n" * 9999
PACKED = {
    "plain": TEXT,
    "gzip": gzip.compress(TEXT),
    "two gzip files": gzip.compress(TEXT[:80]) + gzip.compress(TEXT[80:]),
    "Zstandard": pa.Codec("zstd").compress(TEXT, asbytes=True),
}


@pytest.mark.parametrize("kind", PACKED)
def test_lines_of_packed_files(kind, tmp_path):
    (tmp_path / "a").write_bytes(PACKED[kind])
    with open_unpacked(tmp_path / "a") as stream:
        assert b"".join(stream) == TEXT


@pytest.mark.parametrize("kind", ["gzip", "Zstandard"])
def test_damaged_ones_are_told(kind, tmp_path):
    data = PACKED[kind]
    for damaged in (data[:-9], data[:40] + b"\x00" * 9 + data[49:]):
        (tmp_path / "a").write_bytes(damaged)
        cannot = pytest.raises(UserError, match="a cannot be unpacked")
        with cannot, open_unpacked(tmp_path / "a") as stream:
            stream.read()


def test_short_files_are_plain(tmp_path):
    for content in (b"", b"a", b"\x28\xb5"):
        (tmp_path / "a").write_bytes(content)
        with open_unpacked(tmp_path / "a") as stream:
            assert stream.read() == content


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 990345061\n"


def test_pointers_of_git_lfs(tmp_path):
    path = tmp_path / "model.safetensors"
    refuse_pointer(path)
    path.write_text("version 1 of a text about https://git-lfs.github.com/spec/")
    refuse_pointer(path)
    path.write_text(POINTER)
    with pytest.raises(UserError, match="model.safetensors is a pointer of Git LFS.*git lfs pull"):
        refuse_pointer(path)
