"""Operators that copy elements from place to place.

The readers of ONNX operators that become `Reshape` are in `shape.py`, those of `Slice` and `Pad` in
`slices.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Movement, summed
from .parameters import integers
from .reading import OnnxNode, Unsupported, reads

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
class Reshape(Movement):
    """The same elements in row-major order, in another shape.

    Parameters
    ----------
    shape : tuple of int
        Of one output sample.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Reshape", "movement")

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", integers("shape", self.shape, len(self.shape), least=1))

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if x.size != math.prod(self.shape):
            raise ModelError(f"a sample of shape {x.shape} cannot be reshaped to {self.shape}")
        return replace(x, shape=self.shape)

    def forward(self, *inputs: Array) -> Array:
        return inputs[0].reshape(len(inputs[0]), *self.shape)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (s.reshape(inputs[0].shape),)


@dataclass(frozen=True)
class Cast(Identity):
    """The same numbers as integers or as floats."""

    kinds: ClassVar[tuple[str, ...]] = ("Cast", "movement")

    integer: bool

    def infer(self, *inputs: Fact) -> Fact:
        return replace(inputs[0], integer=self.integer)


@dataclass(frozen=True)
class Expand(Movement):
    """Copies along the axes of size 1, so that a sample has another shape of as many axes.

    An element receives the relevance of all of its copies.

    Parameters
    ----------
    shape : tuple of int
        Of one output sample.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Expand", "movement")

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", integers("shape", self.shape, len(self.shape), least=1))

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if len(x.shape) != len(self.shape) or any(n not in (1, m) for n, m in zip(x.shape, self.shape)):  # noqa: B905
            raise ModelError(f"a sample of shape {x.shape} cannot be expanded to {self.shape}")
        return replace(x, shape=self.shape)

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        return np.ascontiguousarray(np.broadcast_to(x, (len(x), *self.shape)))

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (summed(s, inputs[0].shape[1:]),)


@dataclass(frozen=True)
class Transpose(Movement):
    """Axes in another order: axis `i` of an output sample is axis `perm[i]` of the input's."""

    kinds: ClassVar[tuple[str, ...]] = ("Transpose", "movement")

    perm: Ints

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if sorted(self.perm) != list(range(len(x.shape))):
            raise ModelError(f"perm is {self.perm}; expected each axis of a sample of shape {x.shape} once")
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
    arity: ClassVar[int | None] = None

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
        return Fact(
            tuple(shape),
            nonnegative=all(x.nonnegative for x in inputs),
            integer=all(x.integer for x in inputs),
        )

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
        if 0 in self.steps:
            raise ModelError(f"steps is {self.steps}; none can be 0")

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if len(x.shape) != len(self.starts):
            raise ModelError(f"it slices {len(self.starts)} axes of a sample; its input has shape {x.shape}")
        for n, start, step, size in zip(x.shape, self.starts, self.steps, self.sizes, strict=True):
            last = start + (size - 1) * step
            if start >= n or not 0 <= last < n:
                raise ModelError(f"it reads elements {start} to {last} in steps of {step} of an axis of {n}")
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
            places.append(slice(start, stop if stop >= 0 else None, step))
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
            raise ModelError(
                f"pads is {self.pads}; expected {2 * axes} numbers for samples of shape {x.shape}"
            )
        shape = tuple(a + n + b for n, a, b in zip(x.shape, self.pads[:axes], self.pads[axes:], strict=True))
        alone = not any(self.pads)
        return Fact(
            shape,
            nonnegative=x.nonnegative and (self.value >= 0 or alone),
            integer=x.integer and (float(self.value).is_integer() or alone),
        )

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        axes = x.ndim - 1
        widths = [(0, 0), *zip(self.pads[:axes], self.pads[axes:], strict=True)]
        return np.pad(x, widths, constant_values=self.value)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        inside = (slice(None), *self._inside(inputs[0].shape[1:]))
        return (np.ascontiguousarray(s[inside]),)

    def constants(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which elements of an output sample of `shape` are constants."""
        sizes = (n - a - b for n, a, b in zip(shape, self.pads, self.pads[len(shape) :], strict=False))
        border = np.ones(shape, bool)
        border[self._inside(tuple(sizes))] = False
        return border

    def _inside(self, sizes: Ints) -> tuple[slice, ...]:
        return tuple(slice(a, a + n) for a, n in zip(self.pads, sizes, strict=False))


# --- ONNX ---


@reads("Identity")
def _read_identity(node: OnnxNode) -> Identity:
    return Identity()


@reads("Dropout")
def _read_dropout(node: OnnxNode) -> Identity:
    if node.has(2) and node.scalar(2, 0):
        raise Unsupported("training_mode is on; export the model for inference")
    return Identity()


# onnx.TensorProto.DataType
_FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
_INTEGERS = {
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    12: "uint32",
    13: "uint64",
}


@reads("Cast")
def _read_cast(node: OnnxNode) -> Cast:
    to = node.integer("to", 0)
    if to in _FLOATS:
        return Cast(integer=False)
    if to not in _INTEGERS:
        raise Unsupported(f"it casts to data type {to}; expected one of {_FLOATS | _INTEGERS}")
    if not node.fact(0).integer:
        raise Unsupported(f"it casts floats to {_INTEGERS[to]}, which rounds them")
    return Cast(integer=True)


@reads("Transpose")
def _read_transpose(node: OnnxNode) -> Transpose:
    rank = 1 + len(node.fact(0).shape)
    perm = node.integers("perm") or tuple(reversed(range(rank)))
    if perm[0] != 0:
        raise Unsupported(f"perm {perm} moves axis 0, the batch")
    return Transpose(node.axes(perm[1:], rank))
