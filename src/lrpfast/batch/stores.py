"""Samples along the first axis of a Zarr array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..extras import need
from ..ops.base import Array
from .items import Item
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
            block = self.array[start:end]
            for name, sample in zip(self.ids(start, end), block, strict=True):
                yield Item(name, lambda sample=sample: _as_is(sample))  # type: ignore[misc]
            start = end

    def only(self, start: int, stop: int) -> Stored:
        return self

    def file(self) -> Place | None:
        return next(_marks(self.place), None)


def _as_is(sample: Array) -> Array:
    return sample


def is_store(place: Place) -> bool:
    """Whether it is a Zarr store."""
    return any(_marks(place))


def _marks(place: Place) -> Iterator[Place]:
    return (place / mark for mark in MARKS if (place / mark).exists())


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
    if found.shape[1:] != shape:
        raise InputError(
            f"{url!r} has shape {found.shape}; the network takes several samples as "
            f"(n, {', '.join(map(str, shape))})"
        )
    return Stored(name, Place.at(url), found)
