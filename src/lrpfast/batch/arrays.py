"""Samples along the first axis of `.npy` and `.npz` files, read one by one from where they lie."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np

from ..errors import InputError
from ..npy import member_names, read_header, reading
from ..ops.base import Array
from .items import Chain, Item, Source
from .places import Place

Open = Callable[[], "contextlib.AbstractContextManager[BinaryIO]"]


@dataclass(frozen=True, eq=False)
class Rows:
    """The samples of one array in a file.

    Attributes
    ----------
    name : str
        What their ids begin with.
    open : callable
        Opens the array's bytes, header included.
    dtype : dtype
    shape : tuple of int
        Of one sample.
    count : int
    offset : int
        Bytes of the header.
    single : bool
        Whether the array has no batch axis.
    """

    name: str
    open: Open
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    count: int
    offset: int
    single: bool

    def __len__(self) -> int:
        return self.count

    def ids(self, start: int, stop: int) -> Iterator[str]:
        for row in range(start, stop):
            yield self.name if self.single else f"{self.name}[{row}]"

    def items(self, start: int, stop: int) -> Iterator[Item]:
        size = self.dtype.itemsize * math.prod(self.shape)
        with reading(self.name), self.open() as file:
            file.seek(self.offset + start * size)
            for name in self.ids(start, stop):
                yield Item(name, partial(self._decoded, file.read(size), name, size))

    def _decoded(self, data: bytes, name: str, size: int) -> Array:
        if len(data) != size:
            raise InputError(f"{name}: the file ends early, with {len(data)} of the sample's {size} bytes")
        return np.frombuffer(data, self.dtype).reshape(self.shape)


def open_arrays(place: Place, name: str, shape: tuple[int, ...]) -> Source:
    """The samples of all arrays in a file that fit a network.

    Parameters
    ----------
    place : Place
    name : str
        What ids begin with.
    shape : tuple of int
        Of one sample.

    Raises
    ------
    InputError
        The file is unreadable, or no array in it fits.
    """
    if place.path.lower().endswith(".npy"):
        found = {name: cast(Open, place.open)}
    else:
        found = {f"{name}:{key}": partial(_member, place, f"{key}.npy") for key in _members(place)}
    rows, others = [], []
    for title, opener in found.items():
        one, described = _described(title, opener, shape)
        if one is None:
            others.append(described)
        else:
            rows.append(one)
    if not rows:
        raise InputError(
            f"{name!r} holds {', '.join(others) or 'no arrays'}; the network takes samples of shape {shape}, or "
            f"several of them as (n, {', '.join(map(str, shape))})"
        )
    return rows[0] if len(rows) == 1 else Chain(rows)


def _described(name: str, opener: Open, shape: tuple[int, ...]) -> tuple[Rows | None, str]:
    """The samples of an array, None if it does not fit; and what it is in words."""
    with reading(name), opener() as file:
        found = read_header(file)
    described = f"{name} {found.shape} of {found.dtype}"
    single = found.shape == shape
    fits = single or found.shape[1:] == shape
    if found.dtype.kind not in "biuf" or not fits or 0 in found.shape:
        return None, described
    if found.by_columns:
        raise InputError(f"{name!r} lies column by column; save it as np.ascontiguousarray(array)")
    count = 1 if single else found.shape[0]
    return Rows(name, opener, found.dtype, shape, count, found.offset, single), described


def _members(place: Place) -> list[str]:
    """The names of the arrays in an `.npz` file."""
    with reading(str(place)), place.open() as file, zipfile.ZipFile(file) as archive:
        return member_names(archive)


@contextlib.contextmanager
def _member(place: Place, name: str) -> Iterator[BinaryIO]:
    with place.open() as file, zipfile.ZipFile(file) as archive, archive.open(name) as member:
        yield cast(BinaryIO, member)
