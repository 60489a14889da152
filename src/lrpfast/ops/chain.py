"""Chains of operators that readers put together, without those that do nothing."""

from __future__ import annotations

from ..graph import Fact, infer
from .base import Op
from .movement import Identity, Reshape, Transpose

Ints = tuple[int, ...]


class Chain:
    """Operators one behind the other, and the shape of a sample behind them.

    Parameters
    ----------
    shape : tuple of int
        Of a sample of the first one's input.
    """

    def __init__(self, shape: Ints) -> None:
        self.shape = shape
        self._ops: list[Op] = []

    def then(self, *ops: Op) -> Chain:
        """Append operators."""
        for op in ops:
            self._ops.append(op)
            self.shape = infer(op, Fact(self.shape)).shape
        return self

    def reshaped(self, shape: Ints) -> Chain:
        """Append a `Reshape`, if it changes the shape."""
        return self if shape == self.shape else self.then(Reshape(shape))

    def transposed(self, perm: Ints) -> Chain:
        """Append a `Transpose`, if it moves any axis."""
        return self if perm == tuple(range(len(self.shape))) else self.then(Transpose(perm))

    def read(self) -> tuple[Op, ...]:
        """The operators, as a reader returns them."""
        return tuple(self._ops) or (Identity(),)
