"""Operators that copy elements from place to place: Identity, Transpose, Concat, Slice, Pad."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Movement, Op
from .parameters import integers
from .reading import BATCH, OnnxNode, Unsupported, reads
from .shape import Reshape

Ints = tuple[int, ...]


@dataclass(frozen=True)
class Identity(Movement):
    """The input itself."""

    kinds: ClassVar[tuple[str, ...]] = ("Identity", "movement")

    def infer(self, *inputs: Fact) -> Fact:
        return inputs[0]

    def forward(self, *inputs: Array) -> Array:
        return inputs[0]

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (s,)


@dataclass(frozen=True)
class Transpose(Movement):
    """Axes in another order: axis `i` of an output sample is axis `perm[i]` of the input's."""

    kinds: ClassVar[tuple[str, ...]] = ("Transpose", "movement")

    perm: Ints

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if sorted(self.perm) != list(range(len(x.shape))):
            raise ModelError(f"perm is {self.perm}; expected the axes of a sample of shape {x.shape}, once each")
        return replace(x, shape=tuple(x.shape[axis] for axis in self.perm))

    def forward(self, *inputs: Array) -> Array:
        return np.ascontiguousarray(inputs[0].transpose(0, *(axis + 1 for axis in self.perm)))

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        back = np.argsort(self.perm)
        return (np.ascontiguousarray(s.transpose(0, *(int(axis) + 1 for axis in back))),)


@dataclass(frozen=True)
class Concat(Movement):
    """Arrays one behind the other along `axis` of a sample (from 0, without the batch axis)."""

    kinds: ClassVar[tuple[str, ...]] = ("Concat", "movement")

    axis: int

    def infer(self, *inputs: Fact) -> Fact:
        shapes = [x.shape for x in inputs]
        if not 0 <= self.axis < len(shapes[0]):
            raise ModelError(f"axis is {self.axis}; its inputs have shapes {shapes} per sample")
        others = {(*shape[: self.axis], *shape[self.axis + 1 :]) for shape in shapes}
        if len(others) != 1 or len({len(shape) for shape in shapes}) != 1:
            raise ModelError(f"its inputs have shapes {shapes}; they may differ in axis {self.axis} only")
        shape = list(shapes[0])
        shape[self.axis] = sum(shape[self.axis] for shape in shapes)
        return Fact(tuple(shape), nonnegative=all(x.nonnegative for x in inputs))

    def forward(self, *inputs: Array) -> Array:
        return np.concatenate(inputs, axis=self.axis + 1)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        ends = np.cumsum([x.shape[self.axis + 1] for x in inputs])
        return tuple(np.ascontiguousarray(piece) for piece in np.split(s, ends[:-1], axis=self.axis + 1))


