"""Where relevance goes besides the rows: a Zarr array, and heatmaps."""

from __future__ import annotations

import io
import json
import math
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, OutputError
from ..image import SAVING, heatmap, render
from ..ops.base import Array
from .explaining import Row
from .inputs import Shape, Shapes, by_name
from .places import Place, writing_into
from .settings import gone
from .stores import is_store, zarr_package

CHUNK_BYTES = 2**22
"""About how large the chunks of a Zarr array are."""

Mapped = Callable[[Callable[[Row], None], Iterable[Row]], Iterable[None]]


@dataclass(frozen=True, eq=False)
class ZarrSink:
    """Zarr arrays, one for each input, (inputs, *shape), or (inputs, ranks, *shape) for ``topN``; NaN where an input
    failed."""

    place: Place
    arrays: Sequence[Any]
    ranks: int

    def write(self, rows: Sequence[Row]) -> None:
        """Write the rows of consecutive inputs; raises `OutputError`."""
        first, last = rows[0].index, rows[-1].index
        for which, array in enumerate(self.arrays):
            shape = (last - first + 1, self.ranks, *array.shape[1 if self.ranks == 1 else 2 :])
            block = np.full(shape, np.nan, array.dtype)
            for row in rows:
                if row.relevance is not None:
                    block[row.index - first, row.rank] = row.relevance[which]
            with writing_into(self.place):
                array[first : last + 1] = block[:, 0] if self.ranks == 1 else block


def open_zarr(
    url: str,
    inputs: int,
    ranks: int,
    shapes: Shapes,
    dtype: np.dtype[Any],
    part_rows: int,
    about: Mapping[str, Any],
    begun: bool,
) -> ZarrSink:
    """Make the arrays, or go on with those that are there.

    Chunks never reach from one part of the job into the next.

    Parameters
    ----------
    url : str
        Of the array, or of the group that holds one for each of several inputs.
    inputs : int
        How many samples there are.
    ranks : int
    shapes : tuple of int, or mapping of name to tuple of int
        Of one sample's relevance.
    dtype : dtype
    part_rows : int
    about : mapping
        ``settings`` and ``manifest``: the attributes of the array or group.
    begun : bool
        Whether some of the job is done, so that the arrays have to be there.

    Raises
    ------
    OutputError
        The arrays cannot be made, or what is there belongs to something else.
    """
    zarr = zarr_package()
    noted = json.loads(json.dumps(about))
    several = isinstance(shapes, Mapping)
    wholes = {
        name: (inputs, *([] if ranks == 1 else [ranks]), *shape) for name, shape in by_name(shapes).items()
    }
    try:
        found = _opened(zarr, url, wholes, {"lrpfast": noted}, dtype, part_rows, begun)
        known = found.attrs.get("lrpfast", {})
        arrays = [found[name] for name in wholes] if several else [found]
    except OutputError:
        raise
    except Exception as error:  # each kind of store has its own ways to fail
        raise OutputError(f"cannot write the Zarr array {url!r}: {error}") from error
    if known.get("settings") != noted["settings"]:
        raise OutputError(f"the Zarr array {url!r} is not this job's; choose another place, or remove it")
    for array, whole in zip(arrays, wholes.values(), strict=True):
        if array.shape[0] < inputs:
            array.resize(whole)
    return ZarrSink(Place.at(url), arrays, ranks)


def _opened(
    zarr: Any,
    url: str,
    wholes: Mapping[str, Shape],
    attributes: Mapping[str, Any],
    dtype: np.dtype[Any],
    part_rows: int,
    begun: bool,
) -> Any:
    """The array, or the group of several, made if it is not there, and nothing of the job is done."""
    there, several = is_store(Place.at(url)), "" not in wholes
    if begun and not there:
        raise gone(url)
    if not several and there:
        return zarr.open_array(url, mode="r+")
    if not several:
        return zarr.create_array(url, attributes=attributes, **_how(wholes[""], dtype, part_rows))
    group = zarr.open_group(url, mode="r+" if there else "w-", attributes=None if there else attributes)
    for name, whole in wholes.items():
        if name not in group and not begun:  # the job may have been stopped in between
            group.create_array(name, **_how(whole, dtype, part_rows))
    return group


def _how(whole: Shape, dtype: np.dtype[Any], part_rows: int) -> dict[str, Any]:
    """How an array for all inputs is made."""
    size = math.prod(whole[1:]) * dtype.itemsize
    rows = max(
        d for d in range(1, part_rows + 1) if part_rows % d == 0 and (d == 1 or d * size <= CHUNK_BYTES)
    )
    return {"shape": whole, "chunks": (rows, *whole[1:]), "dtype": dtype, "fill_value": math.nan}


@dataclass(frozen=True, eq=False)
class PictureSink:
    """A folder of heatmaps, ``INDEX-NAME.png``; each says in a text chunk what it shows.

    Of several inputs those are drawn that can be, under ``INDEX-NAME-INPUT.png``.
    """

    folder: Place
    ranks: int
    shapes: Shapes
    about: Mapping[str, Any]

    def write(self, rows: Sequence[Row], mapped: Mapped) -> None:
        """Draw the rows, with as many threads as `mapped` has."""
        for _ in mapped(self._draw, [row for row in rows if row.relevance is not None]):
            pass

    def _draw(self, row: Row) -> None:
        assert row.relevance is not None
        for (name, shape), relevance in zip(by_name(self.shapes).items(), row.relevance, strict=True):
            if _is_drawable(shape):
                self._draw_one(row, name, relevance)

    def _draw_one(self, row: Row, name: str, relevance: Array) -> None:
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        facts = {**self.about, "index": row.index, "id": row.id, "target": row.target, "score": row.score}
        facts.update({"input": name} if name else {})
        text.add_itxt("lrpfast", json.dumps(facts))
        buffer = io.BytesIO()
        render(relevance).save(buffer, "PNG", pnginfo=text, **SAVING["PNG"])
        (self.folder / self._name(row, name)).write(buffer.getvalue(), flush=False)

    def _name(self, row: Row, name: str) -> str:
        stem = _plain(posixpath.splitext(posixpath.basename(row.id))[0]) or "input"
        rank = "" if self.ranks == 1 else f"-{row.rank}"
        which = f"-{_plain(name)}" if name else ""
        return f"{row.index:08}-{stem}{rank}{which}.png"


def check_drawable(shapes: Shapes) -> None:
    """Raise an `InputError` if relevance of these shapes is no picture, nor that of any of several inputs."""
    if not any(map(_is_drawable, by_name(shapes).values())):
        raise InputError(
            f"relevance of shape {shapes} cannot be drawn; expected (h, w), (c, h, w) or (h, w, c), c = 1 or 3"
        )


class Sinks(NamedTuple):
    """Those that are asked for."""

    zarr: ZarrSink | None
    pictures: PictureSink | None


@cache
def _is_drawable(shape: Shape) -> bool:
    try:
        heatmap(np.zeros(shape))
    except InputError:
        return False
    return True


def _plain(name: str) -> str:
    """A name, or so much of it, as it may stand in that of a file."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:80]
