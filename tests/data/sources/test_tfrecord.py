import struct

import pytest

from instruct.data.sources.tfrecord import masked_crc32c, read_examples
from instruct.errors import UserError


def varint(value):
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values):
    """A Feature message; bytes, floats and integers (packed)."""
    if isinstance(values[0], bytes):
        return field(1, b"".join(field(1, value) for value in values))
    if isinstance(values[0], float):
        return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
    return field(3, field(1, b"".join(varint(value % 2**64) for value in values)))


def example(**features):
    entries = [field(1, name.encode()) + field(2, feature(v)) for name, v in features.items()]
    return field(1, b"".join(field(1, entry) for entry in entries))


def frame(message):
    length = struct.pack("<Q", len(message))
    return length + struct.pack("<I", masked_crc32c(length)) + message + bytes(4)


def test_checksum_of_a_known_value():
    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720); TFRecord rotates it and adds a constant.
    crc = 0xE3069283
    assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_reads_texts_numbers_and_selected_columns(tmp_path):
    path = tmp_path / "train.tfrecord-00000-of-00001"
    rows = [
        example(text=["ä\nb".encode()], ids=[3, 70000, -1], weight=[0.5]),
        example(text=[b"\xff", b"c"]),
    ]
    path.write_bytes(b"".join(frame(row) for row in rows))
    assert list(read_examples(path)) == [
        {"text": ["ä\nb"], "ids": [3, 70000, -1], "weight": [0.5]},
        {"text": [b"\xff", b"c"]},
    ]
    assert list(read_examples(path, {"weight"})) == [{"weight": [0.5]}, {}]


def test_reads_what_tensorflow_writes(tmp_path):
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "x.tfrecord"
    features = {
        "text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"one", b"two"])),
        "ids": tf.train.Feature(int64_list=tf.train.Int64List(value=[1, -2, 300])),
        "weight": tf.train.Feature(float_list=tf.train.FloatList(value=[1.5])),
        "none": tf.train.Feature(),
    }
    with tf.io.TFRecordWriter(str(path)) as writer:
        message = tf.train.Example(features=tf.train.Features(feature=features))
        writer.write(message.SerializeToString())
    expected = {"text": ["one", "two"], "ids": [1, -2, 300], "weight": [1.5], "none": []}
    assert list(read_examples(path)) == [expected]


@pytest.mark.parametrize("spoil", [lambda b: b[:-6], lambda b: b"\x01" + b[1:], lambda b: b[:7]])
def test_damaged_files_are_named(tmp_path, spoil):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(spoil(frame(example(text=[b"one"]))))
    with pytest.raises(UserError, match="x.tfrecord is damaged at record 0"):
        list(read_examples(path))


def test_a_message_that_is_no_example(tmp_path):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame(b"\x0b\x0c"))
    with pytest.raises(UserError, match="no Example"):
        list(read_examples(path))
