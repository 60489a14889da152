"""Readers of the ONNX operators that cut, join and pad: Slice, Split, Concat, Pad."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ModelError
from .base import Array, Op
from .chain import Chain
from .movement import Concat, Identity, Pad, Slice
from .parameters import integers
from .reading import BATCH, Applied, OnnxNode, Reading, Unsupported, reads
from .select import Mask
from .take import sliced, taken

Ints = tuple[int, ...]

LARGE = 10**9
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
        if axis in (0, -rank) and _is_whole_batch(node, start, end, step):
            continue
        if start is None or end is None or not step:
            raise Unsupported(f"it slices from {start} to {end} in steps of {step} on axis {axis}")
        place = node.axis(axis, rank)
        ranges[place] = ranges[place][slice(start, end, step)]
        if not ranges[place]:
            raise ModelError(f"its slice {start}:{end}:{step} of axis {axis} (size {shape[place]}) is empty")
    return sliced(ranges)


def _is_whole_batch(node: OnnxNode, start: int | None, end: int | None, step: int | None) -> bool:
    from_start = start is not None and (start == 0 or start <= -LARGE)
    to_end = end is BATCH or end >= LARGE or end == node.batch
    return from_start and to_end and step == 1


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
    return sliced(ranges)


@reads("Concat")
def _read_concat(node: OnnxNode) -> Reading:
    """Constants among its inputs become a border of the computed array before them, or of the first one."""
    computed = [index for index in range(len(node.inputs)) if not node.is_constant(index)]
    shape = node.fact(computed[0]).shape
    axis = node.axis(node.integer("axis", 1), 1 + len(shape))
    pieces: list[Applied | int] = []
    for place, index in enumerate(computed):
        end = computed[place + 1] if place + 1 < len(computed) else len(node.inputs)
        before = [_piece(node, i, axis, shape) for i in range(index if place == 0 else 0)]
        after = [_piece(node, i, axis, shape) for i in range(index + 1, end)]
        if before or after:
            node.budget.take(8 * node.fact(index).size, f"a border of shape {node.fact(index).shape}")
        pieces.append(_between(index, node.fact(index).shape, axis, before, after))
    if len(pieces) == 1:
        return pieces[0] if isinstance(pieces[0], Applied) else Identity()
    return Applied(Concat(axis), tuple(pieces))


def _piece(node: OnnxNode, index: int, axis: int, shape: Ints) -> Array:
    """A constant among the inputs of Concat, for one sample."""
    row = node.row(index)
    piece = row.astype(np.float64) if row.dtype.kind in "iu" else node.floats(index, row)
    others, own = ((*sizes[:axis], *sizes[axis + 1 :]) for sizes in (shape, piece.shape))
    if piece.ndim != len(shape) or others != own:
        raise ModelError(f"it joins samples of shapes {shape} and {piece.shape} along axis {axis + 1}")
    return piece


def _between(index: int, shape: Ints, axis: int, before: list[Array], after: list[Array]) -> Applied | int:
    """Input `index`, of samples of `shape`, with constants on both sides of it."""
    pieces = [*before, np.zeros(shape, np.float32), *after]
    if len(pieces) == 1:
        return index
    fill = np.concatenate(pieces, axis)
    pads = [0] * (2 * len(shape))
    pads[axis] = sum(piece.shape[axis] for piece in before)
    pads[len(shape) + axis] = fill.shape[axis] - pads[axis] - shape[axis]
    border = Pad(tuple(pads))
    return Applied(Mask(~border.constants(fill.shape), fill), (Applied(border, (index,)),))


@reads("Pad")
def _read_pad(node: OnnxNode) -> tuple[Op, ...]:
    shape = node.fact(0).shape
    begins, ends = _pads(node, shape)
    chain = Chain(shape)
    if min(begins + ends, default=0) < 0:  # negative pads cut off
        kept = [range(n)[max(0, -a) : n - max(0, -b)] for n, a, b in zip(shape, begins, ends, strict=True)]
        if not all(kept):
            raise ModelError(f"its pads {begins + ends} leave nothing of a sample of shape {shape}")
        chain.then(sliced(kept))
    widths = [(max(0, a), max(0, b)) for a, b in zip(begins, ends, strict=True)]
    mode = node.string("mode", "constant")
    if mode == "constant":
        if any(map(any, widths)):
            value = node.number("value", 0.0) if node.opset < 11 else node.scalar(2, 0.0)
            chain.then(Pad((*(a for a, _ in widths), *(b for _, b in widths)), value))
    elif mode in ("edge", "reflect", "wrap"):
        for axis, width in enumerate(widths):
            chain.then(*_repeated(chain.shape, axis, width, mode))
    else:
        raise ModelError(f"mode is {mode!r}; expected constant, reflect, edge or wrap")
    return chain.read()


def _pads(node: OnnxNode, shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """What is added at the beginnings and ends of a sample's axes."""
    rank = 1 + len(shape)
    stated = node.integers_or_input("pads", 1, since=11) or ()
    axes: tuple[int | None, ...] = node.sizes(3) if node.has(3) else tuple(range(rank))
    if BATCH in stated:
        raise Unsupported("it pads by the batch size")
    pads = integers("pads", (n or 0 for n in stated), 2 * len(axes))
    begins, ends = [0] * len(shape), [0] * len(shape)
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if begin or end:
            place = node.axis(axis, rank)
            begins[place], ends[place] = begin, end
    return begins, ends


def _repeated(shape: tuple[int, ...], axis: int, width: tuple[int, int], mode: Any) -> list[Op]:
    """Padding of an axis with the sample's own elements."""
    n = shape[axis]
    if mode == "reflect" and max(width) >= n:
        raise Unsupported(
            f"it reflects {max(width)} elements of an axis of {n}, which has fewer beside its ends"
        )
    return [taken(shape, axis, np.pad(np.arange(n), width, mode))] if any(width) else []