@dataclass(frozen=True)
class Slice(Movement):
    """Along each axis of a sample the elements `start`, `start + step`, …, `size` of them.

    Parameters
    ----------
    starts, steps, sizes : tuple of int
        One per axis of a sample; starts count from 0, steps may be negative.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Slice", "movement")

    starts: Ints
    steps: Ints
    sizes: Ints

    def __post_init__(self) -> None:
        count = len(self.starts)
        object.__setattr__(self, "starts", integers("starts", self.starts, count, least=0))
        object.__setattr__(self, "steps", integers("steps", self.steps, count))
        object.__setattr__(self, "sizes", integers("sizes", self.sizes, count, least=1))

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if len(x.shape) != len(self.starts):
            raise ModelError(f"it slices {len(self.starts)} axes of a sample; its input has shape {x.shape}")
        for n, start, step, size in zip(x.shape, self.starts, self.steps, self.sizes, strict=True):
            last = start + (size - 1) * step
            if start >= n or not 0 <= last < n or (step == 0 and size > 1):
                raise ModelError(
                    f"it reads elements {start} to {last} in steps of {step} of an axis of {n}"
                )
        return replace(x, shape=self.sizes)

    def forward(self, *inputs: Array) -> Array:
        return np.ascontiguousarray(inputs[0][self._index()])

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        result = np.zeros(inputs[0].shape, s.dtype)
        result[self._index()] = s
        return (result,)

    def _index(self) -> tuple[slice, ...]:
        places = [slice(None)]
        for start, step, size in zip(self.starts, self.steps, self.sizes, strict=True):
            stop = start + size * step
            places.append(slice(start, stop if stop >= 0 else None, step or 1))
        return tuple(places)


@dataclass(frozen=True)
class Pad(Movement):
    """A border of constant value.

    Parameters
    ----------
    pads : tuple of int
        Elements at the beginning of each axis of a sample, then at the end of each axis.
    value : float, default 0
    """

    kinds: ClassVar[tuple[str, ...]] = ("Pad", "movement")

    pads: Ints
    value: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pads", integers("pads", self.pads, len(self.pads), least=0))
        if not np.isfinite(self.value):
            raise ModelError(f"value is {self.value}; expected a finite number")

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        axes = len(x.shape)
        if len(self.pads) != 2 * axes:
            raise ModelError(f"pads is {self.pads}; expected {2 * axes} numbers for a sample of shape {x.shape}")
        shape = tuple(a + n + b for n, a, b in zip(x.shape, self.pads[:axes], self.pads[axes:], strict=True))
        return Fact(shape, nonnegative=x.nonnegative and (self.value >= 0 or not any(self.pads)))

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        axes = x.ndim - 1
        widths = [(0, 0), *zip(self.pads[:axes], self.pads[axes:], strict=True)]
        return np.pad(x, widths, constant_values=self.value)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        sizes = inputs[0].shape[1:]
        inside = (slice(a, a + n) for a, n in zip(self.pads, sizes, strict=False))
        return (np.ascontiguousarray(s[(slice(None), *inside)]),)


# --- ONNX ---

LARGE = 2**31 - 1
"""Ends from here on mean the end of the axis, whatever its size."""


@reads("Identity")
def _read_identity(node: OnnxNode) -> Identity:
    return Identity()


@reads("Dropout")
def _read_dropout(node: OnnxNode) -> Identity:
    if node.has(2) and node.scalar(2, 0):
        raise Unsupported("training_mode is on; export the model for inference")
    return Identity()


@reads("Cast")
def _read_cast(node: OnnxNode) -> Identity:
    floats = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}  # onnx.TensorProto.DataType
    if node.int("to", 0) not in floats:
        raise Unsupported(f"it casts to data type {node.int('to', 0)}; expected one of {floats}")
    return Identity()


@reads("Transpose")
def _read_transpose(node: OnnxNode) -> Transpose:
    rank = 1 + len(node.fact(0).shape)
    perm = node.ints("perm") or tuple(reversed(range(rank)))
    if perm[0] != 0:
        raise Unsupported(f"perm {perm} moves axis 0, the batch")
    return Transpose(node.axes(perm[1:], rank))


@reads("Concat")
def _read_concat(node: OnnxNode) -> Concat:
    shapes = [node.fact(index).shape for index in range(len(node.inputs))]
    return Concat(node.axis(node.int("axis", 1), 1 + len(shapes[0])))


@reads("Slice")
def _read_slice(node: OnnxNode) -> Slice:
    shape = node.fact(0).shape
    rank = 1 + len(shape)
    bounds = (node.ints_or_input("starts", 1, 10), node.ints_or_input("ends", 2, 10))
    first, last = (bound or () for bound in bounds)
    axes = node.ints_or_input("axes", 3, 10) or tuple(range(len(first)))
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
    return Slice(
        tuple(r.start for r in ranges), tuple(r.step for r in ranges), tuple(len(r) for r in ranges)
    )


@reads("Split", many_outputs=True)
def _read_split(node: OnnxNode) -> Slice:
    shape = node.fact(0).shape
    axis = node.axis(node.int("axis", 0), 1 + len(shape))
    size, parts = shape[axis], len(node.outputs)
    lengths = node.ints_or_input("split", 1, since=13)
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
    """Only what is a slice: one index, or indices in equal steps."""
    shape = node.fact(0).shape
    axis = node.axis(node.int("axis", 0), 1 + len(shape))
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
    if node.text("mode", "constant") != "constant":
        raise Unsupported(f"mode is {node.text('mode', '')!r}; only 'constant' is supported")
    stated = node.ints_or_input("pads", 1, since=11) or ()
    value = node.float("value", 0.0) if node.opset < 11 else node.scalar(2, 0.0)
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
