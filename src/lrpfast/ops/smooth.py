"""Smooth relatives of the ReLU: exponential units, and inputs times a gate of their own. `Pass` is their rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .activation import check_numbers
from .base import Array, Elementwise
from .product import Mul, broadcast_inputs
from .reading import Applied, OnnxNode, reads
from .special import erf, sigmoid


class _ExponentialUnit(Elementwise):
    """`scale · x` where x ≥ 0, else `scale · alpha · (exp(x / width) − 1)`; derivative `scale` at 0."""

    alpha: float

    @property
    def scale(self) -> float:
        return 1.0

    @property
    def width(self) -> float:
        return 1.0

    def is_nonnegative(self, x: Fact) -> bool:
        return self.scale >= 0 and (x.nonnegative or self.scale * self.alpha / self.width <= 0)

    def value(self, x: Array) -> Array:
        y: Array = np.minimum(x, 0)
        y /= self.width
        np.expm1(y, out=y)
        y *= self.alpha
        y += np.maximum(x, 0)
        y *= self.scale
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        slope: Array = np.exp(np.minimum(x, 0) / self.width)  # 1 where x ≥ 0
        slope *= 1 + (self.alpha / self.width - 1) * (x < 0).astype(x.dtype)
        slope *= self.scale
        return slope


@dataclass(frozen=True)
class Elu(_ExponentialUnit):
    """`x` where it is ≥ 0, else `alpha · (exp(x) − 1)`; derivative 1 at 0."""

    kinds: ClassVar[tuple[str, ...]] = ("Elu", "activation")

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(alpha=self.alpha)


@dataclass(frozen=True)
class Selu(_ExponentialUnit):
    """`gamma` times an ELU with `alpha`; derivative `gamma` at 0."""

    kinds: ClassVar[tuple[str, ...]] = ("Selu", "activation")

    alpha: float = 1.6732632423543772
    gamma: float = 1.0507009873554805

    def __post_init__(self) -> None:
        check_numbers(alpha=self.alpha, gamma=self.gamma)

    @property
    def scale(self) -> float:
        return self.gamma


@dataclass(frozen=True)
class Celu(_ExponentialUnit):
    """`x` where it is ≥ 0, else `alpha · (exp(x / alpha) − 1)`."""

    kinds: ClassVar[tuple[str, ...]] = ("Celu", "activation")

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(alpha=self.alpha)
        if not self.alpha:
            raise ModelError("alpha is 0; expected another number, since x is divided by it")

    @property
    def width(self) -> float:
        return self.alpha


@dataclass(frozen=True)
class Swish(Elementwise):
    """`x / (1 + exp(−alpha · x))`, x times its sigmoid; SiLU where alpha is 1."""

    kinds: ClassVar[tuple[str, ...]] = ("Swish", "activation")

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(alpha=self.alpha)

    def value(self, x: Array) -> Array:
        y: Array = x * -self.alpha
        np.exp(y, out=y)
        y += 1
        return np.divide(x, y, out=y)

    def derivative(self, x: Array, y: Array) -> Array:
        gate = sigmoid(x * self.alpha)
        return gate * (1 + self.alpha * x * (1 - gate))


_WIDTH, _CUBIC = math.sqrt(2 / math.pi), 0.044715


@dataclass(frozen=True)
class Gelu(Elementwise):
    """`x Φ(x)`, Φ the distribution of a normal variable: `x/2 · (1 + erf(x / √2))`.

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"
        "tanh": `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Gelu", "activation")

    approximate: str = "none"

    def __post_init__(self) -> None:
        if self.approximate not in ("none", "tanh"):
            raise ModelError(f"approximate is {self.approximate!r}; expected 'none' or 'tanh'")

    def value(self, x: Array) -> Array:
        y = self._odd_part(x)
        y += 1
        y *= x
        y *= 0.5
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        odd = self._odd_part(x)
        if self.approximate == "none":
            slope = math.sqrt(2 / math.pi) * np.exp(-0.5 * np.square(x))
        else:
            slope = (1 - odd * odd) * (_WIDTH * (1 + 3 * _CUBIC * np.square(x)))
        return 0.5 * (1 + odd + x * slope)

    def _odd_part(self, x: Array) -> Array:
        """`2 Φ(x) − 1`."""
        if self.approximate == "none":
            return erf(x * math.sqrt(0.5))
        y: Array = np.square(x)
        y *= _CUBIC
        y += 1
        y *= x
        y *= _WIDTH
        return np.tanh(y, out=y)


# --- ONNX ---


@reads("Elu")
def _read_elu(node: OnnxNode) -> Elu:
    return Elu(node.number("alpha", 1))


@reads("Selu")
def _read_selu(node: OnnxNode) -> Selu:
    return Selu(node.number("alpha", Selu.alpha), node.number("gamma", Selu.gamma))


@reads("Celu")
def _read_celu(node: OnnxNode) -> Celu:
    return Celu(node.number("alpha", 1))


@reads("Swish")
def _read_swish(node: OnnxNode) -> Swish:
    return Swish(node.number("alpha", 1))


@reads("SwiGLU")
def _read_swiglu(node: OnnxNode) -> Applied:
    broadcast_inputs(node, 0, 1)
    return Applied(Mul(), (Applied(Swish(node.number("alpha", 1)), (0,)), 1))


@reads("Gelu")
def _read_gelu(node: OnnxNode) -> Gelu:
    return Gelu(node.string("approximate", "none"))
