"""Embedding: rows of a constant table, chosen by indices that the network is given (ONNX Gather)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import InputError, ModelError
from ..graph import Fact
from .base import Array, Op
from .parameters import parameter


@dataclass(frozen=True, eq=False)
class Embedding(Op):
    """`z[i] = table[x[i]]`: each index becomes a row.

    An index receives the relevance of all of its row.

    Parameters
    ----------
    table : array (rows, features…)
    wraps : bool, default True
        Whether indices from `-rows` to -1 count from the end.
    open : bool, default False
        Whether other indices are allowed; their rows are zeros.

    Raises
    ------
    ModelError
        The table has no rows; the input is not of an integer type.
    InputError
        When it is computed: an index is out of range, and that is not allowed.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Embedding", "embedding", "movement")

    table: Array
    wraps: bool = True
    open: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", parameter("table", self.table))
        if not self.table.ndim or not len(self.table):
            raise ModelError(f"its table has shape {self.table.shape}; expected one row or more")

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if not x.integer:
            raise ModelError("its indices are computed as floating-point numbers; expected integers")
        return Fact((*x.shape, *self.table.shape[1:]), nonnegative=bool(self.table.min(initial=0) >= 0))

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        rows = len(self.table)
        outside = (x < (-rows if self.wraps else 0)) | (x >= rows)
        if outside.any() and not self.open:
            wrong = int(x[outside][0])
            raise InputError(f"the index {wrong} is out of range for an embedding of {rows} rows")
        z: Array = self.table[np.where(outside, 0, x).astype(np.intp)].astype(x.dtype, copy=False)
        z[outside] = 0
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        """What the rows receive, for each index in one sum; there is no derivative by an index."""
        return (s.reshape(*inputs[0].shape, -1).sum(axis=-1),)
