"""What is explained: a long row of items, of which any stretch can be gone through."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from ..ops.base import Array
from .places import Place


@dataclass(frozen=True)
class Item:
    """One input.

    Attributes
    ----------
    id : str
        What it is called in the source.
    read : callable
        Decodes it: the network's input, without a batch axis. Raises `InputError` if it cannot.
    target : int, str or None
        What the source says of the output to explain.
    """

    id: str
    read: Callable[[], Array]
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
        """What is needed to go through a stretch, to be sent elsewhere: items keep their places."""

    def file(self) -> Place | None:
        """A file that is there, and that whoever can read the source sees; None if there is none."""


class Chain:
    """Several sources, one behind the other.

    Parameters
    ----------
    sources : sequence of Source
    start : int, default 0
        The place of the first item, where those before it were left out.
    """

    def __init__(self, sources: Sequence[Source], start: int = 0) -> None:
        self._sources = sources
        self._start = start
        self._ends = list(accumulate(map(len, sources), initial=start))[1:]

    def __len__(self) -> int:
        return self._ends[-1]

    def ids(self, start: int, stop: int) -> Iterator[str]:
        for source, first, last in self._stretches(start, stop):
            yield from source.ids(first, last)

    def items(self, start: int, stop: int) -> Iterator[Item]:
        for source, first, last in self._stretches(start, stop):
            yield from source.items(first, last)

    def only(self, start: int, stop: int) -> Chain:
        first, last = bisect.bisect_right(self._ends, start), bisect.bisect_left(self._ends, stop)
        return Chain(self._sources[first : last + 1], self._before(first))

    def file(self) -> Place | None:
        return self._sources[0].file()

    def _before(self, which: int) -> int:
        """The place of a source's first item."""
        return self._ends[which - 1] if which else self._start

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[Source, int, int]]:
        """Which items of which sources lie between `start` and `stop`."""
        while start < stop:
            which = bisect.bisect_right(self._ends, start)
            before = self._before(which)
            end = min(stop, self._ends[which])
            yield self._sources[which], start - before, end - before
            start = end
