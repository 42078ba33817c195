"""TFRecord files of `tf.train.Example`s, read without TensorFlow.

Framing: length (8 bytes), its checksum (4), the message, the message's checksum (4). The length's
checksum is compared, so that a damaged file ends in an error and not in an absurd allocation.
Only the wire types that an Example consists of are understood.

https://www.tensorflow.org/tutorials/load_data/tfrecord and
https://protobuf.dev/programming-guides/encoding describe both formats.
"""

import functools
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from instruct.errors import UserError

# A feature is a list: of texts (bytes that are UTF-8), of bytes, of integers or of floats.
Feature = list[str] | list[bytes] | list[int] | list[float]

_MASK = 0xA282EAD8


@functools.cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return tuple(table)


def masked_crc32c(data: bytes) -> int:
    """The Castagnoli CRC of `data`, rotated and offset as TFRecord files store it."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def read_examples(
    path: Path, columns: Collection[str] | None = None
) -> Iterator[dict[str, Feature]]:
    """The examples of one file as dictionaries of lists, one at a time.

    Args:
        path: an uncompressed TFRecord file.
        columns: features to keep; None for all.

    Raises:
        UserError: the file is cut short or damaged.
    """
    with path.open("rb") as stream:
        number = 0
        while (message := _read_message(stream, path, number)) is not None:
            try:
                yield _parse_example(message, columns)
            except (IndexError, ValueError, struct.error) as error:
                raise _broken(path, number, "its message is no Example") from error
            number += 1


def _broken(path: Path, number: int, what: str) -> UserError:
    return UserError(
        f"{path} is damaged at record {number}: {what}. Delete the file and get it again"
    )


def _read_message(stream: BinaryIO, path: Path, number: int) -> bytes | None:
    header = stream.read(12)
    if not header:
        return None
    if len(header) < 12 or masked_crc32c(header[:8]) != int.from_bytes(header[8:], "little"):
        raise _broken(path, number, "the checksum of its length does not match")
    length = int.from_bytes(header[:8], "little")
    message = stream.read(length)
    if len(message) < length or len(stream.read(4)) < 4:
        raise _broken(path, number, "the file ends inside of it")
    return message


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A variable-length integer at `at`: (value, position after it)."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("integer is too long")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a message; integers for wire type 0, else the raw bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("message is cut short")
        yield key >> 3, data[at : at + size]
        at += size


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a message is an integer")
    return value


def _parse_example(message: bytes, columns: Collection[str] | None) -> dict[str, Feature]:
    """Example { Features features = 1 }, Features { map<string, Feature> feature = 1 }."""
    example = {}
    for _, features in _fields(memoryview(message)):
        for _, entry in _fields(_message(features)):
            name, feature = "", memoryview(b"")
            for number, value in _fields(_message(entry)):
                if number == 1:
                    name = bytes(_message(value)).decode()
                else:
                    feature = _message(value)
            if columns is None or name in columns:
                example[name] = _parse_feature(feature)
    return example


def _parse_feature(feature: memoryview) -> Feature:
    """Feature { BytesList = 1 | FloatList = 2 | Int64List = 3 }, each { repeated value = 1 }."""
    for kind, values in _fields(feature):
        items = [value for _, value in _fields(_message(values))]
        if kind == 1:
            raw = [bytes(_message(item)) for item in items]
            try:
                return [item.decode("utf-8") for item in raw]
            except UnicodeDecodeError:
                return raw
        if kind == 2:
            packed = b"".join(bytes(_message(item)) for item in items)
            return list(struct.unpack(f"<{len(packed) // 4}f", packed))
        return [_signed(number) for item in items for number in _integers(item)]
    return []


def _integers(item: int | memoryview) -> Iterator[int]:
    """Integers of a list, packed into one field or one a field."""
    if isinstance(item, int):
        yield item
        return
    at = 0
    while at < len(item):
        value, at = _varint(item, at)
        yield value


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
