import struct

import pytest
from tensorboardX.record_writer import masked_crc32c
from tensorflow_datasets.proto import tf_example_generated_pb2

from instruct.data.sources.tfrecord import read_examples
from instruct.errors import UserError


def example(**features):
    """The message of an Example of bytes, floats and integers."""
    message = getattr(tf_example_generated_pb2, "Example")()  # noqa: B009 (generated code)
    for name, values in features.items():
        feature = message.features.feature[name]
        kinds = {bytes: feature.bytes_list, float: feature.float_list, int: feature.int64_list}
        kinds[type(values[0])].value.extend(values)
    return message.SerializeToString()


def frame(message):
    length = struct.pack("<Q", len(message))
    return length + struct.pack("<I", masked_crc32c(length)) + message + bytes(4)


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
    path.write_bytes(frame(b"\x0b\x08"))
    with pytest.raises(UserError, match="not an Example"):
        list(read_examples(path))
