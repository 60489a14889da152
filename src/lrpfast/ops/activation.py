"""Activations that act on each element alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Elementwise
from .reading import OnnxNode, reads


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ModelError(f"{name} is {value}; expected a finite number")


@dataclass(frozen=True)
class Relu(Elementwise):
    """`max(x, 0)`."""

    kinds: ClassVar[tuple[str, ...]] = ("Relu", "activation")

    def infer(self, *inputs: Fact) -> Fact:
        return Fact(inputs[0].shape, nonnegative=True)

    def forward(self, *inputs: Array) -> Array:
        return np.maximum(inputs[0], 0)

    def derivative(self, x: Array, y: Array) -> Array:
        return (x > 0).astype(x.dtype)


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """`x` where it is ≥ 0, else `alpha · x`."""

    kinds: ClassVar[tuple[str, ...]] = ("LeakyRelu", "activation")

    alpha: float = 0.01

    def __post_init__(self) -> None:
        _finite("alpha", self.alpha)

    def infer(self, *inputs: Fact) -> Fact:
        return Fact(inputs[0].shape, nonnegative=inputs[0].nonnegative or self.alpha <= 0)

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        return np.where(x < 0, x * x.dtype.type(self.alpha), x)

    def derivative(self, x: Array, y: Array) -> Array:
        slopes: Array = np.where(x < 0, x.dtype.type(self.alpha), x.dtype.type(1))
        return slopes


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

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        return Fact(x.shape, nonnegative=self.high >= 0 and (x.nonnegative or self.low >= 0))

    def forward(self, *inputs: Array) -> Array:
        kind = inputs[0].dtype.type
        y: Array = np.clip(inputs[0], kind(self.low), kind(self.high))
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        kind = x.dtype.type
        inside: Array = ((x > kind(self.low)) & (x < kind(self.high))).astype(x.dtype)
        return inside


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """`1 / (1 + exp(-x))`."""

    kinds: ClassVar[tuple[str, ...]] = ("Sigmoid", "activation")

    @property
    def is_gate(self) -> bool:
        return True

    def infer(self, *inputs: Fact) -> Fact:
        return Fact(inputs[0].shape, nonnegative=True)

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        e = np.exp(-np.abs(x))  # never overflows
        y: Array = np.where(x < 0, e, x.dtype.type(1)) / (1 + e)
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        return y * (1 - y)


@dataclass(frozen=True)
class Tanh(Elementwise):
    """Hyperbolic tangent."""

    kinds: ClassVar[tuple[str, ...]] = ("Tanh", "activation")

    def infer(self, *inputs: Fact) -> Fact:
        return inputs[0]

    def forward(self, *inputs: Array) -> Array:
        return np.tanh(inputs[0])

    def derivative(self, x: Array, y: Array) -> Array:
        return 1 - y * y


# --- ONNX ---


@reads("Relu")
def _read_relu(node: OnnxNode) -> Relu:
    return Relu()


@reads("LeakyRelu")
def _read_leaky_relu(node: OnnxNode) -> LeakyRelu:
    return LeakyRelu(node.number("alpha", 0.01))


@reads("Clip")
def _read_clip(node: OnnxNode) -> Clip:
    if node.opset < 11:
        return Clip(node.number("min", -math.inf), node.number("max", math.inf))
    return Clip(node.scalar(1, -math.inf), node.scalar(2, math.inf))


@reads("Sigmoid")
def _read_sigmoid(node: OnnxNode) -> Sigmoid:
    return Sigmoid()


@reads("Tanh")
def _read_tanh(node: OnnxNode) -> Tanh:
    return Tanh()
