"""Scale and shift by constants: batch normalisation, and arithmetic of an activation and a constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Linear
from .function import Function
from .movement import Expand
from .parameters import check_broadcast, parameter
from .product import Div, Mul, broadcast_inputs
from .reading import Applied, Constant, OnnxNode, Reading, Unsupported, reads, refuse_integers

Ints = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Affine(Linear):
    """`z = scale · x + shift`.

    Parameters
    ----------
    scale, shift : array
        Broadcast to the shape of one sample.
    source : str, default "Affine"
        The operator that it was made from: the first of its `kinds`.

    Raises
    ------
    ModelError
        A parameter holds NaN or infinity.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Affine", "affine")

    scale: Array
    shift: Array
    source: str = "Affine"

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", (self.source, "affine"))
        object.__setattr__(self, "scale", parameter("scale", self.scale))
        object.__setattr__(self, "shift", parameter("shift", self.shift))

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        for name, array in (("scale", self.scale), ("shift", self.shift)):
            check_broadcast(name, array.shape, x.shape)
        positive = x.nonnegative and bool((self.scale >= 0).all() and (self.shift >= 0).all())
        whole = x.integer and all((a == np.rint(a)).all() for a in (self.scale, self.shift))
        return Fact(x.shape, nonnegative=positive, integer=whole)

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        return x * self.scale.astype(x.dtype, copy=False) + self.shift.astype(x.dtype, copy=False)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (s * self.scale.astype(s.dtype, copy=False),)


def batch_normalization(
    gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float, spatial_axes: int
) -> Affine:
    """`gamma · (x - mean) / √(variance + epsilon) + beta` per channel, folded in float64.

    Parameters
    ----------
    gamma, beta, mean, variance : array (c,)
    epsilon : float
    spatial_axes : int
        Number of axes behind the channel axis.

    Raises
    ------
    ModelError
        Lengths differ, or a variance is not positive.
    """
    names = ("gamma", "beta", "mean", "variance")
    parts = dict(zip(names, (gamma, beta, mean, variance), strict=True))
    parts = {name: parameter(name, array, ndim=1).astype(np.float64) for name, array in parts.items()}
    lengths = {name: len(array) for name, array in parts.items()}
    if len(set(lengths.values())) != 1:
        raise ModelError(f"its parameters have different lengths: {lengths}")
    total = parts["variance"] + epsilon
    if total.min(initial=np.inf) <= 0:
        raise ModelError(f"variance + epsilon is {total.min()} in a channel; expected a positive number")
    scale = parts["gamma"] / np.sqrt(total)
    shift = parts["beta"] - parts["mean"] * scale
    column = (-1, *(1,) * spatial_axes)
    return Affine(scale.reshape(column), shift.reshape(column), "BatchNormalization")


# --- ONNX ---


@reads("BatchNormalization")
def _read_batch_normalization(node: OnnxNode) -> Affine:
    if node.integer("training_mode", 0):
        raise Unsupported("training_mode=1 normalises with the batch's own statistics; export for inference")
    if node.opset < 9 and not node.integer("spatial", 1):
        raise Unsupported("spatial=0 has statistics for each place")
    shape = node.fact(0).shape
    if not shape:
        raise ModelError("its input has no channel axis")
    gamma, beta, mean, variance = (node.weights(index) for index in range(1, 5))
    return batch_normalization(gamma, beta, mean, variance, node.number("epsilon", 1e-5), len(shape) - 1)


def operand(node: OnnxNode, index: int, sample: Ints) -> Array:
    """The constant input `index` without its batch axis, checked to broadcast to `sample`."""
    array = node.shared(index, 1 + len(sample))
    integers = all(node.is_constant(i) or node.fact(i).integer for i in range(len(node.inputs)))
    array = array.astype(np.float64) if integers and array.dtype.kind in "iu" else node.floats(index, array)
    return of_sample(node, index, array, sample)


def of_sample(node: OnnxNode, index: int, array: Constant, sample: Ints) -> Constant:
    """The value of the constant input `index` without its batch axis, checked to broadcast to `sample`."""
    array = _without_batch(node, index, array, len(sample))
    try:
        check_broadcast(f"constant {node.inputs[index]!r}", array.shape, sample)
    except ModelError as error:
        raise Unsupported(str(error)) from None
    return array


def joined(node: OnnxNode, sample: Ints) -> Ints:
    """The shape of `sample`, broadcast against all inputs of a node that are constant."""
    constants = (
        _without_batch(node, index, node.shared(index, 1 + len(sample)), len(sample))
        for index in range(len(node.inputs))
        if node.is_constant(index)
    )
    try:
        return np.broadcast_shapes(sample, *(array.shape for array in constants))
    except ValueError:
        return sample  # which does not fit, and is refused in words where the constant is read


def expanded(node: OnnxNode, index: int, shape: Ints) -> Applied | int:
    """Input `index`, broadcast to `shape` if it is smaller."""
    return index if node.fact(index).shape == shape else Applied(Expand(shape), (index,))


def _without_batch(node: OnnxNode, index: int, array: Constant, axes: int) -> Constant:
    """A constant as it meets a sample with so many axes."""
    if array.ndim == 1 + axes and len(array) == 1:
        return array.reshape(array.shape[1:])
    if array.ndim > axes:
        raise Unsupported(
            f"its constant {node.inputs[index]!r} has shape {array.shape}, a value for each sample"
        )
    return array


ZERO, ONE = np.zeros(()), np.ones(())


@reads("Neg")
def _read_neg(node: OnnxNode) -> Affine:
    return Affine(-ONE, ZERO)


@reads("Mul")
def _read_mul(node: OnnxNode) -> Reading:
    if not (node.is_constant(0) or node.is_constant(1)):
        broadcast_inputs(node, 0, 1)
        return Mul()
    constant = 0 if node.is_constant(0) else 1
    shape = joined(node, node.fact(1 - constant).shape)
    return Applied(Affine(operand(node, constant, shape), ZERO), (expanded(node, 1 - constant, shape),))


@reads("Div")
def _read_div(node: OnnxNode) -> Reading:
    refuse_integers(node)
    if node.is_constant(0):
        shape = joined(node, node.fact(1).shape)
        inverse = Applied(Function("Reciprocal"), (expanded(node, 1, shape),))
        return Applied(Affine(operand(node, 0, shape), ZERO), (inverse,))
    if not node.is_constant(1):
        broadcast_inputs(node, 0, 1)
        return Div()
    shape = joined(node, node.fact(0).shape)
    divisor = operand(node, 1, shape).astype(np.float64)
    if not divisor.all():
        raise ModelError(f"tensor {node.inputs[1]!r}, its divisor, holds zeros")
    return Applied(Affine(1 / divisor, ZERO), (expanded(node, 0, shape),))
