"""One-hot vectors of indices: ONNX's OneHot, and Equal of indices and a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .affine import ZERO, Affine
from .base import Array, Op
from .movement import Reshape, Transpose
from .reading import Applied, OnnxNode, Reading, Unsupported, reads


@dataclass(frozen=True)
class OneHot(Op):
    """`z[…, k] = 1` where the index is k, else 0: an axis of `size` numbers behind the indices' own.

    An index receives the relevance of all of its vector.

    Parameters
    ----------
    size : int
    wraps : bool, default False
        Whether indices from `-size` to -1 count from the end. All others from outside have zeros only.

    Raises
    ------
    ModelError
        The size is less than 1; the input is not of an integer type.
    """

    kinds: ClassVar[tuple[str, ...]] = ("OneHot", "embedding", "movement")

    size: int
    wraps: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ModelError(f"size is {self.size}; expected 1 or more")

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if not x.integer:
            raise ModelError("its indices are computed as floating-point numbers; expected integers")
        return Fact((*x.shape, self.size), nonnegative=True, integer=True)

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        places = np.where(x < 0, x + self.size, x) if self.wraps else x
        z: Array = (places[..., None] == np.arange(self.size)).astype(x.dtype)
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        """What the vectors receive, for each index in one sum; there is no derivative by an index."""
        return (s.sum(axis=-1),)


@reads("Equal")
def _read_equal(node: OnnxNode) -> Reading:
    constant = 1 if node.is_constant(1) else 0
    values, x = node.constant(constant), node.fact(1 - constant)
    size, axes = values.size, 1 + len(x.shape)
    is_range = values.dtype.kind in "iu" and values.shape[-1:] == (size,) and values.ndim <= axes
    if not (
        x.integer and x.shape[-1:] == (1,) and is_range and (values.reshape(-1) == np.arange(size)).all()
    ):
        raise Unsupported(
            "it compares; only indices and the range of all they can be, as in one-hot vectors, are read"
        )
    return Applied(OneHot(size), (Applied(Reshape(x.shape[:-1]), (1 - constant,)),))


@reads("OneHot")
def _read_one_hot(node: OnnxNode) -> tuple[Op, ...]:
    x = node.fact(0)
    size = node.whole(1, 0)
    values = node.constant(2)
    if values.shape != (2,) or values.dtype.kind not in "fiu":
        raise ModelError(f"its input 2 has shape {values.shape} of {values.dtype}; expected two numbers")
    off, on = (float(value) for value in values)
    ops: list[Op] = [OneHot(size, wraps=True)]
    axis, last = node.axis(node.integer("axis", -1), 2 + len(x.shape)), len(x.shape)
    if axis != last:
        ops.append(Transpose((*range(axis), last, *range(axis, last))))
    if (off, on) != (0, 1):
        ops.append(Affine(np.float64(on - off), ZERO + off))
    return tuple(ops)
