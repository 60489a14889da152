"""Samples along the first axis of `.npy` and `.npz` files, read one by one from where they lie."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np

from ..errors import InputError
from ..feeds import Arrays
from ..npy import member_names, read_header, reading_arrays
from .decoding import Decoder
from .inputs import Shape, by_name
from .items import Chain, Item, Source, Together
from .places import Place

Open = Callable[[], "contextlib.AbstractContextManager[BinaryIO]"]


@dataclass(frozen=True, eq=False)
class Rows:
    """The samples of one array in a file.

    Attributes
    ----------
    name : str
        What it is called.
    label : str
        What the ids of its samples begin with.
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
    label: str
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
            yield self.label if self.single else f"{self.label}[{row}]"

    def items(self, start: int, stop: int) -> Iterator[Item]:
        size = self.dtype.itemsize * math.prod(self.shape)
        with reading_arrays(self.name), self.open() as file:
            file.seek(self.offset + start * size)
            for name in self.ids(start, stop):
                yield Item(name, partial(self._decoded, file.read(size), name, size))

    def only(self, start: int, stop: int) -> Rows:
        return self

    def file(self) -> Place:
        return self.place

    def _decoded(self, data: bytes, name: str, size: int) -> Arrays:
        if len(data) != size:
            raise InputError(f"{name}: {self.name} ends early, with {len(data)} of the sample's {size} bytes")
        return (np.frombuffer(data, self.dtype).reshape(self.shape),)


def open_arrays(place: Place, name: str, decoder: Decoder) -> tuple[Source, bool]:
    """The samples in a file: of all arrays that fit, or of the arrays that are called like the network's inputs.

    Parameters
    ----------
    place : Place
    name : str
        What ids begin with.
    decoder : Decoder
        Knows the inputs' shapes.

    Returns
    -------
    source : Source
    single : bool
        Whether it is a single sample, without a batch axis.

    Raises
    ------
    InputError
        The file is unreadable, or no array in it fits; or there is not one for each of several inputs.
    """
    if isinstance(decoder.shapes, Mapping):
        return _by_input(place, name, decoder)
    (shape,) = by_name(decoder.shapes).values()
    if place.path.lower().endswith(".npy"):
        found = {name: cast(Open, place.open)}
    else:
        found = {f"{name}:{key}": partial(_member, place, f"{key}.npy") for key in _members(place)}
    rows, others = [], []
    for title, opener in found.items():
        one, described = _described(title, title, place, opener, shape)
        if one is None:
            others.append(described)
        else:
            rows.append(one)
    if not rows:
        raise InputError(
            f"{name!r} holds {', '.join(others) or 'no arrays'}; the network takes samples of shape {shape}, or "
            f"several of them as (n, {', '.join(map(str, shape))})"
        )
    return (rows[0], rows[0].single) if len(rows) == 1 else (Chain(rows), False)


def _by_input(place: Place, name: str, decoder: Decoder) -> tuple[Source, bool]:
    """The samples of several inputs, whose arrays lie side by side."""
    shapes = by_name(decoder.shapes)
    there = [] if place.path.lower().endswith(".npy") else _members(place)
    rows, found = {}, []
    for key in there:
        described = f"{name}:{key}"
        if key in shapes:
            opener = partial(_member, place, f"{key}.npy")
            one, described = _described(described, name, place, opener, shapes[key])
            rows.update({key: one} if one is not None else {})
        found.append(described)
    if len(rows) < len(shapes) or len({(len(one), one.single) for one in rows.values()}) != 1:
        raise InputError(
            f"{name!r} holds {', '.join(found) or 'no arrays with names'}; {decoder.wanted}, with as many samples "
            "along the first axis"
        )
    in_order = [rows[key] for key in shapes]
    return Together(in_order), in_order[0].single


def _described(name: str, label: str, place: Place, opener: Open, shape: Shape) -> tuple[Rows | None, str]:
    """The samples of an array, None if it does not fit; and what it is in words."""
    with reading_arrays(name), opener() as file:
        found = read_header(file)
    described = f"{name} {found.shape} of {found.dtype}"
    single = found.shape == shape
    fits = single or found.shape[1:] == shape
    if found.dtype.kind not in "biuf" or not fits or 0 in found.shape:
        return None, described
    if found.by_columns:
        raise InputError(f"{name!r} lies column by column; save it as np.ascontiguousarray(array)")
    count = 1 if single else found.shape[0]
    return Rows(name, label, place, opener, found.dtype, shape, count, found.offset, single), described


def _members(place: Place) -> list[str]:
    """The names of the arrays in an `.npz` file."""
    with reading_arrays(str(place)), place.open() as file, zipfile.ZipFile(file) as archive:
        return member_names(archive)


@contextlib.contextmanager
def _member(place: Place, name: str) -> Iterator[BinaryIO]:
    with place.open() as file, zipfile.ZipFile(file) as archive, archive.open(name) as member:
        yield cast(BinaryIO, member)
