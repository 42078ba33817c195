"""Files that are packed, whatever they are called."""

import gzip

import pyarrow as pa
import pytest

from instruct.data.packed_files import open_unpacked
from instruct.errors import UserError

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
