"""Protobuf's wire format, as far as it takes to leave the big tensors of an ONNX model in its file.

Source: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

Buffer = bytes | mmap.mmap

# Numbers of fields in onnx.proto.
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9

SELF = "\0"
"""Location of external data that lie in the model's own file; no file has this name."""

BIG = 4096
"""Tensors of so many bytes are left in the file."""


class Malformed(Exception):
    """The bytes are no protobuf message."""


class Truncated(Malformed):
    """A field ends behind the end of its message."""


class _Field(NamedTuple):
    number: int
    begin: int  # of its tag
    payload: int
    end: int


def without_big_tensors(data: Buffer) -> bytes:
    """A ModelProto whose big initializers have become external ones, with data in the model's own file.

    Parameters
    ----------
    data : bytes or mmap
        A serialized ModelProto.

    Raises
    ------
    Malformed, Truncated
        It is not a protobuf message, or not a whole one.
    """
    model = []
    for field in _fields(data, 0, len(data)):
        if field.number != GRAPH:
            model.append(data[field.begin : field.end])
            continue
        graph = []
        for inner in _fields(data, field.payload, field.end):
            if inner.number == INITIALIZER and inner.end - inner.payload >= BIG:
                graph.append(_message(INITIALIZER, _externalized(data, inner)))
            else:
                graph.append(data[inner.begin : inner.end])
        model.append(_message(GRAPH, b"".join(graph)))
    return b"".join(model)


def _externalized(data: Buffer, field: _Field) -> bytes:
    """A TensorProto whose raw data are left in the model's file."""
    from onnx import TensorProto

    rest, place = [], None
    for inner in _fields(data, field.payload, field.end):
        if inner.number == RAW_DATA:
            place = inner
        else:
            rest.append(data[inner.begin : inner.end])
    tensor = TensorProto.FromString(b"".join(rest))
    if place is not None and tensor.data_location != TensorProto.EXTERNAL:
        tensor.data_location = TensorProto.EXTERNAL
        where = {"location": SELF, "offset": place.payload, "length": place.end - place.payload}
        for key, value in where.items():
            tensor.external_data.add(key=key, value=str(value))
    serialized: bytes = tensor.SerializeToString()
    return serialized


def _fields(data: Buffer, begin: int, end: int) -> Iterator[_Field]:
    """The fields of the message in `data[begin:end]`."""
    at = begin
    while at < end:
        tag, payload = _varint(data, at, end)
        wire = tag & 7
        if wire == 0:
            _, after = _varint(data, payload, end)
        elif wire == 1:
            after = payload + 8
        elif wire == 2:
            size, payload = _varint(data, payload, end)
            after = payload + size
        elif wire == 5:
            after = payload + 4
        else:
            raise Malformed
        if after > end:
            raise Truncated(f"it has {end} bytes, and a field of it ends at byte {after}")
        yield _Field(tag >> 3, at, payload, after)
        at = after


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """An integer of 7 bits per byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise Truncated(f"it ends at byte {end}, within a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise Malformed


def _message(number: int, payload: bytes) -> bytes:
    """A field that holds a message."""
    return _encoded(number << 3 | 2) + _encoded(len(payload)) + payload


def _encoded(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    result.append(value)
    return bytes(result)
