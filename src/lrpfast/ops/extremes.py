"""The largest and the smallest of several numbers (ONNX Max, Min)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from ..graph import Fact
from .activation import Clip, Relu
from .affine import Ints, of_sample, operand
from .arithmetic import combined, one_shape
from .base import Array, Elementwise, Op
from .movement import Identity
from .parameters import check_broadcast, parameter
from .reading import Applied, OnnxNode, Reading, reads


class _Extreme(Op):
    """Of two or more arrays of one shape, one for each element.

    The first of the inputs that has that number is the winner, and takes all relevance (`WinnerTakeAll`) and all
    of the gradient, as in max-pooling.
    """

    arity: ClassVar[int | None] = None
    choose: ClassVar[Callable[..., Any]]

    def forward(self, *inputs: Array) -> Array:
        z: Array = inputs[0].copy()
        for x in inputs[1:]:
            type(self).choose(z, x, out=z)
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        taken = np.zeros(s.shape, bool)
        shares = []
        for x in inputs:
            wins = (x == output) & ~taken
            taken |= wins
            shares.append(s * wins)
        return tuple(shares)


@dataclass(frozen=True)
class Max(_Extreme):
    """The largest of two or more numbers; the first of the largest is the winner, who takes all."""

    kinds: ClassVar[tuple[str, ...]] = ("Max", "winner")
    choose: ClassVar[Callable[..., Any]] = np.maximum

    def infer(self, *inputs: Fact) -> Fact:
        return Fact(
            one_shape(inputs),
            nonnegative=any(x.nonnegative for x in inputs),
            integer=all(x.integer for x in inputs),
        )


@dataclass(frozen=True)
class Min(_Extreme):
    """The smallest of two or more numbers; the first of the smallest is the winner, who takes all."""

    kinds: ClassVar[tuple[str, ...]] = ("Min", "winner")
    choose: ClassVar[Callable[..., Any]] = np.minimum

    def infer(self, *inputs: Fact) -> Fact:
        return Fact(
            one_shape(inputs),
            nonnegative=all(x.nonnegative for x in inputs),
            integer=all(x.integer for x in inputs),
        )


@dataclass(frozen=True, eq=False)
class Bound(Elementwise):
    """`max(x, bound)`, or `min(x, bound)` for an upper one; derivative 0 at the bound. Relevance passes (`Pass`).

    Parameters
    ----------
    bound : array
        Broadcasts to one sample. If it is one number, `Clip` does the same.
    upper : bool, default False
    """

    kinds: ClassVar[tuple[str, ...]] = ("Bound", "activation")

    bound: Array
    upper: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "bound", parameter("bound", self.bound))

    @property
    def uniform(self) -> bool:
        return False

    @property
    def is_whole(self) -> bool:
        return bool((self.bound == np.rint(self.bound)).all())

    def is_nonnegative(self, x: Fact) -> bool:
        above = bool((self.bound >= 0).all())
        return (x.nonnegative and above) if self.upper else (x.nonnegative or above)

    def infer(self, *inputs: Fact) -> Fact:
        check_broadcast("bound", self.bound.shape, inputs[0].shape)
        return super().infer(*inputs)

    def value(self, x: Array) -> Array:
        bound = self.bound.astype(x.dtype, copy=False)
        y: Array = np.minimum(x, bound) if self.upper else np.maximum(x, bound)
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        bound = self.bound.astype(x.dtype, copy=False)
        inside = x < bound if self.upper else x > bound
        return inside.astype(x.dtype)


@reads("Max", "Min")
def _read_extreme(node: OnnxNode) -> Reading:
    upper = node.op_type == "Min"
    found, constants = combined(node, Min() if upper else Max(), _bound)
    if constants:
        bound = reduce(np.minimum if upper else np.maximum, constants)
        found = Applied(_bounded(bound, upper), (found,))
    return found if isinstance(found, Applied) else Identity()


def _bound(node: OnnxNode, index: int, sample: Ints) -> Array:
    """A constant input. Infinity is allowed: it is no bound at all, which JAX writes before a Softmax."""
    array = node.shared(index, 1 + len(sample))
    infinite = array.dtype.kind == "f" and np.isinf(array).any()
    return of_sample(node, index, array, sample) if infinite else operand(node, index, sample)


def _bounded(bound: Array, upper: bool) -> Op:
    if bound.size != 1:
        return Bound(bound, upper)
    number = float(bound.reshape(-1)[0])
    if upper:
        return Clip(high=number)
    return Clip(low=number) if number else Relu()
