"""The end of the pipeline: rows into parts, and relevance to wherever else it goes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

from .encoding import Encoded
from .explaining import Row, Sample
from .parts import Dataset, OpenPart
from .sinks import Sinks


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples that are explained together; all of one part.

    Attributes
    ----------
    part : int
    samples : sequence of Sample
    last : bool
        Whether the part ends with them.
    """

    part: int
    samples: Sequence[Sample]
    last: bool

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True, eq=False)
class Rows:
    """What became of a batch.

    Attributes
    ----------
    part, last
        As those of the `Batch`.
    encoded : Encoded
        For the part.
    elsewhere : sequence of Row
        The same for what writes elsewhere; empty if nothing does.
    """

    part: int
    last: bool
    encoded: Encoded
    elsewhere: Sequence[Row]


class Written(NamedTuple):
    """What was written: so many inputs, of which some failed; negative where so many were lost again."""

    inputs: int
    failed: int


class Writer:
    """Writes the rows of batches, which come in order.

    Parameters
    ----------
    dataset : Dataset
    sinks : Sinks
    pool : Executor
        Draws.
    """

    def __init__(self, dataset: Dataset, sinks: Sinks, pool: Executor) -> None:
        self._dataset = dataset
        self._sinks = sinks
        self._pool = pool
        self._open: OpenPart | None = None

    def write(self, rows: Rows) -> Written:
        """Write a batch; its part appears with the last, when all that belongs to it is written elsewhere."""
        if self._open is None:
            self._open = self._dataset.begin(rows.part)
        if self._sinks.zarr is not None:
            self._sinks.zarr.write(rows.elsewhere)
        if self._sinks.pictures is not None:
            self._sinks.pictures.write(rows.elsewhere, self._pool.map)
        self._open.add(rows.encoded)
        if rows.last:
            self._open.close()
            self._open = None
        return Written(len(rows.encoded.ids), rows.encoded.failed)

    def discard(self) -> None:
        """Give up the part that is not whole."""
        if self._open is not None:
            self._open.discard()
            self._open = None
