"""Rows in memory: columns as arrays, such as a Ray data set hands on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import InputError
from ..feeds import Arrays
from ..ops.base import Array
from .decoding import Decoder
from .items import Item
from .places import Place
from .tables import Columns, chosen, decoded, is_null

NAME = "batch"
"""What ids begin with where no column has them."""


def frame_items(frame: Mapping[str, Any], columns: Columns, decoder: Decoder) -> Iterator[Item]:
    """The inputs of a frame.

    Parameters
    ----------
    frame : mapping of name to array
        Columns, each with a row along its first axis; what is no number is in arrays of objects.
    columns : Columns
    decoder : Decoder

    Raises
    ------
    InputError
        It has no such columns. An input is read when its turn comes.
    """
    if not isinstance(frame, Mapping):
        raise InputError(
            f"a batch is a {type(frame).__name__}; expected a dict of arrays, as batch_format='numpy' gives"
        )
    kinds = {name: _kind(values) for name, values in frame.items()}
    inputs, identity = chosen(columns, kinds, NAME, decoder.shapes)
    ids, targets = (None if name is None else frame[name] for name in (identity, columns.target))
    given = [frame[column] for column in inputs.values()]
    for row, values in enumerate(zip(*given, strict=True)):
        name = f"{NAME}[{row}]" if ids is None or ids[row] is None else str(ids[row])
        read = partial(_read, values, name, inputs, decoder)
        yield Item(name, read, None if targets is None else targets[row])


def _kind(values: Any) -> str:
    """What a column holds; see `chosen`."""
    first = next((value for value in values if value is not None), None)
    if isinstance(first, (np.ndarray, np.number)):
        return ("tensor" if first.ndim else "number") if first.dtype.kind in "biuf" else ""
    kinds = {dict: "struct", bytes: "bytes", str: "path"}
    return next((kind for python, kind in kinds.items() if isinstance(first, python)), "")


def _read(values: Sequence[Any], name: str, inputs: Mapping[str, str], decoder: Decoder) -> Arrays:
    pairs = zip(values, inputs.items(), strict=True)
    return tuple(_one(value, name, which, column, decoder) for value, (which, column) in pairs)


def _one(value: Any, name: str, which: str, column: str, decoder: Decoder) -> Array:
    if value is None:
        raise is_null(name, column)
    if isinstance(value, (np.ndarray, np.number)):
        numbers: Array = np.asarray(value)
        picture = _is_picture(numbers) and decoder.takes_pictures(which)
        return decoder.pixels(numbers, which) if picture else decoder.tensor(numbers, name, which)
    return decoded(value, name, which, Place.at(os.getcwd()), decoder)


def _is_picture(value: Array) -> bool:
    """Whether it has the form of a picture, (height, width) or (height, width, channels)."""
    return value.dtype == np.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4)))
