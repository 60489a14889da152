"""Explanations as rows of an Arrow table: their columns, and what of the relevance they keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import need
from ..ops.base import Array
from .explaining import Row
from .places import EXTRA


@dataclass(frozen=True)
class Kept:
    """What of the relevance rows have.

    Attributes
    ----------
    whole : bool
        All of it, in the column ``relevance``.
    top : int
        So many of the strongest elements, in ``places`` (in the flattened array) and ``values``; 0 for none.
    """

    whole: bool
    top: int


@dataclass(frozen=True, eq=False)
class RowForm:
    """How rows look.

    Attributes
    ----------
    kept : Kept
    dtype : dtype
        Of relevance.
    shape : tuple of int
        Of one sample's relevance.
    """

    kept: Kept
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def schema(self) -> Any:
        """The columns, as Arrow describes them."""
        arrow = need("pyarrow", EXTRA, "a Parquet data set")
        real = arrow.from_numpy_dtype(self.dtype)
        columns = {
            "index": arrow.int64(), "id": arrow.string(), "rank": arrow.int16(), "target": arrow.string(),
            "target_index": arrow.int32(), "label": arrow.string(), "score": arrow.float64(),
            "probability": arrow.float64(), "relevance_sum": arrow.float64(), "relevance_abs": arrow.float64(),
            "unexplained": arrow.float64(), "bias": arrow.float64(), "stabilizer": arrow.float64(),
            "dead": arrow.float64(), "clipped": arrow.float64(), "gain": arrow.float64(), "error": arrow.string(),
        }  # fmt: skip
        if self.kept.whole:
            columns["relevance"] = arrow.list_(real)
        if self.kept.top:
            columns.update(places=arrow.list_(arrow.int32()), values=arrow.list_(real))
        about = {"relevance_shape": json.dumps(list(self.shape))}
        return arrow.schema(list(columns.items()), metadata=about)

    def batch(self, rows: Sequence[Row]) -> Any:
        """Rows as Arrow has them."""
        arrow = need("pyarrow", EXTRA, "a Parquet data set")
        schema = self.schema()
        found = [row.relevance for row in rows]
        columns: dict[str, Any] = {
            name: [getattr(row, name) for row in rows] for name in schema.names if hasattr(rows[0], name)
        }
        for name in ("score", "unexplained", "bias", "stabilizer", "dead", "clipped", "gain"):
            columns[name] = [None if np.isnan(value) else value for value in columns[name]]
        columns["relevance_sum"] = [None if r is None else float(r.sum(dtype=np.float64)) for r in found]
        columns["relevance_abs"] = [
            None if r is None else float(np.abs(r).sum(dtype=np.float64)) for r in found
        ]
        if self.kept.whole:
            columns["relevance"] = _lists([None if r is None else r.ravel() for r in found], self.dtype)
        if self.kept.top:
            places = [None if r is None else strongest(r, self.kept.top) for r in found]
            columns["places"] = _lists(places, np.dtype(np.int32))
            pairs = zip(found, places, strict=True)
            values = [None if r is None else r.ravel()[which] for r, which in pairs]
            columns["values"] = _lists(values, self.dtype)
        arrays = [
            value if isinstance(value, arrow.Array) else arrow.array(value, field.type)
            for field, value in ((field, columns[field.name]) for field in schema)
        ]
        return arrow.record_batch(arrays, schema=schema)


def strongest(relevance: Array, k: int) -> NDArray[np.intp]:
    """The places of the `k` elements of largest magnitude in the flattened array, the strongest first."""
    return np.argsort(-np.abs(relevance.ravel()), kind="stable")[:k]


def _lists(arrays: Sequence[NDArray[Any] | None], dtype: np.dtype[Any]) -> Any:
    """Arrays in one axis as a column of lists."""
    arrow = need("pyarrow", EXTRA, "a Parquet data set")
    lengths = [0 if array is None else len(array) for array in arrays]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    given = [array for array in arrays if array is not None]
    values = np.concatenate(given).astype(dtype, copy=False) if given else np.zeros(0, dtype)
    missing = arrow.array([array is None for array in arrays])
    return arrow.ListArray.from_arrays(arrow.array(offsets), arrow.array(values), mask=missing)
