"""Dense layers (ONNX Gemm; MatMul and Einsum are in `contraction.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Linear
from .parameters import check_broadcast, parameter
from .reading import OnnxNode, Unsupported, reads


@dataclass(frozen=True, eq=False)
class Gemm(Linear):
    """Dense layer on the last axis: `z = W x + b`; axes before it are kept.

    Parameters
    ----------
    weight : array (m, k)
    bias : array (m,) or None

    Raises
    ------
    ModelError
        Shapes do not fit together.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Gemm", "dense", "linear")

    weight: Array
    bias: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", parameter("weight", self.weight, ndim=2))
        if self.bias is not None:
            object.__setattr__(self, "bias", parameter("bias", self.bias, ndim=1))
            if len(self.bias) != len(self.weight):
                raise ModelError(f"bias has {len(self.bias)} elements; expected {len(self.weight)}")

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        m, k = self.weight.shape
        if not x.shape or x.shape[-1] != k:
            raise ModelError(
                f"its input has shape {x.shape} per sample; expected a last axis of {k} features. "
                "Flatten feature maps before a dense layer"
            )
        return Fact((*x.shape[:-1], m))

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        z: Array = x @ self.weight.astype(x.dtype, copy=False).T
        return z if self.bias is None else z + self.bias.astype(x.dtype, copy=False)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (s @ self.weight.astype(s.dtype, copy=False),)


def _scaled(array: Array, factor: float) -> Array:
    """`factor · array`, in float64 unless the factor is 1."""
    return array if factor == 1 else factor * array.astype(np.float64)


@reads("Gemm")
def _read_gemm(node: OnnxNode) -> Gemm:
    x = node.fact(0)
    if node.integer("transA", 0):
        raise Unsupported("transA=1 would mix the samples of a batch")
    if len(x.shape) != 1:
        raise ModelError(f"its input has shape {x.shape} per sample; expected one axis")
    weight = node.weights(1)
    if weight.ndim != 2:
        raise ModelError(f"tensor {node.inputs[1]!r} has shape {weight.shape}; expected two axes")
    weight = weight if node.integer("transB", 0) else weight.T
    bias = node.optional_weights(2)
    if bias is not None:
        if bias.ndim > 2:
            raise ModelError(
                f"tensor {node.inputs[2]!r}, its bias, has shape {bias.shape}; expected at most two axes"
            )
        if bias.ndim == 2 and len(bias) != 1:
            raise Unsupported(f"its bias {node.inputs[2]!r} has shape {bias.shape}, a row for each sample")
        bias = bias.reshape(bias.shape[-1:])
        check_broadcast(f"tensor {node.inputs[2]!r}, its bias,", bias.shape, weight.shape[:1])
        bias = _scaled(np.broadcast_to(bias, weight.shape[:1]), node.number("beta", 1))
    return Gemm(_scaled(weight, node.number("alpha", 1)), bias)
