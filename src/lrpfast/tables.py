"""Tables of numbers out of CSV files."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .colors import Heat
from .errors import InputError
from .files import read_text

__all__ = ["Table", "read_table"]

DELIMITERS = ",;\t"
"""What may stand between cells; the file's first line says which it is."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table of numbers.

    Attributes
    ----------
    names : tuple of str, or None
        Of the columns, if the file names them.
    values : array of float64 (rows, columns)
    """

    names: tuple[str, ...] | None
    values: Heat

    def select(self, names: Sequence[str]) -> Table:
        """The columns of these names, in this order.

        Raises
        ------
        InputError
            The columns have no names, or some of these are not among them.
        """
        have = self.names or ()
        absent = [name for name in names if name not in have]
        if absent:
            raise InputError(
                f"there is no column {', '.join(map(repr, absent))}; there are {', '.join(have)}"
            )
        return Table(tuple(names), self.values[:, [have.index(name) for name in names]])


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read a CSV file of numbers.

    A first line without any number is a header: the names of the columns. Cells are separated by commas,
    semicolons or tabs.

    Raises
    ------
    InputError
        The file cannot be read, is empty, names two columns alike, has lines of unequal length, or cells that are
        no finite numbers; the first of them are listed.
    """
    lines = _lines(path)
    head = [cell.strip() for cell in lines[0][1]]
    names = tuple(head) if all(_number(cell) is None for cell in head) else None
    rows = lines if names is None else lines[1:]
    twice = sorted({name for name in names or () if head.count(name) > 1})
    problems = [f"the column {name!r} is there twice" for name in twice]
    for number, row in rows:
        if len(row) != len(head):
            problems.append(f"line {number} has {len(row)} cells, the first one {len(head)}")
        problems += [
            f"line {number}, column {names[k] if names else k + 1}: {cell!r} is no finite number"
            for k, cell in enumerate(row[: len(head)])
            if _number(cell) is None
        ]
    if problems or not rows:
        listed = "; ".join(problems[:5] or ["there are no rows"])
        raise InputError(f"the table {os.fspath(path)!r}: {listed}{'; …' if len(problems) > 5 else ''}")
    return Table(names, np.array([[float(cell) for cell in row] for _, row in rows]))


def _lines(path: str | os.PathLike[str]) -> list[tuple[int, list[str]]]:
    """The lines that hold something, each with its number, as cells."""
    text = read_text(path, "table")
    try:
        first = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(DELIMITERS, key=first.count)
        reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"cannot read the table {os.fspath(path)!r}: {error}") from error
    if not lines:
        raise InputError(f"the table {os.fspath(path)!r} is empty")
    return lines


def _number(cell: str) -> float | None:
    """What a cell says; None if that is no finite number."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
