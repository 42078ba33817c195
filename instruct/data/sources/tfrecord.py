"""TFRecord files of `tf.train.Example`s, read without TensorFlow.

Framing: length (8 bytes), its checksum (4), the message, the message's checksum (4). Only the
length's checksum is verified: it keeps a damaged length from becoming an absurd allocation.
`tf.data.TFRecordDataset` verifies both, but ends silently at a truncated header.

https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from instruct.errors import UserError


def read_examples(
    path: Path, columns: Collection[str] | None = None
) -> Iterator[dict[str, list[Any]]]:
    """Yields the examples of one uncompressed file as lists by feature name.

    A list holds texts, bytes (if one is not UTF-8), integers or floats.

    Args:
        columns: features to keep; None for all.

    Raises:
        UserError: the file is truncated or damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_generated_pb2

    parse = getattr(tf_example_generated_pb2, "Example").FromString  # noqa: B009 (generated code)
    with path.open("rb") as stream:
        number = 0
        while (message := _read_message(stream, path, number)) is not None:
            try:
                features = parse(message).features.feature
            except DecodeError as error:
                raise _damaged(path, number, "its message is not an Example") from error
            names = [name for name in features if columns is None or name in columns]
            yield {name: _values(features[name]) for name in names}
            number += 1


def _damaged(path: Path, number: int, reason: str) -> UserError:
    return UserError(
        f"{path} is damaged at record {number}: {reason}. Delete the file and download it again"
    )


def _read_message(stream: BinaryIO, path: Path, number: int) -> bytes | None:
    from tensorboardX.record_writer import masked_crc32c

    header = stream.read(12)
    if not header:
        return None
    if len(header) < 12 or masked_crc32c(header[:8]) != int.from_bytes(header[8:], "little"):
        raise _damaged(path, number, "the checksum of its length does not match")
    length = int.from_bytes(header[:8], "little")
    message = stream.read(length)
    if len(message) < length or len(stream.read(4)) < 4:
        raise _damaged(path, number, "the file ends inside it")
    return message


def _values(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value) if kind else []
    if kind != "bytes_list":
        return values
    try:
        return [value.decode("utf-8") for value in values]
    except UnicodeDecodeError:
        return values
