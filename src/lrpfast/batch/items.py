"""What is explained: a long row of items, of which any stretch can be gone through."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

from ..feeds import Arrays
from .places import Place


@dataclass(frozen=True)
class Item:
    """One input.

    Attributes
    ----------
    id : str
        What it is called in the source.
    read : callable
        Decodes it: the network's inputs, without a batch axis. Raises `InputError` if it cannot.
    target : int, str or None
        What the source says of the output to explain.
    """

    id: str
    read: Callable[[], Arrays]
    target: Any = None


class Source(Protocol):
    """A fixed row of items."""

    def __len__(self) -> int:
        """How many there are."""

    def ids(self, start: int, stop: int) -> Iterator[str]:
        """What the items of a stretch are called."""

    def items(self, start: int, stop: int) -> Iterator[Item]:
        """The items of a stretch, read no further ahead than need be."""

    def only(self, start: int, stop: int) -> Source:
        """So much of it as a stretch needs, to be sent elsewhere; items keep their places, it keeps its length."""

    def file(self) -> Place | None:
        """A file that is there, and that whoever can read the source sees; None if there is none."""


class Together:
    """Several sources side by side, each of one of the inputs, with as many items; the first one names them."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __len__(self) -> int:
        return len(self._sources[0])

    def ids(self, start: int, stop: int) -> Iterator[str]:
        return self._sources[0].ids(start, stop)

    def only(self, start: int, stop: int) -> Together:
        return Together([source.only(start, stop) for source in self._sources])

    def file(self) -> Place | None:
        return self._sources[0].file()

    def items(self, start: int, stop: int) -> Iterator[Item]:
        for together in zip(*(source.items(start, stop) for source in self._sources), strict=True):
            yield Item(together[0].id, partial(_all, [item.read for item in together]))


def _all(reads: Sequence[Callable[[], Arrays]]) -> Arrays:
    return tuple(array for read in reads for array in read())


class Chain:
    """Several sources, one behind the other.

    Parameters
    ----------
    sources : sequence of Source
    start : int, default 0
        The place of the first item, where those before it were left out.
    length : int, optional
        Items of all, where some were left out.
    """

    def __init__(self, sources: Sequence[Source], start: int = 0, length: int | None = None) -> None:
        self._sources = sources
        self._start = start
        self._ends = list(accumulate(map(len, sources), initial=start))[1:]
        self._length = self._ends[-1] if length is None else length

    def __len__(self) -> int:
        return self._length

    def only(self, start: int, stop: int) -> Chain:
        stretches = list(self._stretches(start, stop))
        before = start - stretches[0][1] if stretches else 0
        return Chain([source for source, _, _ in stretches], before, self._length)

    def file(self) -> Place | None:
        return self._sources[0].file()

    def ids(self, start: int, stop: int) -> Iterator[str]:
        for source, first, last in self._stretches(start, stop):
            yield from source.ids(first, last)

    def items(self, start: int, stop: int) -> Iterator[Item]:
        for source, first, last in self._stretches(start, stop):
            yield from source.items(first, last)

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[Source, int, int]]:
        """Which items of which sources lie between `start` and `stop`."""
        while start < stop:
            which = bisect.bisect_right(self._ends, start)
            before = self._ends[which - 1] if which else self._start
            end = min(stop, self._ends[which])
            yield self._sources[which], start - before, end - before
            start = end
