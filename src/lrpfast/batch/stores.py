"""Samples along the first axis of a Zarr array."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..extras import need
from ..limits import limits_now
from ..ops.base import Array
from .items import Item
from .places import EXTRA, Place

MARKS = ("zarr.json", ".zarray", ".zgroup")
"""Files that make a folder a Zarr store."""


@dataclass(frozen=True, eq=False)
class Stored:
    """The samples of a Zarr array."""

    name: str
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


def _as_is(sample: Array) -> Array:
    return sample


def is_store(place: Place) -> bool:
    """Whether it is a Zarr store."""
    return any((place / mark).exists() for mark in MARKS)


def open_store(url: str, name: str, shape: tuple[int, ...]) -> Stored:
    """The samples of a Zarr array.

    Raises
    ------
    InputError
        There is no array, or its samples are not the network's.
    """
    zarr = need("zarr", EXTRA, "a Zarr array")
    try:
        found = zarr.open(url, mode="r")
    except Exception as error:  # each kind of store has its own ways to fail
        raise InputError(f"cannot read the Zarr array {url!r}: {error}") from error
    if not isinstance(found, zarr.Array):
        keys = ", ".join(found.array_keys()) or "no arrays"
        raise InputError(f"{url!r} is a Zarr group of {keys}; name one of its arrays: {url}/NAME")
    codecs = {getattr(each, "codec_id", "") for each in (*(found.filters or ()), *(found.compressors or ()))}
    if found.dtype.kind not in "biuf" or "pickle" in codecs:
        raise InputError(f"{url!r} holds {found.dtype}, in chunks coded by {codecs}; expected plain numbers")
    nbytes = math.prod(found.chunks) * found.dtype.itemsize
    limits_now().check("arrays", nbytes, f"one chunk of {url!r}, of shape {found.chunks}", InputError)
    if found.shape[1:] != shape:
        raise InputError(
            f"{url!r} has shape {found.shape}; the network takes several samples as "
            f"(n, {', '.join(map(str, shape))})"
        )
    return Stored(name, found)
