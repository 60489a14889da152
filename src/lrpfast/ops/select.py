"""Elements of one array or another, as a constant mask says (ONNX Where)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ModelError
from ..graph import Fact
from .affine import expanded, of_sample
from .arithmetic import one_shape
from .base import Array, Movement
from .parameters import check_broadcast, parameter
from .product import broadcast_inputs
from .reading import Applied, OnnxNode, Reading, Unsupported, reads

Bools = NDArray[np.bool_]


def _mask(values: ArrayLike) -> Bools:
    mask = np.array(values, bool)
    mask.flags.writeable = False
    return mask


@dataclass(frozen=True, eq=False)
class Where(Movement):
    """`a` where the mask is true, else `b`. Relevance goes back to where an element came from (`Route`).

    Parameters
    ----------
    mask : array of bool
        Broadcasts to one sample.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Where", "movement")
    arity: ClassVar[int | None] = 2

    mask: Bools

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", _mask(self.mask))

    def infer(self, *inputs: Fact) -> Fact:
        shape = one_shape(inputs)
        check_broadcast("mask", self.mask.shape, shape)
        return Fact(
            shape, nonnegative=all(x.nonnegative for x in inputs), integer=all(x.integer for x in inputs)
        )

    def forward(self, *inputs: Array) -> Array:
        return np.where(self.mask, *inputs)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return s * self.mask, s * ~self.mask


@dataclass(frozen=True, eq=False)
class Mask(Movement):
    """`x` where the mask is true, else `fill`. Relevance that falls on constants is theirs, as a bias'.

    Parameters
    ----------
    mask : array of bool
        Broadcasts to one sample.
    fill : array
        Broadcasts to one sample.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Mask", "movement")

    mask: Bools
    fill: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", _mask(self.mask))
        object.__setattr__(self, "fill", parameter("fill", self.fill))

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        check_broadcast("mask", self.mask.shape, x.shape)
        check_broadcast("fill", self.fill.shape, x.shape)
        whole = bool((self.fill == np.rint(self.fill)).all())
        return Fact(x.shape, x.nonnegative and bool((self.fill >= 0).all()), integer=x.integer and whole)

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        return np.where(self.mask, x, self.fill.astype(x.dtype, copy=False))

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (s * self.mask,)

    def constants(self, shape: tuple[int, ...]) -> Bools:
        """Which elements of an output sample are constants."""
        return ~np.broadcast_to(self.mask, shape)


# --- ONNX ---


@reads("Where")
def _read_where(node: OnnxNode) -> Reading:
    if not node.is_constant(0):
        raise Unsupported(f"its input 0 ({node.inputs[0]!r}) is computed, not a constant")
    computed = [index for index in (1, 2) if not node.is_constant(index)]
    shape = broadcast_inputs(node, *computed)
    condition = node.shared(0, 1 + len(shape))
    if condition.dtype.kind != "b":
        raise ModelError(f"its input 0 ({node.inputs[0]!r}) has dtype {condition.dtype}; expected booleans")
    mask = of_sample(node, 0, condition, shape)
    if len(computed) == 2:
        return Applied(Where(mask), (expanded(node, 1, shape), expanded(node, 2, shape)))
    if computed == [2]:
        mask = ~mask
    other = 3 - computed[0]
    fill: Any = of_sample(node, other, node.shared(other, 1 + len(shape)), shape).astype(np.float64)
    node.budget.take(9 * math.prod(shape), f"a mask of shape {shape}")
    fill = np.where(mask, 0, fill)
    if not np.isfinite(fill).all():
        raise Unsupported("it puts NaN or infinity in the place of what it masks")
    return Applied(Mask(mask, fill), tuple(computed))
