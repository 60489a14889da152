"""Rows as Parquet keeps them, and what is counted of them.

This is done by the threads that explain, of which there are many, for the one that writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import need
from ..ledger import beyond
from ..ops.base import Array
from .drift import Profile, Regions
from .explaining import Row
from .inputs import Shapes, as_json, by_name, titled
from .places import EXTRA

FIGURES = ("score", "unexplained", "bias", "stabilizer", "dead", "clipped", "gain")
"""Columns of numbers that a row that failed does not have."""


@dataclass(frozen=True)
class Kept:
    """What of the relevance rows have.

    Attributes
    ----------
    whole : bool
        All of it, in the column ``relevance``.
    top : int
        So many of the strongest elements of each input, in ``places`` (in the flattened array) and ``values``; 0 for
        none.
    """

    whole: bool
    top: int


@dataclass(frozen=True, eq=False)
class Encoded:
    """The rows of consecutive inputs.

    Attributes
    ----------
    batch : pyarrow.RecordBatch
    start : int
        Place of the first input in the source.
    ids : tuple of str
        Of the inputs.
    failed : int
        Inputs that have an error.
    worst : float
        The largest |unexplained|.
    blowups : int
        Inputs for which a node blew up.
    profile : Profile
        Of the rows of rank 0.
    """

    batch: Any
    start: int
    ids: tuple[str, ...]
    failed: int
    worst: float
    blowups: int
    profile: Profile


@dataclass(frozen=True, eq=False)
class Encoding:
    """How rows are encoded.

    Attributes
    ----------
    kept : Kept
    dtype : dtype
        Of relevance.
    shapes : tuple of int, or mapping of name to tuple of int
        Of one sample's relevance.
    blowup : float
        Gains that are larger are counted.
    """

    kept: Kept
    dtype: np.dtype[Any]
    shapes: Shapes
    blowup: float = math.inf

    @cached_property
    def schema(self) -> Any:
        """The columns, as Arrow describes them."""
        arrow = _arrow()
        real = arrow.from_numpy_dtype(self.dtype)
        columns = {
            "index": arrow.int64(), "id": arrow.string(), "rank": arrow.int16(), "target": arrow.string(),
            "target_index": arrow.int32(), "label": arrow.string(), "score": arrow.float64(),
            "probability": arrow.float64(), "relevance_sum": arrow.float64(), "relevance_abs": arrow.float64(),
            "unexplained": arrow.float64(), "bias": arrow.float64(), "stabilizer": arrow.float64(),
            "dead": arrow.float64(), "clipped": arrow.float64(), "gain": arrow.float64(), "error": arrow.string(),
        }  # fmt: skip
        for name in by_name(self.shapes):
            if self.kept.whole:
                columns[titled("relevance", name)] = arrow.list_(real)
            if self.kept.top:
                columns[titled("places", name)] = arrow.list_(arrow.int32())
                columns[titled("values", name)] = arrow.list_(real)
        about = {"relevance_shape": json.dumps(as_json(self.shapes))}
        return arrow.schema(list(columns.items()), metadata=about)

    @cached_property
    def writing(self) -> Mapping[str, Any]:
        """How a `pyarrow.parquet.ParquetWriter` is to write: relevance has no value twice, and neighbours' first
        bytes are alike."""
        types = need("pyarrow.types", EXTRA, "a Parquet data set")
        texts = [field.name for field in self.schema if types.is_string(field.type)]
        reals = [
            f"{field.name}.list.element" for field in self.schema if _is_list_of_reals(types, field.type)
        ]
        return {"compression": "zstd", "use_dictionary": texts, "use_byte_stream_split": reals}

    def encoded(self, rows: Sequence[Row]) -> Encoded:
        """Encode the rows of consecutive inputs, all ranks of each."""
        sizes = [None if row.relevance is None else self._regions.sums(row.relevance) for row in rows]
        profile = Profile.empty(self.shapes)
        for row, size in zip(rows, sizes, strict=True):
            if row.rank == 0 and size is not None:
                profile = profile.with_sums(size)
        first = [row for row in rows if row.rank == 0]
        return Encoded(
            self._batch(rows, sizes), first[0].index, tuple(row.id for row in first),
            sum(row.error is not None for row in first),
            max((row.unexplained for row in rows if row.error is None), default=0.0),
            len({row.index for row in rows if row.gain > beyond(self.blowup)}), profile,
        )  # fmt: skip

    @cached_property
    def _regions(self) -> Regions:
        return Regions(self.shapes)

    def _batch(self, rows: Sequence[Row], sizes: Sequence[NDArray[np.float64] | None]) -> Any:
        arrow = _arrow()
        columns: dict[str, Any] = {
            name: [getattr(row, name) for row in rows] for name in self.schema.names if hasattr(rows[0], name)
        }
        for name in FIGURES:
            columns[name] = [None if math.isnan(value) else value for value in columns[name]]
        columns["relevance_sum"] = [
            None if row.relevance is None else sum(float(r.sum(dtype=np.float64)) for r in row.relevance)
            for row in rows
        ]
        columns["relevance_abs"] = [None if size is None else float(size.sum()) for size in sizes]
        for place, name in enumerate(by_name(self.shapes)):
            found = [None if row.relevance is None else row.relevance[place].ravel() for row in rows]
            columns.update(self._kept(name, found))
        arrays = [
            value if isinstance(value, arrow.Array) else arrow.array(value, field.type)
            for field, value in ((field, columns[field.name]) for field in self.schema)
        ]
        return arrow.record_batch(arrays, schema=self.schema)

    def _kept(self, name: str, found: Sequence[Array | None]) -> dict[str, Any]:
        """What is kept of the flattened relevance of an input."""
        columns = {}
        if self.kept.whole:
            columns[titled("relevance", name)] = _lists(found, self.dtype)
        if self.kept.top:
            places = [None if r is None else strongest(r, self.kept.top) for r in found]
            values = [None if r is None else r[which] for r, which in zip(found, places, strict=True)]
            columns[titled("places", name)] = _lists(places, np.dtype(np.int32))
            columns[titled("values", name)] = _lists(values, self.dtype)
        return columns


def strongest(relevance: Array, k: int) -> NDArray[np.intp]:
    """The places of the `k` elements of largest magnitude in the flattened array, the strongest first.

    Among equals the first ones. If there are fewer elements than `k`, all of them.
    """
    size = np.abs(relevance.ravel())
    k = min(k, len(size))
    least = np.partition(size, len(size) - k)[len(size) - k]
    able = np.flatnonzero(size >= least)
    return able[np.argsort(-size[able], kind="stable")[:k]]


def _lists(arrays: Sequence[NDArray[Any] | None], dtype: np.dtype[Any]) -> Any:
    """Arrays in one axis as a column of lists."""
    arrow = _arrow()
    lengths = [0 if array is None else len(array) for array in arrays]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    given = [array for array in arrays if array is not None]
    values = np.concatenate(given).astype(dtype, copy=False) if given else np.zeros(0, dtype)
    missing = arrow.array([array is None for array in arrays])
    return arrow.ListArray.from_arrays(arrow.array(offsets), arrow.array(values), mask=missing)


def _is_list_of_reals(types: Any, kind: Any) -> bool:
    return bool(types.is_list(kind) and types.is_floating(kind.value_type))


def _arrow() -> Any:
    return need("pyarrow", EXTRA, "a Parquet data set")
