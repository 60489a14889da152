"""Sums, means and differences of activations (ONNX Add, Sum, Mean, Sub)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from ..errors import ModelError
from ..graph import Fact
from .affine import ONE, ZERO, Affine, Ints, expanded, joined, operand
from .base import Array, Linear, Op
from .movement import Identity
from .product import broadcast_inputs
from .reading import Applied, OnnxNode, Reading, reads


def one_shape(inputs: tuple[Fact, ...]) -> tuple[int, ...]:
    """The shape of one sample that all inputs have; `ModelError` if they differ."""
    shapes = [x.shape for x in inputs]
    if len(set(shapes)) != 1:
        raise ModelError(f"its inputs have different shapes {shapes} per sample; expected one shape")
    return shapes[0]


@dataclass(frozen=True)
class Add(Linear):
    """Sum of two or more arrays of one shape."""

    kinds: ClassVar[tuple[str, ...]] = ("Add", "sum")
    arity: ClassVar[int | None] = None

    @property
    def has_nonnegative_weights(self) -> bool:
        return True

    def infer(self, *inputs: Fact) -> Fact:
        return Fact(
            one_shape(inputs),
            nonnegative=all(x.nonnegative for x in inputs),
            integer=all(x.integer for x in inputs),
        )

    def forward(self, *inputs: Array) -> Array:
        z: Array = inputs[0].copy()
        for x in inputs[1:]:
            z += x
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (s,) * len(inputs)


@reads("Add", "Sum", "Mean")
def _read_add(node: OnnxNode) -> Reading:
    found, constants = combined(node, Add())
    for constant in constants:
        found = Applied(Affine(ONE, constant), (found,))
    if node.op_type == "Mean" and len(node.inputs) > 1:
        found = Applied(Affine(ONE / len(node.inputs), ZERO), (found,))
    return found if isinstance(found, Applied) else Identity()


@reads("Sub")
def _read_sub(node: OnnxNode) -> Reading:
    if node.is_constant(0) or node.is_constant(1):
        constant = 0 if node.is_constant(0) else 1
        shape = joined(node, node.fact(1 - constant).shape)
        value = operand(node, constant, shape)
        op = Affine(-ONE, value) if constant == 0 else Affine(ONE, -value)
        return Applied(op, (expanded(node, 1 - constant, shape),))
    shape = broadcast_inputs(node, 0, 1)
    negated = Applied(Affine(-ONE, ZERO), (expanded(node, 1, shape),))
    return Applied(Add(), (expanded(node, 0, shape), negated))


def combined(
    node: OnnxNode, op: Op, value: Callable[[OnnxNode, int, Ints], Array] = operand
) -> tuple[Applied | int, list[Array]]:
    """The computed inputs of a node, joined by `op` if there are several, and the constant ones of one sample.

    `value` reads a constant, as `operand` does.
    """
    computed = [index for index in range(len(node.inputs)) if not node.is_constant(index)]
    shape = joined(node, broadcast_inputs(node, *computed))
    constants = [value(node, i, shape) for i in range(len(node.inputs)) if i not in computed]
    if len(computed) == 1:
        return expanded(node, computed[0], shape), constants
    return Applied(op, tuple(expanded(node, index, shape) for index in computed)), constants
