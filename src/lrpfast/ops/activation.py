"""Activations of straight pieces, which kernels can compute or clamp, and the two classic smooth ones.

`Pass` is the rule of all of them. A derivative at a kink is that of the side that is named with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .affine import operand
from .base import Array, Elementwise
from .parameters import check_broadcast, parameter
from .reading import OnnxNode, reads, refuse_integers
from .special import sigmoid


def check_numbers(**numbers: float) -> None:
    """Raise `ModelError` if a parameter is NaN or infinite."""
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise ModelError(f"{name} is {value}; expected a finite number")


@dataclass(frozen=True)
class Relu(Elementwise):
    """`max(x, 0)`; derivative 0 at 0."""

    kinds: ClassVar[tuple[str, ...]] = ("Relu", "activation")

    @property
    def is_whole(self) -> bool:
        return True

    def is_nonnegative(self, x: Fact) -> bool:
        return True

    def value(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def derivative(self, x: Array, y: Array) -> Array:
        return (x > 0).astype(x.dtype)


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """`x` where it is ≥ 0, else `alpha · x`; derivative 1 at 0."""

    kinds: ClassVar[tuple[str, ...]] = ("LeakyRelu", "activation")

    alpha: float = 0.01

    def __post_init__(self) -> None:
        check_numbers(alpha=self.alpha)

    def is_nonnegative(self, x: Fact) -> bool:
        return x.nonnegative or self.alpha <= 0

    def value(self, x: Array) -> Array:
        return _two_slopes(x, self.alpha)

    def derivative(self, x: Array, y: Array) -> Array:
        return 1 + (self.alpha - 1) * (x < 0).astype(x.dtype)


@dataclass(frozen=True, eq=False)
class PRelu(Elementwise):
    """`x` where it is ≥ 0, else `slope · x`; derivative 1 at 0.

    Parameters
    ----------
    slope : array
        Broadcasts to one sample: (channels, 1, 1) for a slope per channel of an image.
    """

    kinds: ClassVar[tuple[str, ...]] = ("PRelu", "activation")

    slope: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", parameter("slope", self.slope))

    @property
    def uniform(self) -> bool:
        return self.slope.size == 1

    def is_nonnegative(self, x: Fact) -> bool:
        return x.nonnegative or bool((self.slope <= 0).all())

    def infer(self, *inputs: Fact) -> Fact:
        check_broadcast("slope", self.slope.shape, inputs[0].shape)
        return super().infer(*inputs)

    def value(self, x: Array) -> Array:
        return _two_slopes(x, self._slope(x))

    def derivative(self, x: Array, y: Array) -> Array:
        slopes: Array = 1 + (self._slope(x) - 1) * (x < 0).astype(x.dtype)
        return slopes

    def _slope(self, x: Array) -> Array | float:
        # One number serves arrays of any layout.
        return float(self.slope.reshape(-1)[0]) if self.uniform else self.slope.astype(x.dtype, copy=False)


def _two_slopes(x: Array, slope: Array | float) -> Array:
    y: Array = np.minimum(x, 0)
    y *= slope
    y += np.maximum(x, 0)
    return y


@dataclass(frozen=True)
class ThresholdedRelu(Elementwise):
    """`x` where it is > alpha, else 0; derivative 0 at alpha."""

    kinds: ClassVar[tuple[str, ...]] = ("ThresholdedRelu", "activation")

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(alpha=self.alpha)

    def is_nonnegative(self, x: Fact) -> bool:
        return x.nonnegative or self.alpha >= 0

    def value(self, x: Array) -> Array:
        return x * (x > self.alpha)

    def derivative(self, x: Array, y: Array) -> Array:
        return (x > self.alpha).astype(x.dtype)


@dataclass(frozen=True)
class Shrink(Elementwise):
    """`x + bias` where x < −lambd, `x − bias` where x > lambd, else 0; derivative 0 at both ends."""

    kinds: ClassVar[tuple[str, ...]] = ("Shrink", "activation")

    lambd: float = 0.5
    bias: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(lambd=self.lambd, bias=self.bias)

    def is_nonnegative(self, x: Fact) -> bool:
        return x.nonnegative and self.lambd >= max(self.bias, 0)

    def value(self, x: Array) -> Array:
        side = self._side(x)
        y: Array = x * np.abs(side)
        y -= self.bias * side
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        return np.abs(self._side(x))

    def _side(self, x: Array) -> Array:
        """−1 below both ends, 1 above them, 0 between; below comes first where lambd is negative."""
        below = x < -self.lambd
        side: Array = ((x > self.lambd) & ~below).astype(x.dtype)
        side -= below
        return side


@dataclass(frozen=True)
class Clip(Elementwise):
    """`min(max(x, low), high)`; ReLU6 is `Clip(0, 6)`. Its derivative is 0 at `low` and `high`."""

    kinds: ClassVar[tuple[str, ...]] = ("Clip", "activation")

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ModelError(f"low is {self.low} and high {self.high}; expected low ≤ high")

    @property
    def is_gate(self) -> bool:
        return self.low >= 0 and self.high <= 1

    def is_nonnegative(self, x: Fact) -> bool:
        return self.high >= 0 and (x.nonnegative or self.low >= 0)

    @property
    def is_whole(self) -> bool:
        return all(math.isinf(bound) or float(bound).is_integer() for bound in (self.low, self.high))

    def value(self, x: Array) -> Array:
        kind = x.dtype.type
        y: Array = np.clip(x, kind(self.low), kind(self.high))
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        kind = x.dtype.type
        inside: Array = ((x > kind(self.low)) & (x < kind(self.high))).astype(x.dtype)
        return inside


@dataclass(frozen=True)
class HardSigmoid(Elementwise):
    """`min(max(alpha · x + beta, 0), 1)`; derivative 0 where it reaches 0 and 1."""

    kinds: ClassVar[tuple[str, ...]] = ("HardSigmoid", "activation")

    alpha: float = 0.2
    beta: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(alpha=self.alpha, beta=self.beta)

    @property
    def is_gate(self) -> bool:
        return True

    def is_nonnegative(self, x: Fact) -> bool:
        return True

    def value(self, x: Array) -> Array:
        y: Array = x * self.alpha
        y += self.beta
        return np.clip(y, 0, 1, out=y)

    def derivative(self, x: Array, y: Array) -> Array:
        return self.alpha * ((y > 0) & (y < 1)).astype(x.dtype)


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """`1 / (1 + exp(−x))`."""

    kinds: ClassVar[tuple[str, ...]] = ("Sigmoid", "activation")

    @property
    def is_gate(self) -> bool:
        return True

    def is_nonnegative(self, x: Fact) -> bool:
        return True

    def value(self, x: Array) -> Array:
        return sigmoid(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return y * (1 - y)


@dataclass(frozen=True)
class Tanh(Elementwise):
    """Hyperbolic tangent."""

    kinds: ClassVar[tuple[str, ...]] = ("Tanh", "activation")

    def value(self, x: Array) -> Array:
        return np.tanh(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return 1 - y * y


# --- ONNX ---


@reads("Relu")
def _read_relu(node: OnnxNode) -> Relu:
    return Relu()


@reads("LeakyRelu")
def _read_leaky_relu(node: OnnxNode) -> LeakyRelu:
    return LeakyRelu(node.number("alpha", 0.01))


@reads("PRelu")
def _read_prelu(node: OnnxNode) -> LeakyRelu | PRelu:
    refuse_integers(node)
    slope = operand(node, 1, node.fact(0).shape)
    return LeakyRelu(float(slope.reshape(-1)[0])) if slope.size == 1 else PRelu(slope)


@reads("ThresholdedRelu")
def _read_thresholded_relu(node: OnnxNode) -> ThresholdedRelu:
    return ThresholdedRelu(node.number("alpha", 1))


@reads("Shrink")
def _read_shrink(node: OnnxNode) -> Shrink:
    refuse_integers(node)
    return Shrink(node.number("lambd", 0.5), node.number("bias", 0))


@reads("Clip")
def _read_clip(node: OnnxNode) -> Clip:
    if node.opset < 11:
        return Clip(node.number("min", -math.inf), node.number("max", math.inf))
    return Clip(node.scalar(1, -math.inf), node.scalar(2, math.inf))


@reads("HardSigmoid")
def _read_hard_sigmoid(node: OnnxNode) -> HardSigmoid:
    return HardSigmoid(node.number("alpha", 0.2), node.number("beta", 0.5))


@reads("Sigmoid")
def _read_sigmoid(node: OnnxNode) -> Sigmoid:
    return Sigmoid()


@reads("Tanh")
def _read_tanh(node: OnnxNode) -> Tanh:
    return Tanh()
