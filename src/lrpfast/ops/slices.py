"""Readers of the ONNX operators that become `Slice` or `Pad`: Slice, Split, Gather, Pad."""

from __future__ import annotations

from ..errors import ModelError
from .base import Op
from .embedding import Embedding
from .movement import Pad, Reshape, Slice
from .parameters import integers
from .reading import BATCH, OnnxNode, Unsupported, reads

LARGE = 2**31 - 1
"""Ends from here on mean the end of the axis, whatever its size."""


@reads("Slice")
def _read_slice(node: OnnxNode) -> Slice:
    shape = node.fact(0).shape
    rank = 1 + len(shape)
    bounds = (node.integers_or_input("starts", 1, 10), node.integers_or_input("ends", 2, 10))
    first, last = (bound or () for bound in bounds)
    axes = node.integers_or_input("axes", 3, 10) or tuple(range(len(first)))
    steps = node.sizes(4) if node.opset >= 10 and node.has(4) else (1,) * len(first)
    if not len(first) == len(last) == len(axes) == len(steps):
        raise ModelError(f"starts {first}, ends {last}, axes {axes}, steps {steps} differ in length")
    ranges = [range(n) for n in shape]
    for start, end, axis, step in zip(first, last, axes, steps, strict=True):
        if axis in (0, -rank) and start == 0 and step == 1 and (end is BATCH or end >= LARGE):
            continue  # all of the batch
        if start is None or end is None or not step:
            raise Unsupported(f"it slices from {start} to {end} in steps of {step} on axis {axis}")
        place = node.axis(axis, rank)
        ranges[place] = ranges[place][slice(start, end, step)]
        if not ranges[place]:
            raise ModelError(f"its slice {start}:{end}:{step} of axis {axis} (size {shape[place]}) is empty")
    return _slice(ranges)


def _slice(ranges: list[range]) -> Slice:
    """The elements of `ranges`, one per axis of a sample."""
    return Slice(tuple(r.start for r in ranges), tuple(r.step for r in ranges), tuple(len(r) for r in ranges))


@reads("Split", many_outputs=True)
def _read_split(node: OnnxNode) -> Slice:
    shape = node.fact(0).shape
    axis = node.axis(node.integer("axis", 0), 1 + len(shape))
    size, parts = shape[axis], len(node.outputs)
    lengths = node.integers_or_input("split", 1, since=13)
    if lengths is None:
        # Equal parts; from opset 18 on the last one may be smaller.
        each = -(-size // parts)
        lengths = (each,) * (parts - 1) + (size - each * (parts - 1),)
    if len(lengths) != parts or BATCH in lengths or sum(n or 0 for n in lengths) != size:
        raise ModelError(f"it splits an axis of {size} into {parts} parts of sizes {lengths}")
    ranges = [range(n) for n in shape]
    begin = sum(n or 0 for n in lengths[: node.wanted])
    ranges[axis] = range(begin, begin + (lengths[node.wanted] or 0))
    return _slice(ranges)


@reads("Gather")
def _read_gather(node: OnnxNode) -> Op | tuple[Op, ...]:
    """An embedding, or what is a slice: one index, or indices in equal steps."""
    if node.is_constant(0):
        if node.integer("axis", 0) != 0:
            raise Unsupported("its indices, which are computed, choose along another axis than the first")
        return Embedding(node.weights(0))
    shape = node.fact(0).shape
    axis = node.axis(node.integer("axis", 0), 1 + len(shape))
    indices = node.constant(1)
    if indices.ndim > 1 or not indices.size:
        raise Unsupported(f"its indices have shape {indices.shape}; expected one index or a list of them")
    places = [int(n) % shape[axis] if -shape[axis] <= n < shape[axis] else -1 for n in indices.reshape(-1)]
    if min(places) < 0:
        raise ModelError(f"its indices {indices.tolist()} are out of range for an axis of {shape[axis]}")
    step = places[1] - places[0] if len(places) > 1 else 1
    run = range(places[0], places[0] + step * len(places), step or 1)
    if list(run) != places:
        raise Unsupported(f"its indices {indices.tolist()} are not in equal steps")
    ranges = [range(n) for n in shape]
    ranges[axis] = run
    if indices.ndim:
        return _slice(ranges)
    return _slice(ranges), Reshape((*shape[:axis], *shape[axis + 1 :]))


@reads("Pad")
def _read_pad(node: OnnxNode) -> Op | tuple[Op, ...]:
    shape = node.fact(0).shape
    rank = 1 + len(shape)
    if node.string("mode", "constant") != "constant":
        raise Unsupported(f"mode is {node.string('mode', '')!r}; only 'constant' is supported")
    stated = node.integers_or_input("pads", 1, since=11) or ()
    value = node.number("value", 0.0) if node.opset < 11 else node.scalar(2, 0.0)
    axes: tuple[int | None, ...] = node.sizes(3) if node.has(3) else tuple(range(rank))
    pads = integers("pads", (n if n is not None else -1 for n in stated), 2 * len(axes))
    begins, ends = [0] * len(shape), [0] * len(shape)
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if begin or end:
            place = node.axis(axis, rank)
            begins[place], ends[place] = begin, end
    # Negative pads cut off.
    kept = [range(n)[max(0, -a) : n - max(0, -b)] for n, a, b in zip(shape, begins, ends, strict=True)]
    border = Pad(tuple(max(0, n) for n in (*begins, *ends)), value)
    if min(begins + ends, default=0) >= 0:
        return border
    return (_slice(kept), border) if any(border.pads) else _slice(kept)
