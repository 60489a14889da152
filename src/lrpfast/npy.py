"""Arrays in `.npy` and `.npz` files: what their headers say, checked before anything of such a size is made.

Pickled objects are never loaded.
"""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .files import reading
from .limits import Limits, limits_now

ZIP = b"PK\x03\x04"
"""What `.npz` files, which are ZIP archives, begin with."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
    """What a file says of its array.

    Attributes
    ----------
    shape : tuple of int
    by_columns : bool
        Whether the first axis is the fastest (Fortran order).
    dtype : dtype
    offset : int
        Bytes before the array's own.
    """

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def reading_arrays(name: str) -> contextlib.AbstractContextManager[None]:
    """In a `with`: what is raised by damaged files becomes an `InputError` that names the file."""
    return reading(f"arrays from {name!r}", "expected an .npy or .npz file of numbers")


def read_header(file: BinaryIO) -> Header:
    """The header of an `.npy` file, whose bytes come next; raises whatever NumPy raises if it is damaged."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format is unknown")
    shape, by_columns, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    if min(shape, default=1) < 0:
        raise ValueError(f"its shape is {shape}")
    return Header(shape, by_columns, dtype, file.tell())


def read_arrays(
    source: str | os.PathLike[str] | BinaryIO, name: str, limits: Limits | None = None
) -> dict[str, NDArray[Any]]:
    """All arrays of a file, by name; that of an `.npy` is named after the file.

    Parameters
    ----------
    source : path or binary file
    name : str
        What messages call the file.
    limits : Limits, optional
        Of which `arrays` holds for all of them together. Default: the environment's.

    Raises
    ------
    InputError
        The file cannot be read, is damaged or too large.
    """
    limits = limits or limits_now()
    with reading_arrays(name), contextlib.ExitStack() as stack:
        if isinstance(source, (str, os.PathLike)):
            file: BinaryIO = stack.enter_context(open(source, "rb"))
        else:
            file = source
        begin = file.read(len(ZIP))
        file.seek(0)
        if begin != ZIP:
            header = read_header(file)
            limits.check(
                "arrays", header.nbytes, f"the array in {name!r} of shape {header.shape}", InputError
            )
            return {Path(name).stem: _array(file, header)}
        with zipfile.ZipFile(file) as archive:
            return dict(_members(archive, name, limits))


def member_names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays in an `.npz` file."""
    return [each.removesuffix(".npy") for each in archive.namelist() if each.endswith(".npy")]


def _members(archive: zipfile.ZipFile, name: str, limits: Limits) -> Iterator[tuple[str, NDArray[Any]]]:
    total = 0
    for key in member_names(archive):
        with archive.open(f"{key}.npy") as opened:
            member = cast(BinaryIO, opened)
            header = read_header(member)
            total += header.nbytes
            what = f"the arrays in {name!r} up to {key!r} of shape {header.shape}"
            limits.check("arrays", total, what, InputError)
            yield key, _array(member, header)


def _array(file: BinaryIO, header: Header) -> NDArray[Any]:
    """The array whose header has been read."""
    data = bytearray(header.nbytes)
    filled = 0
    with memoryview(data) as view:
        while filled < len(data):
            count = file.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise ValueError(f"it ends early, with {filled} of {len(data)} bytes")
            filled += count
    array: NDArray[Any] = np.ndarray(
        header.shape, header.dtype, data, order="F" if header.by_columns else "C"
    )
    return array
