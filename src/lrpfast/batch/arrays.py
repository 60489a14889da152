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
    place : Place
        The file.
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
    place: Place
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
        with self.open() as file:
            file.seek(self.offset + start * size)
            for name in self.ids(start, stop):
                yield Item(name, partial(self._decoded, file.read(size), name, size))

    def only(self, start: int, stop: int) -> Rows:
        return self

    def file(self) -> Place:
        return self.place

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
        one, described = _described(title, place, opener, shape)
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


def _described(name: str, place: Place, opener: Open, shape: tuple[int, ...]) -> tuple[Rows | None, str]:
    """The samples of an array, None if it does not fit; and what it is in words."""
    try:
        with opener() as file:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            found, by_columns, dtype = read(file)
            offset = file.tell()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"cannot read arrays from {name!r}: {error}; expected an .npy or .npz file"
        ) from error
    described = f"{name} {found} of {dtype}"
    single = found == shape
    if dtype.kind not in "biuf" or not (single or found[1:] == shape) or 0 in found:
        return None, described
    if by_columns:
        raise InputError(f"{name!r} lies column by column; save it as np.ascontiguousarray(array)")
    count = 1 if single else found[0]
    return Rows(name, place, opener, dtype, shape, count, offset, single), described


def _members(place: Place) -> list[str]:
    """The names of the arrays in an `.npz` file."""
    try:
        with place.open() as file, zipfile.ZipFile(file) as archive:
            return [name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read arrays from {str(place)!r}: {error}; expected an .npz file") from error


@contextlib.contextmanager
def _member(place: Place, name: str) -> Iterator[BinaryIO]:
    with place.open() as file, zipfile.ZipFile(file) as archive, archive.open(name) as member:
        yield cast(BinaryIO, member)
