"""Functions of one number without parameters, as a table of their values and derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Elementwise
from .reading import OnnxNode, reads
from .special import erf, sigmoid

ALWAYS, IF_INPUT_IS, NEVER = True, None, False
"""When a function is known to be nowhere negative."""


class Formula(NamedTuple):
    """A function f.

    Attributes
    ----------
    value : callable
        f(x).
    derivative : callable
        f'(x), of x and y = f(x).
    nonnegative : ALWAYS, IF_INPUT_IS or NEVER
        Whether f(x) ≥ 0 is known.
    """

    value: Callable[[Array], Array]
    derivative: Callable[[Array, Array], Array]
    nonnegative: bool | None


def _softplus(x: Array) -> Array:
    """`log(1 + exp(x))`."""
    y = np.abs(x)
    np.negative(y, out=y)
    np.exp(y, out=y)
    np.log1p(y, out=y)
    y += np.maximum(x, 0)
    return y


def _softsign(x: Array) -> Array:
    """`x / (1 + |x|)`."""
    y = np.abs(x)
    y += 1
    return np.divide(x, y, out=y)


def _softsign_derivative(x: Array, y: Array) -> Array:
    slope: Array = 1 / np.square(1 + np.abs(x))
    return slope


def _hard_swish(x: Array) -> Array:
    """`x · min(max(x / 6 + 1/2, 0), 1)`."""
    y = _hard_gate(x)
    y *= x
    return y


def _hard_gate(x: Array) -> Array:
    y: Array = x / 6
    y += 0.5
    return np.clip(y, 0, 1, out=y)


def _hard_swish_derivative(x: Array, y: Array) -> Array:
    gate = _hard_gate(x)
    return gate + x / 6 * ((gate > 0) & (gate < 1)).astype(x.dtype)


def _mish(x: Array) -> Array:
    """`x · tanh(log(1 + exp(x)))`. With e = exp(x), `tanh(log(1 + e)) = n / (n + 2)`, n = e (e + 2)."""
    n = _mish_ratio(x)
    y = n + 2
    np.divide(n, y, out=y)
    y *= x
    return y


def _mish_ratio(x: Array) -> Array:
    e: Array = np.minimum(x, 20)  # where n / (n + 2) is 1 even in float64
    np.exp(e, out=e)
    e *= e + 2
    return e


def _mish_derivative(x: Array, y: Array) -> Array:
    n = _mish_ratio(x)
    return n / (n + 2) + x * sigmoid(x) * (4 * (n + 1) / np.square(n + 2))


FUNCTIONS: dict[str, Formula] = {
    "Softplus": Formula(_softplus, lambda x, y: sigmoid(x), ALWAYS),
    "Softsign": Formula(_softsign, _softsign_derivative, IF_INPUT_IS),
    "HardSwish": Formula(_hard_swish, _hard_swish_derivative, IF_INPUT_IS),
    "Mish": Formula(_mish, _mish_derivative, IF_INPUT_IS),
    "Exp": Formula(np.exp, lambda x, y: y, ALWAYS),
    "Log": Formula(np.log, lambda x, y: 1 / x, NEVER),
    "Sqrt": Formula(np.sqrt, lambda x, y: 0.5 / y, ALWAYS),
    "Reciprocal": Formula(np.reciprocal, lambda x, y: -y * y, IF_INPUT_IS),
    "Abs": Formula(np.abs, lambda x, y: np.sign(x), ALWAYS),
    "Erf": Formula(erf, lambda x, y: 2 / math.sqrt(math.pi) * np.exp(-x * x), IF_INPUT_IS),
    "Sin": Formula(np.sin, lambda x, y: np.cos(x), NEVER),
    "Cos": Formula(np.cos, lambda x, y: -np.sin(x), NEVER),
    "Tan": Formula(np.tan, lambda x, y: 1 + y * y, NEVER),
    "Asin": Formula(np.arcsin, lambda x, y: 1 / np.sqrt((1 - x) * (1 + x)), IF_INPUT_IS),
    "Acos": Formula(np.arccos, lambda x, y: -1 / np.sqrt((1 - x) * (1 + x)), ALWAYS),
    "Atan": Formula(np.arctan, lambda x, y: 1 / (1 + x * x), IF_INPUT_IS),
    "Sinh": Formula(np.sinh, lambda x, y: np.cosh(x), IF_INPUT_IS),
    "Cosh": Formula(np.cosh, lambda x, y: np.sinh(x), ALWAYS),
    "Asinh": Formula(np.arcsinh, lambda x, y: 1 / np.sqrt(1 + x * x), IF_INPUT_IS),
    "Acosh": Formula(np.arccosh, lambda x, y: 1 / np.sqrt((x - 1) * (x + 1)), ALWAYS),
    "Atanh": Formula(np.arctanh, lambda x, y: 1 / ((1 - x) * (1 + x)), IF_INPUT_IS),
}
"""By their ONNX names. What is not a number, such as log(−1), is reported where predictions are checked."""


@dataclass(frozen=True)
class Function(Elementwise):
    """One of `FUNCTIONS`. Relevance passes (`Pass`); so it is conserved by √x or exp(x) in a network's middle, too.

    Parameters
    ----------
    name : str
        Its ONNX name, which is also the first of its `kinds`.

    Raises
    ------
    ModelError
        There is no such function.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in FUNCTIONS:
            raise ModelError(f"no function is called {self.name!r}; known are {', '.join(FUNCTIONS)}")
        object.__setattr__(self, "kinds", (self.name, "activation"))

    def is_nonnegative(self, x: Fact) -> bool:
        known = FUNCTIONS[self.name].nonnegative
        return x.nonnegative if known is IF_INPUT_IS else known

    @property
    def is_whole(self) -> bool:
        return self.name == "Abs"

    def value(self, x: Array) -> Array:
        return FUNCTIONS[self.name].value(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return FUNCTIONS[self.name].derivative(x, y)


@reads(*FUNCTIONS)
def _read_function(node: OnnxNode) -> Function:
    return Function(node.op_type)
