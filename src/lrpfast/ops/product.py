"""Products and quotients of two activations (ONNX Mul, Div): gating, as in squeeze-and-excitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Op, summed
from .reading import OnnxNode, Unsupported


def broadcast(inputs: tuple[Fact, ...]) -> tuple[int, ...]:
    """The shape that samples of all inputs broadcast to; `ModelError` if they do not."""
    shapes = [x.shape for x in inputs]
    try:
        if len({len(shape) for shape in shapes}) != 1:
            raise ValueError
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ModelError(
            f"its inputs have shapes {shapes} per sample; expected equal sizes, or 1, along each of as many axes"
        ) from None


def broadcast_inputs(node: OnnxNode, *indices: int) -> tuple[int, ...]:
    """The shape that some computed inputs of a node broadcast to."""
    try:
        return broadcast(tuple(node.fact(index) for index in indices))
    except ModelError as error:
        raise Unsupported(str(error)) from None


class _Binary(Op):
    """Operators of two inputs that broadcast to each other's shape."""

    arity: ClassVar[int | None] = 2

    def infer(self, *inputs: Fact) -> Fact:
        return Fact(broadcast(inputs), nonnegative=all(x.nonnegative for x in inputs))


@dataclass(frozen=True)
class Mul(_Binary):
    """Product of two arrays, `z = a · b`.

    Parameters
    ----------
    signal : {0, 1} or None, default None
        Which factor is the signal, if the other one is known to be a gate: a number between 0 and 1 that says
        how much of the signal is let through. Canonisation finds it out.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Mul", "product")

    signal: int | None = None

    def __post_init__(self) -> None:
        if self.signal not in (None, 0, 1):
            raise ModelError(f"signal is {self.signal!r}; expected 0, 1 or None")
        if self.signal is not None:
            object.__setattr__(self, "kinds", ("Mul", "gating", "product"))

    def forward(self, *inputs: Array) -> Array:
        a, b = inputs
        return a * b

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        a, b = inputs
        return summed(s * b, a.shape[1:]), summed(s * a, b.shape[1:])


@dataclass(frozen=True)
class Div(_Binary):
    """Quotient of two arrays, `z = a / b`: a is the signal, 1 / b its gate."""

    kinds: ClassVar[tuple[str, ...]] = ("Div", "gating", "product")

    signal: ClassVar[int] = 0

    def forward(self, *inputs: Array) -> Array:
        a, b = inputs
        with np.errstate(divide="ignore"):  # infinity is found and reported where predictions are checked
            return a / b

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        a, b = inputs
        return summed(s / b, a.shape[1:]), summed(-s * output / b, b.shape[1:])
