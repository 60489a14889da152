"""Arrays that are needed before and after a clamp are kept before it, and whoever reads them clamps.

What is saved is one of two arrays: writing it, and its place in the arena, which decides whether a run stays in the
cache. It is for readers that clamp at no cost: depthwise convolutions, and endings in `times`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .steps import Draft, KernelCall, Step, View


def clamped_by_readers(draft: Draft) -> Draft:
    """The draft without the arrays that all of their readers can make by themselves."""
    steps = (*draft.forward, *draft.vjp)
    given = {draft.output.array, *(view.array for back in draft.backs for view in back.results())}
    kept: dict[
        str, tuple[View, float]
    ] = {}  # by the clamped array's name: the other, and where it is cut off
    for step in draft.forward:
        found = _both(step)
        if found is not None and found[0] not in given and all(_can_clamp(s, found[0]) for s in steps):
            kept[found[0]] = found[1:]
    if not kept:
        return draft
    return replace(
        draft,
        forward=tuple(_changed(step, kept) for step in draft.forward),
        backs=tuple(
            replace(back, steps=tuple(_changed(step, kept) for step in back.steps)) for back in draft.backs
        ),
    )


def _both(step: Step) -> tuple[str, View, float] | None:
    """If a step writes an array as it is before and after `min(max(…, 0), high)`: the latter, the former, high."""
    end = step.end if isinstance(step, KernelCall) else None
    if end is None or end.kept is None or end.clamp is None or end.plus is not None or end.sums is not None:
        return None
    _, low, high = end.clamp
    return (end.out.array, end.kept, high) if low == 0 and high > 0 else None


def _can_clamp(step: Step, array: str) -> bool:
    """Whether a step reads an array, if at all, only where it can clamp it."""
    reads = sum(view.array == array for view in step.inputs())
    if reads == 0:
        return True
    if not isinstance(step, KernelCall) or step.arguments.get("other_part") is not None:
        return False
    return reads == (_src_clamps(step, array) + _times_clamp(step, array))


def _src_clamps(step: KernelCall, array: str) -> bool:
    return step.arguments.get("src_high") == math.inf and step.arguments["src"].array == array


def _times_clamp(step: KernelCall, array: str) -> bool:
    end = step.end
    return (
        end is not None and end.times is not None and end.times.array == array and end.times_high == math.inf
    )


def _changed(step: Step, kept: Mapping[str, tuple[View, float]]) -> Step:
    """The step without writing the clamped arrays, and clamping those that it reads."""
    if not isinstance(step, KernelCall):
        return step
    end = step.end
    if end is not None and end.out.array in kept:
        step = step.ending("clamped by its readers", out=end.kept, kept=None, clamp=None)
    for array, (before, high) in kept.items():
        if _src_clamps(step, array):
            src, positive = step.arguments["src"], step.arguments["src_part"][0]
            changes: dict[str, Any] = {"src": before.like(src), "src_part": (positive, 0.0), "src_high": high}
            step = replace(step, arguments={**step.arguments, **changes})
        if end is not None and _times_clamp(step, array):
            part = (end.times_part[0], 0.0)
            step = step.ending("", times=before.like(end.times), times_part=part, times_high=high)
    return step
