"""Samples along the first axis of a Zarr array."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, MissingPackageError
from ..extras import need
from ..feeds import Arrays
from ..files import reading
from ..limits import limits_now
from ..ops.base import Array
from .decoding import Decoder
from .inputs import Shape, by_name
from .items import Item, Source, Together
from .places import EXTRA, Place

MARKS = ("zarr.json", ".zarray", ".zgroup")
"""Files that make a folder a Zarr store."""


@dataclass(frozen=True, eq=False)
class Stored:
    """The samples of a Zarr array."""

    name: str
    place: Place
    array: Any

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def ids(self, start: int, stop: int) -> Iterator[str]:
        yield from (f"{self.name}[{row}]" for row in range(start, stop))

    def items(self, start: int, stop: int) -> Iterator[Item]:
        rows = self.array.chunks[0]
        while start < stop:
            end = min(stop, (start // rows + 1) * rows)  # a chunk is decoded once
            try:
                block = self.array[start:end]
            except Exception as error:  # of stores and of codecs
                raise InputError(
                    f"cannot read rows {start} to {end - 1} of {self.name!r}: {error}"
                ) from error
            for name, sample in zip(self.ids(start, end), block, strict=True):
                yield Item(name, lambda sample=sample: _as_is(sample))  # type: ignore[misc]
            start = end

    def only(self, start: int, stop: int) -> Stored:
        return self

    def file(self) -> Place | None:
        return next(_marks(self.place), None)


def _as_is(sample: Array) -> Arrays:
    return (sample,)


def is_store(place: Place) -> bool:
    """Whether it is a Zarr store."""
    return any(_marks(place))


def _marks(place: Place) -> Iterator[Place]:
    return (place / mark for mark in MARKS if (place / mark).exists())


def zarr_package() -> Any:
    """Import zarr.

    Raises
    ------
    MissingPackageError
        It is not installed, or Python is too old for it.
    """
    if sys.version_info < (3, 11):  # for which the extra brings none
        raise MissingPackageError(
            "a Zarr array needs zarr 3, and that Python 3.11 or newer; take a newer Python, or .npy and .parquet files"
        )
    return need("zarr", EXTRA, "a Zarr array")


def open_store(url: str, name: str, decoder: Decoder) -> Source:
    """The samples of a Zarr array, or of a group with an array for each of several inputs.

    Raises
    ------
    InputError
        There is no array, or its samples are not the network's.
    """
    zarr = zarr_package()
    with reading(f"the Zarr array {url!r}"):
        found = zarr.open(url, mode="r")
    is_array = isinstance(found, zarr.Array)
    if not isinstance(decoder.shapes, Mapping):
        if not is_array:
            with reading(f"the Zarr array {url!r}"):
                keys = ", ".join(found.array_keys()) or "no arrays"
            raise InputError(f"{url!r} is a Zarr group of {keys}; name one of its arrays: {url}/NAME")
        return _stored(url, name, found, decoder.shapes)
    with reading(f"the Zarr array {url!r}"):
        there = {} if is_array else {key: found[key] for key in found.array_keys() if key in decoder.shapes}
    if not set(decoder.shapes) <= set(there):
        held = "an array" if is_array else f"a group of {', '.join(found.array_keys()) or 'no arrays'}"
        raise InputError(f"{url!r} is {held}; {decoder.wanted} in a Zarr group")
    arrays = [
        _stored(f"{url}/{key}", name, there[key], shape) for key, shape in by_name(decoder.shapes).items()
    ]
    if len(set(map(len, arrays))) != 1:
        counts = ", ".join(f"{key} {there[key].shape}" for key in decoder.shapes)
        raise InputError(f"{url!r} holds {counts}; expected as many samples of each input")
    return Together(arrays)


def _stored(url: str, name: str, array: Any, shape: Shape) -> Stored:
    """An array of plain numbers, whose chunks are small enough."""
    codecs = {getattr(each, "codec_id", "") for each in (*(array.filters or ()), *(array.compressors or ()))}
    if array.dtype.kind not in "biuf" or "pickle" in codecs:
        raise InputError(f"{url!r} holds {array.dtype}, in chunks coded by {codecs}; expected plain numbers")
    nbytes = math.prod(array.chunks) * array.dtype.itemsize
    limits_now().check("arrays", nbytes, f"one chunk of {url!r}, of shape {array.chunks}", InputError)
    if array.shape[1:] != shape:
        raise InputError(
            f"{url!r} has shape {array.shape}; the network takes several samples as "
            f"(n, {', '.join(map(str, shape))})"
        )
    return Stored(name, Place.at(url), array)
