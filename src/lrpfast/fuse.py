"""Fusion: a step that does something to every element of an array becomes the end of the step that makes it.

What is saved is a pass over memory. A consumer moves up to its producer, so everything else that it reads
must be there by then; an array that it takes the place of must have no other reader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .backends.ending import WHOLE, Ending, Quotient
from .steps import Draft, KernelCall, Step, View, mapped


def fused(draft: Draft) -> Draft:
    """The draft with as many steps as possible made ends of others."""
    readers = Counter(view.array for step in (*draft.forward, *draft.vjp) for view in step.inputs())
    readers[draft.output.array] += 1
    readers.update(view.array for back in draft.backs for view in back.results())
    forward = _Fusion(readers).run(draft.forward)
    backs = tuple(replace(back, steps=_Fusion(readers).run(back.steps)) for back in draft.backs)
    return replace(draft, forward=forward, backs=backs)


class _Fusion:
    def __init__(self, readers: Counter[str]) -> None:
        self.readers = readers
        self.steps: list[Step] = []
        self.maker: dict[str, int] = {}  # which of the steps makes an array

    def run(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        for step in steps:
            place, merged = self.merged(step) or (len(self.steps), step)
            if place == len(self.steps):
                self.steps.append(merged)
            else:
                self.steps[place] = merged
            self.maker.update(dict.fromkeys(merged.writes(), place))
        return tuple(self.steps)

    def merged(self, step: Step) -> tuple[int, KernelCall] | None:
        """The step as the end of an earlier one, and that one's place; None if it stays."""
        if not isinstance(step, KernelCall):
            return None
        if step.kernel == "collect":
            return self.collected(step, step.end)
        if step.kernel == "divide":
            return self.divided(step, step.end)
        return self.summed(step) if step.kernel == "sums" else None

    def producer(self, view: View, alone: bool = True) -> tuple[int, KernelCall, Ending] | None:
        """The step that makes an array, if its ending has room; `alone` if nothing else may read the array."""
        place = self.maker.get(view.array)
        step = None if place is None else self.steps[place]
        if place is None or not isinstance(step, KernelCall) or step.end is None or step.end.sums is not None:
            return None
        if step.end.out.array != view.array:
            return None
        if alone and (self.readers[view.array] != 1 or step.end.clamp or step.end.quotient or step.end.kept):
            return None
        return place, step, step.end

    def there(self, place: int, *values: View | Quotient | None) -> bool:
        """Whether all arrays have been made before the step at `place`."""
        return all(self.maker.get(view.array, -1) < place for value in values for view in _views(value))

    def collected(self, step: KernelCall, end: Ending | None) -> tuple[int, KernelCall] | None:
        """`collect` of a whole array: a sum with another, a clamp, or both."""
        assert end is not None
        if step.arguments["src_part"] != WHOLE or end.times is not None:
            return None
        if end.quotient is not None:
            return self.divided_sum(step, end, end.quotient)
        if end.bias is not None:
            return None
        pairs = [(step.arguments["src"], end.plus)]
        if end.plus is not None and end.plus_factor == 1:
            pairs.append((end.plus, step.arguments["src"]))
        found = []
        for source, plus in pairs:
            producer = self.producer(source, alone=False)
            if producer is None or not self.there(producer[0], plus):
                continue
            place, maker, its = producer
            shared = self.readers[source.array] > 1  # so it has to be kept
            if its.clamp or its.quotient or ((its.kept or its.plus) and (plus or shared)):
                continue
            changes: dict[str, Any] = {"out": end.out.like(its.out), "clamp": end.clamp}
            if shared:
                changes["kept"] = its.out
            if plus is not None:
                changes |= {"plus": plus.like(its.out), "plus_factor": end.plus_factor}
            found.append((place, maker, changes))
        if not found:
            return None
        place, maker, changes = max(found, key=lambda f: f[0])
        if "kept" in changes:
            self.readers[changes["kept"].array] -= 1
        return place, maker.ending(f"with {step.node}", **changes)

    def divided_sum(self, step: KernelCall, end: Ending, quotient: Quotient) -> tuple[int, KernelCall] | None:
        """`collect` of what a product makes: a sum with another array, and the division by it."""
        producer = self.producer(step.arguments["src"])
        if producer is None or not self.there(producer[0], end.plus, quotient):
            return None
        place, maker, its = producer
        if its.out.rows != 1 or its != Ending(its.out):
            return None
        note = "; ".join(filter(None, (step.form, "then divided")))
        plus = None if end.plus is None else end.plus.like(its.out)
        changes = replace(end, out=end.out.like(its.out), plus=plus, quotient=_like(quotient, its.out))
        return place, maker.ending(note, **vars(changes))

    def divided(self, step: KernelCall, end: Ending | None) -> tuple[int, KernelCall] | None:
        """A division by what a product makes."""
        assert end is not None
        z = step.arguments["z"]
        if not isinstance(z, View) or step.arguments["norm_size"] or end.sums is not None:
            return None
        producer = self.producer(z)
        if producer is None or producer[2].out.rows != 1 or not self.there(producer[0], end.quotient):
            return None
        place, maker, its = producer
        assert end.quotient is not None
        quotient = _like(end.quotient, its.out)
        note = "; ".join(filter(None, (step.form, "then divided")))
        return place, maker.ending(note, out=end.out.like(its.out), quotient=quotient)

    def summed(self, step: KernelCall) -> tuple[int, KernelCall] | None:
        """The sums of an array, taken while it is written."""
        producer = self.producer(step.arguments["src"], alone=False)
        if producer is None or producer[2].out.rows != 1:
            return None
        self.readers[step.arguments["src"].array] -= 1
        return producer[0], producer[1].ending("", sums=step.arguments["out"])


def _views(value: View | Quotient | None) -> list[View]:
    if value is None or isinstance(value, View):
        return [] if value is None else [value]
    return [view for view in (value.r, value.gate_z) if view is not None]


def _like(quotient: Quotient, out: View) -> Quotient:
    """The quotient with its arrays in the shape of `out`; the ledger keeps its own."""
    changed: Quotient = mapped(replace(quotient, ledger=None), lambda view: view.like(out))
    return replace(changed, ledger=quotient.ledger)
