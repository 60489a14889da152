"""Rows of a Parquet file: pictures as bytes, paths, or tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..errors import InputError
from ..extras import need
from ..ops.base import Array
from .decoding import Decoder
from .files import resolved
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
    input : str, optional
        The inputs. Default: the first of `USUAL`, or the only column that can be one.
    id : str, optional
        Names of the inputs. Default: ``id``, or else the file's name and the row.
    target : str, optional
        What is to be explained.
    """

    input: str | None = None
    id: str | None = None
    target: str | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a Parquet file; made by `open_table`."""

    place: Place
    name: str
    columns: Columns  # with the inputs' name
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
        wanted = [self.columns.input, self.columns.id, self.columns.target]
        given = [name for name in wanted if name is not None]
        for row, cells in self._cells(given, start, stop):
            by_name: dict[str | None, Any] = dict(zip(given, cells, strict=True))
            identity, target = by_name.get(self.columns.id), by_name.get(self.columns.target)
            name = self._id(row, identity)
            read = partial(self._decoded, by_name[self.columns.input], name)
            yield Item(name, read, None if target is None else target.as_py())

    def only(self, start: int, stop: int) -> Table:
        return self

    def file(self) -> Place:
        return self.place

    def _id(self, row: int, cell: Any) -> str:
        known = cell is not None and cell.is_valid
        return str(cell.as_py()) if known else f"{self.name}[{row}]"

    def _cells(self, names: list[str], start: int, stop: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """The rows of a stretch: their numbers, and their cells as Arrow has them."""
        parquet = need("pyarrow.parquet", EXTRA, "a Parquet file")
        groups, row = [], 0
        for group, rows in enumerate(self.group_rows):
            if row + rows > start and row < stop:
                groups.append(group)
            row += rows
        first = sum(self.group_rows[: groups[0]]) if groups else 0
        with self.place.open() as file:
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

    def _decoded(self, cell: Any, name: str) -> Array:
        value = _value(cell)
        if value is None:
            raise InputError(f"{name}: its {self.columns.input!r} is null; expected an input")
        if isinstance(value, np.ndarray):
            return self.decoder.tensor(value, name)
        return decoded(value, name, self.place.folder, self.decoder)


def decoded(value: Any, name: str, folder: Place, decoder: Decoder) -> Array:
    """The input that is a file: its bytes, its path as seen from a folder, or both; raises `InputError`."""
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
        if data is None and path is None:
            raise InputError(f"{name}: it has neither bytes nor a path")
        return decoder.file(data, path or name) if data is not None else decoded(path, name, folder, decoder)
    if isinstance(value, str):
        return decoder.file(resolved(folder, value).read(), value)
    return decoder.file(value, name)


def open_table(place: Place, name: str, columns: Columns, decoder: Decoder) -> Table:
    """The rows of a Parquet file.

    Raises
    ------
    InputError
        It is unreadable, or its columns are not as they should be.
    """
    parquet = need("pyarrow.parquet", EXTRA, "a Parquet file")
    arrow = need("pyarrow", EXTRA, "a Parquet file")
    try:
        with place.open() as file:
            reader = parquet.ParquetFile(file)
            schema, about = reader.schema_arrow, reader.metadata
            rows = tuple(about.row_group(i).num_rows for i in range(about.num_row_groups))
    except (OSError, arrow.ArrowException) as error:
        raise InputError(f"cannot read the table {str(place)!r}: {error}") from error
    kinds = {field.name: _kind(field.type) for field in schema}
    return Table(place, name, chosen(columns, kinds, name), decoder, rows)


def chosen(columns: Columns, kinds: Mapping[str, str], name: str) -> Columns:
    """The columns that are there; raises `InputError` if one is missing or does not hold what it should.

    Parameters
    ----------
    columns : Columns
        Those that are asked for.
    kinds : mapping of name to str
        What each column holds: "struct", "bytes", "path", "tensor", or "" for nothing that can be an input.
    name : str
        Of the table.
    """
    for column in (columns.input, columns.id, columns.target):
        if column is not None and column not in kinds:
            raise InputError(f"{name!r} has no column {column!r}; it has {', '.join(kinds)}")
    identity = columns.id or ("id" if "id" in kinds else None)
    able = [key for key, kind in kinds.items() if kind and key not in (identity, columns.target)]
    if columns.input is not None and not kinds[columns.input]:
        raise InputError(
            f"the column {columns.input!r} of {name!r} holds no inputs; expected pictures as bytes, paths, or lists "
            "of numbers"
        )
    usual = [key for key in USUAL if key in able]
    if columns.input is None and not usual and len(able) != 1:
        raise InputError(
            f"{name!r} has columns {', '.join(kinds)}, and it is not clear which holds the inputs; say --column NAME"
        )
    return Columns(columns.input or (usual or able)[0], identity, columns.target)


def _kind(kind: Any) -> str:
    """What a column of an Arrow type holds: "struct", "bytes", "path", "tensor", or "" for nothing of use."""
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
    return "tensor" if nested and number else ""


def _value(cell: Any) -> Any:
    """What a cell holds: numbers as an array, anything else as Python has it; None for null."""
    if not cell.is_valid:
        return None
    if hasattr(cell, "to_numpy"):  # Arrow's own type of tensors, which knows their shape
        return cell.to_numpy()
    cell = cell.value if hasattr(cell.type, "storage_type") else cell
    return _numbers(cell) if _kind(cell.type) == "tensor" else cell.as_py()


def _numbers(cell: Any) -> Array:
    """The numbers of a cell that is a list, or a list of lists, in a row."""
    values = cell.values
    while hasattr(values, "flatten") and hasattr(values.type, "value_type"):
        values = values.flatten()
    numbers: Array = values.to_numpy(zero_copy_only=False)
    return numbers
