"""Powers with a constant exponent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..graph import Fact
from .affine import of_sample
from .base import Array, Elementwise
from .parameters import check_broadcast, parameter
from .reading import OnnxNode, Unsupported, reads, refuse_integers


@dataclass(frozen=True, eq=False)
class Pow(Elementwise):
    """`x ^ exponent`; relevance passes (`Pass`), as through any function of one number.

    Negative numbers have powers with whole exponents only; others are reported where predictions are checked.

    Parameters
    ----------
    exponent : array
        Broadcasts to one sample.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Pow", "activation")

    exponent: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "exponent", parameter("exponent", self.exponent))

    @property
    def uniform(self) -> bool:
        return self.exponent.size == 1

    @property
    def is_whole(self) -> bool:
        return bool((self.exponent == np.abs(np.rint(self.exponent))).all())

    def is_nonnegative(self, x: Fact) -> bool:
        return x.nonnegative or bool((self.exponent % 2 != 1).all())  # odd powers alone are negative

    def infer(self, *inputs: Fact) -> Fact:
        check_broadcast("exponent", self.exponent.shape, inputs[0].shape)
        return super().infer(*inputs)

    def value(self, x: Array) -> Array:
        return self._power(x, self.exponent)

    def derivative(self, x: Array, y: Array) -> Array:
        # A constant has the derivative 0 x⁰, since 0 x⁻¹ were not a number where x is 0.
        lower = np.where(self.exponent == 0, 0, self.exponent - 1)
        return self._power(x, lower) * self._number(x, self.exponent)

    def _power(self, x: Array, exponent: Array) -> Array:
        power: Array = x ** self._number(x, exponent)  # NumPy squares, inverts and takes roots where it can
        return power

    def _number(self, x: Array, exponent: Array) -> Array | float:
        # One number serves arrays of any layout.
        return float(exponent.reshape(-1)[0]) if self.uniform else exponent.astype(x.dtype, copy=False)


@reads("Pow")
def _read_pow(node: OnnxNode) -> Pow:
    if not node.is_constant(1):
        raise Unsupported("its exponent is computed, not a constant")
    op = Pow(of_sample(node, 1, node.constant(1), node.fact(0).shape))  # integers may be exponents of floats
    if not op.is_whole:
        refuse_integers(node)
    return op
