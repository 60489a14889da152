"""Protobuf's wire format, as far as it takes to leave the big tensors of an ONNX model in its file.

Source: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

Buffer = bytes | mmap.mmap
_Schema: TypeAlias = "dict[int, _Schema]"

# Numbers of fields in onnx.proto, and of types.
GRAPH, NODE, INITIALIZER, ATTRIBUTE, TENSOR = 7, 1, 5, 5, 5
DATA_TYPE, RAW_DATA = 2, 9
PACKED = {1: 4, 11: 10}
"""Fields that hold the same bytes as raw data do, by type: floats and doubles."""

IN_TENSOR: _Schema = {}
SCHEMA: _Schema = {GRAPH: {INITIALIZER: IN_TENSOR, NODE: {ATTRIBUTE: {TENSOR: IN_TENSOR}}}}
"""The messages on the way to tensors, by the numbers of their fields."""

SELF = "\0"
"""Location of external data that lie in the model's own file; no file has this name."""

BIG = 4096
"""Tensors of so many bytes are left in the file."""


class Malformed(Exception):
    """The bytes are no protobuf message."""


class Oversized(Malformed):
    """There is more besides big tensors than there may be."""


class Truncated(Malformed):
    """A field ends behind the end of its message."""


class _Field(NamedTuple):
    number: int
    begin: int  # of its tag
    payload: int
    end: int
    wire: int

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return self.end - self.payload

    @property
    def holds_bytes(self) -> bool:
        return self.wire == 2


def without_big_tensors(data: Buffer, most: int) -> bytes:
    """A ModelProto whose big tensors have become external ones, with data in the model's own file.

    Parameters
    ----------
    data : bytes or mmap
        A serialized ModelProto.
    most : int
        Bytes that the rest may have.

    Raises
    ------
    Malformed, Truncated
        It is not a protobuf message, or not a whole one.
    Oversized
        The rest has more than `most` bytes.
    """
    return _Slimmer(data, most).slim(0, len(data), SCHEMA)


class _Slimmer:
    """Takes big tensors out of messages in `data`, as long as there are bytes `left` for the rest."""

    def __init__(self, data: Buffer, most: int) -> None:
        self.data = data
        self.left = most

    def slim(self, begin: int, end: int, schema: _Schema) -> bytes:
        """The message in `data[begin:end]`."""
        pieces = []
        for field in _fields(self.data, begin, end):
            inner = schema.get(field.number) if field.holds_bytes and field.size >= BIG else None
            if inner is None:
                pieces.append(self.kept(field))
            elif inner is IN_TENSOR:
                pieces.append(_message(field.number, self.externalized(field)))
            else:
                pieces.append(_message(field.number, self.slim(field.payload, field.end, inner)))
        return b"".join(pieces)

    def kept(self, field: _Field) -> bytes:
        """A field as it is."""
        self.left -= field.end - field.begin
        if self.left < 0:
            raise Oversized
        return self.data[field.begin : field.end]

    def externalized(self, field: _Field) -> bytes:
        """A TensorProto whose data are left in the file, if they lie there as they do in memory."""
        from onnx import TensorProto

        fields = list(_fields(self.data, field.payload, field.end))
        place = self.place(fields)
        tensor = TensorProto.FromString(b"".join(self.kept(each) for each in fields if each is not place))
        if place is not None and tensor.data_location != TensorProto.EXTERNAL:
            tensor.data_location = TensorProto.EXTERNAL
            where = {"location": SELF, "offset": place.payload, "length": place.size}
            for key, value in where.items():
                tensor.external_data.add(key=key, value=str(value))
        serialized: bytes = tensor.SerializeToString()
        return serialized

    def place(self, fields: Sequence[_Field]) -> _Field | None:
        """The one field of a TensorProto that has its data; None if they are in several, or of variable length."""
        raw = [each for each in fields if each.number == RAW_DATA and each.holds_bytes]
        types = [_varint(self.data, each.payload, each.end)[0] for each in fields if each.number == DATA_TYPE]
        packed = PACKED.get(types[-1]) if types else None
        found = raw or [each for each in fields if each.number == packed and each.holds_bytes]
        return found[0] if len(found) == 1 else None


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
        yield _Field(tag >> 3, at, payload, after, wire)
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
