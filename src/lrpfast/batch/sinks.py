"""Where relevance goes besides the rows: a Zarr array, and heatmaps."""

from __future__ import annotations

import io
import json
import math
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, OutputError
from ..extras import need
from ..image import heatmap, render
from .explaining import Row
from .places import EXTRA, Place, writing_into
from .settings import gone
from .stores import is_store

CHUNK_BYTES = 2**22
"""About how large the chunks of a Zarr array are."""

Mapped = Callable[[Callable[[Row], None], Iterable[Row]], Iterable[None]]


@dataclass(frozen=True, eq=False)
class ZarrSink:
    """A Zarr array (inputs, *shape), or (inputs, ranks, *shape) for ``topN``; NaN where an input failed."""

    place: Place
    array: Any
    ranks: int

    def write(self, rows: Sequence[Row]) -> None:
        """Write the rows of consecutive inputs; raises `OutputError`."""
        first, last = rows[0].index, rows[-1].index
        axes = 1 if self.ranks == 1 else 2
        shape = (last - first + 1, self.ranks, *self.array.shape[axes:])
        block = np.full(shape, np.nan, self.array.dtype)
        for row in rows:
            if row.relevance is not None:
                block[row.index - first, row.rank] = row.relevance
        with writing_into(self.place):
            self.array[first : last + 1] = block[:, 0] if self.ranks == 1 else block


def open_zarr(
    url: str,
    shape: tuple[int, ...],
    ranks: int,
    dtype: np.dtype[Any],
    part_rows: int,
    about: Mapping[str, Any],
    begun: bool,
) -> ZarrSink:
    """Make the array, or go on with the one that is there.

    Chunks never reach from one part of the job into the next.

    Parameters
    ----------
    url : str
    shape : tuple of int
        Of the relevance of all inputs for one rank.
    ranks : int
    dtype : dtype
    part_rows : int
    about : mapping
        ``settings`` and ``manifest``: the array's attributes.
    begun : bool
        Whether some of the job is done, so that the array has to be there.

    Raises
    ------
    OutputError
        The array cannot be made, or what is there belongs to something else.
    """
    zarr = need("zarr", EXTRA, "a Zarr array")
    whole = shape if ranks == 1 else (shape[0], ranks, *shape[1:])
    size = math.prod(whole[1:]) * dtype.itemsize
    rows = max(
        d for d in range(1, part_rows + 1) if part_rows % d == 0 and (d == 1 or d * size <= CHUNK_BYTES)
    )
    try:
        if not is_store(Place.at(url)):
            if begun:
                raise gone(url)
            made = zarr.create_array(
                url,
                shape=whole,
                chunks=(rows, *whole[1:]),
                dtype=dtype,
                fill_value=math.nan,
                attributes={"lrpfast": json.loads(json.dumps(about))},
            )
            return ZarrSink(Place.at(url), made, ranks)
        array = zarr.open_array(url, mode="r+")
        known = array.attrs.get("lrpfast", {})
    except OutputError:
        raise
    except Exception as error:  # each kind of store has its own ways to fail
        raise OutputError(f"cannot write the Zarr array {url!r}: {error}") from error
    if known.get("settings") != json.loads(json.dumps(about["settings"])):
        raise OutputError(f"the Zarr array {url!r} is not this job's; choose another place, or remove it")
    if array.shape[0] < whole[0]:
        array.resize(whole)
    return ZarrSink(Place.at(url), array, ranks)


@dataclass(frozen=True, eq=False)
class PictureSink:
    """A folder of heatmaps, ``INDEX-NAME.png``; each says in a text chunk what it shows."""

    folder: Place
    ranks: int
    about: Mapping[str, Any]

    def write(self, rows: Sequence[Row], mapped: Mapped) -> None:
        """Draw the rows, with as many threads as `mapped` has."""
        for _ in mapped(self._draw, [row for row in rows if row.relevance is not None]):
            pass

    def _draw(self, row: Row) -> None:
        from PIL.PngImagePlugin import PngInfo

        assert row.relevance is not None
        text = PngInfo()
        facts = {**self.about, "index": row.index, "id": row.id, "target": row.target, "score": row.score}
        text.add_itxt("lrpfast", json.dumps(facts))
        buffer = io.BytesIO()
        render(row.relevance).save(buffer, "PNG", pnginfo=text)
        (self.folder / self._name(row)).write(buffer.getvalue(), flush=False)

    def _name(self, row: Row) -> str:
        stem = re.sub(r"[^\w.-]+", "_", posixpath.splitext(posixpath.basename(row.id))[0]).strip("._")[:80]
        rank = "" if self.ranks == 1 else f"-{row.rank}"
        return f"{row.index:08}-{stem or 'input'}{rank}.png"


def check_drawable(shape: tuple[int, ...]) -> None:
    """Raise an `InputError` if relevance of this shape is no picture."""
    try:
        heatmap(np.zeros(shape))
    except InputError as error:
        raise InputError(f"relevance of shape {shape} cannot be drawn: {error}") from error
