"""Rows of a Parquet file: pictures as bytes, paths, or tensors."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..errors import InputError
from ..extras import need
from ..feeds import Arrays
from ..files import reading
from ..ops.base import Array
from .decoding import Decoder
from .files import resolved
from .inputs import Shape, Shapes, by_name
from .items import Item
from .places import EXTRA, Place

USUAL = ("image", "x", "input", "tensor", "path", "file")
"""Names of columns that are taken to be the inputs, the first that is there, if none is asked for."""

ROWS = 16
"""Rows that are read at once."""

BUFFER = 2**20
"""Bytes of a column that are read at once; without it, all of a row group's are."""


@dataclass(frozen=True)
class Columns:
    """Which columns mean what; None for what is not there, or not asked for.

    Attributes
    ----------
    input : str, or mapping of input name to str, optional
        The inputs. Default: of an only input the first of `USUAL`, or the only column that can be one; of several the
        columns that are called like them.
    id : str, optional
        Names of the inputs. Default: ``id``, or else the file's name and the row.
    target : str, optional
        What is to be explained.
    """

    input: str | Mapping[str, str] | None = None
    id: str | None = None
    target: str | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a Parquet file; made by `open_table`."""

    place: Place
    name: str
    inputs: Mapping[str, str]  # column by input
    columns: Columns  # with the ids' name
    decoder: Decoder
    group_rows: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.group_rows)

    def ids(self, start: int, stop: int) -> Iterator[str]:
        if self.columns.id is None:
            yield from (f"{self.name}[{row}]" for row in range(start, stop))
            return
        for row, (cell,) in self._cells([self.columns.id], start, stop):
            yield self._id(row, cell)

    def items(self, start: int, stop: int) -> Iterator[Item]:
        wanted = [*self.inputs.values(), self.columns.id, self.columns.target]
        given = [name for name in wanted if name is not None]
        for row, cells in self._cells(given, start, stop):
            row_of: dict[str | None, Any] = dict(zip(given, cells, strict=True))
            identity, target = row_of.get(self.columns.id), row_of.get(self.columns.target)
            name = self._id(row, identity)
            inputs = {key: row_of[column] for key, column in self.inputs.items()}
            with _reading(f"the target of {name}"):
                wanted_target = None if target is None else target.as_py()
            yield Item(name, partial(self._all, inputs, name), wanted_target)

    def only(self, start: int, stop: int) -> Table:
        return self

    def file(self) -> Place:
        return self.place

    def _id(self, row: int, cell: Any) -> str:
        if cell is not None and cell.is_valid:
            with contextlib.suppress(UnicodeDecodeError):  # as if it had none
                return str(cell.as_py())
        return f"{self.name}[{row}]"

    def _cells(self, names: list[str], start: int, stop: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """The rows of a stretch: their numbers, and their cells as Arrow has them."""
        parquet = need("pyarrow.parquet", EXTRA, "a Parquet file")
        groups, row = [], 0
        for group, rows in enumerate(self.group_rows):
            if row + rows > start and row < stop:
                groups.append(group)
            row += rows
        first = sum(self.group_rows[: groups[0]]) if groups else 0
        with _reading(self.name), self.place.open() as file:
            reader = parquet.ParquetFile(file, buffer_size=BUFFER)
            row = first
            for some in reader.iter_batches(ROWS, row_groups=groups, columns=list(dict.fromkeys(names))):
                arrays = [some.column(some.schema.get_field_index(name)) for name in names]
                for i in range(len(some)):
                    if start <= row < stop:
                        yield row, tuple(array[i] for array in arrays)
                    row += 1
                if row >= stop:
                    return

    def _all(self, cells: Mapping[str, Any], name: str) -> Arrays:
        with _reading(name):
            return tuple(self._decoded(cell, name, which) for which, cell in cells.items())

    def _decoded(self, cell: Any, name: str, which: str) -> Array:
        if not cell.is_valid:
            raise is_null(name, self.inputs[which])
        value = _value(cell)
        if isinstance(value, np.ndarray):
            return self.decoder.tensor(value, name, which)
        return decoded(value, name, which, self.place.folder, self.decoder)


def decoded(value: Any, name: str, which: str, folder: Place, decoder: Decoder) -> Array:
    """One of the inputs, out of a file: its bytes, its path as seen from a folder, or both; raises `InputError`."""
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
        if data is None and path is None:
            raise InputError(f"{name}: it has neither bytes nor a path")
        return (
            decoded(path, name, which, folder, decoder)
            if data is None
            else decoder.file(data, path or name, which)
        )
    if isinstance(value, str):
        return decoder.file(resolved(folder, value).read(), value, which)
    return decoder.file(value, name, which)


def is_null(name: str, column: str) -> InputError:
    """There is no input."""
    return InputError(f"{name}: its {column!r} is null; expected an input")


def _reading(name: str) -> contextlib.AbstractContextManager[None]:
    """In a `with`: what is raised by damaged tables becomes an `InputError` that names the file or the row."""
    return reading(repr(name), "the table is damaged")


def open_table(place: Place, name: str, columns: Columns, decoder: Decoder) -> Table:
    """The rows of a Parquet file.

    Raises
    ------
    InputError
        It is unreadable, or its columns are not as they should be.
    """
    parquet = need("pyarrow.parquet", EXTRA, "a Parquet file")
    with _reading(str(place)), place.open() as file:
        reader = parquet.ParquetFile(file)
        schema, about = reader.schema_arrow, reader.metadata
        rows = tuple(about.row_group(i).num_rows for i in range(about.num_row_groups))
        if min(rows, default=0) < 0 or sum(rows) > sys.maxsize:
            raise ValueError(f"its row groups have {rows} rows")
        kinds = {field.name: _kind(field.type) for field in schema}
    inputs, identity = chosen(columns, kinds, name, decoder.shapes)
    return Table(place, name, inputs, replace(columns, id=identity), decoder, rows)


def chosen(
    columns: Columns, kinds: Mapping[str, str], name: str, shapes: Shapes
) -> tuple[Mapping[str, str], str | None]:
    """The column of each input, and that of ids.

    Parameters
    ----------
    columns : Columns
        Those that are asked for.
    kinds : mapping of name to str
        What each column holds: "struct", "bytes", "path", "tensor", "number", or "" for nothing that can be an input.
    name : str
        Of the table.
    shapes : tuple of int, or mapping of name to tuple of int
        Of the network's inputs.

    Raises
    ------
    InputError
        One is missing, or holds something else.
    """
    identity = columns.id or ("id" if "id" in kinds else None)
    if isinstance(shapes, Mapping):
        inputs = _by_input(columns.input, shapes)
    elif isinstance(columns.input, Mapping):
        raise InputError(
            f"column is {dict(columns.input)}, but the network has one input: name its column alone"
        )
    else:
        inputs = {"": columns.input or _usual(kinds, (identity, columns.target), name)}
    for column in (*inputs.values(), columns.id, columns.target):
        if column is not None and column not in kinds:
            raise InputError(f"{name!r} has no column {column!r}; it has {', '.join(kinds)}")
    for which, column in inputs.items():
        one = kinds[column] == "number" and math.prod(by_name(shapes)[which]) == 1
        if not one and kinds[column] in ("", "number"):
            raise InputError(
                f"the column {column!r} of {name!r} holds no inputs; expected pictures as bytes, paths, or lists "
                "of numbers"
            )
    return inputs, identity


def _by_input(given: str | Mapping[str, str] | None, shapes: Mapping[str, Shape]) -> Mapping[str, str]:
    """The column of each of several inputs: what is given, or else that of the same name."""
    if isinstance(given, str):
        raise InputError(
            f"column is {given!r}, but the network has inputs {', '.join(shapes)}: say NAME={given} for one of them"
        )
    unknown = [key for key in given or {} if key not in shapes]
    if unknown:
        raise InputError(f"column names {', '.join(unknown)}; the network has inputs {', '.join(shapes)}")
    return {key: (given or {}).get(key, key) for key in shapes}


def _usual(kinds: Mapping[str, str], others: tuple[str | None, ...], name: str) -> str:
    """The column of an only input that nobody named."""
    able = [key for key, kind in kinds.items() if kind not in ("", "number") and key not in others]
    usual = [key for key in USUAL if key in able]
    if not usual and len(able) != 1:
        raise InputError(
            f"{name!r} has columns {', '.join(kinds)}, and it is not clear which holds the inputs; say --column NAME"
        )
    return (usual or able)[0]


def _kind(kind: Any) -> str:
    """What a column of an Arrow type holds: "struct", "bytes", "path", "tensor", "number", or "" for nothing of use."""
    types = need("pyarrow.types", EXTRA, "a Parquet file")
    kind = getattr(kind, "storage_type", kind)
    if types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return "struct" if {"bytes", "path"} & set(names) else ""
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    if types.is_string(kind) or types.is_large_string(kind):
        return "path"
    nested = False
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        nested, kind = True, kind.value_type
    number = types.is_integer(kind) or types.is_floating(kind)
    return ("tensor" if nested else "number") if number else ""


def _value(cell: Any) -> Any:
    """What a cell holds: numbers as an array, anything else as Python has it."""
    if hasattr(cell, "to_numpy"):  # Arrow's own type of tensors, which knows their shape
        return cell.to_numpy()
    cell = cell.value if hasattr(cell.type, "storage_type") else cell
    kind = _kind(cell.type)
    if kind == "number":
        return np.asarray(cell.as_py())
    return _numbers(cell) if kind == "tensor" else cell.as_py()


def _numbers(cell: Any) -> Array:
    """The numbers of a cell that is a list, or a list of lists, in a row."""
    values = cell.values
    while hasattr(values, "flatten") and hasattr(values.type, "value_type"):
        values = values.flatten()
    numbers: Array = values.to_numpy(zero_copy_only=False)
    return numbers
