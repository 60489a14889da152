"""Memory of a plan: every array gets its place in one arena, which it leaves to others when it is dead."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from .steps import Back, Draft, Step, View

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


def laid_out(draft: Draft) -> tuple[Draft, int]:
    """Give every array its offset in the arena, at whose end lie the numbers of the ledgers, for the whole of a run.

    Returns
    -------
    draft : Draft
    nbytes : int
        What the arena takes per sample.
    """
    numbers = [view for back in draft.backs for view in back.numbers]
    places = _places(draft, frozenset(view.array for view in numbers))
    end = _settle(list({id(place): place for place in places.values()}.values()))
    offsets = {name: place.offset for name, place in places.items()}
    for view in numbers:
        offsets[view.array] = end
        end += view.nbytes

    def move(view: View) -> View:
        return replace(view, offset=offsets[view.array])

    def moved(back: Back) -> Back:
        return replace(
            back,
            steps=tuple(step.moved(move) for step in back.steps),
            initial=move(back.initial),
            relevance=tuple(map(move, back.relevance)),
            recorded={name: move(view) for name, view in back.recorded.items()},
            numbers=tuple(map(move, back.numbers)),
        )

    forward = tuple(step.moved(move) for step in draft.forward)
    backs = tuple(map(moved, draft.backs))
    return replace(
        draft, forward=forward, inputs=tuple(map(move, draft.inputs)), output=move(draft.output), backs=backs
    ), end


def _places(draft: Draft, elsewhere: frozenset[str]) -> dict[str, Place]:
    """A place for each array but those that are `elsewhere`."""
    last = _last_uses(draft)
    places: dict[str, Place] = {}

    def new(view: View, time: int) -> None:
        places[view.array] = Place(_rounded(view.nbytes), time, last.get(view.array, time))

    def add(step: Step, time: int) -> None:
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

    for view in draft.inputs:
        new(view, 0)
    for time, step in enumerate(draft.forward):
        add(step, time)
    start = len(draft.forward)
    for back in draft.backs:
        new(back.initial, start)
        for time, step in enumerate(back.steps, start):
            add(step, time)
        start += len(back.steps)
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
    before = end = len(draft.forward)
    last[draft.output.array] = max(last.get(draft.output.array, 0), before)
    for back in draft.backs:
        end += len(back.steps)
        last.update((view.array, end) for view in back.results())
    if draft.keeps:  # what the forward pass makes for a pass back is to be there for the next one
        made = {view.array for view in draft.inputs} | {
            *(name for step in draft.forward for name in step.writes())
        }
        last.update((name, end) for name in made if last.get(name, 0) >= before)
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
