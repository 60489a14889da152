"""Softmax along one axis, and its logarithm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Op
from .movement import Reshape
from .reading import OnnxNode, reads


@dataclass(frozen=True)
class _AlongAxis(Op):
    axis: int = -1

    def infer(self, *inputs: Fact) -> Fact:
        shape = inputs[0].shape
        if not -len(shape) <= self.axis < len(shape):
            raise ModelError(f"axis is {self.axis}; its input has shape {shape} per sample")
        return Fact(shape, nonnegative=self.is_gate)

    def _axis(self) -> int:
        return self.axis if self.axis < 0 else self.axis + 1


@dataclass(frozen=True)
class Softmax(_AlongAxis):
    """`exp(x) / Σ exp(x)`, summed along one axis. Relevance passes (`Pass`), where it is not the network's end.

    Parameters
    ----------
    axis : int, default -1
        An axis of one sample: 0 is the first one behind the batch axis.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Softmax", "activation")

    @property
    def is_gate(self) -> bool:
        return True

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        axis = self._axis()
        e: Array = np.exp(x - x.max(axis=axis, keepdims=True))  # never overflows
        e /= e.sum(axis=axis, keepdims=True)
        return e

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        mean = (s * output).sum(axis=self._axis(), keepdims=True)
        return (output * (s - mean),)


@dataclass(frozen=True)
class LogSoftmax(_AlongAxis):
    """`x − log Σ exp(x)`, summed along one axis. Relevance passes (`Pass`), where it is not the network's end.

    Parameters
    ----------
    axis : int, default -1
        An axis of one sample: 0 is the first one behind the batch axis.
    """

    kinds: ClassVar[tuple[str, ...]] = ("LogSoftmax", "activation")

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        axis = self._axis()
        z: Array = x - x.max(axis=axis, keepdims=True)  # its exponential never overflows
        z -= np.log(np.exp(z).sum(axis=axis, keepdims=True))
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (s - np.exp(output) * s.sum(axis=self._axis(), keepdims=True),)


@reads("Softmax", "LogSoftmax")
def _read_softmax(node: OnnxNode) -> Op | tuple[Op, ...]:
    kind = Softmax if node.op_type == "Softmax" else LogSoftmax
    shape = node.fact(0).shape
    axis = node.axis(node.integer("axis", -1 if node.opset >= 13 else 1), 1 + len(shape))
    if node.opset >= 13 or axis == len(shape) - 1:
        return kind(axis)
    # Before opset 13 the softmax runs over the given axis and all behind it together.
    flat = (*shape[:axis], math.prod(shape[axis:]))
    return Reshape(flat), kind(axis), Reshape(shape)
