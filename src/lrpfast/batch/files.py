"""Files of one sample each: pictures, and arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..feeds import Arrays
from .decoding import Decoder
from .items import Item
from .places import Place

LOOKED_AT = 100
"""If of so many files none is there, the others are taken to be missing, too."""


@dataclass(frozen=True, eq=False)
class Files:
    """A source of files.

    Attributes
    ----------
    folder : Place
        What the names are relative to; absolute paths and URLs stand for themselves.
    names : sequence of str
        The items' ids.
    decoder : Decoder
    start : int, default 0
        The place of the first name, where those before it were left out.
    length : int, optional
        How many items there are, where names were left out.
    """

    folder: Place
    names: Sequence[str]
    decoder: Decoder
    start: int = 0
    length: int | None = None

    def __len__(self) -> int:
        return len(self.names) if self.length is None else self.length

    def ids(self, start: int, stop: int) -> Iterator[str]:
        yield from self.names[start - self.start : stop - self.start]

    def items(self, start: int, stop: int) -> Iterator[Item]:
        for name in self.ids(start, stop):
            yield Item(name, partial(self._read, name))

    def only(self, start: int, stop: int) -> Files:
        return Files(self.folder, list(self.ids(start, stop)), self.decoder, start, len(self))

    def file(self) -> Place | None:
        places = (resolved(self.folder, name) for name in self.names[:LOOKED_AT])
        return next((place for place in places if place.exists()), None)

    def _read(self, name: str) -> Arrays:
        return self.decoder.sample(resolved(self.folder, name).read(), name)


def resolved(folder: Place, name: str) -> Place:
    """The file that is called `name`, seen from a folder."""
    if "://" in name:
        return Place.at(name)
    return Place(folder.fs, name) if name.startswith("/") else folder / name
