"""The end of the pipeline: rows into parts, and relevance to wherever else it goes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

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


class Written(NamedTuple):
    """What was written: so many inputs, of which some failed."""

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

    def write(self, work: tuple[Batch, Sequence[Row]]) -> Written:
        """Write a batch; its part appears with the last, when all that belongs to it is written elsewhere."""
        batch, rows = work
        if self._open is None:
            self._open = self._dataset.begin(batch.part)
        if self._sinks.zarr is not None:
            self._sinks.zarr.write(rows)
        if self._sinks.pictures is not None:
            self._sinks.pictures.write(rows, self._pool.map)
        self._open.add(rows)
        if batch.last:
            self._open.close()
            self._open = None
        return Written(len(batch), sum(sample_failed(row) for row in rows))

    def discard(self) -> None:
        """Give up the part that is not whole."""
        if self._open is not None:
            self._open.discard()
            self._open = None


def sample_failed(row: Row) -> bool:
    """Whether the row says, first among those of its input, that it failed."""
    return row.rank == 0 and row.error is not None
