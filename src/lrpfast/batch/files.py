"""Files of one sample each: pictures, and arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..feeds import Arrays
from .decoding import Decoder
from .items import Item
from .places import Place


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
    """

    folder: Place
    names: Sequence[str]
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, start: int, stop: int) -> Iterator[str]:
        yield from self.names[start:stop]

    def items(self, start: int, stop: int) -> Iterator[Item]:
        for name in self.names[start:stop]:
            yield Item(name, partial(self._read, name))

    def _read(self, name: str) -> Arrays:
        return self.decoder.sample(resolved(self.folder, name).read(), name)


def resolved(folder: Place, name: str) -> Place:
    """The file that is called `name`, seen from a folder."""
    if "://" in name:
        return Place.at(name)
    return Place(folder.fs, name) if name.startswith("/") else folder / name
