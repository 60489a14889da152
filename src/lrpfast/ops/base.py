"""What every operator is: attributes and parameters, shape inference, forward and vjp in NumPy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..graph import Fact

Array = NDArray[np.floating]


class Op:
    """Base class of the operators: frozen dataclasses whose fields are attributes and parameters.

    `forward` and `vjp` are the definition of the operator, in NumPy, for arrays with a batch axis
    in front. They are what the fast kernels are held to, and what runs where no kernel exists.

    Class attributes
    ----------------
    kinds : tuple of str
        The words by which a composite can select the operator, most special first.
    arity : int or None
        How many inputs it takes; None for any number from one on.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    arity: ClassVar[int | None] = 1

    @property
    def is_gate(self) -> bool:
        """Whether what it computes is bounded by 0 and 1, as the gates of products are."""
        return False

    @property
    def has_nonnegative_weights(self) -> bool:
        """Whether it is linear, and known to have no negative weight."""
        return False

    def infer(self, *inputs: Fact) -> Fact:
        """Check the inputs' facts and return the output's; raise `ModelError` if they do not fit."""
        raise NotImplementedError

    def forward(self, *inputs: Array) -> Array:
        """Compute the output."""
        raise NotImplementedError

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        """Return `Jᵀ s` for each input, `J` the Jacobian at `inputs` (winners in max-pooling)."""
        raise NotImplementedError


def summed(array: Array, shape: tuple[int, ...]) -> Array:
    """`array` summed over the axes along which a sample of `shape` was broadcast: the transpose of that."""
    axes = tuple(i for i, n in enumerate(shape, 1) if n == 1 and array.shape[i] != 1)
    total: Array = array.sum(axis=axes, keepdims=True) if axes else array
    return total


class Linear(Op):
    """Operators `z = W x + b`: all sharing rules apply. With `b` left out they are linear."""


class Elementwise(Op):
    """Operators that act on each element alone: relevance passes through unchanged (`Pass`).

    An element's output has no other input to share its relevance with, so `Pass` conserves it, whatever the
    function; what a function adds where its input is 0 is part of what the element says.
    """

    kinds: ClassVar[tuple[str, ...]] = ("activation",)

    @property
    def uniform(self) -> bool:
        """Whether all elements are treated alike, wherever they are."""
        return True

    @property
    def is_whole(self) -> bool:
        """Whether the function of an integer is an integer."""
        return False

    def is_nonnegative(self, x: Fact) -> bool:
        """Whether no output is negative, given what is known of the input. By default: if no input is."""
        return x.nonnegative

    def value(self, x: Array) -> Array:
        """The function of each element of `x`, in its dtype."""
        raise NotImplementedError

    def derivative(self, x: Array, y: Array) -> Array:
        """The derivative of the operator at `x`, where its value is `y`."""
        raise NotImplementedError

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        return Fact(x.shape, nonnegative=self.is_nonnegative(x), integer=self.is_whole and x.integer)

    def forward(self, *inputs: Array) -> Array:
        with np.errstate(
            all="ignore"
        ):  # NaN and infinity are found and reported where predictions are checked
            return self.value(inputs[0])

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return (s * self.derivative(inputs[0], output),)


class Movement(Op):
    """Operators that copy elements from place to place: relevance is routed back exactly."""

    kinds: ClassVar[tuple[str, ...]] = ("movement",)
