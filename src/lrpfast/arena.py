"""Memory of a plan: every array gets its place in one arena, which it leaves to others when it is dead."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from .steps import Draft, View

ALIGNMENT = 64  # bytes: a cache line


@dataclass
class Place:
    """A piece of memory for one array, or for arrays that follow one another in it.

    Attributes
    ----------
    nbytes : int
        Per sample.
    first, last : int
        When it is written first and used last.
    offset : int
    """

    nbytes: int
    first: int
    last: int
    offset: int = -1


def laid_out(draft: Draft, numbers: Sequence[View]) -> tuple[Draft, int]:
    """Give every array its offset in the arena.

    Parameters
    ----------
    draft : Draft
    numbers : sequence of View
        Arrays that lie one behind the other at the arena's end, for the whole of a run.

    Returns
    -------
    draft : Draft
    nbytes : int
        What the arena takes per sample.
    """
    places = _places(draft, frozenset(view.array for view in numbers))
    end = _settle(list({id(place): place for place in places.values()}.values()))
    offsets = {name: place.offset for name, place in places.items()}
    for view in numbers:
        offsets[view.array] = end
        end += view.nbytes

    def move(view: View) -> View:
        return replace(view, offset=offsets[view.array])

    forward, vjp = (tuple(step.moved(move) for step in steps) for steps in (draft.forward, draft.vjp))
    recorded = {name: move(view) for name, view in draft.recorded.items()}
    initial, relevance = (None if v is None else move(v) for v in (draft.initial, draft.relevance))
    return Draft(forward, vjp, move(draft.input), move(draft.output), initial, relevance, recorded), end


def _places(draft: Draft, elsewhere: frozenset[str]) -> dict[str, Place]:
    """A place for each array but those that are `elsewhere`."""
    last = _last_uses(draft)
    places: dict[str, Place] = {}

    def new(view: View, time: int) -> None:
        places[view.array] = Place(_rounded(view.nbytes), time, last.get(view.array, time))

    new(draft.input, 0)
    if draft.initial is not None:
        new(draft.initial, len(draft.forward))
    for time, step in enumerate((*draft.forward, *draft.vjp)):
        read = [places.get(view.array) for view in step.inputs()]
        for view in step.outputs():
            if view.array in elsewhere:
                continue
            candidates = (places.get(old.array) for out, old in step.replaced() if out.array == view.array)
            before = next((p for p in candidates if p and _may_replace(p, view, time, read)), None)
            if before is not None:
                before.last = last[view.array]
                places[view.array] = before
            else:
                new(view, time)
    return places


def _may_replace(before: Place, view: View, time: int, read: Sequence[Place | None]) -> bool:
    """Whether an array may be written where one lies that it is made of: nothing else reads that, now or later."""
    reads = sum(place is before for place in read)
    return before.last == time and reads <= 1 and before.nbytes == _rounded(view.nbytes)


def _last_uses(draft: Draft) -> dict[str, int]:
    """For each array, the number of the last step that makes or reads it."""
    last: dict[str, int] = {}
    for time, step in enumerate((*draft.forward, *draft.vjp)):
        last.update((view.array, time) for view in (*step.inputs(), *step.outputs()))
    last[draft.output.array] = max(last.get(draft.output.array, 0), len(draft.forward))
    last.update((view.array, len(draft.forward) + len(draft.vjp)) for view in draft.results())
    return last


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _settle(places: list[Place]) -> int:
    """Place the largest first, each in the smallest gap that it fits; returns the sum."""
    settled: list[Place] = []  # by offset
    for place in sorted(places, key=lambda p: -p.nbytes):
        best, smallest, end = None, 0, 0
        for other in settled:
            if other.first > place.last or other.last < place.first:
                continue  # they are never in use at one time
            gap = other.offset - end
            if gap >= place.nbytes and (best is None or gap < smallest):
                best, smallest = end, gap
            end = max(end, other.offset + other.nbytes)
        place.offset = end if best is None else best
        insort(settled, place, key=attrgetter("offset"))
    return max((p.offset + p.nbytes for p in places), default=0)
