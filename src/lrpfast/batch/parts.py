"""The Parquet data set that a job writes: part files, which are also the record of what is done.

A part holds the rows of a fixed stretch of the source. It appears under its name when it is whole, so a job that
was killed finds out from the names, and from what each footer says, where to go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import need
from ..ledger import beyond
from ..ops.base import Array
from .drift import Profile
from .explaining import Row
from .places import EXTRA, Place, writing_into

KEY = b"lrpfast"
"""Where the footer has the part's facts, as JSON."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of a whole part.

    Attributes
    ----------
    start, count : int
        The stretch of the source.
    ids : str
        SHA-256 of the inputs' names.
    failed : int
        Inputs that have an error.
    worst : float
        The largest |unexplained|.
    blowups : int
        Inputs for which a node blew up.
    profile : Profile
    manifest : mapping
        What made it.
    """

    start: int
    count: int
    ids: str
    failed: int
    worst: float
    blowups: int
    profile: Profile
    manifest: Mapping[str, Any]

    def as_json(self) -> str:
        return json.dumps({**vars(self), "profile": self.profile.as_json(), "manifest": dict(self.manifest)})

    @classmethod
    def from_json(cls, text: bytes) -> Facts:
        described = json.loads(text)
        return cls(**{**described, "profile": Profile.from_json(described["profile"])})


def digest(ids: Iterable[str]) -> str:
    """SHA-256 of names, in their order."""
    hashed = hashlib.sha256()
    for name in ids:
        hashed.update(json.dumps(name).encode() + b"\n")
    return hashed.hexdigest()


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
class Dataset:
    """A folder of parts.

    Attributes
    ----------
    place : Place
    kept : Kept
    dtype : dtype
        Of relevance.
    shape : tuple of int
        Of one sample's relevance.
    manifest : mapping
        Of this run.
    blowup : float
        Gains that are larger are counted.
    """

    place: Place
    kept: Kept
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    manifest: Mapping[str, Any]
    blowup: float = math.inf

    def part(self, number: int) -> Place:
        """The file of a part."""
        return self.place / f"part-{number:06}.parquet"

    def facts(self, number: int) -> Facts | None:
        """What is known of a part; None if it is not there, or damaged."""
        place = self.part(number)
        if not place.exists():
            return None
        parquet, arrow = _packages()
        try:
            with place.open() as file:
                return Facts.from_json(parquet.read_metadata(file).metadata[KEY])
        except (OSError, ValueError, KeyError, TypeError, arrow.ArrowException):
            return None

    def begin(self, number: int) -> OpenPart:
        """A part to write rows into."""
        return OpenPart(self, number)

    def schema(self) -> Any:
        """The columns, as Arrow describes them."""
        _, arrow = _packages()
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
        _, arrow = _packages()
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


class OpenPart:
    """A part that is being written: it appears when it is closed, and not at all if it is discarded."""

    def __init__(self, dataset: Dataset, number: int) -> None:
        parquet, _ = _packages()
        self._dataset = dataset
        self._place = dataset.part(number)
        self._stack = contextlib.ExitStack()
        file = self._stack.enter_context(self._place.writing())
        self._writer = parquet.ParquetWriter(file, dataset.schema(), compression="zstd")
        self._ids = hashlib.sha256()
        self._start: int | None = None
        self._count = self._failed = 0
        self._blowups: set[int] = set()
        self._worst = 0.0
        self._profile = Profile.empty(dataset.shape)

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows, which follow those before; raises `OutputError`."""
        with writing_into(self._place):
            self._writer.write_batch(self._dataset.batch(rows))
        for row in rows:
            if row.rank == 0:
                self._count_in(row)
            if row.error is None:
                self._worst = max(self._worst, row.unexplained)
            if row.gain > beyond(self._dataset.blowup):
                self._blowups.add(row.index)

    def _count_in(self, row: Row) -> None:
        self._start = row.index if self._start is None else self._start
        self._count += 1
        self._ids.update(json.dumps(row.id).encode() + b"\n")
        if row.relevance is None:
            self._failed += 1
        else:
            self._profile = self._profile.with_sample(row.relevance)

    def close(self) -> None:
        """Make the part appear; raises `OutputError`."""
        facts = Facts(
            self._start or 0, self._count, self._ids.hexdigest(), self._failed, self._worst, len(self._blowups),
            self._profile, self._dataset.manifest,
        )  # fmt: skip
        self._writer.add_key_value_metadata({KEY.decode(): facts.as_json()})
        with writing_into(self._place):
            self._writer.close()
        self._stack.close()

    def discard(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):
            self._writer.close()  # into the file that is removed
        with contextlib.suppress(Discarded):
            self._stack.__exit__(Discarded, Discarded(), None)


class Discarded(Exception):
    """A part is not to appear."""


def strongest(relevance: Array, k: int) -> NDArray[np.intp]:
    """The places of the `k` elements of largest magnitude in the flattened array, the strongest first."""
    return np.argsort(-np.abs(relevance.ravel()), kind="stable")[:k]


def _packages() -> tuple[Any, Any]:
    return need("pyarrow.parquet", EXTRA, "a Parquet data set"), need("pyarrow", EXTRA, "a Parquet data set")


def _lists(arrays: Sequence[NDArray[Any] | None], dtype: np.dtype[Any]) -> Any:
    """Arrays in one axis as a column of lists."""
    _, arrow = _packages()
    lengths = [0 if array is None else len(array) for array in arrays]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    given = [array for array in arrays if array is not None]
    values = np.concatenate(given).astype(dtype, copy=False) if given else np.zeros(0, dtype)
    missing = arrow.array([array is None for array in arrays])
    return arrow.ListArray.from_arrays(arrow.array(offsets), arrow.array(values), mask=missing)
